"""Every operation of the public API, as `searchsvc.openapi` documents it; a test holds this table and the router together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel

from core.schemas import CONTENT_HASH_PATTERN, FailurePage, ImageStates, ImportAnswer, ImportRequest, ModelsCourse
from searchsvc.embeddings import DEFAULT_ANALYSES, DEFAULT_EMBEDDINGS, MAX_ANALYSES, MAX_EMBEDDINGS
from searchsvc.facets import DEFAULT_FACET_VALUES, MAX_FACET_VALUES, FacetField, FacetsAnswer
from searchsvc.feedback_export import ExportFormat
from searchsvc.feedback_views import FeedbackRecord, FeedbackReport
from searchsvc.forms import FILE, Json, form_schema
from searchsvc.image_events import ImageEvents, ImageEventsAnswer, example
from searchsvc.schemas import (
    AnalysesPage,
    EmbeddingsPage,
    FeedbackAnswer,
    FeedbackRequest,
    HealthReport,
    ImageView,
    Liveness,
    ModelsRequest,
    NoticesAnswer,
    NoticesRequest,
    SegmentRequest,
    SegmentsAnswer,
    StatesRequest,
    StatusAnswer,
    UploadAnswer,
)
from searchsvc.search_schema import MAX_QUERY_PICTURES, CompareAnswer, CompareOptions, SearchAnswer, SearchOptions
from searchsvc.thumbnails import DEFAULT_SIZE, SIZES
from searchsvc.urls import API


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer: a model as JSON, or another kind of content, or nothing."""

    status: int
    description: str
    model: type[BaseModel] | None = None
    media_types: tuple[str, ...] = ()
    """Instead of application/json; a model is then that of a line."""


@dataclass(frozen=True, slots=True)
class Operation:
    method: Literal["get", "post", "delete"]
    path: str
    tag: str
    name: str
    summary: str
    answers: tuple[Answer, ...]
    errors: tuple[int, ...] = ()
    request: type[BaseModel] | None = None
    form: Json | None = None
    parameters: tuple[Json, ...] = ()
    writes: bool = False
    private: bool = False
    description: str = ""
    examples: tuple[tuple[str, Json], ...] = ()


def _parameter(name: str, place: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": place, "required": place == "path", "schema": schema, "description": description}


_IMAGE_ID = _parameter("image_id", "path", {"type": "string", "pattern": CONTENT_HASH_PATTERN}, "SHA-256 of the file's bytes")
_SEGMENT = _parameter(
    "n", "path", {"type": "integer", "minimum": 0, "maximum": 999_999}, "the segment's number within the picture"
)
_SIZE = _parameter("size", "query", {"type": "integer", "enum": list(SIZES), "default": DEFAULT_SIZE}, "longest side in pixels")
_FAILURES = (
    _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "how many"),
    _parameter("offset", "query", {"type": "integer", "minimum": 0, "maximum": 100_000_000, "default": 0}, "how many to skip"),
    _parameter("ignored", "query", {"type": "boolean", "default": False}, "also files that are no pictures and were left alone"),
)

_EXPORT = (
    _parameter("format", "query", {"type": "string", "enum": list(ExportFormat), "default": "jsonl"}, "what lines to write"),
    _parameter(
        "since", "query", {"type": "string", "format": "date-time"}, "ratings from this time on; UTC where it has no offset"
    ),
    _parameter(
        "cursor", "query", {"type": "string", "pattern": "^[0-9]{1,15}$"}, "`jsonl`: continue behind the line with this cursor"
    ),
    _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 1_000_000}, "`jsonl`: at most so many lines"),
)
_EMBEDDINGS = (
    _parameter("model", "query", {"type": "string"}, "a model's name or collection; the first one's by default"),
    _parameter("cursor", "query", {"type": "string", "format": "uuid"}, "of the page before"),
    _parameter(
        "limit",
        "query",
        {"type": "integer", "minimum": 1, "maximum": MAX_EMBEDDINGS, "default": DEFAULT_EMBEDDINGS},
        "how many",
    ),
    _parameter("segments", "query", {"type": "boolean", "default": False}, "also those of the segments"),
)
_ANALYSES = (
    _EMBEDDINGS[1],
    _parameter(
        "limit", "query", {"type": "integer", "minimum": 1, "maximum": MAX_ANALYSES, "default": DEFAULT_ANALYSES}, "how many"
    ),
    _parameter("fingerprint", "query", {"type": "string"}, "of the page before"),
)
_EXPORTED = ("application/x-ndjson", "text/plain")

