from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from pydantic_settings import CliApp

from core.decode import DecodeLimits, decode
from core.errors import NoModel
from tests.checkpoints import COLOURS, SHAPES, models_dir, synthetic_picture
from training.evaluation import embedding, subjects
from training.evaluation.evaluation import Evaluation
from training.evaluation.options import EvaluateOptions
from training.evaluation.run import evaluate
from training.pictures import UnusablePictures

COLOURS_SHOWN = ("red", "green", "blue")
EACH = 6


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MODELS_DIR with the tiny CLIP and the tiny ResNet: `clip` has both towers."""
    return models_dir(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per colour, with shapes in turn; one file is no picture."""
    folder = tmp_path_factory.mktemp("labelled")
    write_colours(folder, range(EACH))
    (folder / "red" / "notes.jpg").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captions file beside its pictures, two captions each."""
    folder = tmp_path_factory.mktemp("captioned")
    lines = list[str]()
    for colour, shape in product(COLOURS, SHAPES):
        (folder / f"{colour}-{shape}.jpg").write_bytes(synthetic_picture(colour, shape, 96, seed=3))
        lines += [f"{colour}-{shape}.jpg#{n}\t{start} {colour} {shape}" for n, start in enumerate(("a", "the"))]
    (folder / "captions.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture
def options(models: Path, tmp_path: Path) -> Callable[..., EvaluateOptions]:
    def make(**changed: object) -> EvaluateOptions:
        few = {"ways": 3, "shots": 2, "queries": 3, "episodes": 20}
        given = {"profile": "clip", "models_dir": models, "threads": 1, "report": tmp_path / "report", **few, **changed}
        return EvaluateOptions.model_validate(given)

    return make


@pytest.fixture(scope="module")
def measured(models: Path, labelled: Path, captioned: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    """Everything at once, with its report."""
    report = tmp_path_factory.mktemp("reports") / "clip"
    found = evaluate(
        EvaluateOptions(
            profile="clip",
            models_dir=models,
            labelled=labelled,
            captions=captioned / "captions.txt",
            pictures=captioned,
            ways=3,
            shots=2,
            queries=3,
            episodes=20,
            threads=1,
            report=report,
        )
    )
    return found, report


def write_colours(folder: Path, seeds: range) -> None:
    for colour in COLOURS_SHOWN:
        (folder / colour).mkdir(parents=True)
        for seed in seeds:
            (folder / colour / f"{seed}.jpg").write_bytes(synthetic_picture(colour, SHAPES[seed % 3], 96, seed=seed))


class Page(HTMLParser):
    """What a browser would load, say and show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, text: str) -> None:
        self.text.append(text.strip())

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_trained_model_finds_what_captions_and_names_ask_for(measured: tuple[Evaluation, Path]) -> None:
    found, _ = measured

    assert found.profile == "clip"
    assert found.captioned is not None
    assert (found.captioned.pictures, found.captioned.captions) == (18, 36)
    assert found.captioned.text_to_image.recall_at[5].mean > 85  # by chance 28
    assert found.captioned.image_to_text.recall_at[5].mean > 85
    assert found.labelled is not None
    assert (found.labelled.pictures, found.labelled.labels) == (EACH * 3, ("blue", "green", "red"))
    assert [names.template for names in found.labelled.zero_shot] == ["a photo of a {}", "{}"]
    assert found.labelled.zero_shot[0].scores.top_1.mean > 85


def test_every_image_tower_is_measured_side_by_side(measured: tuple[Evaluation, Path]) -> None:
    found, _ = measured

    assert [(tower.card.model_name, tower.text) for tower in found.towers] == [("CLIP", True), ("ResNet", False)]
    for tower in found.towers:
        assert tower.image_to_image is not None
        assert (tower.image_to_image.queries, tower.image_to_image.candidates) == (EACH * 3, EACH * 3 - 1)
        assert tower.few_shot is not None
        assert tower.few_shot.labels == 3
    assert [examples.title for examples in found.examples] == [
        "Text to image",
        "Image to text",
        "Image to image, CLIP",
        "Image to image, ResNet",
    ]


