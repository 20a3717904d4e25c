"""What is looked for, and how it is said on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from core.schemas import BBox
from imagesearch.pictures import Picture, several
from searchsvc.filter_schema import SearchFilter
from searchsvc.search_schema import MatchView, Scope

Filter = SearchFilter | Mapping[str, object]
"""`{"folder": ..., "label": ..., "date": {"from": ..., "to": ...}, "size": {...}}`, as docs/reference/api.md tells."""
Example = str | tuple[str, int] | MatchView
"""The id of an indexed image; that and the number of its region; or a match, which stands for its region where it has one."""
DEFAULT_TOP_K = 10


@dataclass(frozen=True, slots=True)
class Question:
    """Says at least one of `text`, `picture`, `image_id` and `like`. An open file in it is read to its end when it is first asked."""

    text: str | None = None
    _: KW_ONLY
    picture: Picture | Sequence[Picture] | None = None
    """One, or up to four that count together."""
    image_id: str | None = None
    """More like this indexed image, which is itself left out."""
    segment: int | None = None
    """Of `image_id`: more like this region of it."""
    region: BBox | None = None
    """`(x, y, width, height)` in pixels of the upright picture: this part of the `picture`, or of `image_id`."""
    like: Sequence[Example] = ()
    """Further examples of what is wanted; left out of the answer."""
    unlike: Sequence[Example] = ()
    negative_text: str | None = None
    scope: Scope = "images"
    filter: Filter | None = None
    top_k: int = DEFAULT_TOP_K
    min_score: float | None = None
    collapse: bool = False
    """Near-duplicates stand as one match, which names the others."""
    diversity: float = 0
    """Up to 1: less of the same among the first."""
    explain: bool = False
    """Each match says what its score is made of."""
    feedback: bool = True
    """Whether earlier ratings may turn the question; False: as if nothing had been rated."""

    @property
    def pictures(self) -> tuple[Picture, ...]:
        return several(self.picture)

    def fields(self) -> dict[str, Any]:
        """All but the pictures, in JSON's types. What is not asked for is not said, so a service that does not know it yet answers."""
        said = {
            "text": self.text,
            "image_id": self.image_id,
            "segment": self.segment,
            "region": self.region and list(self.region),
            "like": [_named(example) for example in self.like] or None,
            "unlike": [_named(example) for example in self.unlike] or None,
            "negative_text": self.negative_text,
            "scope": self.scope,
            "filter": _filter(self.filter),
            "top_k": self.top_k,
            "min_score": None if self.min_score is None else float(self.min_score),
            "collapse": True if self.collapse else None,
            "diversity": float(self.diversity) or None,
            "explain": True if self.explain else None,
            "feedback": None if self.feedback else False,
        }
        return {name: value for name, value in said.items() if value is not None}


def _named(example: Example) -> dict[str, object]:
    if isinstance(example, str):
        return {"image_id": example}
    image_id, n = (example.image_id, example.segment and example.segment.n) if isinstance(example, MatchView) else example
    return {"image_id": image_id} if n is None else {"image_id": image_id, "segment": n}


def _filter(wanted: Filter | None) -> Mapping[str, object] | None:
    if isinstance(wanted, SearchFilter):
        return wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
    return wanted
