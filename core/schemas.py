"""Wire models shared by the services: what crosses a process boundary, and nothing else.

Vectors travel as base64 of little-endian float32, because 20 segments of 2,048 numbers as JSON text cost more than the model.
Boxes are COCO's `[x, y, width, height]` in pixels of the upright picture; masks are COCO's compressed run-length encoding.
"""

from __future__ import annotations

import base64
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    StrictInt,
    WithJsonSchema,
)

from core.errors import Reason

Vector = NDArray[np.float32]
"""One embedding: shape (dim,), L2-normalised."""

BBox = tuple[float, float, float, float]
"""`[x, y, width, height]`, pixels of the upright picture, origin at its top left."""

CONTENT_HASH_PATTERN = r"^[0-9a-f]{64}$"
ImageId = Annotated[str, Field(pattern=CONTENT_HASH_PATTERN, description="SHA-256 of the file's bytes, hexadecimal")]


MOST_GIVEN = 500
"""Pictures whose vectors are given in one request."""


def _storable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be Unicode text without lone surrogates") from None
    return value


Text = Annotated[str, AfterValidator(_storable)]
StoredPath = Annotated[Text, Field(min_length=1, max_length=4096)]


def _decode_vector(value: Any) -> Any:
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)
    return value


def _encode_vector(vector: Vector) -> str:
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")


WireVector = Annotated[
    Vector,
    BeforeValidator(_decode_vector),
    PlainSerializer(_encode_vector, return_type=str),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "description": "little-endian float32"}),
]


class Wire(BaseModel):
    """Base of all wire models: immutable, and an unknown field is an error rather than a surprise."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, protected_namespaces=())


# --- models and embeddings -------------------------------------------------------------------------------------------


class Space(Wire):
    """One embedding space. Vectors of different spaces never meet: each has its own collection."""

    collection: str = Field(
        description="collection name: model, revision and the fingerprint's beginning, e.g. `clip-vit-base-patch32-3d74acf9-1f0c2b9a`"
    )
    model_name: str = Field(description="what a user calls it, e.g. `CLIP`; answered as `model_name`")
    dim: int = Field(ge=1)
    text: bool = Field(description="whether words can be embedded into it as well as pictures")


class ModelCard(Wire):
    """One loaded or missing part of the profile, as `/status` and `/health` show it."""

    role: Literal["embedder", "segmenter"]
    model_name: str
    source: str = Field(description="hub id or file name the weights came from; never a full path")
    revision: str
    runtime: str = Field(description="e.g. `torch 2.15.0`")
    device: str
    precision: str


class EngineState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    NO_MODEL = "no_model"


class ModelsInfo(Wire):
    """What the model service can do now. `spaces[0]` is the space that answers text."""

    state: EngineState
    profile: str = Field(description="the profile in use: `clip`, `starter`, or a folder of MODELS_DIR")
    requested_profile: str
    notice: str | None = Field(
        default=None, description="what a user must know: a fallback, a missing part, where to put weights"
    )
    spaces: tuple[Space, ...] = ()
    models: tuple[ModelCard, ...] = ()
    fingerprint: str = Field(default="", description="changes whenever the vectors or segments of a picture would change")


class Embedding(Wire):
    collection: Text
    vector: WireVector


class MaskRle(Wire):
    """COCO compressed RLE, column-major. `size` is [height, width], at most 640 on the long side: scale it to the picture."""

    size: tuple[int, int]
    counts: Text


class Segment(Wire):
    """One instance mask found in a picture."""

    n: int = Field(ge=0, description="its number within the picture")
    label: Text
    score: float = Field(ge=0, le=1)
    bbox: BBox
    area: float = Field(ge=0, le=1, description="the mask's share of the picture")
    mask: MaskRle


class AnalysedSegment(Segment):
    embeddings: tuple[Embedding, ...]


class SegmentMode(StrEnum):
    """How thoroughly to look for segments; `quick` and `full` are what the API's `segment` route offers."""

    NONE = "none"
    QUICK = "quick"
    STANDARD = "standard"
    FULL = "full"


