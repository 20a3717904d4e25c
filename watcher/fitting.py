"""Vectors that were made elsewhere, fitted to the models that answer: their spaces, their numbers, and whether anything is lacking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core import masks
from core.errors import InvalidRequest
from core.schemas import AnalysedSegment, Embedding, GivenEmbeddings, ImportRequest, ModelsInfo, Vector

_NO_LENGTH, _ROUNDING = 1e-6, 1e-6


@dataclass(frozen=True, slots=True)
class Fitted:
    """A record whose vectors have length 1. `settles`: it lacks nothing. `refusal` tells what is wrong with this one alone."""

    image_id: str | None
    embeddings: tuple[Embedding, ...]
    segments: tuple[AnalysedSegment, ...]
    settles: bool
    fingerprint: str
    refusal: str | None = None


def fitted(request: ImportRequest, info: ModelsInfo) -> list[Fitted]:
    """Raises InvalidRequest for what is wrong with all of it: other models, other spaces."""
    found: list[Fitted] = []
    for number, record in enumerate(request.given):
        try:
            found.append(_fitted(record, info, whole_alone=request.whole_alone))
        except InvalidRequest as error:
            raise InvalidRequest(f"given.{number}: {error}", field=f"given.{number}") from None
    return found


def _fitted(record: GivenEmbeddings, info: ModelsInfo, *, whole_alone: bool) -> Fitted:
    _check_named(record, info)
    every = {space.collection for space in info.spaces}
    of_whole = _check_spaces(record.embeddings, info)
    if of_whole != every and (record.fingerprint or whole_alone):
        raise InvalidRequest("a vector is missing: it needs one for each space of the models that answer")
    for n, segment in enumerate(record.segments):
        if segment.n != n or _check_spaces(segment.embeddings, info) != every:
            raise InvalidRequest(f"segments.{n}: wrong number, or a vector is missing")
    settles = of_whole == every and (bool(record.fingerprint) or whole_alone or not has_segments(info))
    try:
        embeddings, segments = _with_length_1(record.embeddings), tuple(map(_fitted_segment, record.segments))
    except ValueError as error:
        return Fitted(record.image_id, (), (), settles, record.fingerprint, str(error))
    return Fitted(record.image_id, embeddings, segments, settles, record.fingerprint)


def _check_named(record: GivenEmbeddings, info: ModelsInfo) -> None:
    if (record.image_id is None) == (record.path is None):
        raise InvalidRequest("needs either `image_id` or `path`")
    if record.fingerprint not in {"", info.fingerprint}:
        raise InvalidRequest("made by other models than those that answer")
    if record.segments and not record.fingerprint:
        raise InvalidRequest("regions need the `fingerprint` of the models that found them")


def has_segments(info: ModelsInfo) -> bool:
    return any(model.role == "segmenter" for model in info.models)


def _check_spaces(embeddings: Sequence[Embedding], info: ModelsInfo) -> set[str]:
    """The collections that they are for. Raises InvalidRequest."""
    dims = {space.collection: space.dim for space in info.spaces}
    given = {embedding.collection for embedding in embeddings}
    if not given or len(given) != len(embeddings):
        raise InvalidRequest("needs vectors, one a space")
    for embedding in embeddings:
        dim = dims.get(embedding.collection)
        if dim is None:
            raise InvalidRequest("the models that answer have no such space; they have " + ", ".join(dims))
        if embedding.vector.shape != (dim,):
            raise InvalidRequest(f"a vector of {embedding.collection} has {dim} numbers, not {embedding.vector.size}")
    return given


def _with_length_1(embeddings: Sequence[Embedding]) -> tuple[Embedding, ...]:
    """Raises ValueError."""
    return tuple(Embedding(collection=one.collection, vector=unit(one.vector)) for one in embeddings)


def unit(vector: Vector) -> Vector:
    """What has length 1 by what float32 can tell stays as it is, bit by bit. Raises ValueError where there is no length."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length) or length < _NO_LENGTH:
        raise ValueError("a vector without a length, or not of finite numbers")
    return vector if abs(length - 1) < _ROUNDING else np.asarray(vector / length, dtype=np.float32)


def _fitted_segment(segment: AnalysedSegment) -> AnalysedSegment:
    """What is stored is shown to people and to decoders, whoever told it. Raises ValueError."""
    where = f"segments.{segment.n}"
    try:
        masks.decode(segment.mask)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if not np.all(np.isfinite(segment.bbox)):
        raise ValueError(f"{where}: its box is not of finite numbers")
    return segment.model_copy(update={"embeddings": _with_length_1(segment.embeddings)})
