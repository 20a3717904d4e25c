"""What the starter's recipe makes of COCO-QA's questions and of a detector's boxes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch")

from training.starter.objects import Objects, spoken
from training.starter.statements import COLOUR, NOUN, NUMBER, PLACE, statement, statements

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("kind", "question", "answer", "expected"),
    [
        (NOUN, "what is leaping to catch a red frisbee", "dog", "a dog is leaping to catch a red frisbee"),
        (NOUN, "what are eating in their wooden pen", "sheep", "a sheep are eating in their wooden pen"),
        (NOUN, "what is standing near the pile", "elephant", "an elephant is standing near the pile"),
        (
            NOUN,
            "what is the baseball player pitching during a game",
            "ball",
            "the baseball player pitching during a game, a ball",
        ),
        (NOUN, "the man riding what on top of a slope", "snowboard", "the man riding a snowboard on top of a slope"),
        (NUMBER, "how many giraffes is walking through a field", "three", "three giraffes is walking through a field"),
        (COLOUR, "what is the color of the bus", "red", "red bus"),
        (
            PLACE,
            "where is the girl sitting while she 's on her phone",
            "chair",
            "the girl sitting while she's on her phone in the chair",
        ),
    ],
)
def test_a_question_and_its_answer_become_a_statement(kind: str, question: str, answer: str, expected: str) -> None:
    assert statement(kind, question, answer) == expected


def test_statements_are_gathered_by_image_from_both_splits(tmp_path: Path) -> None:
    for split, question in (("train", "what is parked near the curb"), ("test", "what is the color of the bus")):
        folder = tmp_path / split
        folder.mkdir()
        columns = {"img_ids": "7", "types": "0" if split == "train" else "2", "questions": question, "answers": "bus"}
        for name, line in columns.items():
            (folder / f"{name}.txt").write_text(line + "\n")
    assert statements(tmp_path) == {7: ["a bus is parked near the curb", "bus bus"]}


def test_boxes_become_a_table_and_a_phrase(tmp_path: Path) -> None:
    path = tmp_path / "objects.json"
    boxes = {"a.jpg": [[1, 0.9], [1, 0.5], [0, 0.4], [0, 0.1]]}
    path.write_text(json.dumps({"names": ["person", "dog"], "boxes": boxes}))
    objects = Objects.load(path)
    assert objects.present(["a.jpg", "unseen.jpg"]).tolist() == [pytest.approx([0.4, 0.9]), [0.0, 0.0]]
    assert spoken(objects.found["a.jpg"]) == "two dogs and a person"
    assert spoken({}) == ""