class Priority(StrEnum):
    """Queries overtake ingestion in the model service's queue."""

    QUERY = "query"
    INGEST = "ingest"


class Location(Wire):
    """A place on the earth (WGS 84), in degrees."""

    lat: float = Field(ge=-90, le=90, description="north of the equator, or south of it where negative")
    lon: float = Field(ge=-180, le=180, description="east of Greenwich, or west of it where negative")


class Orientation(StrEnum):
    """Which side of the upright picture is longer."""

    LANDSCAPE = "landscape"
    PORTRAIT = "portrait"
    SQUARE = "square"

    @classmethod
    def of(cls, width: int, height: int) -> Orientation:
        return cls.SQUARE if width == height else cls.LANDSCAPE if width > height else cls.PORTRAIT


class ImageAnalysis(Wire):
    """Everything the model service knows of one picture, from one round trip."""

    content_hash: ImageId
    width: int = Field(ge=1, description="of the upright picture")
    height: int = Field(ge=1)
    format: str = Field(description="as Pillow names it, e.g. `JPEG`")
    taken_at: datetime | None = Field(default=None, description="EXIF DateTimeOriginal; UTC is assumed where no offset is given")
    location: Location | None = Field(default=None, description="EXIF GPS position")
    fingerprint: str = Field(description="of the models that made it, as in `ModelsInfo`")
    embeddings: tuple[Embedding, ...]
    segments: tuple[AnalysedSegment, ...] = ()


class GivenEmbeddings(Wire):
    """What was made of one picture elsewhere: its vectors alone, or with `fingerprint` all that those models found in it."""

    image_id: ImageId | None = None
    path: StoredPath | None = Field(default=None, description="relative to the watched folder; either this or `image_id`")
    fingerprint: Text = Field(
        default="", max_length=64, description="of the models that made all of it, regions included; empty of single vectors"
    )
    embeddings: tuple[Embedding, ...] = Field(max_length=16, description="of the whole picture, one a space")
    segments: tuple[AnalysedSegment, ...] = Field(default=(), max_length=1000)


class ImportOutcome(StrEnum):
    """What became of one picture's given vectors."""

    INDEXED = "indexed"
    FOUND = "found"
    KNOWN = "known"
    UNKNOWN = "unknown"
    BUSY = "busy"
    REFUSED = "refused"


class ImportResult(Wire):
    """In the order in which they were given."""

    outcome: ImportOutcome = Field(
        description=(
            "`indexed`: all is there; `found`: it is found by the given vectors, and the rest follows by itself; `known`: it was found "
            "before; `unknown`: no such picture lies there (yet); `busy`: ask again; `refused`: see `detail`"
        )
    )
    image_id: ImageId | None = None
    detail: str | None = None


class ImportRequest(Wire):
    """Vectors made elsewhere, of pictures that lie here."""

    given: tuple[GivenEmbeddings, ...] = Field(min_length=1, max_length=MOST_GIVEN)
    checks: StrictInt = Field(
        default=1, ge=1, le=32, description="pictures drawn of those to be written, which the models embed first, to compare"
    )
    whole_alone: StrictBool = Field(
        default=False, description="regions are not looked for later; needs a vector for each space of the models that answer"
    )


class ImportAnswer(Wire):
    results: tuple[ImportResult, ...]
    checked: int = Field(description="pictures whose vectors were compared with what the models make of them")
    least_agreement: float | None = Field(default=None, description="the lowest cosine among those")


class TextEmbeddings(Wire):
    space: Space
    vectors: tuple[WireVector, ...]


class EmbedTextRequest(Wire):
    texts: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...], Field(min_length=1, max_length=64)]
    priority: Priority = Priority.QUERY
    fingerprint: str | None = Field(
        default=None, description="of the models to embed with; those of the settings where it is not given"
    )


# --- the catalog: what the watcher knows of the folder ---------------------------------------------------------------


class ImageState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    INDEXED = "indexed"
    FAILED = "failed"


