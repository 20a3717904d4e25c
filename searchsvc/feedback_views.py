"""What is told of ratings that were given: the lines of the export, and the report."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from core.schemas import ImageId, Wire


class ShownImage(Wire):
    """One of the images that a search showed."""

    rank: int = Field(ge=1, description="its place among the images found, from 1")
    image_id: ImageId
    score: float | None = Field(default=None, description="as it was shown; null in ratings of releases that did not keep it")


class FeedbackRecord(Wire):
    """One rating: a line of the export."""

    cursor: str = Field(description="`?cursor=` continues behind this line")
    feedback_id: str
    created_at: datetime
    search_id: str = Field(description="the same for all ratings of one search")
    topic: str = Field(description="names what was asked; equal for equal questions")
    asked: dict[str, Any] = Field(
        description="as asked, without what only shapes the answer; `picture` is the SHA-256 of a query picture, or of each"
    )
    model_name: str | None = Field(description="null in ratings of releases that did not keep it")
    collection: str
    shown: tuple[ShownImage, ...] = Field(
        description="best first; the rated one alone where the service forgot the search meanwhile"
    )
    image_id: ImageId | None = Field(description="the rated image; null where the whole search was rated")
    segment: int | None = Field(description="the rated region of it")
    rating: int = Field(ge=1, le=10)
    client: str | None = Field(description="a pseudonym: equal for ratings of one API key or network address")
    rotation_degrees: float = Field(description="how far earlier feedback had turned the query")


class Mean(Wire):
    """A mean with its 95 % interval (normal approximation; null below two values)."""

    mean: float
    low: float | None
    high: float | None
    of: int = Field(description="how many values")


class ModelReport(Wire):
    collection: str
    model_name: str | None
    searches: Mean | None = Field(description="ratings of whole searches, 1..10")
    images: Mean | None = Field(description="ratings of single images, 1..10")
    ndcg_at_10: Mean | None = Field(description="of what was shown, over searches with a relevant image judged")


class QueryReport(Wire):
    topic: str
    asked: dict[str, Any]
    ratings: int
    mean_rating: float
    ndcg_at_10: float | None


class ImageReport(Wire):
    image_id: ImageId
    ratings: int
    mean_rating: float


class FeedbackReport(Wire):
    """What people think of the results."""

    ratings: int
    clients: int = Field(description="API keys and network addresses that they came from")
    queries: int = Field(description="different questions that were rated")
    first_at: datetime | None
    last_at: datetime | None
    searches: Mean | None = Field(description="ratings of whole searches, 1..10")
    images: Mean | None = Field(description="ratings of single images, 1..10")
    ndcg_at_10: Mean | None = Field(description="of what was shown, over searches with a relevant image judged")
    models: tuple[ModelReport, ...] = Field(description="the same by model")
    worst_queries: tuple[QueryReport, ...] = Field(description="lowest mean rating first")
    most_rated_queries: tuple[QueryReport, ...]
    most_rated_images: tuple[ImageReport, ...]
