"""From what was asked to one vector of one space: a weighted sum of terms, each of which an explanation can name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from core.errors import Conflict, InvalidRequest, NotFound
from core.points import image_point_id, segment_point_id
from core.ports import Catalog, VectorStore, Where
from core.schemas import ImageState, ModelsInfo, Space, Vector, Wire, WireVector
from searchsvc.filter_schema import SearchFilter
from searchsvc.filters import where_of
from searchsvc.folder import PictureFolder
from searchsvc.models import QueryModels, QueryPicture, choose_space, unit
from searchsvc.search_schema import MAX_QUERY_PICTURES, Example, FeedbackUse, QueryOptions, Scope, TermKind

_NEGATIVE_WEIGHT = 0.5
"""A whole subtraction of CLIP vectors, all of which lie within a narrow cone, leaves mostly noise."""


class Term(Wire):
    """A part of a question. `vector` has length 1; `weight` is what it counts for in the question's own vector."""

    of: TermKind
    ref: str
    weight: float
    vector: WireVector


class Question(Wire):
    """A question in the terms of one space. All that a later page of its answer needs."""

    space: Space
    told: dict[str, Any]
    """What was asked, as tokens and feedback keep it."""
    vector: WireVector
    terms: tuple[Term, ...]
    turned: WireVector | None = None
    """The vector as feedback has it."""
    feedback: FeedbackUse | None = None
    scope: Scope
    filter: SearchFilter | None
    left_out: tuple[str, ...]
    min_score: float | None
    collapse: bool
    diversity: float
    explain: bool

    @property
    def searched(self) -> Vector:
        return self.vector if self.turned is None else self.turned

    @property
    def text(self) -> str:
        return str(self.told.get("text", ""))

    def where(self, scope: Scope | None = None) -> Where:
        """The points that may match, of this scope or another."""
        return where_of(scope or self.scope, self.filter, without_images=self.left_out)


class Questions:
    """Understands questions. `reading` is where files of the folder are read."""

    def __init__(
        self,
        models: QueryModels,
        *,
        vectors: VectorStore,
        catalog: Catalog,
        folder: PictureFolder,
        reading: Executor,
        max_file_bytes: int,
    ) -> None:
        self._models = models
        self._vectors = vectors
        self._catalog = catalog
        self._folder = folder
        self._reading = reading
        self._max_file_bytes = max_file_bytes

    async def understand(self, options: QueryOptions, pictures: Sequence[bytes], info: ModelsInfo, model: str | None) -> Question:
        """Raises InvalidRequest, NotFound, Conflict (not indexed yet), ImageRejected, NoModel, Unavailable."""
        _check(options, pictures)
        needs_text = options.text is not None or options.negative_text is not None
        space = choose_space(info, model, needs_text=needs_text)
        uploaded = [await self._models.embed_picture(picture, space, region=options.region) for picture in pictures]
        wanted = [*await self._wanted(options, space, info), *(_of_file(options, picture) for picture in uploaded)]
        unwanted: list[_Part] = [("unlike", _ref(one), await self._stored(one, space)) for one in options.unlike]
        if options.negative_text is not None:
            vector = await self._models.embed_text(options.negative_text, space, info.fingerprint)
            unwanted.append(("negative_text", options.negative_text, vector))
        vector, terms = combine(wanted, unwanted)
        return Question(
            space=space,
            told=_told(options, [picture.content_hash for picture in uploaded]),
            vector=vector,
            terms=terms if options.explain else (),
            scope=options.scope,
            filter=options.filter,
            left_out=_named(options),
            min_score=options.min_score,
            collapse=options.collapse,
            diversity=options.diversity,
            explain=options.explain,
        )

    async def _wanted(self, options: QueryOptions, space: Space, info: ModelsInfo) -> list[_Part]:
        wanted: list[_Part] = []
        if options.text is not None:
            wanted.append(("text", options.text, await self._models.embed_text(options.text, space, info.fingerprint)))
        if options.image_id is not None and options.region is not None:
            part = await self._models.embed_picture(await self._file_of(options.image_id), space, region=options.region)
            wanted.append(("region", options.image_id, part.vector))
        elif options.image_id is not None:
            example = Example(image_id=options.image_id, segment=options.segment)
            wanted.append(("image_id", _ref(example), await self._stored(example, space)))
        return wanted + [("like", _ref(one), await self._stored(one, space)) for one in options.like]

    async def _stored(self, example: Example, space: Space) -> Vector:
        image_id, n = example.image_id, example.segment
        point = image_point_id(image_id) if n is None else segment_point_id(image_id, n)
        for record in await self._vectors.retrieve(space.collection, [point], with_vectors=True):
            if record.vector is not None:
                return record.vector
        known = await self._catalog.image(image_id)
        if n is not None and known.state is ImageState.INDEXED:
            raise NotFound("this image has no such segment")
        raise Conflict(f"this image is {known.state.value} and not searchable by {space.model_name}: look at its state first")

    async def _file_of(self, image_id: str) -> bytes:
        record = await self._catalog.image(image_id)

        def read() -> bytes:
            with self._folder.open_first(record.paths, size=record.bytes) as opened:
                return opened.file.read(self._max_file_bytes + 1)

        return await asyncio.get_running_loop().run_in_executor(self._reading, read)


