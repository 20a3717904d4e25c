"""The search service as `make run` has it, over vectors that `benchmarks.corpus` made: without a watcher, which would find their pictures gone.

    python -m benchmarks.search_server DATA_DIR MODEL_URL

Says its address, then serves until its input ends.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from core import logs
from core.model_client import ModelClient
from core.serving import serving
from core.vectors.edge import EdgeStore
from searchsvc.app import create_app
from searchsvc.settings import SearchSettings
from tests.fakes import FakeCatalog


async def _serve(data_dir: Path, model_url: str) -> None:
    settings = SearchSettings(data_dir=data_dir, images_dir=data_dir, model_url=model_url)
    async with ModelClient(model_url) as embedder, EdgeStore(data_dir / "vectors", index_from=10**9) as vectors:
        app = create_app(settings, embedder=embedder, vectors=vectors, catalog=FakeCatalog())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with serving(app, listener, shutdown_grace_s=1):
                print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
                await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    logs.configure(level="warning", log_format="json", service="benchmark")
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2]))
