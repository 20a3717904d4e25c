"""Tiny random checkpoints in the formats that the real ones come in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

WORDS = ("a", "photo", "of", "red", "dog", "cat", "on", "the", "grass", "<unk>", "<pad>", "<bos>", "<eos>")


def tiny_clip(folder: Path, *, seed: int = 0) -> Path:
    import torch
    import transformers

    torch.manual_seed(seed)
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text |= {"max_position_embeddings": 12, "bos_token_id": WORDS.index("<bos>"), "eos_token_id": WORDS.index("<eos>")}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    _tokenizer(folder)
    return folder


def tiny_resnet(folder: Path) -> Path:
    import torch
    import transformers

    torch.manual_seed(1)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    transformers.ResNetModel(config).save_pretrained(folder)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(folder)
    return folder


def tiny_bert(folder: Path, words: tuple[str, ...] = WORDS) -> Path:
    """Without a pooler, as sentence encoders often come. `words` end as WORDS do."""
    import torch
    import transformers

    torch.manual_seed(2)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    _tokenizer(folder, words)
    return folder


def projection(folder: Path, features: int, dim: int, *, seed: int = 0) -> np.ndarray:
    """Put a linear map into a checkpoint folder. Returns its weight."""
    from safetensors.numpy import save_file

    weight = np.random.default_rng(seed).normal(size=(dim, features)).astype(np.float32)
    save_file({"weight": weight}, folder / "projection.safetensors")
    return weight


def _tokenizer(folder: Path, words: tuple[str, ...] = WORDS) -> None:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(word, words.index(word)) for word in ("<bos>", "<eos>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=12,
    ).save_pretrained(folder)


def tiny_onnx(folder: Path, *, resize: str = "shortest") -> Path:
    """Graphs of a handful of nodes: the picture's mean colour; the sum of the words' rows, padding left out."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(parents=True)
    table = np.random.default_rng(0).normal(size=(len(WORDS), 3)).astype(np.float32)
    (folder / "image.onnx").write_bytes(
        _graph(
            nodes=[("GlobalAveragePool", ["pixels"], "pooled", {}), ("Flatten", ["pooled"], "embedding", {})],
            inputs={"pixels": (_FLOAT, ("n", 3, 32, 32))},
            constants={},
        )
    )
    (folder / "text.onnx").write_bytes(
        _graph(
            nodes=[
                ("Gather", ["table", "input_ids"], "rows", {}),
                ("Cast", ["attention_mask"], "attended", {"to": _FLOAT}),
                ("Unsqueeze", ["attended", "last"], "column", {}),
                ("Mul", ["rows", "column"], "kept", {}),
                ("ReduceSum", ["kept", "tokens"], "embedding", {"keepdims": 0}),
            ],
            inputs=dict.fromkeys(("input_ids", "attention_mask"), (_INT64, ("n", "t"))),
            constants={"table": table, "last": np.array([2]), "tokens": np.array([1])},
        )
    )
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    description = {
        "format": 1,
        "name": "starter",
        "revision": "0123456789ab",
        "dim": 3,
        "image": {"file": "image.onnx", "size": 32, "resize": resize, "mean": [0.5] * 3, "std": [0.25] * 3},
        "text": {"file": "text.onnx", "tokenizer": "tokenizer.json", "max_tokens": 8, "template": "a photo of {}"},
    }
    (folder / "embedder.json").write_text(json.dumps(description))
    return folder


_FLOAT, _INT64 = 1, 7


def _graph(
    *,
    nodes: list[tuple[str, list[str], str, dict[str, int]]],
    inputs: dict[str, tuple[int, tuple[int | str, ...]]],
    constants: dict[str, np.ndarray],
) -> bytes:
    """An ONNX model of opset 17 in protobuf's wire format; field numbers are those of onnx.proto."""
    graph = b""
    for kind, sources, target, attributes in nodes:
        fields = (
            b"".join(_field(1, source.encode()) for source in sources) + _field(2, target.encode()) + _field(4, kind.encode())
        )
        for name, value in attributes.items():
            fields += _field(5, _field(1, name.encode()) + _field(3, value) + _field(20, 2))
        graph += _field(1, fields)
    graph += _field(2, b"tiny")
    for name, values in constants.items():
        kind_of = _FLOAT if values.dtype == np.float32 else _INT64
        dims = b"".join(_field(1, side) for side in values.shape)
        graph += _field(5, dims + _field(2, kind_of) + _field(8, name.encode()) + _field(9, values.tobytes()))
    for name, (element, shape) in inputs.items():
        graph += _field(11, _value(name, element, shape))
    graph += _field(12, _value("embedding", _FLOAT, ("n", 3)))
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _field(2, 17))


def _value(name: str, element: int, shape: tuple[int | str, ...]) -> bytes:
    dims = b"".join(_field(1, _field(1, side) if isinstance(side, int) else _field(2, side.encode())) for side in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, element) + _field(2, dims)))


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    head, rest = value & 0x7F, value >> 7
    return bytes([head | 0x80]) + _varint(rest) if rest else bytes([head])
