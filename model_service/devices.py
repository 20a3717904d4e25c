"""Where tensors live, and how many threads compute them."""

from __future__ import annotations

import torch


def chosen(wanted: str, threads: int) -> str:
    """The device for `auto`, `cpu`, `cuda` or `mps`; sets torch's threads, which is a setting of the process."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
