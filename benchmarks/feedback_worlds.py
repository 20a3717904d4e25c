"""What simulated people look for: pictures, questions in several phrasings, and who would like what."""

from __future__ import annotations

import itertools
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.decode import DecodeLimits, decode
from model_service import onnx_encoder

_STARTER = Path(onnx_encoder.__file__).parent / "starter"
_LIMITS = DecodeLimits(max_bytes=2**26, max_pixels=2**26)
_BATCH = 32

Vectors = NDArray[np.float32]
Grades = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class World:
    """`pictures` (n, dim); `phrasings` (questions, phrasings, dim), each row the same question; `grades` (questions, n), 0 to 3."""

    name: str
    pictures: Vectors
    phrasings: Vectors
    grades: Grades

    @property
    def questions(self) -> int:
        return len(self.phrasings)


def synthetic(seed: int = 0, *, questions: int = 12, of_each: int = 25, dim: int = 64) -> World:
    """Pictures around a direction a question, words that point beside it, and all pictures in a cone apart from all words."""
    chance = np.random.default_rng(seed)
    subjects = _units(chance.normal(size=(questions, dim)))
    cone, apart = _units(chance.normal(size=(2, dim)))
    pictures = np.repeat(subjects, of_each, axis=0) + 0.2 * chance.normal(size=(questions * of_each, dim)) + 0.5 * cone
    meant = subjects + 0.26 * chance.normal(size=(questions, dim)) + 0.5 * apart
    phrasings = meant[:, None] + 0.03 * chance.normal(size=(questions, 6, dim))
    grades = 3 * np.kron(np.eye(questions, dtype=np.int64), np.ones(of_each, dtype=np.int64))
    return World("synthetic", _units(pictures), _units(phrasings), grades)


# --- real pictures, embedded by the starter model --------------------------------------------------------------------


_CLOTHES = {"longsleeve": "long sleeve shirt", "outwear": "jacket"}
_OF_CLOTHES = ("{}", "a photo of a {}", "a {}", "picture of a {}", "one {}", "a {} on its own")


def clothing(shared: Path) -> World:
    """The clothing set's validation and test pictures; a question a class, and its pictures alone are liked."""
    archives = sorted((shared / "data/clothing").glob("images-*.tar"))
    photos = {name: jpeg for name, jpeg in _members(archives) if name.startswith(("validation/", "test/"))}
    labels = [name.split("/")[1] for name in photos]
    classes = sorted(set(labels))
    grades = np.array([[3 * (label == wanted) for label in labels] for wanted in classes], dtype=np.int64)
    words = [[phrasing.format(_CLOTHES.get(name, name)) for phrasing in _OF_CLOTHES] for name in classes]
    return World("clothing", *_embedded(list(photos.values()), words), grades)


_OF_PAIRS = ("{0} {1}", "{1} {0}", "a photo of {0} and {1}", "{0} with {1}", "picture of a {0}, {1}", "a {0} {1}")
_SAY_LITTLE = frozenset(
    re.findall(
        r"\w+",
        "a an the in on of and with to is are at his her its their by for from while as up down it over out two three one man woman other"
        " another into wearing standing sitting looking through off near front behind next some group who that there he she they be being",
    )
)
_PAIRS_TUNED_ON = 40
"""The constants of `searchsvc.relevance` were chosen on so many of the pairs; they are left out here."""


def flickr(shared: Path) -> World:
    """Flickr8k's test and dev pictures; a question is two words, liked as many of a picture's five captions have both (3 at most)."""
    folder = shared / "data/flickr8k"
    captions: dict[str, list[str]] = {}
    for line in (folder / "text/Flickr8k.token.txt").read_text(encoding="utf-8").splitlines():
        key, caption = line.split("\t", 1)
        captions.setdefault(key.split("#")[0], []).append(caption)
    wanted = [set((folder / f"text/Flickr_8k.{split}Images.txt").read_text().split()) for split in ("test", "dev")]
    jpegs = dict(_members(sorted(folder.glob("images-*.tar"))))
    names = [name for split in wanted for name in sorted(split & jpegs.keys())]
    pairs, grades = _pairs([[_words(caption) for caption in captions[name]] for name in names])
    words = [[phrasing.format(*pair) for phrasing in _OF_PAIRS] for pair in pairs]
    return World("Flickr8k", *_embedded([jpegs[name] for name in names], words), grades)


def _pairs(said: Sequence[Sequence[set[str]]]) -> tuple[list[tuple[str, str]], Grades]:
    """Pairs of frequent words that 12 to 80 pictures have twice or more, in a seeded order, without those tuned on."""
    count = Counter(word for captions in said for word in set().union(*captions))
    common = [word for word, _ in count.most_common(150) if len(word) > 2]
    found = []
    for pair in itertools.combinations(common, 2):
        both = np.array([sum(caption.issuperset(pair) for caption in captions) for captions in said])
        if 12 <= (both >= 2).sum() <= 80:
            found.append((pair, np.minimum(both, 3)))
    kept = [found[place] for place in np.random.default_rng(0).permutation(len(found))[_PAIRS_TUNED_ON:]]
    return [pair for pair, _ in kept], np.stack([grades for _, grades in kept])


def _words(caption: str) -> set[str]:
    return set(re.findall(r"[a-z]+", caption.lower())) - _SAY_LITTLE


def _members(archives: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for archive in archives:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name.endswith(".jpg") and (content := tar.extractfile(member)) is not None:
                    yield member.name, content.read()


def _embedded(photos: Sequence[bytes], questions: Sequence[Sequence[str]]) -> tuple[Vectors, Vectors]:
    encoder = onnx_encoder.load(_STARTER, model_name=None, threads=1)
    prepared = (encoder.prepare(decode(photo, _LIMITS).pixels) for photo in photos)
    pictures = [encoder.embed(batch) for batch in iter(lambda: list(itertools.islice(prepared, _BATCH)), [])]
    return np.concatenate(pictures), np.stack([encoder.embed_texts(phrasings) for phrasings in questions])


def _units(vectors: NDArray[np.floating]) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)
