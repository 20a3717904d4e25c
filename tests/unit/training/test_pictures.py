from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checkpoints import synthetic_picture
from training.options import LabelledOptions
from training.pictures import (
    Captioned,
    Labelled,
    UnusablePictures,
    captioned,
    labelled,
    one_set,
    query_and_gallery,
    read,
    readable,
    split_captioned,
    split_labels,
    split_pictures,
)
from training.splits import parts

PICTURE = synthetic_picture("red", "circle", 24, seed=0)


def laid(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(PICTURE)
    return folder


def of_sizes(*sizes: int) -> Labelled:
    rows = [(label, n) for label, size in enumerate(sizes) for n in range(size)]
    names = tuple(f"label {label}" for label in range(len(sizes)))
    return Labelled(tuple(Path(f"{label}/{n}.jpg") for label, n in rows), tuple(label for label, _ in rows), names)


def test_a_folder_per_label_is_read_with_what_lies_deeper_and_without_what_is_hidden_or_no_picture(tmp_path: Path) -> None:
    laid(tmp_path, "cat/b.jpg", "cat/deep/a.PNG", "dog/c.webp", "dog/.hidden.jpg", ".cache/d.jpg", "dog/notes.txt")

    found = labelled(tmp_path)

    assert isinstance(found, Labelled)
    assert found.names == ("cat", "dog")
    assert [(path.name, found.names[label]) for path, label in zip(found.paths, found.labels, strict=True)] == [
        ("b.jpg", "cat"),
        ("a.PNG", "cat"),
        ("c.webp", "dog"),
    ]


def test_splits_above_the_labels_share_the_labels_numbers(tmp_path: Path) -> None:
    laid(tmp_path, "train/cat/a.jpg", "train/dog/b.jpg", "val/dog/c.jpg", "test/emu/d.jpg")

    found = labelled(tmp_path)

    assert isinstance(found, dict)
    assert set(found) == {"train", "validation", "test"}
    assert {split: (part.names, part.labels) for split, part in found.items()} == {
        "train": (("cat", "dog", "emu"), (0, 1)),
        "validation": (("cat", "dog", "emu"), (1,)),
        "test": (("cat", "dog", "emu"), (2,)),
    }
    assert one_set(tmp_path, "test").labels == (2,)
    with pytest.raises(UnusablePictures, match="test, train, validation"):
        one_set(tmp_path)


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8), seed=st.integers(0, 9))
def test_a_split_by_pictures_loses_none_and_shares_none(sizes: list[int], seed: int) -> None:
    found = of_sizes(*sizes)

    three = split_pictures(found, (0.2, 0.3), seed)

    assert sorted(path for part in three for path in part.paths) == sorted(found.paths)
    assert three == split_pictures(found, (0.2, 0.3), seed)
    for label, size in enumerate(sizes):
        assert three[1].labels.count(label) == round(size * 0.2)


@given(labels=st.integers(3, 30), seed=st.integers(0, 9))
def test_a_split_by_labels_puts_no_label_into_two(labels: int, seed: int) -> None:
    found = of_sizes(*[3] * labels)

    train, validation, test = (set(part.labels) for part in split_labels(found, (0.3, 0.3), seed))

    assert train | validation | test == set(range(labels))
    assert len(train) + len(validation) + len(test) == labels


def test_half_of_each_label_asks_for_the_other_half_and_a_lone_picture_does_neither() -> None:
    query, gallery = query_and_gallery(of_sizes(5, 1, 2), seed=1)

    assert [query.labels.count(label) for label in range(3)] == [2, 0, 1]
    assert [gallery.labels.count(label) for label in range(3)] == [3, 0, 1]
    assert not set(query.paths) & set(gallery.paths)
    with pytest.raises(UnusablePictures, match="no label has two"):
        query_and_gallery(of_sizes(1, 1), seed=1)


def _coco(folder: Path) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}, {"id": 11, "file_name": "gone.jpg"}],
        "annotations": [
            {"image_id": 9, "caption": "a dog "},
            {"image_id": 7, "caption": "a cat"},
            {"image_id": 9, "caption": "two, dogs"},
            {"image_id": 11, "caption": "nothing"},
        ],
    }
    (folder / "captions.json").write_text(json.dumps(content))
    return folder / "captions.json"


