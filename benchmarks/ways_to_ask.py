"""How well each way to ask finds: scopes and their fusion, templates, several terms, duplicates, diversity.

    python -m benchmarks.ways_to_ask [--shared ../shared] [--kept FOLDER] [--seed 0]

Prints the tables of docs/explanation/ways-to-ask.md. What the models make of photos and words is kept in `--kept` and not made
again: about five minutes on one core the first time, one after that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships none

from benchmarks.ways import diversity, duplicates, examples, pairs, phrasing, scopes, worlds
from benchmarks.ways.photos import Models


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="the folder with data/ and models/")
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir()) / "ways-to-ask", help="where vectors are kept")
    parser.add_argument("--seed", type=int, default=0, help="of the halves and of the intervals' draws")
    options = parser.parse_args()
    with threadpool_limits(1):
        for section in sections(options.shared, options.kept, options.seed):
            print("\n".join(section), flush=True)
    return 0


def sections(shared: Path, kept: Path, seed: int) -> Iterator[list[str]]:
    """Markdown of each, on one thread."""
    models = Models(shared / "models/yolov8n-seg.pt", kept)
    coco = worlds.coco_photos(shared, models)
    flickr = worlds.flickr_photos(shared, models, coco.categories)
    test, validation = (worlds.clothes(shared, models, split) for split in ("test", "validation"))
    yield scopes.section(coco, flickr, models, seed)
    yield phrasing.section(coco, flickr, test, models, seed)
    yield pairs.section(coco, flickr, models, seed)
    yield examples.section(validation, test, models, seed)
    yield duplicates.section(coco, flickr, {"validation": validation, "test": test}, models, seed)
    yield diversity.section(coco, flickr, test, models, seed)


if __name__ == "__main__":
    sys.exit(main())
