"""What is stored of one image: its segments and their masks, whichever space they were found through."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import Executor
from contextlib import suppress

import numpy as np
from PIL import Image

from core import masks
from core.errors import NotFound, Unavailable
from core.points import image_point_id, segment_of, segment_point_id, segments_of
from core.ports import Catalog, Embedder, Payload, VectorStore
from core.schemas import MaskRle, Segment


class Corpus:
    def __init__(self, *, embedder: Embedder, vectors: VectorStore, catalog: Catalog, executor: Executor) -> None:
        self._embedder = embedder
        self._vectors = vectors
        self._catalog = catalog
        self._executor = executor

    async def payload(self, image_id: str) -> Payload:
        """What the image's point tells of the picture; nothing where there is none, or while nobody answers."""
        with suppress(Unavailable):
            for collection in await self._collections():
                for record in await self._vectors.retrieve(collection, [image_point_id(image_id)]):
                    return record.payload
        return {}

    async def segments(self, image_id: str) -> list[Segment]:
        """An image's segments by number; none while it is not indexed. Raises NotFound."""
        for collection in await self._collections():
            records = self._vectors.scroll(collection, where=segments_of(image_id))
            if found := [segment_of(record.payload) async for record in records]:
                return sorted(found, key=lambda segment: segment.n)
        await self._catalog.image(image_id)
        return []

    async def mask_png(self, image_id: str, n: int) -> bytes:
        """A segment's mask as PNG, at most 640 pixels on the long side. Raises NotFound."""
        for collection in await self._collections():
            for record in await self._vectors.retrieve(collection, [segment_point_id(image_id, n)]):
                mask = segment_of(record.payload).mask
                return await asyncio.get_running_loop().run_in_executor(self._executor, _png, mask)
        raise NotFound("this image has no such segment")

    async def _collections(self) -> list[str]:
        """Those of the models in use, which hold the newest segments; all there are while nobody can tell."""
        try:
            info = await self._embedder.info()
        except Unavailable:
            return await self._vectors.collections()
        return [space.collection for space in info.spaces] or await self._vectors.collections()


def _png(mask: MaskRle) -> bytes:
    """Grey and alpha are both the mask, so that it serves as a picture and as a CSS mask alike."""
    channel = Image.fromarray(masks.decode(mask).astype(np.uint8) * 255)
    written = io.BytesIO()
    Image.merge("LA", (channel, channel)).save(written, "PNG")
    return written.getvalue()
