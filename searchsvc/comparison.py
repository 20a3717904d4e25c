"""Two answers to one question, image by image."""

from __future__ import annotations

from searchsvc.search_schema import CompareAnswer, ComparedImage, SearchAnswer

_NEVER = 10**6


def compared(one: SearchAnswer, other: SearchAnswer) -> CompareAnswer:
    """Where each image stands with either model; an image that shows several regions stands where its best does."""
    first, second = _places(one), _places(other)
    images = tuple(
        ComparedImage(
            image_id=image_id,
            ranks=(_rank(first, image_id), _rank(second, image_id)),
            scores=(_score(first, image_id), _score(second, image_id)),
        )
        for image_id in dict.fromkeys([*first, *second])
    )
    ordered = sorted(images, key=lambda image: sorted(rank or _NEVER for rank in image.ranks))
    return CompareAnswer(answers=(one, other), images=tuple(ordered), overlap=len(first.keys() & second.keys()))


_Places = dict[str, tuple[int, float]]


def _places(answer: SearchAnswer) -> _Places:
    places: _Places = {}
    for rank, match in enumerate(answer.matches, start=1):
        places.setdefault(match.image_id, (rank, match.score))
    return places


def _rank(places: _Places, image_id: str) -> int | None:
    return places[image_id][0] if image_id in places else None


def _score(places: _Places, image_id: str) -> float | None:
    return places[image_id][1] if image_id in places else None