def test_what_cannot_be_read_is_left_out_and_named(measured: tuple[Evaluation, Path]) -> None:
    found, report = measured

    (skipped,) = found.skipped
    assert (skipped.path.name, skipped.reason) == ("notes.jpg", "this is not an image")
    assert "red/notes.jpg: this is not an image" in (report / "report.html").read_text()


def test_examples_are_right_where_they_say_so(measured: tuple[Evaluation, Path]) -> None:
    found, _ = measured

    of_clip = found.examples[2]
    assert len(of_clip.best) == 3  # no two of one label
    for example in (*of_clip.best, *of_clip.worst):
        assert example.wanted.words == example.query.words
        assert [hit.right for hit in example.hits] == [hit.shown.words == example.query.words for hit in example.hits]
        assert example.query.picture not in [hit.shown.picture for hit in example.hits]
        assert (example.rank == 1) == example.hits[0].right
    best, worst = found.examples[3].best, found.examples[3].worst
    assert max(example.rank for example in best) <= min(example.rank for example in worst)


def test_the_numbers_are_all_in_the_json(measured: tuple[Evaluation, Path]) -> None:
    found, report = measured

    numbers = json.loads((report / "report.json").read_text())

    assert numbers["format"] == 1
    assert found.captioned is not None
    assert numbers["captioned"]["text_to_image"]["recall_at"]["5"]["mean"] == found.captioned.text_to_image.recall_at[5].mean
    assert len(numbers["captioned"]["text_to_image"]["first_ranks"]) == 36
    card = numbers["towers"][0]["card"]
    assert (card["source"], card["model_name"]) == ("clip-vit-base-patch32", "CLIP")
    assert card["runtime"].startswith("torch")
    assert len(card["revision"]) >= 8
    assert np.sum(numbers["labelled"]["zero_shot"][0]["scores"]["confusion"]) == EACH * 3
    assert len(numbers["towers"][1]["few_shot"]["accuracies"]) == 20
    assert numbers["options"]["seed"] == found.options.seed
    assert {"numpy", "torch", "onnxruntime", "scipy"} <= numbers["versions"].keys()
    assert [skipped["reason"] for skipped in numbers["skipped"]] == ["this is not an image"]


def test_the_page_needs_nothing_beside_it(measured: tuple[Evaluation, Path]) -> None:
    _, report = measured
    text = (report / "report.html").read_text()

    page = Page(text)

    sources = [
        tag.get("src") or tag.get("srcset") or tag.get("href") for tag in (*page.of("img"), *page.of("source"), *page.of("a"))
    ]
    assert len(sources) > 40
    assert all(source and source.startswith("data:image/") for source in sources)
    assert not page.of("script")
    assert not page.of("link")
    assert not re.search(r"https?://|url\(", text)


def test_the_page_can_be_read_without_seeing_it(measured: tuple[Evaluation, Path]) -> None:
    _, report = measured

    page = Page((report / "report.html").read_text())

    assert page.of("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.of("img"))
    assert all(header["scope"] in {"row", "col"} for header in page.of("th"))
    assert len(page.of("caption")) == len(page.of("table")) == 5
    assert "clip: scores" in page.text
    assert {"Retrieval", "Zero-shot", "Few-shot", "Plots", "What the numbers mean"} <= set(page.text)


def test_plots_lie_beside_the_page_as_png(measured: tuple[Evaluation, Path]) -> None:
    _, report = measured

    drawn = {path.stem: path.read_bytes()[:8] for path in report.glob("*.png")}

    assert drawn.keys() == {"recall_captions", "ranks", "recall_labels", "few_shot", "confusion"}
    assert set(drawn.values()) == {b"\x89PNG\r\n\x1a\n"}


def test_the_same_seed_gives_the_same_report_to_the_byte(options: Callable[..., EvaluateOptions], labelled: Path) -> None:
    def written(seed: int) -> tuple[bytes, bytes]:
        report = evaluate(options(labelled=labelled, limit=15, seed=seed)).options.report
        return (report / "report.json").read_bytes(), (report / "report.html").read_bytes()

    first = written(1)

    assert written(1) == first
    assert written(2)[0] != first[0]


def test_a_limit_draws_pictures_by_seed(options: Callable[..., EvaluateOptions], labelled: Path, captioned: Path) -> None:
    given = {"labelled": labelled, "captions": captioned / "captions.txt", "pictures": captioned, "limit": 7}

    drawn = [subjects.find(options(seed=seed, **given)) for seed in (1, 1, 2)]

    for found in drawn:
        assert found.labelled is not None
        assert found.captioned is not None
        assert len(found.labelled.pictures) == len(found.captioned) == 7
    assert drawn[0].captioned == drawn[1].captioned
    assert drawn[0].captioned != drawn[2].captioned


def test_a_split_of_a_captions_file_and_of_a_folder_is_measured_alone(
    options: Callable[..., EvaluateOptions], tmp_path: Path, captioned: Path
) -> None:
    write_colours(tmp_path / "pictures" / "train", range(1))
    write_colours(tmp_path / "pictures" / "test", range(2, 4))
    lines = [{"file": f"{c}-circle.jpg", "caption": c, "split": "test" if c == "red" else "train"} for c in COLOURS_SHOWN]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))

    found = subjects.find(
        options(labelled=tmp_path / "pictures", captions=tmp_path / "captions.jsonl", pictures=captioned, split="test")
    )

    assert found.labelled is not None
    assert len(found.labelled.pictures) == 6
    assert found.labelled.leave_one_out
    assert found.captioned is not None
    assert found.captioned.captions == (("red",),)


