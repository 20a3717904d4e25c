"""`make fuzz`: Pillow's parsers, and ours of EXIF, under atheris, which looks for bytes that reach new code (libFuzzer's options pass through).

atheris is no dependency: `pip install atheris` beside ours, in an environment for it. What it finds is written to `crash-*` in this folder's
caller, and belongs among the pictures of tests/hostile.py.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

_MOST_PIXELS = 1_000_000


def main() -> int:
    if importlib.util.find_spec("atheris") is None:
        print("skipped: atheris is not installed here (pip install atheris)")
        return 0
    import atheris

    with atheris.instrument_imports(include=["PIL", "core.decode", "core.exif"]):
        from core import decode
        from core.errors import ImageRejected

        decode.prepare_pillow()
    limits = decode.DecodeLimits(max_pixels=_MOST_PIXELS)

    def one(image: bytes) -> None:
        try:
            decode.decode(image, limits, min_side=20, max_side=200)
        except ImageRejected:
            return

    with tempfile.TemporaryDirectory() as corpus:
        _write_seeds(Path(corpus))
        atheris.Setup([*sys.argv, "-max_len=20000", "-timeout=10", "-rss_limit_mb=2048", corpus], one)
        atheris.Fuzz()
    return 0


def _write_seeds(corpus: Path) -> None:
    from tests import hostile

    seeds = [hostile.encoded(hostile.Image.new(mode, (16, 12)), kind) for mode, kind in _KINDS]
    seeds += [make() for group in (hostile.EXIF_LIES, hostile.ZERO_SIZED, hostile.POLYGLOTS) for make in group.values()]
    for number, seed in enumerate(seeds):
        (corpus / f"{number}").write_bytes(seed)


_KINDS = (
    ("RGB", "JPEG"),
    ("RGBA", "PNG"),
    ("P", "GIF"),
    ("RGB", "WEBP"),
    ("RGB", "BMP"),
    ("I;16", "TIFF"),
    ("RGB", "AVIF"),
    ("RGB", "JPEG2000"),
    ("RGB", "PPM"),
    ("RGB", "TGA"),
    ("P", "PCX"),
    ("RGB", "SGI"),
)

if __name__ == "__main__":
    sys.exit(main())
