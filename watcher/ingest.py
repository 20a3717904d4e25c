"""One image: read, analyse, write its points, say so. Whatever was done before a crash is found and not done again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from core import points
from core.decoding import Decoder
from core.errors import ImageRejected, ImageSearchError, InvalidRequest, ModelCrashed, ModelUnavailable
from core.model_client import PLAIN_PICTURE
from core.ports import Embedder, Payload, Record, VectorStore
from core.schemas import (
    AnalysedSegment,
    Embedding,
    ImageAnalysis,
    Location,
    ModelsInfo,
    Priority,
    Segment,
    SegmentMode,
)
from watcher import jobs, locations
from watcher.jobs import Job, Outcome, Places
from watcher.ledger import Ledger
from watcher.metrics import IngestionMetrics
from watcher.pictures import Pictures, Verified

_PLAIN_ID = hashlib.sha256(PLAIN_PICTURE).hexdigest()


class FileChanged(ImageSearchError):
    """No path holds the image's bytes any more: the ledger learns of it through the intake, which was told to look."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """How an image came to be indexed. `segments` is None where the points of an earlier run were found to be whole."""

    outcome: Outcome
    segments: tuple[Segment, ...] | None


class Ingest:
    """Called with the image's lock and lease held. It writes points; whether the ledger believes it is the caller's word.

    The image point is written last in every collection and carries the fingerprint and the number of segments: it seals the
    set. A sealed set is adopted without a model call, so that neither a crash before the ledger's word, nor a lost ledger, nor
    the return to earlier models costs an inference.
    """

    def __init__(
        self,
        pictures: Pictures,
        ledger: Ledger,
        embedder: Embedder,
        vectors: VectorStore,
        readers: Executor,
        *,
        decoder: Decoder,
        metrics: IngestionMetrics,
        recheck: Callable[[str], None],
    ) -> None:
        self._decoder = decoder
        self._pictures = pictures
        self._ledger = ledger
        self._embedder = embedder
        self._vectors = vectors
        self._readers = readers
        self._metrics = metrics
        self._recheck = recheck

    async def ensure_collections(self, info: ModelsInfo) -> None:
        """Have a collection for each of the models' spaces."""
        for space in info.spaces:
            await self._vectors.ensure(space)

    async def try_plain_picture(self, info: ModelsInfo, former: ModelsInfo | None = None) -> None:
        """Have the models analyse a picture that is known to be well: only then it tells of another that they fail on it.

        Raises ModelUnavailable where they cannot.
        """
        for models in (info, former):
            if models is not None:
                try:
                    await self._asked(PLAIN_PICTURE, _PLAIN_ID, models, SegmentMode.STANDARD, Priority.INGEST)
                except (ModelCrashed, ImageRejected):
                    raise ModelUnavailable("the models fail on every picture") from None

    async def run(self, job: Job, info: ModelsInfo, former: ModelsInfo | None = None) -> Ingested:
        """Bring all points of the image into the vectors; into those of the `former` models first, which answer, if they are given.

        Raises ImageRejected, ModelCrashed, FileChanged.
        """
        if former is not None:
            with suppress(ImageRejected):  # what the models to come say of it counts
                await self._made(job, former)
        return await self._made(job, info)

    async def _made(self, job: Job, info: ModelsInfo) -> Ingested:
        with self._metrics.stage("adopt"):
            adopted = await self._adopt(job.image_id, info)
        return adopted or await self._analyse(job, info, SegmentMode.STANDARD, Priority.INGEST)

    async def again(self, job: Job, mode: SegmentMode, info: ModelsInfo, former: ModelsInfo | None = None) -> Ingested:
        """Segment the image again, for somebody who waits. Raises ImageRejected, ModelCrashed, FileChanged.

        The segments are those that the models that answer found.
        """
        for collection in await self._vectors.collections():
            await self._vectors.set_payload(collection, points.of_image(job.image_id), {"fingerprint": ""})
        shown = await self._analyse(job, former, mode, Priority.QUERY) if former is not None else None
        made = await self._analyse(job, info, mode, Priority.QUERY)
        return made if shown is None else replace(made, segments=shown.segments)

    async def given(
        self,
        job: Job,
        embeddings: tuple[Embedding, ...],
        segments: tuple[AnalysedSegment, ...],
        *,
        fingerprint: str,
        detail: str | None = None,
    ) -> Outcome:
        """Write what was made elsewhere; what is told of the picture itself is read from it, and all of it decoded once.

        `fingerprint` is that of the models that answer where nothing is lacking, else `jobs.GIVEN`. Raises ImageRejected, FileChanged.
        """
        content = await self.read(job.image_id)
        loop = asyncio.get_running_loop()
        facts = await loop.run_in_executor(self._readers, partial(self._decoder.facts, content.body, min_side=1))
        made = ImageAnalysis(
            content_hash=job.image_id,
            width=facts.width,
            height=facts.height,
            format=facts.format,
            taken_at=facts.taken_at,
            location=Location(lat=facts.location.lat, lon=facts.location.lon) if facts.location else None,
            fingerprint=fingerprint,
            embeddings=embeddings,
            segments=segments,
        )
        places = await self._ledger.run(jobs.places, job.image_id)
        await self._write(made, places, content)
        return Outcome(fingerprint, facts.width, facts.height, len(segments), places.version, detail)

    async def withdraw(self, image_id: str, info: ModelsInfo) -> None:
        """Of an image that these models refuse, nothing is found by what their collections hold of it."""
        for space in info.spaces:
            await self._vectors.delete(space.collection, points.of_image(image_id))

    async def _analyse(self, job: Job, info: ModelsInfo, mode: SegmentMode, priority: Priority) -> Ingested:
        with self._metrics.stage("read"):
            content = await self.read(job.image_id)
        with self._metrics.stage("analyse"):
            analysis = await self._asked(content.body, job.image_id, info, mode, priority)
        places = await self._ledger.run(jobs.places, job.image_id)
        with self._metrics.stage("write"):
            written = await self._write(analysis, places, content)
            if job.was_indexed:  # by other models, whose points may still answer: they lie where the picture lay then
                await self._place(job.image_id, places, but=written)
        outcome = Outcome(analysis.fingerprint, analysis.width, analysis.height, len(analysis.segments), places.version)
        return Ingested(outcome, analysis.segments)

    async def _asked(self, image: bytes, image_id: str, info: ModelsInfo, mode: SegmentMode, priority: Priority) -> ImageAnalysis:
        """Raises ImageRejected, ModelCrashed also where the answer is none to this."""
        try:
            analysis = await self._embedder.analyse(image, segments=mode, priority=priority, fingerprint=info.fingerprint or None)
        except InvalidRequest as error:
            raise ModelCrashed(f"the model service does not understand what it is asked: {error}") from None
        if analysis.content_hash != image_id:
            raise ModelCrashed("the model service answers for another picture")
        return analysis

    async def _write(self, analysis: ImageAnalysis, places: Places, content: Verified) -> set[str]:
        """Returns the collections."""
        by_collection = points.points_by_collection(
            analysis, paths=places.paths, size_bytes=len(content.body), file_time=content.file_time
        )
        seal = points.image_point_id(analysis.content_hash)
        for collection, written in by_collection.items():
            if len(written) != len(analysis.segments) + 1:
                raise RuntimeError(f"the model service left out vectors of {collection}")
            held = await self._vectors.count(collection, where=points.of_image(analysis.content_hash))
            await self._vectors.upsert(collection, sorted(written, key=lambda point: point.id == seal))
            if held:  # by whoever else wrote, however far that came: on a server a deletion costs as much as the points, since none is gathered
                first_stale = max((segment.n for segment in analysis.segments), default=-1) + 1
                await self._vectors.delete(collection, points.stale_segments_of(analysis.content_hash, first_stale))
        return set(by_collection)

    async def _place(self, image_id: str, places: Places, *, but: Collection[str] = ()) -> None:
        """Have the image's points tell its paths, in all collections but these."""
        for collection in await self._vectors.collections():
            if collection not in but:
                await self._vectors.set_payload(collection, points.of_image(image_id), points.paths_payload(places.paths))

    # --- reading

    async def read(self, image_id: str) -> Verified:
        """The image's bytes, from the first path that still has them. Raises FileChanged."""
        for path in (await self._ledger.run(jobs.places, image_id)).paths:
            content = await asyncio.get_running_loop().run_in_executor(self._readers, self._pictures.read, path, image_id)
            if content is not None:
                return content
            await self._ledger.run(locations.doubt, path, image_id)
            self._recheck(path)
        raise FileChanged("the file changed or went away")

    # --- adopting

    async def _adopt(self, image_id: str, info: ModelsInfo) -> Ingested | None:
        """The outcome of an earlier run, if every collection holds all of its points, made by these models."""
        segments: set[int] = set()
        seals: list[Record] = []
        for space in info.spaces:
            seal = await self._vectors.retrieve(space.collection, [points.image_point_id(image_id)])
            if not seal or seal[0].payload.get("fingerprint") != info.fingerprint:
                return None
            seals += seal
            segments.add(seal[0].payload["segments"])
        if len(segments) != 1:
            return None
        count = segments.pop()
        found = await self._segments(image_id, count, info)
        if found is None:
            return None
        if any(record.payload.get("layout") != points.LAYOUT for record in (*seals, *found)):
            await self._bring_up(seals[0].payload, [record.payload["labels"][0] for record in found[:count]], info)
        places = await self._ledger.run(jobs.places, image_id)
        await self._place(image_id, places)
        for space in info.spaces:
            await self._vectors.delete(space.collection, points.stale_segments_of(image_id, count))
        payload = seals[0].payload
        return Ingested(Outcome(info.fingerprint, payload["width"], payload["height"], count, places.version), None)

    async def _segments(self, image_id: str, count: int, info: ModelsInfo) -> list[Record] | None:
        """The segment points of every space, one space after the other; None if one is missing or was made by other models."""
        ids = [points.segment_point_id(image_id, n) for n in range(count)]
        records: list[Record] = []
        for space in info.spaces if ids else ():
            found = await self._vectors.retrieve(space.collection, ids)
            if len(found) != count or any(record.payload.get("fingerprint") != info.fingerprint for record in found):
                return None
            records += found
        return records

    async def _bring_up(self, seal: Payload, labels: list[str], info: ModelsInfo) -> None:
        """Add what points of an earlier layout lack. It costs no model: all of it is told by the points and by the file's header."""
        content = await self.read(seal["image_id"])
        found = await asyncio.get_running_loop().run_in_executor(self._readers, self._decoder.location, content.body)
        location = Location(lat=found.lat, lon=found.lon) if found else None
        facts = points.PictureFacts(seal["width"], seal["height"], seal["taken_at"], location, labels)
        for space in info.spaces:
            await self._vectors.set_payload(space.collection, points.of_image(seal["image_id"]), facts.payload())