def test_a_query_folder_is_searched_for_in_the_gallery(
    options: Callable[..., EvaluateOptions], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_colours(tmp_path / "pictures" / "query", range(2))
    write_colours(tmp_path / "pictures" / "gallery", range(2, 7))

    found = evaluate(options(labelled=tmp_path / "pictures"))

    scores = found.towers[0].image_to_image
    assert scores is not None
    assert (scores.queries, scores.candidates) == (6, 15)
    assert found.labelled is not None
    assert (found.labelled.pictures, found.labelled.leave_one_out) == (21, False)
    assert scores.recall_at[1].mean > 80
    for example in found.examples[0].best:
        assert example.query.picture is not None
        assert "query" in example.query.picture.parts
        assert all(hit.shown.picture and "gallery" in hit.shown.picture.parts for hit in example.hits)
    assert "image to image, CLIP" in capsys.readouterr().out


def test_words_may_stand_for_folder_names(options: Callable[..., EvaluateOptions], tmp_path: Path) -> None:
    for folder, colour in (("a_red", "red"), ("sky", "blue")):
        (tmp_path / "pictures" / folder).mkdir(parents=True)
        for seed in range(3):
            (tmp_path / "pictures" / folder / f"{seed}.jpg").write_bytes(synthetic_picture(colour, "circle", 96, seed=seed))
    (tmp_path / "names.json").write_text('{"sky": "blue", "grass": "green"}')

    found = evaluate(options(labelled=tmp_path / "pictures", names=tmp_path / "names.json", templates=["a {}"]))

    assert found.labelled is not None
    assert found.labelled.words == ("a red", "blue")
    assert found.labelled.zero_shot[0].scores.top_1.mean == 100
    assert found.towers[0].few_shot is None
    assert len(found.notes) == 2
    assert "grass" in found.notes[0]
    assert "Few-shot is not measured: fewer than 3 labels have 5 pictures" in found.notes[1]


def test_a_label_may_be_called_anything(options: Callable[..., EvaluateOptions], tmp_path: Path) -> None:
    names = ("<script>alert(1)&", "$5 and $6_", "靴")
    for name, colour in zip(names, COLOURS_SHOWN, strict=True):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for seed in range(5):
            (tmp_path / "pictures" / name / f"{seed}.jpg").write_bytes(synthetic_picture(colour, "circle", 96, seed=seed))

    report = evaluate(options(labelled=tmp_path / "pictures")).options.report

    page = Page((report / "report.html").read_text())
    assert set(names) <= set(page.text)
    assert not page.of("script")
    assert sorted(json.loads((report / "report.json").read_text())["labelled"]["labels"]) == sorted(names)


def test_labels_with_a_single_picture_have_no_image_to_image(options: Callable[..., EvaluateOptions], tmp_path: Path) -> None:
    write_colours(tmp_path / "pictures", range(1))

    found = evaluate(options(labelled=tmp_path / "pictures"))

    assert found.towers[0].image_to_image is None
    assert "Image to image is not measured" in found.notes[0]
    assert found.examples == ()
    assert "Retrieval" not in Page((found.options.report / "report.html").read_text()).text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "nothing to measure"),
        ({"captions": "captions.txt"}, "come together"),
        ({"pictures": "photos", "labelled": "photos"}, "come together"),
        ({"labelled": "photos", "templates": ["a photo"]}, "has no {}"),
    ],
)
def test_options_that_do_not_fit_are_told(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        EvaluateOptions.model_validate(given)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["{}"], ("{}",)),
        (["a photo of a {}", "the {}"], ("a photo of a {}", "the {}")),
        (['["a {}, on white", "{}"]'], ("a {}, on white", "{}")),
    ],
)
def test_templates_come_through_a_command_line(given: list[str], taken: tuple[str, ...]) -> None:
    arguments = ["--labelled", "photos", *(word for template in given for word in ("--templates", template))]

    assert CliApp.run(EvaluateOptions, cli_args=arguments).templates == taken


