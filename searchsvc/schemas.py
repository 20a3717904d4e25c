"""What the public API takes and gives. Requests are strict: "5" is no number, true is no number, an unknown field is an error."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictInt, StrictStr

from core.schemas import (
    CONTENT_HASH_PATTERN,
    EngineState,
    GivenEmbeddings,
    ImageId,
    ImageRecord,
    IngestionStatus,
    Location,
    ModelCard,
    ModelsAction,
    Orientation,
    Repair,
    Space,
    Wire,
    WireVector,
)
from searchsvc.requests import Request, String
from searchsvc.search_schema import SegmentView

Path = Annotated[String, Field(min_length=1, max_length=4096)]

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


MOST_ASKED_FOR = 1000


class StatesRequest(Request):
    """Images by id, and files by their path."""

    image_ids: tuple[ImageId, ...] = Field(default=(), max_length=MOST_ASKED_FOR)
    paths: tuple[Path, ...] = Field(default=(), max_length=MOST_ASKED_FOR, description="relative to the watched folder")


class NoticesRequest(Request):
    """Files that lie in the watched folder, or in the bucket, by now."""

    paths: tuple[Path, ...] = Field(min_length=1, max_length=MOST_ASKED_FOR, description="relative to the watched folder")


class NoticesAnswer(Wire):
    hints: int = Field(description="paths that will be looked at: each once, none that is hidden or leads out of the folder")


class SegmentsAnswer(Wire):
    image_id: ImageId
    segments: tuple[SegmentView, ...]


class SegmentRequest(Request):
    mode: Literal["quick", "full"] = Field(description="`quick`: the main parts, fast; `full`: all that can be told apart")


class EmbeddingView(Wire):
    """A vector, and what it is of."""

    image_id: ImageId
    segment: int | None = Field(default=None, description="the segment's number; null of the whole picture")
    paths: tuple[str, ...]
    fingerprint: str = Field(description="of the models that made it")
    vector: WireVector


class EmbeddingsPage(Wire):
    space: Space
    embeddings: tuple[EmbeddingView, ...]
    cursor: str | None = Field(description="asks for the next page of the same `model`; null where nothing follows")


class AnalysesPage(Wire):
    """All that the models found in some pictures, each as `POST /embeddings` takes it."""

    fingerprint: str = Field(description="of the models that made it")
    analyses: tuple[GivenEmbeddings, ...]
    cursor: str | None = Field(description="asks for the next page; null where nothing follows")


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


class ModelsRequest(Request):
    action: ModelsAction = Field(
        description=(
            "`stop` and `resume` a change; `revert` it, or go back to the models before; `drop` what the models before made, "
            "which gives up the way back"
        )
    )


class HealthReport(Wire):
    """Of the parts that are needed, what each says of itself."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="`degraded`: what is there is found, and nothing can be added: `checks` say what is missing"
    )
    checks: dict[str, str] = Field(description="`ok`, or what is wrong, by part")
    notice: str | None = None
    profile: str | None = None
    devices: tuple[str, ...] = ()
    images_indexed: int | None = None
    repairs: tuple[Repair, ...] = Field(default=(), description="damaged files that a start set aside and made anew")
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
