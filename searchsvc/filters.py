"""From a request's filter and scope to what the vector store evaluates."""

from __future__ import annotations

from core.points import Kind
from core.ports import Condition, Match, Range, Where
from searchsvc.schemas import Scope, SearchFilter, SizeFilter

_KIND_OF_SCOPE: dict[Scope, tuple[Condition, ...]] = {
    "images": (Match("kind", (Kind.IMAGE.value,)),),
    "segments": (Match("kind", (Kind.SEGMENT.value,)),),
    "both": (),
}


def where_of(scope: Scope, wanted: SearchFilter | None, *, without_image: str | None = None) -> Where:
    """The points that may match at all."""
    conditions = list(_KIND_OF_SCOPE[scope])
    if wanted is not None:
        conditions += _conditions(wanted)
    excluded = (Match("image_id", (without_image,)),) if without_image else ()
    return Where(must=tuple(conditions), must_not=excluded)


def _conditions(wanted: SearchFilter) -> list[Condition]:
    conditions: list[Condition] = []
    if wanted.folder:
        conditions.append(Match("folders", (wanted.folder,)))
    if wanted.label:
        spellings = dict.fromkeys(spelling for label in wanted.label for spelling in (label, label.lower()))
        conditions.append(Match("labels", tuple(spellings)))
    if wanted.taken and (wanted.taken.start or wanted.taken.end):
        conditions.append(Range("taken_at", gte=wanted.taken.earliest_s, lte=wanted.taken.latest_s))
    if wanted.size:
        conditions += _ranges(wanted.size)
    return conditions


def _ranges(size: SizeFilter) -> list[Condition]:
    bounds = {
        "width": (size.min_width, size.max_width),
        "height": (size.min_height, size.max_height),
        "bytes": (size.min_bytes, size.max_bytes),
    }
    return [Range(key, gte=low, lte=high) for key, (low, high) in bounds.items() if low is not None or high is not None]


def shown_path(paths: list[str], wanted: SearchFilter | None) -> str | None:
    """Of an image's paths the one to show: where a folder was asked for, the one that lies there."""
    if wanted is not None and wanted.folder:
        within = [path for path in paths if path.startswith(f"{wanted.folder}/")]
        paths = within or paths
    return paths[0] if paths else None