def test_the_options_are_known_without_torch() -> None:
    code = "import sys, training.evaluation.options; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_pictures_that_are_missing_are_told_before_a_model_is_loaded(
    options: Callable[..., EvaluateOptions], tmp_path: Path, captioned: Path, labelled: Path
) -> None:
    (tmp_path / "names.json").write_text('["red"]')
    (tmp_path / "splits.jsonl").write_text('{"file": "red-circle.jpg", "caption": "a red circle", "split": "test"}')
    absent = {"profile": "absent"}

    for given, said in (
        ({"labelled": tmp_path / "nowhere"}, "is no folder"),
        ({"captions": tmp_path / "nowhere.txt", "pictures": captioned}, "cannot be read as captions"),
        ({"captions": tmp_path / "splits.jsonl", "pictures": captioned}, "splits test: name one"),
        ({"labelled": labelled, "names": tmp_path / "names.json"}, "must be a JSON object"),
        ({"labelled": labelled, "names": tmp_path / "nowhere.json"}, "cannot be read as names"),
    ):
        with pytest.raises(UnusablePictures, match=re.escape(said)):
            evaluate(options(**absent, **given))


def test_a_folder_of_which_nothing_can_be_read_is_told(options: Callable[..., EvaluateOptions], tmp_path: Path) -> None:
    (tmp_path / "pictures" / "red").mkdir(parents=True)
    (tmp_path / "pictures" / "red" / "1.jpg").write_bytes(b"")

    with pytest.raises(UnusablePictures, match=r"none of the 1 pictures can be read.*the file is empty"):
        evaluate(options(labelled=tmp_path / "pictures"))


def test_a_model_that_is_not_here_is_not_downloaded(
    options: Callable[..., EvaluateOptions], labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    with pytest.raises(NoModel, match=r"nothing is downloaded.* network is switched off"):
        evaluate(options(labelled=labelled, models_dir=tmp_path))
    with pytest.raises(NoModel, match="MODELS_DIR/shoes") as error:
        evaluate(options(labelled=labelled, profile="shoes"))
    assert "looked at again" not in str(error.value)
    assert "HF_HUB_OFFLINE" not in os.environ


def test_a_picture_is_seen_as_the_service_sees_it(options: Callable[..., EvaluateOptions], labelled: Path) -> None:
    parts = embedding.load(options(labelled=labelled))
    path = labelled / "red" / "0.jpg"
    pixels = decode(path.read_bytes(), DecodeLimits()).pixels

    found = embedding.embed_pictures(parts.image_towers, [path], threads=1, shown="")

    assert len(found.vectors) == 2
    for tower, vectors in zip(parts.image_towers, found.vectors, strict=True):
        np.testing.assert_array_equal(vectors, tower.embed([tower.prepare(pixels)]))


def test_texts_of_any_length_keep_their_order(options: Callable[..., EvaluateOptions], labelled: Path) -> None:
    tower = embedding.load(options(labelled=labelled)).text_tower
    texts = [f"{'a photo of ' * (n % 3)}a {colour} {shape}" for n, (colour, shape) in enumerate(product(COLOURS, SHAPES))] * 3

    found = embedding.embed_texts(tower, texts, shown="")

    alone = np.concatenate([tower.embed_texts([text]) for text in texts])
    np.testing.assert_allclose(found, alone, atol=1e-5)