class ImageRecord(Wire):
    """One image (identity: its bytes) and where it lies."""

    image_id: ImageId
    state: ImageState
    reason: Reason | None = None
    detail: str | None = None
    paths: tuple[str, ...] = Field(description="relative to the watched folder, `/` between parts")
    bytes: int
    width: int | None = None
    height: int | None = None
    segments: int = 0
    attempts: int = 0
    noticed_at: datetime
    indexed_at: datetime | None = None


class ImageStateRecord(Wire):
    """How far one image is, and nothing else."""

    image_id: ImageId
    state: ImageState
    reason: Reason | None = None
    detail: str | None = None


class PathStateRecord(Wire):
    """What is known of one path."""

    path: str
    image_id: ImageId | None = Field(default=None, description="null of a file that never became an image")
    state: ImageState
    reason: Reason | None = None
    detail: str | None = None


class ImageStates(Wire):
    """Of those that were asked about and are known."""

    images: tuple[ImageStateRecord, ...] = ()
    paths: tuple[PathStateRecord, ...] = ()


class Failure(Wire):
    """One file that is not indexed, and why."""

    path: str
    reason: Reason
    detail: str | None = None
    image_id: ImageId | None = None
    failed_at: datetime


class FailurePage(Wire):
    failures: tuple[Failure, ...]
    total: int


class StateCounts(Wire):
    """Images by state."""

    pending: int = 0
    running: int = 0
    indexed: int = 0
    failed: int = 0


class StatePart(StrEnum):
    """What the product keeps."""

    LEDGER = "ledger"
    VECTORS = "vectors"
    FEEDBACK = "feedback"


class Repair(Wire):
    """Damaged files that a start set aside, and made anew as far as they could be."""

    part: StatePart
    found_at: datetime
    detail: str = Field(description="what was wrong, and what was lost or comes back by itself")
    kept_as: str = Field(description="folder within DATA_DIR that holds what was set aside; remove it, and this is told no more")


WatcherState = Literal["starting", "watching", "folder_missing", "draining", "standby"]


class WatcherStatus(Wire):
    state: WatcherState = Field(description="`standby`: another process notices what happens to the pictures, see `DATABASE_URL`")
    observer: Literal["inotify", "native", "polling", "listing"] | None = Field(description="null on standby")
    last_reconcile_at: datetime | None = None
    reconciling: bool = False
    settling: int = Field(default=0, description="files seen but still being written")
    waiting_for: str | None = Field(default=None, description="why ingestion stands still, if it does")
    repairs: tuple[Repair, ...] = Field(default=(), description="damage that a start found and repaired")


class ModelChange(Wire):
    """Pictures are being indexed for other models, while those that have them all go on answering."""

    profile: str = Field(description="of the models that pictures are being indexed for")
    answering: str = Field(description="profile of the models that answer meanwhile")
    done: int = Field(description="pictures that are settled with the new models")
    total: int
    stopped: bool = Field(description="whether it was told to stand still")
    eta_s: float | None = None


class ModelsAction(StrEnum):
    """What an operator may do about the models."""

    STOP = "stop"
    RESUME = "resume"
    REVERT = "revert"
    DROP = "drop"


class ModelsCourse(Wire):
    """Which models answer, which come, and which went."""

    searched: str | None = Field(description="fingerprint of the models whose vectors are searched; null until any were loaded")
    profile: str | None = Field(description="theirs")
    change: ModelChange | None = None
    previous: str | None = Field(
        default=None, description="profile of the models before, whose vectors are kept: `revert` goes back"
    )
    notice: str | None = Field(default=None, description="what a user must know of a change under way")


class IngestionStatus(Wire):
    images: StateCounts
    segments: int
    rate_per_s: float = Field(description="images indexed a second, over the last minute of work")
    eta_s: float | None = None
    watcher: WatcherStatus
    model_change: ModelChange | None = Field(
        default=None, description="while pictures are indexed for other models than those that answer"
    )


# --- health ----------------------------------------------------------------------------------------------------------


class Health(Wire):
    status: Literal["ok", "unavailable"]
    detail: str | None = None
    checks: dict[str, str] = Field(default_factory=dict)