_FILTER: Json = {
    "type": "string",
    "contentMediaType": "application/json",
    "contentSchema": {"$ref": "#/components/schemas/SearchFilter"},
    "description": "a `SearchFilter` as JSON text",
}
_FACETS = (
    {**_parameter("field", "query", {"type": "string", "enum": list(get_args(FacetField))}, "what to count"), "required": True},
    _parameter("filter", "query", _FILTER, "count these pictures only; as JSON text"),
    _parameter(
        "limit",
        "query",
        {"type": "integer", "minimum": 1, "maximum": MAX_FACET_VALUES, "default": DEFAULT_FACET_VALUES},
        "how many values",
    ),
)

_UPLOAD_FORM: Json = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": FILE,
        "folder": {"type": "string", "description": "where in the watched folder; made if missing"},
        "backfill": {"type": "boolean", "default": False, "description": "one of many: it waits for all that is added otherwise"},
    },
}
SCHEMAS = "#/components/schemas/"
_SEARCH_FORM = form_schema(SearchOptions, ref_template=SCHEMAS + "{model}", most_files=MAX_QUERY_PICTURES)
_COMPARE_FORM = form_schema(CompareOptions, ref_template=SCHEMAS + "{model}", most_files=MAX_QUERY_PICTURES)

_JPEG_AND_OTHERS = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/heic", "image/tiff", "image/bmp")

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "post",
        f"{API}/search-image",
        "search",
        "searchImage",
        "Find pictures by words, by pictures, by regions, or by several of these together",
        (Answer(200, "what was found, best first", SearchAnswer),),
        errors=(400, 404, 409, 413, 415, 422, 503),
        request=SearchOptions,
        form=_SEARCH_FORM,
        description=(
            "At least one of `text`, `image_id`, `like` and `file` is needed; several are one combined query. Pictures are sent as "
            "`multipart/form-data`; the options are then form fields of the same names, where an empty one counts as not given. "
            "409: an image that is named is known and not indexed yet, or other models answer than when the `cursor` was given."
        ),
        examples=(
            ("words", {"text": "tennis"}),
            ("more and less like", {"image_id": "0" * 64, "segment": 2, "unlike": [{"image_id": "f" * 64}]}),
            ("varied", {"text": "beach", "collapse": True, "diversity": 0.3, "explain": True}),
            ("regions", {"text": "a red bag", "scope": "segments", "top_k": 20}),
            (
                "filtered",
                {"text": "beach", "negative_text": "people", "filter": {"folder": "2024", "date": {"from": "2024-06-01"}}},
            ),
            (
                "somewhere",
                {
                    "text": "friends at a table",
                    "filter": {
                        "label_count": {"person": {"gte": 2}},
                        "orientation": "landscape",
                        "gps_box": {"south": 41.8, "west": 12.3, "north": 42.0, "east": 12.6},
                    },
                },
            ),
        ),
    ),
    Operation(
        "post",
        f"{API}/compare-models",
        "search",
        "compareModels",
        "Ask two models the same",
        (Answer(200, "both answers, and where each image stands in them", CompareAnswer),),
        errors=(400, 404, 409, 413, 415, 422, 503),
        request=CompareOptions,
        form=_COMPARE_FORM,
        description="As a search, in either model's own space. 422: a model that understands no words was asked by words.",
        examples=(("two models", {"image_id": "0" * 64, "models": ["CLIP", "ResNet"]}),),
    ),
    Operation(
        "get",
        f"{API}/facets",
        "search",
        "getFacets",
        "The labels or folders that there are, with how many pictures have each",
        (Answer(200, "the most frequent first", FacetsAnswer),),
        errors=(422, 503),
        parameters=_FACETS,
        description="Under the filter of a search, so that what is offered next always finds something.",
    ),
    Operation(
        "post",
        f"{API}/create-feedback",
        "search",
        "createFeedback",
        "Rate a search, or one of its matches",
        (Answer(201, "kept; survives a power cut", FeedbackAnswer),),
        errors=(400, 401, 409, 413, 415, 422, 503, 507),
        request=FeedbackRequest,
        description=(
            "Each token counts once: the one beside `matches` rates the search, the one within a match rates that match. "
            "A refused rating (422) does not spend the token. 409: the token was spent before."
        ),
        examples=(("rating", {"user_feedback": 5, "jwt": "the token of the search"}),),
    ),
    Operation(
        "get",
        f"{API}/feedback",
        "feedback",
        "exportFeedback",
        "All ratings, as JSON Lines or as TREC's qrels",
        (Answer(200, "as `format` says; JSON Lines hold a `FeedbackRecord` each", FeedbackRecord, media_types=_EXPORTED),),
        errors=(401, 422, 503),
        parameters=_EXPORT,
        private=True,
        description=(
            "In the order in which they came, streamed. `jsonl`: each line carries a `cursor` behind which the next request continues. "
            "`qrels`: `topic 0 image_id grade`, grades 0 to 3 from mean ratings (below 5, 7, 9, and from 9). "
            "`topics`: topic, words, and all that was asked as JSON, with tabs between."
        ),
    ),
    Operation(
        "get",
        f"{API}/feedback/report",
        "feedback",
        "reportFeedback",
        "What people think of the results",
        (Answer(200, "means with intervals, nDCG@10 of what was shown, the worst queries", FeedbackReport),),
        errors=(401, 422, 503),
        parameters=_EXPORT[1:2],
        private=True,
    ),
    Operation(
        "post",
        f"{API}/images",
        "images",
        "uploadImage",
        "Add a picture to the watched folder",
        (Answer(202, "stored; it will be searchable soon", UploadAnswer),),
        errors=(400, 401, 413, 415, 422, 503, 507),
        form=_UPLOAD_FORM,
        writes=True,
        description="The same bytes twice are one image. A file of the same name is never replaced: the new one gets a longer name.",
    ),
    Operation(
        "post",
        f"{API}/image-states",
        "images",
        "getImageStates",
        "How far many images are, at once",
        (Answer(200, "those that are known, in any order", ImageStates),),
        errors=(400, 413, 415, 422, 503),
        request=StatesRequest,
        examples=(("some", {"image_ids": ["0" * 64], "paths": ["2024/a picture.jpg"]}),),
    ),
    Operation(
        "post",
        f"{API}/image-notices",
        "images",
        "noticeImages",
        "Have files looked at that lie in the watched folder, or the bucket, by now",
        (Answer(202, "they will be looked at, and overtake nothing", NoticesAnswer),),
        errors=(400, 401, 413, 415, 422, 503),
        request=NoticesRequest,
        writes=True,
        description="Without it they are found by themselves, at the next comparison of folder and ledger at the latest.",
        examples=(("one", {"paths": ["2024/a picture.jpg"]}),),
    ),
    Operation(
        "get",
        f"{API}/images/{{image_id}}",
        "images",
        "getImage",
        "How far an image is",
        (Answer(200, "its state", ImageView),),
        errors=(404, 503),
        parameters=(_IMAGE_ID,),
    ),
    Operation(
        "delete",
        f"{API}/images/{{image_id}}",
        "images",
        "deleteImage",
        "Delete an image: its files and all that was stored of it",
        (Answer(204, "gone"),),
        errors=(401, 404, 503, 507),
        parameters=(_IMAGE_ID,),
        writes=True,
    ),
    Operation(
        "post",
        f"{API}/image-events",
        "images",
        "takeImageEvents",
        "Be told by the bucket what happened to its objects",
        (Answer(202, "what was told of will be looked at", ImageEventsAnswer),),
        errors=(400, 401, 404, 413, 415, 422, 503),
        request=ImageEvents,
        writes=True,
        description="The webhook of an S3 service (`ObjectCreated:*`, `ObjectRemoved:*`): hints, of which nothing is believed but that a look "
        "is worth while. 404: the pictures lie in a folder.",
        examples=(("put", example("pictures", "2024/a+picture.jpg")),),
    ),
    Operation(
        "get",
        f"{API}/embeddings",
        "images",
        "exportEmbeddings",
        "The vectors of all pictures, page by page",
        (Answer(200, "in a fixed order, which new pictures do not change", EmbeddingsPage),),
        errors=(401, 422, 503),
        parameters=_EMBEDDINGS,
        private=True,
        description="Pass the answer's collection as `model` with its `cursor`: 422 tells then that other models answer by now.",
    ),
    Operation(
        "get",
        f"{API}/analyses",
        "images",
        "exportAnalyses",
        "All that the models found in the pictures, page by page, for an import elsewhere",
        (Answer(200, "in a fixed order, which new pictures do not change", AnalysesPage),),
        errors=(401, 409, 422, 503),
        parameters=_ANALYSES,
        private=True,
        description="Each is what `POST /api/v1/embeddings` of an installation with the same models takes. Pass the answer's `fingerprint` "
        "with its `cursor`: 409 tells then that other models answer by now.",
    ),
    Operation(
        "post",
        f"{API}/embeddings",
        "images",
        "importEmbeddings",
        "Have pictures that lie in the watched folder, or the bucket, found by vectors that were made elsewhere",
        (Answer(200, "what became of each", ImportAnswer),),
        errors=(400, 401, 409, 413, 415, 422, 503, 507),
        request=ImportRequest,
        writes=True,
        description="Of the pictures that are to be written some are embedded first, and compared: 422, and nothing is taken, where they "
        "differ. With vectors of the whole picture alone, the rest is made later, after all other pictures. 409: the models are changing.",
        examples=(
            ("one", {"given": [{"path": "2024/a picture.jpg", "embeddings": [{"collection": "clip", "vector": "AAAAAA=="}]}]}),
        ),
    ),
    Operation(
        "get",
        f"{API}/images/{{image_id}}/file",
        "images",
        "getImageFile",
        "The picture's file",
        (
            Answer(200, "the file", media_types=(*_JPEG_AND_OTHERS, "application/octet-stream")),
            Answer(206, "the part that `Range` asked for", media_types=(*_JPEG_AND_OTHERS, "application/octet-stream")),
            Answer(302, "where it is: a link into the bucket, for a while (`IMAGES_LINKS`)"),
            Answer(304, "not changed"),
        ),
        errors=(404, 416, 503, 507),
        parameters=(_IMAGE_ID,),
    ),
    Operation(
        "get",
        f"{API}/images/{{image_id}}/thumbnail",
        "images",
        "getThumbnail",
        "A small upright version of the picture",
        (Answer(200, "WEBP", media_types=("image/webp",)), Answer(304, "not changed")),
        errors=(404, 422, 503),
        parameters=(_IMAGE_ID, _SIZE),
    ),
    Operation(
        "get",
        f"{API}/images/{{image_id}}/segments",
        "images",
        "getSegments",
        "The regions found in the picture",
        (Answer(200, "none while the image is not indexed", SegmentsAnswer),),
        errors=(404, 503),
        parameters=(_IMAGE_ID,),
    ),
    Operation(
        "get",
        f"{API}/images/{{image_id}}/segments/{{n}}/mask",
        "images",
        "getMask",
        "A region's mask",
        (
            Answer(
                200,
                "grey and alpha are both the mask; at most 640 pixels on the long side, so scale it to the picture",
                media_types=("image/png",),
            ),
        ),
        errors=(404, 503),
        parameters=(_IMAGE_ID, _SEGMENT),
    ),
    Operation(
        "post",
        f"{API}/images/{{image_id}}/segment",
        "images",
        "segmentAgain",
        "Segment the picture again",
        (Answer(200, "the new regions", SegmentsAnswer),),
        errors=(400, 401, 404, 413, 415, 422, 503, 507),
        request=SegmentRequest,
        parameters=(_IMAGE_ID,),
        writes=True,
        examples=(("thoroughly", {"mode": "full"}),),
    ),
    Operation(
        "get",
        f"{API}/status",
        "operations",
        "getStatus",
        "How far ingestion is, and what is loaded",
        (Answer(200, "the status", StatusAnswer),),
        errors=(503,),
    ),
    Operation(
        "get",
        f"{API}/models",
        "operations",
        "getModels",
        "Which models answer, and how far a change of models is",
        (Answer(200, "the course", ModelsCourse),),
        errors=(503,),
    ),
    Operation(
        "post",
        f"{API}/models",
        "operations",
        "turnModels",
        "Stop, resume or revert a change of models, or drop what the models before made",
        (Answer(200, "the course by now", ModelsCourse),),
        errors=(400, 401, 409, 413, 415, 422, 503),
        request=ModelsRequest,
        writes=True,
        description="409: there is no such change, nothing to go back to or to drop, or the weights of the models before are gone.",
        examples=(("back", {"action": "revert"}),),
    ),
    Operation(
        "get",
        f"{API}/events",
        "operations",
        "streamStatus",
        "The status as server-sent events, whenever it changes",
        (
            Answer(
                200, "events `status` (the document of `/api/v1/status`) and `unavailable`", media_types=("text/event-stream",)
            ),
        ),
        errors=(503,),
    ),
    Operation(
        "get",
        f"{API}/failures",
        "operations",
        "listFailures",
        "Each file that is not indexed, and why",
        (Answer(200, "newest first", FailurePage),),
        errors=(422, 503),
        parameters=_FAILURES,
    ),
    Operation(
        "get", "/health", "operations", "getHealth", "What each part says of itself", (Answer(200, "always", HealthReport),)
    ),
    Operation(
        "get", "/health/live", "operations", "getLiveness", "Whether the process answers", (Answer(200, "it does", Liveness),)
    ),
    Operation(
        "get",
        "/health/ready",
        "operations",
        "getReadiness",
        "Whether a search could be answered now",
        (Answer(200, "it could", HealthReport),),
        errors=(503,),
    ),
    Operation(
        "get",
        "/metrics",
        "operations",
        "getMetrics",
        "Prometheus metrics",
        (Answer(200, "text exposition format", media_types=("text/plain",)),),
    ),
)
