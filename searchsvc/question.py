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
from searchsvc.models import QueryModels, QueryPicture, choose_space, length, unit
from searchsvc.originals import Originals
from searchsvc.search_schema import MAX_QUERY_PICTURES, Example, FeedbackUse, QueryOptions, Scope, TermKind

_TEXT = 2.0
"""What words count where a picture counts 1: cosines of pictures with each other spread twice as far as those with words."""

_NEGATIVE_TEXT = 0.5
_UNLIKE_PICTURES, _UNLIKE_WORDS = 0.25, 0.05
"""What unwanted pictures count against all that is wanted, which counts 1: where pictures are wanted, and where words alone are. Any
picture is more like all others than words are, so taken away from words it takes the pictures with it. Measured, as the others are:
docs/explanation/ways-to-ask.md."""


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
    """Understands questions. `reading` is where pictures' files are read."""

    def __init__(
        self,
        models: QueryModels,
        *,
        vectors: VectorStore,
        catalog: Catalog,
        originals: Originals,
        reading: Executor,
        max_file_bytes: int,
    ) -> None:
        self._models = models
        self._vectors = vectors
        self._catalog = catalog
        self._originals = originals
        self._reading = reading
        self._max_file_bytes = max_file_bytes

    async def understand(self, options: QueryOptions, pictures: Sequence[bytes], info: ModelsInfo, model: str | None) -> Question:
        """Raises InvalidRequest, NotFound, Conflict (not indexed yet), ImageRejected, NoModel, Unavailable."""
        _check(options, pictures)
        needs_text = options.text is not None or options.negative_text is not None
        space = choose_space(info, model, needs_text=needs_text)
        uploaded = [
            await self._models.embed_picture(picture, space, info.fingerprint, region=options.region) for picture in pictures
        ]
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
            file = await self._file_of(options.image_id)
            part = await self._models.embed_picture(file, space, info.fingerprint, region=options.region)
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
            with self._originals.open_first(record.paths, size=record.bytes) as opened:
                return opened.file.read(self._max_file_bytes + 1)

        return await asyncio.get_running_loop().run_in_executor(self._reading, read)


_Part = tuple[TermKind, str, Vector]
"""What a term is of, its `ref`, and its vector."""


def combine(wanted: Sequence[_Part], unwanted: Sequence[_Part]) -> tuple[Vector, tuple[Term, ...]]:
    """One query vector of several, as the weighted sum of the terms. Raises InvalidRequest if nothing is left."""
    words_alone = all(of == "text" for of, *_ in wanted)
    groups = [
        (1.0, wanted),
        (-_NEGATIVE_TEXT, [part for part in unwanted if part[0] == "negative_text"]),
        (-(_UNLIKE_WORDS if words_alone else _UNLIKE_PICTURES), [part for part in unwanted if part[0] == "unlike"]),
    ]
    terms = [term for weight, parts in groups if parts for term in _together(weight, parts)]
    total: Vector = np.stack([np.float32(term.weight) * term.vector for term in terms]).sum(axis=0)
    scale = length(total)
    return unit(total), tuple(term.model_copy(update={"weight": term.weight / scale}) for term in terms)


def _together(weight: float, parts: Sequence[_Part]) -> list[Term]:
    """Terms whose sum has the length of `weight`."""
    counts = [_TEXT if of == "text" else 1.0 for of, *_ in parts]
    total: Vector = np.stack([np.float32(count) * vector for count, (*_, vector) in zip(counts, parts, strict=True)]).sum(axis=0)
    scale = weight / length(total)
    return [Term(of=of, ref=ref, weight=scale * count, vector=part) for count, (of, ref, part) in zip(counts, parts, strict=True)]


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
