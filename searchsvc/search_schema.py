"""What a search takes and gives."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from core.schemas import CONTENT_HASH_PATTERN, BBox, ImageId, Location, Orientation, Wire
from searchsvc.filter_schema import SearchFilter
from searchsvc.requests import Request, String

MAX_TEXT_CHARACTERS = 1000
MAX_TOP_K = 100
MAX_OFFSET = 10_000
MAX_EXAMPLES = 16
MAX_QUERY_PICTURES = 4
MAX_CURSOR_CHARACTERS = 900_000
"""An explained query of 37 terms of 2,048 numbers makes 560,000."""


def _normalised(value: object) -> object:
    return unicodedata.normalize("NFC", value.strip()) if isinstance(value, str) else value


Text = Annotated[
    String,
    BeforeValidator(_normalised),
    Field(min_length=1, max_length=MAX_TEXT_CHARACTERS, description="trimmed and normalised (NFC); more characters are refused"),
]
Scope = Literal["images", "segments", "both"]
_Id = Annotated[StrictStr, Field(pattern=CONTENT_HASH_PATTERN)]
_SegmentNumber = Annotated[StrictInt, Field(ge=0, le=999_999)]
_Side = Annotated[StrictFloat, Field(allow_inf_nan=False)]
_Length = Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]
ModelName = Annotated[String, Field(min_length=1, max_length=200)]


# --- what is asked ---------------------------------------------------------------------------------------------------


class Example(Request):
    """An indexed picture, or a region of it, to stand for what is wanted or not wanted."""

    image_id: _Id
    segment: _SegmentNumber | None = Field(default=None, description="this region of it instead of the whole")


class QueryOptions(Request):
    """What is looked for, by whichever model; at least one of `text`, `image_id`, `like` and (in a form) `file` must be there."""

    text: Text | None = Field(default=None, description="what to look for, in words", examples=["tennis"])
    image_id: _Id | None = Field(default=None, description="more like this indexed image, which is itself left out")
    segment: _SegmentNumber | None = Field(default=None, description="of `image_id`: more like this region of it")
    region: tuple[_Side, _Side, _Length, _Length] | None = Field(
        default=None,
        description="`[x, y, width, height]` in pixels of the upright picture: ask by this part of the `file`, or of `image_id` alone",
        examples=[[120, 80, 64, 48]],
    )
    like: tuple[Example, ...] = Field(
        default=(), max_length=MAX_EXAMPLES, description="further examples of what is wanted; left out of the answer"
    )
    unlike: tuple[Example, ...] = Field(
        default=(), max_length=MAX_EXAMPLES, description="examples of what is not wanted; left out of the answer"
    )
    negative_text: Text | None = Field(default=None, description="what not to look for, in words")
    scope: Scope = Field(
        default="images", description="whole pictures, regions of them, or pictures by the whole and their best region together"
    )
    top_k: Annotated[StrictInt, Field(ge=1, le=MAX_TOP_K)] = Field(default=10, description="how many matches")
    min_score: Annotated[StrictFloat, Field(ge=-1, le=1, allow_inf_nan=False)] | None = Field(
        default=None, description="least score"
    )
    collapse: StrictBool = Field(default=False, description="near-duplicates stand as one match, which names the others")
    diversity: Annotated[StrictFloat, Field(ge=0, le=1)] = Field(
        default=0,
        description="0: by score alone; more: the best 200 are reordered so that each differs from those before it (MMR)",
    )
    explain: StrictBool = Field(default=False, description="let each match say what its score is made of")
    filter: SearchFilter | None = None
    feedback: StrictBool = Field(
        default=True, description="whether earlier ratings may turn the query; false: as if nothing had been rated"
    )


class SearchOptions(QueryOptions):
    """A search, or with `cursor` (and nothing else but `top_k`) the next page of an earlier one."""

    model: ModelName | None = Field(
        default=None, description="name or collection of the model to ask, in any case; default: the first that understands words"
    )
    offset: Annotated[StrictInt, Field(ge=0, le=MAX_OFFSET)] = Field(
        default=0, description="how many matches to skip; to page through results that change, use `cursor`"
    )
    cursor: Annotated[StrictStr, Field(min_length=1, max_length=MAX_CURSOR_CHARACTERS)] | None = Field(
        default=None, description="of an earlier answer: continue behind its last match. Nothing comes twice or is passed over"
    )


class CompareOptions(QueryOptions):
    """One question to two models."""

    models: tuple[ModelName, ModelName] = Field(description="names or collections", examples=[["CLIP", "ResNet"]])


# --- what is answered ------------------------------------------------------------------------------------------------


class SegmentView(Wire):
    """A region of a picture."""

    n: int
    label: str
    score: float = Field(description="how sure the segmenter is, 0..1")
    bbox: BBox = Field(description="`[x, y, width, height]` in pixels of the upright picture")
    area: float = Field(description="the mask's share of the picture")
    mask_url: str


TermKind = Literal["text", "negative_text", "image_id", "file", "region", "like", "unlike", "feedback"]


class TermView(Wire):
    """A part of the question, and what it adds to a match's score: `weight * similarity`."""

    of: TermKind
    ref: str = Field(description="the words; or the image id, with `/n` behind it for its region n; empty for feedback")
    weight: float
    similarity: float = Field(description="cosine similarity of this part and the point")


class Explanation(Wire):
    """Where a score comes from."""

    collection: str = Field(description="the vectors that were searched")
    point_id: str = Field(description="the point that the terms are compared with: the whole picture's or a region's")
    whole: float | None = Field(description="score of the whole picture, where it was looked at")
    region: float | None = Field(description="score of the best region, where regions were looked at")
    region_n: int | None = Field(description="which region that is")
    terms: tuple[TermView, ...] = Field(description="their `weight * similarity` add up to the score of the point")


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
    near_duplicates: tuple[ImageId, ...] = Field(default=(), description="with `collapse`: images that this one stands for")
    explanation: Explanation | None = Field(default=None, description="with `explain`")
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
    cursor: str | None = Field(default=None, description="asks for the next page; null where there is none")
    jwt: str = Field(description="rates this search, once")
    search_id: str
    took_ms: float
    notice: str | None = Field(default=None, description="what the user should know of the models, e.g. a fallback")
    feedback: FeedbackUse | None = Field(
        default=None, description="how earlier ratings turned the query; null where they did not"
    )


class ComparedImage(Wire):
    """An image that at least one of the two models found."""

    image_id: ImageId
    ranks: tuple[int | None, int | None] = Field(
        description="its rank with either model, from 1; null: not among the first `top_k`"
    )
    scores: tuple[float | None, float | None] = Field(description="of different models: not to be compared with each other")


class CompareAnswer(Wire):
    """What two models make of one question."""

    answers: tuple[SearchAnswer, SearchAnswer] = Field(description="in the order of `models`")
    images: tuple[ComparedImage, ...] = Field(description="by better rank")
    overlap: int = Field(description="how many images both found")
