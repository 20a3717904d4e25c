"""Opens a store, asks it some questions, and says what memory that took. `python -m benchmarks.sizing.holding FOLDER`"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from benchmarks.corpus import Corpus
from benchmarks.sizing.storage import SPACE
from core import logs
from core.ports import Match, Where
from core.vectors.edge import EdgeStore

_QUESTIONS = 200
_IMAGES = Where(must=(Match("kind", ("image",)),))


def _memory() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    told = {words[0]: int(words[1]) * 1024 for words in lines if words[0] in {"RssAnon:", "RssFile:"}}
    return {"resident": told["RssAnon:"], "mapped": told["RssFile:"]}


async def _held(folder: Path) -> dict[str, int]:
    asked = Corpus(SPACE, 50 * _QUESTIONS, seed=1).vectors(_QUESTIONS)
    before = _memory()
    async with EdgeStore(folder, index_from=10**9) as store:
        for vector in asked:
            await store.query(SPACE.collection, vector, where=_IMAGES)
        after = _memory()
    return {kind: after[kind] - before[kind] for kind in before}


if __name__ == "__main__":
    logs.configure(level="error", log_format="json", service="benchmark")
    print(json.dumps(asyncio.run(_held(Path(sys.argv[1])))))
