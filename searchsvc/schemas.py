"""What the public API takes and gives. Requests are strict: "5" is no number, true is no number, an unknown field is an error."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from core.schemas import (
    CONTENT_HASH_PATTERN,
    BBox,
    EngineState,
    ImageId,
    ImageRecord,
    IngestionStatus,
    Location,
    ModelCard,
    Orientation,
    Space,
    Wire,
)
from searchsvc.filter_schema import SearchFilter
from searchsvc.requests import Request, String

MAX_TEXT_CHARACTERS = 1000
MAX_TOP_K = 100
MAX_OFFSET = 10_000


# --- search ----------------------------------------------------------------------------------------------------------


def _normalised(value: object) -> object:
    return unicodedata.normalize("NFC", value.strip()) if isinstance(value, str) else value


Text = Annotated[
    String,
    BeforeValidator(_normalised),
    Field(min_length=1, max_length=MAX_TEXT_CHARACTERS, description="trimmed and normalised (NFC); more characters are refused"),
]
Scope = Literal["images", "segments", "both"]


class SearchOptions(Request):
    """A search; at least one of `text`, `image_id` and (in a form) `file` must be there."""

    text: Text | None = Field(default=None, description="what to look for, in words", examples=["tennis"])
    image_id: Annotated[StrictStr, Field(pattern=CONTENT_HASH_PATTERN)] | None = Field(
        default=None, description="more like this indexed image, which is itself left out"
    )
    negative_text: Text | None = Field(default=None, description="what not to look for, in words")
    model: Annotated[String, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="name or collection of the model to ask, in any case; default: the first that understands words"
    )
    scope: Scope = Field(default="images", description="whole pictures, regions of them, or the better of both for each picture")
    top_k: Annotated[StrictInt, Field(ge=1, le=MAX_TOP_K)] = Field(default=10, description="how many matches")
    offset: Annotated[StrictInt, Field(ge=0, le=MAX_OFFSET)] = Field(default=0, description="how many matches to skip")
    min_score: Annotated[StrictFloat, Field(ge=-1, le=1, allow_inf_nan=False)] | None = Field(
        default=None, description="least cosine similarity"
    )
    filter: SearchFilter | None = None
    feedback: StrictBool = Field(
        default=True, description="whether earlier ratings may turn the query; false: as if nothing had been rated"
    )


class SegmentView(Wire):
    """A region of a picture."""

    n: int
    label: str
    score: float = Field(description="how sure the segmenter is, 0..1")
    bbox: BBox = Field(description="`[x, y, width, height]` in pixels of the upright picture")
    area: float = Field(description="the mask's share of the picture")
    mask_url: str


class MatchView(Wire):
    """One found picture, or one found region of it."""

    image_name: str
    score: float = Field(description="cosine similarity, higher is nearer")
    image_id: ImageId
    path: str = Field(description="relative to the watched folder")
    image_url: str
    thumbnail_url: str
    width: int = Field(description="of the upright picture")
    height: int
    orientation: Orientation = Field(description="which side is longer")
    taken_at: datetime | None = Field(description="by the camera, or by the file's time where the picture does not tell")
    location: Location | None = Field(description="where it was taken, where the picture tells")
    segment: SegmentView | None = Field(default=None, description="the region that matched; null where the whole picture did")
    jwt: str = Field(description="rates this match alone")


class FeedbackUse(Wire):
    """How earlier ratings turned a query."""

    ratings: int = Field(description="how many ratings of the same and near-same queries were heard")
    clients: int = Field(description="of how many clients")
    rotation_degrees: float = Field(description="how far the query was turned; scores are those of the turned one")


class SearchAnswer(Wire):
    """What was found, best first."""

    text: str = Field(description="the words that were asked, as they were understood; empty where there were none")
    model_name: str = Field(description="the model that answered")
    matches: tuple[MatchView, ...]
    jwt: str = Field(description="rates this search, once")
    search_id: str
    took_ms: float
    notice: str | None = Field(default=None, description="what the user should know of the models, e.g. a fallback")
    feedback: FeedbackUse | None = Field(
        default=None, description="null where nothing near the query was rated, or it was not to count"
    )


# --- feedback --------------------------------------------------------------------------------------------------------


class FeedbackRequest(Request):
    """What somebody thinks of a search (`jwt` of the answer) or of one match (`jwt` of the match)."""

    user_feedback: Annotated[StrictInt, Field(ge=1, le=10)] = Field(description="1 (useless) .. 10 (just right)", examples=[5])
    jwt: StrictStr = Field(description="the token that came with the results; each counts once")
    image_id: Annotated[StrictStr, Field(pattern=CONTENT_HASH_PATTERN)] | None = Field(
        default=None, description="rates one of the shown images instead of the whole"
    )


class FeedbackAnswer(Wire):
    feedback_id: str


# --- images ----------------------------------------------------------------------------------------------------------


class UploadAnswer(Wire):
    image_id: ImageId
    status_url: str


class ImageView(ImageRecord):
    """One image, how far it is, and where its parts are."""

    orientation: Orientation | None = Field(default=None, description="which side is longer; null while that is not known")
    taken_at: datetime | None = Field(
        default=None, description="by the camera, or by the file's time where the picture does not tell; null until it is indexed"
    )
    location: Location | None = Field(default=None, description="where it was taken, where the picture tells")
    image_url: str
    thumbnail_url: str
    segments_url: str


class SegmentsAnswer(Wire):
    image_id: ImageId
    segments: tuple[SegmentView, ...]


class SegmentRequest(Request):
    mode: Literal["quick", "full"] = Field(description="`quick`: the main parts, fast; `full`: all that can be told apart")


# --- operations ------------------------------------------------------------------------------------------------------


class StatusAnswer(IngestionStatus):
    """Where everything stands."""

    models: tuple[ModelCard, ...] = Field(description="what is loaded; empty while the model service does not answer")
    spaces: tuple[Space, ...] = Field(description="the models that can be asked; the first is the default")
    model_state: EngineState | Literal["unavailable"]
    profile: str | None = None
    notice: str | None = Field(default=None, description="what the user should know of the models")
    writing_needs_key: bool = Field(description="whether upload, delete and segmenting again need an API key")
    version: str


class HealthReport(Wire):
    """Of the parts that searching needs, what each says of itself."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = Field(description="`ok`, or what is wrong, by part")
    notice: str | None = None
    profile: str | None = None
    devices: tuple[str, ...] = ()
    images_indexed: int | None = None
    version: str


class Liveness(Wire):
    status: Literal["ok"] = "ok"


class FieldError(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """The one shape of every error (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(description="for people")
    code: str = Field(description="for programs; stable")
    request_id: str = Field(description="finds the request in the log")
    errors: list[FieldError] | None = Field(default=None, description="the offending field, where there is one")
    checks: dict[str, str] | None = Field(default=None, description="of `/health/ready`: what each part says of itself")


JsonObject = dict[str, Any]
