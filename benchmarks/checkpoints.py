"""Models of the true architectures with random weights: as fast as the real ones, which are not to be had here, and as wrong as can be."""

from __future__ import annotations

from pathlib import Path

from benchmarks.questions import WORDS
from tests.checkpoints import CLIP_ID, word_tokenizer


def random_clip(models_dir: Path) -> Path:
    """CLIP ViT-B/32 as openai/clip-vit-base-patch32 describes it; its tokenizer is a small one of ours. Returns the checkpoint's folder."""
    import torch  # noqa: PLC0415 - takes seconds
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel  # noqa: PLC0415

    folder = models_dir / CLIP_ID
    torch.manual_seed(0)
    tokenizer = word_tokenizer(max_length=77, further=WORDS)
    special = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
    CLIPModel(CLIPConfig(text_config=special)).eval().save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