def _lines(folder: Path) -> Path:
    rows = [{"file": "a.jpg", "caption": "a cat"}, {"file": "b.jpg", "captions": ["a dog", "two, dogs"]}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return folder / "captions.jsonl"


def _table(folder: Path) -> Path:
    (folder / "captions.csv").write_text('\ufefffile,caption\na.jpg,a cat\nb.jpg,a dog\nb.jpg,"two, dogs"\n', encoding="utf-8")
    return folder / "captions.csv"


def _tokens(folder: Path) -> Path:
    (folder / "Flickr8k.token.txt").write_text("b.jpg#0\ta dog\nb.jpg#1\ttwo, dogs\na.jpg#0\ta cat\n")
    return folder / "Flickr8k.token.txt"


@pytest.mark.parametrize("written", [_coco, _lines, _table, _tokens])
def test_every_kind_of_captions_file_says_the_same(written: Callable[[Path], Path], tmp_path: Path) -> None:
    laid(tmp_path, "a.jpg", "b.jpg")

    found = captioned(tmp_path, written(tmp_path))

    assert isinstance(found, Captioned)
    assert [path.name for path in found.paths] == ["a.jpg", "b.jpg"]
    assert found.captions == (("a cat",), ("a dog", "two, dogs"))


def test_captions_may_name_splits(tmp_path: Path) -> None:
    laid(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    rows = ["file\tcaption\tsplit", "a.jpg\tone\ttrain", "b.jpg\ttwo\tdev", "c.jpg\tthree\ttest"]
    (tmp_path / "captions.tsv").write_text("\n".join(rows))

    found = captioned(tmp_path, tmp_path / "captions.tsv")

    assert isinstance(found, dict)
    assert {split: part.captions for split, part in found.items()} == {
        "train": (("one",),),
        "validation": (("two",),),
        "test": (("three",),),
    }


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.json", "{}", "cannot be read as captions"),
        ("c.jsonl", '{"caption": "x"}', "cannot be read as captions"),
        ("c.txt", "no tab here", "cannot be read as captions"),
        ("c.csv", "picture,words\na.jpg,x\n", "cannot be read as captions"),
        ("c.tsv", "file\tcaption\tsplit\na.jpg\tx\tholiday", "cannot be read as captions"),
        ("c.txt", "elsewhere.jpg\tx", "none of the 1 pictures"),
    ],
)
def test_captions_that_do_not_serve_are_told(name: str, content: str, said: str, tmp_path: Path) -> None:
    laid(tmp_path, "a.jpg")
    (tmp_path / name).write_text(content)

    with pytest.raises(UnusablePictures, match=said):
        captioned(tmp_path, tmp_path / name)


def test_captioned_pictures_split_without_loss() -> None:
    found = Captioned(tuple(Path(f"{n}.jpg") for n in range(11)), tuple((f"caption {n}",) for n in range(11)))

    train, validation = split_captioned(found, 0.2, seed=3)

    assert (len(train), len(validation)) == (9, 2)
    assert {(p, c) for part in (train, validation) for p, c in zip(part.paths, part.captions, strict=True)} == set(
        zip(found.paths, found.captions, strict=True)
    )


def test_a_file_that_is_no_picture_is_left_out_of_training_and_counted(tmp_path: Path) -> None:
    laid(tmp_path, *(f"{label}/{n}.jpg" for label in "ab" for n in range(10)))
    (tmp_path / "a" / "0.jpg").write_text("no picture")

    found = parts(LabelledOptions(pictures=tmp_path, name="x", validation_share=0.2, test_share=0.2))

    assert found.unreadable == 1
    assert len(found.train) + len(found.validation) + len(found.test) == 19
    assert readable([tmp_path / "a" / "0.jpg", tmp_path / "a" / "1.jpg", tmp_path / "gone.jpg"]) == [False, True, False]
    with pytest.raises(UnusablePictures, match=r"0\.jpg"):
        read(tmp_path / "a" / "0.jpg")


def test_a_folder_with_train_and_test_gets_its_validation_from_train(tmp_path: Path) -> None:
    laid(tmp_path, *(f"train/{label}/{n}.jpg" for label in "ab" for n in range(10)), "test/a/x.jpg", "test/b/y.jpg")

    found = parts(LabelledOptions(pictures=tmp_path, name="x", validation_share=0.2))

    assert (len(found.train), len(found.validation), len(found.test)) == (16, 4, 2)


@pytest.mark.parametrize("files", [["train/a/1.jpg"], ["validation/a/1.jpg", "test/a/1.jpg"], ["a/1.jpg"]])
def test_a_folder_with_too_little_to_hold_out_is_told(files: list[str], tmp_path: Path) -> None:
    with pytest.raises(UnusablePictures, match=r"wants train and test|no pictures are left"):
        parts(LabelledOptions(pictures=laid(tmp_path, *files), name="x"))


@pytest.mark.parametrize("strange", ["\u2028", "\x85", "\x0c"])
def test_a_caption_keeps_what_looks_like_the_end_of_a_line_and_is_none(tmp_path: Path, strange: str) -> None:
    laid(tmp_path, "a.png")
    caption = f"a{strange}b"
    (tmp_path / "c.jsonl").write_text(json.dumps({"file": "a.png", "caption": caption}, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "c.csv").write_text(f'file,caption\na.png,"{caption}"\na.png,"two\nlines"\n', encoding="utf-8")
    (tmp_path / "c.txt").write_text(f"a.png\t{caption}\n", encoding="utf-8")
    expected = {"c.jsonl": ((caption,),), "c.csv": ((caption, "two\nlines"),), "c.txt": ((caption,),)}
    for name, captions in expected.items():
        found = captioned(tmp_path, tmp_path / name)
        assert isinstance(found, Captioned)
        assert found.captions == captions


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.csv", "file,caption\na.png\n"),
        ("c.csv", "file,caption\na.png,a dog, running\n"),
        ("c.csv", f"file,caption\na.png,{'x' * 200_000}\n"),
        ("c.jsonl", '{"file": "a.png", "caption": null}'),
        ("c.json", '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": null}]}'),
    ],
)
def test_no_caption_is_learned_that_nobody_wrote(tmp_path: Path, name: str, text: str) -> None:
    laid(tmp_path, "a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(UnusablePictures, match="captions"):
        captioned(tmp_path, tmp_path / name)
