"""What the indexed pictures have in common: labels and folders, with how many pictures have each."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from pydantic import Field, StrictInt

from core.ports import VectorStore
from core.schemas import Wire
from searchsvc.filter_schema import SearchFilter
from searchsvc.filters import where_of
from searchsvc.models import QueryModels
from searchsvc.requests import Request

FacetField = Literal["labels", "folders"]
MAX_FACET_VALUES = 1000
DEFAULT_FACET_VALUES = 100


class FacetsRequest(Request):
    field: FacetField
    filter: SearchFilter | None = None
    limit: Annotated[StrictInt, Field(ge=1, le=MAX_FACET_VALUES)] = DEFAULT_FACET_VALUES


class FacetView(Wire):
    value: str
    images: int = Field(description="how many pictures have it")


class FacetsAnswer(Wire):
    """The values of a field, the most frequent first, then by value."""

    field: FacetField
    images: int = Field(description="how many pictures the filter lets through")
    values: tuple[FacetView, ...] = Field(description="a picture counts once for each folder above it, and each label in it")
    more: bool = Field(description="whether there are more values than were asked for")


class Facets:
    """Counts whole pictures, in the first of the spaces: the others hold the same pictures."""

    def __init__(self, models: QueryModels, vectors: VectorStore) -> None:
        self._models = models
        self._vectors = vectors

    async def read(self, wanted: FacetsRequest) -> FacetsAnswer:
        """Raises NoModel, ModelUnavailable, VectorsUnavailable."""
        collection = (await self._models.info()).spaces[0].collection
        where = where_of("images", wanted.filter)
        images, counted = await asyncio.gather(
            self._vectors.count(collection, where=where),
            self._vectors.facet(collection, wanted.field, where=where, limit=wanted.limit + 1),
        )
        values = tuple(FacetView(value=one.value, images=one.points) for one in counted[: wanted.limit])
        return FacetsAnswer(field=wanted.field, images=images, values=values, more=len(counted) > wanted.limit)
