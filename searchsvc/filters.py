"""From a request's filter and scope to what the vector store evaluates."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from core.points import Kind, at_least, folded
from core.ports import Condition, Match, Range, Substring, Where
from core.schemas import Orientation
from searchsvc.filter_schema import GpsBox, SearchFilter
from searchsvc.search_schema import Scope

_KIND_OF_SCOPE: dict[Scope, tuple[Condition, ...]] = {
    "images": (Match("kind", (Kind.IMAGE.value,)),),
    "segments": (Match("kind", (Kind.SEGMENT.value,)),),
    "both": (),
}
_COUNTED = Match("orientation", tuple(Orientation))
"""True of every point whose labels are counted: a point of an earlier release, not brought up yet, matches no bound at all."""


def where_of(scope: Scope, wanted: SearchFilter | None, *, without_images: Sequence[str] = ()) -> Where:
    """The points that may match at all."""
    must, must_not = list(_KIND_OF_SCOPE[scope]), list[Condition]()
    if wanted is not None:
        must += _conditions(wanted)
        for label, count in (wanted.label_count or {}).items():
            must += [_found(label, count.gte)] if count.gte else [_COUNTED]
            must_not += [_found(label, count.lte + 1)] if count.lte is not None else []
        if wanted.gps_box is not None:
            must += _between(wanted.gps_box)
            must_not += _beside(wanted.gps_box)
    if without_images:
        must_not.append(Match("image_id", tuple(without_images)))
    return Where(must=tuple(must), must_not=tuple(must_not))


def _conditions(wanted: SearchFilter) -> list[Condition]:
    conditions: list[Condition] = []
    if wanted.folder:
        conditions.append(Match("folders", _folder_spellings(wanted.folder)))
    if wanted.name:
        conditions += [Substring("names", part) for part in _name_parts(wanted.name)]
    if wanted.label:
        conditions.append(Match("labels", tuple(spelling for label in wanted.label for spelling in _spellings(label))))
    conditions += [_found(label, 1) for label in wanted.label_all or ()]
    if wanted.taken and (wanted.taken.start or wanted.taken.end):
        conditions.append(Range("taken_at", gte=wanted.taken.earliest_s, lte=wanted.taken.latest_s))
    if wanted.size:
        bounds = wanted.size.bounds().items()
        conditions += [Range(key, gte=low, lte=high) for key, (low, high) in bounds if low is not None or high is not None]
    if wanted.orientation:
        conditions.append(Match("orientation", wanted.orientation))
    return conditions


def _folder_spellings(folder: str) -> tuple[str, ...]:
    """As it is written, and as systems spell accents: those of Apple write the letter and its accent, others one letter for both."""
    return tuple(dict.fromkeys((folder, unicodedata.normalize("NFC", folder), unicodedata.normalize("NFD", folder))))


def _spellings(label: str) -> tuple[str, ...]:
    """Models call things in lower case; a profile of one's own may not."""
    return tuple(dict.fromkeys((label, label.lower())))


def _found(label: str, count: int) -> Match:
    return Match("label_counts", tuple(at_least(count, spelling) for spelling in _spellings(label)))


def _name_parts(pattern: str) -> tuple[str, ...]:
    """What `names` must hold, each: the first and the last piece of a pattern with `*` at the name's beginning and end."""
    first, *others = folded(pattern).split("*")
    if not others:
        return (first,)
    *inner, last = others
    return tuple(part for part in (first and f"/{first}", *inner, last and f"{last}/") if part)


def _between(box: GpsBox) -> list[Condition]:
    """Ranges, because the engine's own geo boxes leave out their edges, and Qdrant Edge 0.9 all of a box around the whole earth."""
    parallels = Range("lat", gte=box.south, lte=box.north)
    return [parallels] if box.west > box.east else [parallels, Range("lon", gte=box.west, lte=box.east)]


def _beside(box: GpsBox) -> list[Condition]:
    """What a box across the antimeridian leaves out, where anything is left: the meridians strictly between its edges."""
    if box.west <= box.east:
        return []
    return [Range("lon", gte=math.nextafter(box.east, math.inf), lte=math.nextafter(box.west, -math.inf))]


def shown_path(paths: list[str], wanted: SearchFilter | None) -> str | None:
    """Of an image's paths the one to show: that which lies in the folder, and has the name, that was asked for."""

    within = tuple(f"{folder}/" for folder in _folder_spellings(wanted.folder)) if wanted and wanted.folder else ("",)

    def misses(path: str) -> int:
        if wanted is None:
            return 0
        name = f"/{folded(PurePosixPath(path).name)}/"
        in_folder = path.startswith(within)
        named = not wanted.name or all(part in name for part in _name_parts(wanted.name))
        return (not in_folder) + (not named)

    return min(paths, key=misses, default=None)
