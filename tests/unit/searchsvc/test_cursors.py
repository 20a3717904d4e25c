"""A cursor holds all of a question, for a while, and for those who hold the key alone."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import InvalidRequest
from core.schemas import Space
from searchsvc.cursors import Continuation, Cursors
from searchsvc.filter_schema import SearchFilter
from searchsvc.keys import Key, KeyRing
from searchsvc.question import Question, Term
from searchsvc.ranking import Place
from searchsvc.search_schema import FeedbackUse

KEY = KeyRing([Key(None, b"key")])
SPACE = Space(collection="clip", model_name="CLIP", dim=4, text=True)
EVERYTHING = SearchFilter.model_validate(
    {
        "folder": "a/b",
        "name": "IMG_*ü.jpg",
        "label": ["dog", "cat"],
        "label_all": ["x"],
        "label_count": {"person": {"gte": 2}, "car": {"lte": 0}},
        "date": {"from": "2019-06-01", "to": "2019-08-31T10:00:00+02:00"},
        "size": {"min_width": 1000, "max_bytes": 5_000_000, "min_megapixels": 0.25},
        "orientation": "portrait",
        "gps_box": {"south": 41.8, "west": 12.3, "north": 42, "east": -12.6},
    }
)


@pytest.fixture
def continuation() -> Continuation:
    vector = np.array([0.1, -0.2, 0.3, 0.9274], np.float32)
    question = Question(
        space=SPACE,
        told={"text": "ein Löwe", "scope": "both"},
        vector=vector,
        terms=(Term(of="text", ref="ein Löwe", weight=1.0, vector=vector),),
        turned=vector[::-1].copy(),
        feedback=FeedbackUse(ratings=3, clients=2, rotation_degrees=1.5),
        scope="both",
        filter=EVERYTHING,
        left_out=("0" * 64,),
        min_score=0.1,
        collapse=True,
        diversity=0.5,
        explain=True,
    )
    place = Place(score=0.123456789012345, key="k", rank=7, near=frozenset({"k", "l"}))
    return Continuation(question=question, top_k=5, place=place, shown=("a", "b"), least=-0.25)


def test_all_of_a_question_comes_back_as_it_was(continuation: Continuation) -> None:
    cursors = Cursors(KEY, ttl_s=60)
    read = cursors.read(cursors.write(continuation))
    for name in Question.model_fields.keys() - {"vector", "turned", "terms"}:
        assert getattr(read.question, name) == getattr(continuation.question, name), name
    assert np.array_equal(read.question.vector, continuation.question.vector)
    assert np.array_equal(read.question.searched, continuation.question.searched)
    assert np.array_equal(read.question.terms[0].vector, continuation.question.vector)
    assert read.question.where() == continuation.question.where()
    assert (read.place, read.shown, read.least, read.top_k) == (continuation.place, ("a", "b"), -0.25, 5)


def test_it_expires_and_no_other_key_reads_it(continuation: Continuation) -> None:
    now = 1000.0
    cursors = Cursors(KEY, ttl_s=60, clock=lambda: now)
    cursor = cursors.write(continuation)
    now = 1059.0
    assert cursors.read(cursor).top_k == 5
    now = 1060.0
    with pytest.raises(InvalidRequest, match="expired"):
        cursors.read(cursor)
    with pytest.raises(InvalidRequest, match="not a cursor"):
        Cursors(KeyRing([Key(None, b"another key")]), ttl_s=60).read(cursor)