_Part = tuple[TermKind, str, Vector]
"""What a term is of, its `ref`, and its vector."""


def combine(wanted: Sequence[_Part], unwanted: Sequence[_Part]) -> tuple[Vector, tuple[Term, ...]]:
    """One query vector of several, as the weighted sum of the terms: all that is wanted alike, less half of what is not.

    Raises InvalidRequest if nothing is left.
    """
    towards, weight = _mean_direction(wanted)
    weights = [weight] * len(wanted)
    asked = towards
    if unwanted:
        away, weight = _mean_direction(unwanted)
        weights += [-_NEGATIVE_WEIGHT * weight] * len(unwanted)
        asked = towards - np.float32(_NEGATIVE_WEIGHT) * away
    vector = unit(asked)
    scale = 1 / float(np.linalg.norm(asked))
    parts = zip([*wanted, *unwanted], weights, strict=True)
    return vector, tuple(Term(of=of, ref=ref, weight=scale * weight, vector=part) for (of, ref, part), weight in parts)


def _mean_direction(parts: Sequence[_Part]) -> tuple[Vector, float]:
    """As a vector of length 1, and the weight that each part has in it."""
    total: Vector = np.stack([vector for *_, vector in parts]).sum(axis=0)
    return unit(total), 1 / float(np.linalg.norm(total))


def _check(options: QueryOptions, pictures: Sequence[bytes]) -> None:
    """What the fields say together."""
    if not pictures and options.text is None and options.image_id is None and not options.like:
        raise InvalidRequest("say what to look for: `text`, `image_id`, `like` or a `file`", field="text")
    if len(pictures) > MAX_QUERY_PICTURES:
        raise InvalidRequest(f"ask by at most {MAX_QUERY_PICTURES} files", field="file")
    if options.segment is not None and options.image_id is None:
        raise InvalidRequest("a segment is one of an indexed image: name it by `image_id`", field="segment")
    if options.region is not None:
        if options.segment is not None:
            raise InvalidRequest("ask by a `segment` or by a `region`", field="region")
        if len(pictures) + (options.image_id is not None) != 1:
            raise InvalidRequest("a region is a part of one picture: send one `file`, or an `image_id`", field="region")


def _of_file(options: QueryOptions, picture: QueryPicture) -> _Part:
    return ("file" if options.region is None else "region", picture.content_hash, picture.vector)


def _ref(example: Example) -> str:
    return example.image_id if example.segment is None else f"{example.image_id}/{example.segment}"


def _named(options: QueryOptions) -> tuple[str, ...]:
    """The indexed images that the question is about, which are no answers to it."""
    named = [example.image_id for example in (*options.like, *options.unlike)]
    return tuple(dict.fromkeys([*([options.image_id] if options.image_id else []), *named]))


_TOLD = {"text", "image_id", "segment", "region", "like", "unlike", "negative_text", "scope", "filter"}


def _told(options: QueryOptions, hashes: Sequence[str]) -> dict[str, Any]:
    asked = options.model_dump(mode="json", by_alias=True, include=_TOLD)
    told = {name: value for name, value in asked.items() if value not in (None, [])}
    return told if not hashes else {**told, "picture": hashes[0] if len(hashes) == 1 else list(hashes)}
