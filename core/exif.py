"""What we use of a picture's EXIF (CIPA DC-008): which way is up, when and where it was taken. Nonsense counts as absent."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple, TypeVar

from PIL import ExifTags, Image

T = TypeVar("T")

# EXIF orientation to the transposition that undoes it (tag 0x0112)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = frozenset({_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]})
_DECIMALS = 7  # of a degree: a centimetre, more than any receiver knows


class Coordinates(NamedTuple):
    """A place on the earth (WGS 84), in degrees: what `core.schemas.Location` tells on the wire."""

    lat: float
    lon: float


@dataclass(frozen=True, slots=True)
class Exif:
    """`turn` makes the picture upright; None where it is, or nothing tells."""

    turn: Image.Transpose | None = None
    taken_at: datetime | None = None
    location: Coordinates | None = None

    @property
    def swaps_sides(self) -> bool:
        return self.turn in _QUARTER_TURNS

    @classmethod
    def of(cls, picture: Image.Image) -> Exif:
        """Read from an opened picture. Never raises: a picture is none the worse for damaged EXIF."""
        exif = _or_none(picture.getexif)
        if exif is None:
            return cls()
        return cls(
            turn=_or_none(lambda: _TURNS.get(exif.get(ExifTags.Base.Orientation, 1))),
            taken_at=_or_none(lambda: _taken_at(exif.get_ifd(ExifTags.IFD.Exif))),
            location=_or_none(lambda: _location(exif.get_ifd(ExifTags.IFD.GPSInfo))),
        )


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except Exception:  # noqa: BLE001 - damaged EXIF makes Pillow raise nearly anything, and each part fails by itself
        return None


def _taken_at(exif: Mapping[int, object]) -> datetime | None:
    """DateTimeOriginal with its offset; UTC where none is given. None when it is absent or no date."""
    moment = _text(exif.get(ExifTags.Base.DateTimeOriginal))
    offset = re.fullmatch(r"([+-])(\d\d):(\d\d)", _text(exif.get(ExifTags.Base.OffsetTimeOriginal)))
    try:
        taken_at = datetime.strptime(moment, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    if offset is None:
        return taken_at
    ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3])) * (-1 if offset[1] == "-" else 1)
    return taken_at.replace(tzinfo=timezone(ahead)) if abs(ahead) < timedelta(hours=24) else taken_at


def _location(gps: Mapping[int, object]) -> Coordinates | None:
    """Latitude and longitude with their hemispheres. None without all four, or at exactly 0, 0: what a receiver without a fix says."""
    lat = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "NS", 90)
    lon = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "EW", 180)
    if lat is None or lon is None or lat == lon == 0:
        return None
    return Coordinates(lat, lon)


def _degrees(angle: object, hemisphere: object, hemispheres: str, most: float) -> float | None:
    """Signed degrees of (degrees, minutes, seconds), each of which may be a fraction; None for what is no such angle."""
    reference = _text(hemisphere).upper()
    if not isinstance(angle, tuple) or len(angle) != 3 or len(reference) != 1 or reference not in hemispheres:
        return None
    degrees, minutes, seconds = (float(part) for part in angle)
    value = degrees + minutes / 60 + seconds / 3600
    if not math.isfinite(value) or min(degrees, minutes, seconds) < 0 or minutes > 60 or seconds > 60 or value > most:
        return None
    return round(-value if reference == hemispheres[1] else value, _DECIMALS) + 0.0  # never -0.0


def _text(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip("\0 ")
