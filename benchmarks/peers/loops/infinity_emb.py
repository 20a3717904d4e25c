"""`infinity_emb`: a request a picture, many at once, which its engine batches."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from infinity_emb import AsyncEmbeddingEngine, EngineArgs
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from benchmarks.peers.clock import Clock

_BATCH = 32
"""Its own."""
_ASKED_AT_ONCE = 8 * _BATCH
"""As far as its queue looks for a good batch."""


def run(files: list[Path], models: Path, scratch: Path, workers: int, clock: Clock) -> None:
    asyncio.run(_run(files, _checkpoint(scratch / "checkpoint"), clock))


async def _run(files: list[Path], checkpoint: Path, clock: Clock) -> None:
    engine = AsyncEmbeddingEngine.from_args(EngineArgs(model_name_or_path=str(checkpoint), engine="torch", batch_size=_BATCH))
    few = asyncio.Semaphore(_ASKED_AT_ONCE)

    async def embed(file: Path) -> None:
        async with few:
            found, _ = await engine.image_embed(images=[file.read_bytes()])
            clock.done(len(found))

    async with engine:
        await asyncio.gather(*(embed(file) for file in files))


def _checkpoint(folder: Path) -> Path:
    """CLIP ViT-B/32 with random weights, in the format of the `transformers` that it asks for; a tokenizer of letters alone."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)
    CLIPModel(CLIPConfig()).save_pretrained(folder)
    return folder
