"""What ratings say about pictures: topics, grades, and TREC's qrels of them."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import log2
from typing import Any

from searchsvc.feedback import KeptRating, Rating

_Votes = dict[str, int]


def topic_of(rating: Rating) -> str:
    """Names what was asked. A query picture without a hash, of an earlier release, makes a topic of each search."""
    asked = dict(rating.query)
    if asked.get("picture") is True:
        asked["picture"] = rating.search_id
    canonical = json.dumps(asked, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return "q" + hashlib.sha256(canonical.encode()).hexdigest()[:16]


def grade_of(mean_rating: float) -> int:
    """A mean rating as a grade: below 5 not relevant (0), below 7 somewhat (1), below 9 relevant (2), else just right (3)."""
    return max(0, min(3, int((mean_rating - 3) / 2)))


def ndcg_at_10(shown: Sequence[str], grades: Mapping[str, int]) -> float | None:
    """How well the judged of the shown images were ordered, against the best order of all judged ones; None without a relevant one.

    The gain is `2 ** grade - 1`. Unjudged images are left out and the others move up (condensed lists: Sakai, SIGIR 2007), since
    people rate a few of what they see, and an image nobody rated was not found bad.
    """
    best = _dcg(sorted(grades.values(), reverse=True))
    return _dcg([grades[image_id] for image_id in shown if image_id in grades]) / best if best else None


def _dcg(grades: Sequence[int]) -> float:
    return sum((2.0**grade - 1) * weight for grade, weight in zip(grades, _DISCOUNTS, strict=False))


_DISCOUNTS = tuple(1 / log2(rank + 1) for rank in range(1, 11))


class JudgedPool:
    """Every topic's judged images; of each client the last rating of an image for a topic counts, and clients count alike."""

    def __init__(self) -> None:
        self._votes: defaultdict[str, defaultdict[str, _Votes]] = defaultdict(lambda: defaultdict(dict))
        self._asked: dict[str, Mapping[str, Any]] = {}

    def add(self, kept: KeptRating) -> None:
        rating = kept.rating
        topic = topic_of(rating)
        self._asked.setdefault(topic, rating.query)
        if rating.image_id is not None:
            self._votes[topic][rating.image_id][rating.client or kept.feedback_id] = rating.rating

    def grades(self, topic: str) -> dict[str, int]:
        """Grades by image."""
        if topic not in self._votes:
            return {}
        return {image_id: grade_of(sum(votes.values()) / len(votes)) for image_id, votes in self._votes[topic].items()}

    def qrels(self) -> Iterator[str]:
        """`topic 0 image_id grade`, as trec_eval reads it, in order of first appearance."""
        for topic in self._votes:
            for image_id, grade in self.grades(topic).items():
                yield f"{topic} 0 {image_id} {grade}\n"

    def topics(self) -> Iterator[str]:
        """`topic <tab> words <tab> everything asked as JSON`, in order of first appearance."""
        for topic, asked in self._asked.items():
            words = " ".join(str(asked.get("text", "")).split())
            yield f"{topic}\t{words}\t{json.dumps(asked, ensure_ascii=False, sort_keys=True)}\n"
