"""What a match may be asked to be: the `filter` of searches and facets. All that is given must hold."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictFloat, StrictInt, model_validator

from searchsvc.requests import Request, String

MAX_LABELS = 50
_MAX_NAME_PARTS = 5


def _folder(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = PurePosixPath(value.strip().strip("/")).parts
    if ".." in parts or "\0" in value:
        raise ValueError("must be a folder within the watched one")
    return "/".join(parts)


def _name(value: str) -> str:
    parts = [part for part in value.split("*") if part]
    if not parts:
        raise ValueError("must be a part of a file's name")
    if "/" in value:
        raise ValueError("must be of a file's name, which holds no `/`: `folder` is for folders")
    if len(parts) > _MAX_NAME_PARTS:
        raise ValueError(f"must have at most {_MAX_NAME_PARTS} parts between `*`")
    return value


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _moment(value: object) -> object:
    """ISO 8601 text only: pydantic alone would also take a number for seconds since the epoch."""
    if isinstance(value, datetime | date):
        return value
    if not isinstance(value, str):
        raise ValueError("must be an ISO 8601 date or time")  # noqa: TRY004 - pydantic reports ValueError as an invalid field
    try:
        return date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("must be an ISO 8601 date or time") from None


def _one_or_several(items: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [items, {"type": "array", "items": items}, {"type": "null"}]}


Moment = Annotated[datetime | date, BeforeValidator(_moment)]
Label = Annotated[String, Field(min_length=1, max_length=200)]
Labels = Annotated[tuple[Label, ...], BeforeValidator(_several), Field(min_length=1, max_length=MAX_LABELS)]
Name = Annotated[String, AfterValidator(_name), Field(min_length=1, max_length=255)]
Side = Literal["landscape", "portrait", "square"]
Pixels = Annotated[StrictInt, Field(ge=0, le=1_000_000)]
Bytes = Annotated[StrictInt, Field(ge=0, le=2**53)]
Megapixels = Annotated[StrictFloat, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Latitude = Annotated[StrictFloat, Field(ge=-90, le=90, allow_inf_nan=False)]
Longitude = Annotated[StrictFloat, Field(ge=-180, le=180, allow_inf_nan=False)]
Count = Annotated[StrictInt, Field(ge=0, le=10_000)]


class DateFilter(Request):
    """When the picture was taken (its file's time where it does not say), in UTC where no offset is given."""

    start: Moment | None = Field(default=None, alias="from", description="a date or time; included")
    end: Moment | None = Field(default=None, alias="to", description="a date (its whole day is included) or time")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        earliest, latest = self.earliest_s, self.latest_s
        if earliest is not None and latest is not None and earliest > latest:
            raise ValueError("`from` lies after `to`")
        return self

    @property
    def earliest_s(self) -> float | None:
        return None if self.start is None else _seconds(self.start, time.min)

    @property
    def latest_s(self) -> float | None:
        return None if self.end is None else _seconds(self.end, time.max)


def _seconds(moment: datetime | date, of_day: time) -> float:
    at = moment if isinstance(moment, datetime) else datetime.combine(moment, of_day)
    if at.tzinfo is not None:
        return at.timestamp()
    return at.replace(tzinfo=UTC).timestamp()


class SizeFilter(Request):
    """Pixels of the upright picture, bytes of the file; each bound is included."""

    min_width: Pixels | None = None
    max_width: Pixels | None = None
    min_height: Pixels | None = None
    max_height: Pixels | None = None
    min_megapixels: Megapixels | None = Field(default=None, description="width by height, in millions")
    max_megapixels: Megapixels | None = None
    min_bytes: Bytes | None = None
    max_bytes: Bytes | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for low, high in self.bounds().values():
            if low is not None and high is not None and low > high:
                raise ValueError("a `min_` lies above its `max_`")
        return self

    def bounds(self) -> dict[str, tuple[float | None, float | None]]:
        """Least and most by payload field."""
        million = 1_000_000
        return {
            "width": (self.min_width, self.max_width),
            "height": (self.min_height, self.max_height),
            "pixels": (
                None if self.min_megapixels is None else self.min_megapixels * million,
                None if self.max_megapixels is None else self.max_megapixels * million,
            ),
            "bytes": (self.min_bytes, self.max_bytes),
        }


class CountFilter(Request):
    """How many segments of a label the picture has; each bound is included, and one of them must be there."""

    gte: Count | None = Field(default=None, description="at least so many")
    lte: Count | None = Field(default=None, description="at most so many; 0: none")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.gte is None and self.lte is None:
            raise ValueError("must have `gte` or `lte`")
        if self.gte is not None and self.lte is not None and self.gte > self.lte:
            raise ValueError("`gte` lies above `lte`")
        return self


class GpsBox(Request):
    """A part of the earth between two parallels and two meridians, in degrees (WGS 84); its edges belong to it.

    `west` above `east` is a box across the antimeridian, from `west` eastwards to `east`.
    """

    south: Latitude
    west: Longitude
    north: Latitude
    east: Longitude

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.south > self.north:
            raise ValueError("`south` lies north of `north`")
        return self


class SearchFilter(Request):
    """What a match must be; all that is given must hold. Of a region it is the picture that is meant, but for `label`."""

    folder: Annotated[String, BeforeValidator(_folder), Field(max_length=1024)] | None = Field(
        default=None, description="the picture lies in this folder or below it; relative to the watched one"
    )
    name: Name | None = Field(
        default=None,
        description="a part of the file's name, or with `*` for anything the beginning and the end: `IMG_*.jpg`; "
        "case does not count; parts between two `*` may come in any order",
        examples=["beach", "IMG_2*.jpg"],
    )
    label: Labels | None = Field(
        default=None,
        description="one label or several: one of them was found in the picture (with scope `segments`: is the segment's)",
        json_schema_extra=_one_or_several({"type": "string"}),
    )
    label_all: Labels | None = Field(
        default=None,
        description="one label or several: all of them were found in the picture",
        json_schema_extra=_one_or_several({"type": "string"}),
    )
    label_count: Annotated[dict[Label, CountFilter], Field(min_length=1, max_length=MAX_LABELS)] | None = Field(
        default=None, description="how often a label was found in the picture", examples=[{"person": {"gte": 2}}]
    )
    taken: DateFilter | None = Field(default=None, alias="date")
    size: SizeFilter | None = None
    orientation: Annotated[tuple[Side, ...], BeforeValidator(_several), Field(min_length=1, max_length=3)] | None = Field(
        default=None,
        description="one or several: which side of the upright picture is longer",
        json_schema_extra=_one_or_several({"type": "string", "enum": ["landscape", "portrait", "square"]}),
    )
    gps_box: GpsBox | None = Field(default=None, description="the picture tells where it was taken, and that lies in the box")
