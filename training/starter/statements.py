"""Statements about COCO photos, made of COCO-QA's questions and answers (Ren, Kiros, Zemel 2015).

Each question was cut by program out of a caption that a person wrote: "what is leaping to catch a red frisbee", "dog". Put together
again they say most of what the caption said: "a dog is leaping to catch a red frisbee".
"""

import re
from collections.abc import Iterator
from pathlib import Path

NOUN, NUMBER, COLOUR, PLACE = "0", "1", "2", "3"
"""COCO-QA's types of question."""
AUXILIARY = frozenset(["is", "are", "was", "were", "does", "do", "did", "has", "have", "can"])
SUBJECT = re.compile(
    "the|an?|this|these|those|that|his|her|their|its|it|they|he|she|some|many|two|three|four|several|person|people|m[ae]n|wom[ae]n|"
    "boys?|girls?|child|children|someone|guy|kid|lady|player|couple|group"
)
"""After an auxiliary, such a word means that the answer is the object: "what is the player pitching", "ball"."""


def statements(folder: Path) -> dict[int, list[str]]:
    """By COCO's image id. `folder` holds COCO-QA's `train` and `test`, each with questions, img_ids, answers and types, a line each."""
    found: dict[int, list[str]] = {}
    for split in ("train", "test"):
        columns = (_lines(folder / split / f"{name}.txt") for name in ("img_ids", "types", "questions", "answers"))
        for image_id, kind, question, answer in zip(*columns, strict=True):
            found.setdefault(int(image_id), []).append(statement(kind, question, answer))
    return {image_id: sorted(set(texts)) for image_id, texts in found.items()}


def statement(kind: str, question: str, answer: str) -> str:
    words = question.split()
    if kind == NUMBER:  # how many
        return tidy([answer, *words[2:]])
    if kind == COLOUR:  # what is the color of the
        return tidy([answer, *words[6:]])
    if kind == PLACE:  # where is
        return tidy([*words[2:], "in", "the", answer])
    named = [answer] if re.search("[^sui]s$", answer) else ["a", answer]
    if words[0] != "what" and "what" in words:
        gap = words.index("what")
        return tidy([*words[:gap], *named, *words[gap + 1 :]])
    if len(words) > 2 and words[1] in AUXILIARY and SUBJECT.fullmatch(words[2]):
        return tidy([*words[2:], ",", *named])
    return tidy([*named, *words[1:]])


def tidy(words: list[str]) -> str:
    """COCO-QA's tokens as people write them."""
    text = re.sub(r" (n't|'s|'re|'ll|[,.;:])", r"\1", " ".join(words))
    return re.sub(r"^a (?=[aeiou])", "an ", text)


def _lines(path: Path) -> Iterator[str]:
    return iter(path.read_text(encoding="utf-8").splitlines())
