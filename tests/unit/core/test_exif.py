"""Where a picture was taken, and how little a picture's EXIF can do beside telling it."""

from __future__ import annotations

import io
from typing import Any

import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from core.decode import DecodeLimits, decode, read_location
from core.exif import Coordinates, Exif
from core.schemas import Orientation

LIMITS = DecodeLimits()
SYDNEY = {"lat": (33.0, 51.0, 25.2), "lat_ref": "S", "lon": (151.0, 12.0, 54.0), "lon_ref": "E"}


def taken_at(
    *,
    lat: Any = None,
    lat_ref: Any = None,
    lon: Any = None,
    lon_ref: Any = None,
    image_format: str = "JPEG",
    turn: int | None = None,
) -> bytes:
    """A picture that says so in its GPS directory; what is None is left out."""
    gps = {
        ExifTags.GPS.GPSLatitude: lat,
        ExifTags.GPS.GPSLatitudeRef: lat_ref,
        ExifTags.GPS.GPSLongitude: lon,
        ExifTags.GPS.GPSLongitudeRef: lon_ref,
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"  # Pillow writes no EXIF that has but directories
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({tag: value for tag, value in gps.items() if value is not None})
    if turn is not None:
        exif[ExifTags.Base.Orientation] = turn
    written = io.BytesIO()
    Image.new("RGB", (32, 16), "navy").save(written, image_format, exif=exif)
    return written.getvalue()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "HEIF"])
def test_the_position_is_read_from_every_format_that_carries_it(image_format: str) -> None:
    pillow_heif.register_heif_opener()
    picture = taken_at(**SYDNEY, image_format=image_format)
    expected = Coordinates(lat=-33.857, lon=151.215)
    assert decode(picture, LIMITS).facts.location == expected
    assert read_location(picture) == expected


@pytest.mark.parametrize(
    ("lat_ref", "lon_ref", "lat", "lon"), [("N", "E", 1.5, 2.25), ("S", "W", -1.5, -2.25), ("n\0", " w", 1.5, -2.25)]
)
def test_hemispheres_give_the_signs(lat_ref: str, lon_ref: str, lat: float, lon: float) -> None:
    found = read_location(taken_at(lat=(1.0, 30.0, 0.0), lat_ref=lat_ref, lon=(2.0, 15.0, 0.0), lon_ref=lon_ref))
    assert found == Coordinates(lat=lat, lon=lon)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"lat": None}, id="no latitude"),
        pytest.param({"lon_ref": None}, id="no hemisphere"),
        pytest.param({"lat_ref": "E"}, id="the wrong hemisphere"),
        pytest.param({"lat_ref": "NS"}, id="both hemispheres"),
        pytest.param({"lat_ref": ""}, id="an empty hemisphere"),
        pytest.param({"lat": (91.0, 0.0, 0.0)}, id="beyond the pole"),
        pytest.param({"lat": (90.0, 0.0, 1.0)}, id="a second beyond the pole"),
        pytest.param({"lon": (180.0, 0.0, 0.5)}, id="beyond the antimeridian"),
        pytest.param({"lat": (33.0, 61.0, 0.0)}, id="61 minutes"),
        pytest.param({"lat": (33.0, 0.0, 99.0)}, id="99 seconds"),
        pytest.param({"lat": (33.0, 51.0)}, id="two parts"),
        pytest.param({"lat": 33.5}, id="one number"),
        pytest.param({"lat": ((0, 0), (0, 0), (0, 0))}, id="nought by nought"),
        pytest.param({"lat": (0.0, 0.0, 0.0), "lon": (0.0, 0.0, 0.0)}, id="a receiver without a fix"),
    ],
)
def test_a_position_that_is_none_is_absent(change: dict[str, Any]) -> None:
    fields = {**SYDNEY, **change}
    try:
        picture = taken_at(**fields)
    except Exception:  # noqa: BLE001 - Pillow does not write everything that a hostile file may hold
        picture = None
    gps = {
        ExifTags.GPS.GPSLatitude: fields["lat"],
        ExifTags.GPS.GPSLatitudeRef: fields["lat_ref"],
        ExifTags.GPS.GPSLongitude: fields["lon"],
        ExifTags.GPS.GPSLongitudeRef: fields["lon_ref"],
    }
    assert _exif_of(gps).location is None
    assert picture is None or read_location(picture) is None


@pytest.mark.parametrize(("degrees", "expected"), [((90.0, 0.0, 0.0), 90.0), ((89.0, 59.0, 60.0), 90.0), ((0.0, 0.0, 0.0), 0.0)])
def test_the_edges_of_the_earth_belong_to_it(degrees: tuple[float, float, float], expected: float) -> None:
    found = read_location(taken_at(**{**SYDNEY, "lat": degrees}))
    assert found == Coordinates(lat=-expected, lon=151.215)
    assert str(found.lat) != "-0.0"


def test_a_broken_position_costs_neither_date_nor_uprightness() -> None:
    picture = taken_at(**{**SYDNEY, "lat": (99.0, 0.0, 0.0)}, turn=6)
    decoded = decode(picture, LIMITS)
    assert (decoded.facts.width, decoded.facts.height, decoded.facts.location) == (16, 32, None)


class _HostileExif(dict[int, Any]):
    def __init__(self, gps: Any) -> None:
        super().__init__()
        self._gps = gps

    def get_ifd(self, tag: int) -> Any:
        if isinstance(self._gps, Exception):
            raise self._gps
        return self._gps


class _Opened:
    """As much of a picture as is asked for its EXIF."""

    def __init__(self, exif: Any) -> None:
        self._exif = exif

    def getexif(self) -> Any:
        if isinstance(self._exif, Exception):
            raise self._exif
        return self._exif


def _exif_of(gps: Any) -> Exif:
    return Exif.of(_Opened(_HostileExif(gps)))  # type: ignore[arg-type]


ODD = st.none() | st.text(max_size=5) | st.binary(max_size=5) | st.floats() | st.integers() | st.tuples() | st.just((1, 2, "x"))
ANGLE = ODD | st.tuples(st.floats(), st.floats(), st.floats())


@given(lat=ANGLE, lon=ANGLE, lat_ref=ODD | st.sampled_from("NS"), lon_ref=ODD | st.sampled_from("EW"))
def test_whatever_stands_there_is_a_place_on_the_earth_or_none(lat: Any, lon: Any, lat_ref: Any, lon_ref: Any) -> None:
    found = _exif_of(
        {
            ExifTags.GPS.GPSLatitude: lat,
            ExifTags.GPS.GPSLatitudeRef: lat_ref,
            ExifTags.GPS.GPSLongitude: lon,
            ExifTags.GPS.GPSLongitudeRef: lon_ref,
        }
    ).location
    assert found is None or (-90 <= found.lat <= 90 and -180 <= found.lon <= 180)


@pytest.mark.parametrize("error", [ValueError("damaged"), KeyError("gone"), RecursionError(), SyntaxError("not a TIFF")])
def test_a_reader_that_fails_costs_nothing_but_what_it_read(error: Exception) -> None:
    assert _exif_of(error) == Exif()
    assert Exif.of(_Opened(error)) == Exif()  # type: ignore[arg-type]


def test_of_bytes_that_are_no_picture_nothing_is_told() -> None:
    assert read_location(b"") is None
    assert read_location(b"no picture at all") is None


@pytest.mark.parametrize(("size", "orientation"), [((2, 1), "landscape"), ((1, 2), "portrait"), ((2, 2), "square")])
def test_the_longer_side_gives_the_orientation(size: tuple[int, int], orientation: str) -> None:
    assert Orientation.of(*size) == orientation
