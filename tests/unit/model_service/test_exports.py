from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from core.decode import DecodeLimits
from core.decoding import DecodingProcesses
from core.threads import ThreadBudget
from model_service import encoders, exported
from model_service.exporting import parts
from model_service.exporting.making import Held, Part, Workshop, make
from model_service.exporting.pictures import drawn, gathered
from model_service.exports import RECORD, Agreement, Export, Exports, Kind, NotExported, Order, Wanted, read, run_process
from model_service.graphs import Graph
from model_service.runtimes import Choice, Precision, Runtime
from model_service.towers import PictureTower, TwoTowers
from model_service.weights import Checkpoint
from tests.faulty_decoding import faulty, png
from tests.unit.model_service.checkpoints import projection, tiny_bert, tiny_clip, tiny_resnet

TEXTS = ["a photo of the red dog", "cat", "the grass on the cat of a dog on a red cat of the grass on the grass of a cat", ""]
PICTURES = list(drawn(24, seed=1))
HELD = Held.of(list(drawn(96)), "drawn")


def choice(runtime: Runtime, *precisions: Precision) -> Choice:
    return Choice(runtime, "cpu", 1, (*precisions, Precision.FP32))


class Maker:
    """Makes exports in this process, and counts."""

    def __init__(self, spoilt: Callable[[Part], Part] = lambda part: part) -> None:
        self.made: list[Kind] = []
        self.told: list[str] = []
        self._spoilt = spoilt

    def __call__(self, order: Order) -> None:
        workshop = Workshop(order.models_dir, HELD, order.threads, self._tell)
        for wanted in order.wanted:
            self.made.append(wanted.kind)
            make(wanted, self._spoilt(parts.opened(wanted, HELD)), workshop)

    def _tell(self, event: str, *, level: str = "info", **_: object) -> None:
        self.told.append(event)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(tiny_clip(tmp_path_factory.mktemp("clip")), "tiny/clip", "0" * 16)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tiny_resnet(tmp_path_factory.mktemp("resnet"))
    projection(folder, 16, 10)
    return Checkpoint(folder, "tiny/resnet", "1" * 16)


def exports(models: Path, chosen: Choice, run: Callable[[Order], None]) -> Exports:
    return Exports(models, models / "no-images", chosen, can_quantise=True, run=run)


def pictures_of(models: Path, checkpoint: Checkpoint, chosen: Choice, run: Callable[[Order], None]) -> Export:
    made = exports(models, chosen, run)
    (export,) = made.have(made.wanted("images", checkpoint))
    return export


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray((one * other).sum(axis=1))


def embedded(tower: PictureTower | TwoTowers) -> np.ndarray:
    return tower.embed([tower.prepare(picture) for picture in PICTURES])


@pytest.mark.parametrize("runtime", [Runtime.OPENVINO, Runtime.ONNX])
def test_a_clip_in_float32_answers_as_in_torch(runtime: Runtime, clip: Checkpoint, tmp_path: Path) -> None:
    torch = encoders.load_dual_encoder(clip, device="cpu", model_name="CLIP")
    made = exports(tmp_path, choice(runtime), Maker())
    images, words = made.have(made.wanted("images", clip), made.wanted("words", clip))

    towers = exported.two_towers(images, words, clip, clip, model_name="CLIP", threads=ThreadBudget.of(2))

    assert towers.space == torch.space
    assert towers.at_once == 2
    assert images.record.preparation is not None
    assert words.record.wording is not None
    assert cosines(embedded(towers), embedded(torch)).min() > 0.9999
    assert cosines(towers.embed_texts(TEXTS), torch.embed_texts(TEXTS)).min() > 0.9999
    assert towers.card.runtime.startswith({"openvino": "openvino 20", "onnx": "onnxruntime 1"}[runtime])


@pytest.mark.parametrize("runtime", [Runtime.OPENVINO, Runtime.ONNX])
def test_more_threads_than_passes_at_once_get_each_their_own_vectors(
    runtime: Runtime, resnet: Checkpoint, tmp_path: Path
) -> None:
    export = pictures_of(tmp_path, resnet, choice(runtime), Maker())
    tower = exported.image_tower(export, resnet, model_name="ResNet", threads=ThreadBudget.of(2))
    batches = [[tower.prepare(picture)] * size for picture in PICTURES for size in (1, 3)]
    alone = [tower.embed(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(tower.embed, batches * 10))
    for found, expected in zip(together, alone * 10, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("runtime", [Runtime.OPENVINO, Runtime.ONNX])
def test_int8_is_used_where_it_agrees_and_says_how_well(runtime: Runtime, resnet: Checkpoint, tmp_path: Path) -> None:
    torch = encoders.load_image_tower(resnet, device="cpu", model_name="ResNet")
    maker = Maker()

    export = pictures_of(tmp_path, resnet, choice(runtime, Precision.INT8), maker)
    tower = exported.image_tower(export, resnet, model_name="ResNet", threads=ThreadBudget.of(2))

    found = cosines(embedded(tower), embedded(torch))
    assert tower.card.precision == "int8"
    assert 0.98 < found.mean() < 0.999999
    assert export.record.agreement is not None
    assert export.record.agreement.compared == len(HELD.comparing)
    assert export.record.agreement.mean == pytest.approx(found.mean(), abs=0.01)
    assert export.record.calibrated_on == "drawn"
    assert "export_calibrating" in maker.told


def test_bfloat16_is_used_where_int8_is_not_asked_for(clip: Checkpoint, tmp_path: Path) -> None:
    torch = encoders.load_dual_encoder(clip, device="cpu", model_name="CLIP")
    made = exports(tmp_path, choice(Runtime.OPENVINO, Precision.BF16), Maker())

    images, words = made.have(made.wanted("images", clip), made.wanted("words", clip))
    towers = exported.two_towers(images, words, clip, clip, model_name="CLIP", threads=ThreadBudget.of(2))

    assert (towers.card.precision, words.record.precision) == ("bf16", "bf16")
    assert cosines(embedded(towers), embedded(torch)).min() > 0.99


def test_words_are_never_int8(clip: Checkpoint) -> None:
    wanted = Wanted.of("words", clip, choice(Runtime.OPENVINO, Precision.INT8, Precision.BF16))

    assert wanted.precisions == (Precision.BF16, Precision.FP32)


def test_towers_with_checkpoints_of_their_own_meet_in_the_space_that_torch_names(resnet: Checkpoint, tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "words")
    projection(folder, 32, 10, seed=4)
    words = Checkpoint(folder, "words", "2" * 16)
    torch = encoders.load_two_towers(resnet, words, pooling="mean", device="cpu", model_name="Mine")
    made = exports(tmp_path, choice(Runtime.OPENVINO), Maker())

    pair = made.have(made.wanted("images", resnet), made.wanted("words", words, pooling="mean"))
    towers = exported.two_towers(pair[0], pair[1], resnet, words, model_name="Mine", threads=ThreadBudget.of(2))

    assert towers.space == torch.space
    assert cosines(towers.embed_texts(TEXTS), torch.embed_texts(TEXTS)).min() > 0.9999


# --- kept, and taken again


def test_an_export_is_made_once(resnet: Checkpoint, tmp_path: Path) -> None:
    maker = Maker()

    first = pictures_of(tmp_path, resnet, choice(Runtime.ONNX), maker)
    second = pictures_of(tmp_path, resnet, choice(Runtime.ONNX), maker)

    assert first == second
    assert maker.made == ["images"]
    version = first.record.runtime.partition(" ")[2]
    assert first.folder == tmp_path / "exports" / "resnet-1111111111111111" / f"onnx-{version}" / "images-fp32"
    assert [path.name for path in first.folder.parent.iterdir()] == ["images-fp32"]


@pytest.mark.parametrize("revision", ["f" * 16, "1" * 16])
def test_another_revision_or_precision_is_another_export(revision: str, resnet: Checkpoint, tmp_path: Path) -> None:
    maker = Maker()
    pictures_of(tmp_path, resnet, choice(Runtime.OPENVINO), maker)
    wanted = (Precision.BF16,) if revision == resnet.revision else ()

    pictures_of(tmp_path, Checkpoint(resnet.path, resnet.name, revision), choice(Runtime.OPENVINO, *wanted), maker)

    assert maker.made == ["images", "images"]


def _cut(folder: Path) -> None:
    graph = folder / "graph.bin"
    graph.write_bytes(graph.read_bytes()[:-8])


def _unrecorded(folder: Path) -> None:
    (folder / RECORD).unlink()


def _scribbled(folder: Path) -> None:
    (folder / RECORD).write_text('{"format": 1, "sou')


def _of_an_earlier_release(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(record | {"format": 0}))


@pytest.mark.parametrize("damage", [_cut, _unrecorded, _scribbled, _of_an_earlier_release])
def test_what_is_half_written_is_not_taken_but_made_anew(
    damage: Callable[[Path], None], resnet: Checkpoint, tmp_path: Path
) -> None:
    maker = Maker()
    folder = pictures_of(tmp_path, resnet, choice(Runtime.OPENVINO), maker).folder
    damage(folder)

    assert read(folder) is None or damage is _of_an_earlier_release
    export = pictures_of(tmp_path, resnet, choice(Runtime.OPENVINO), maker)

    assert maker.made == ["images", "images"]
    assert read(export.folder) == export.record
    assert (
        exported.image_tower(export, resnet, model_name="x", threads=ThreadBudget.of(2))
        .embed([np.ones((3, 32, 32), np.float32)])
        .any()
    )


def test_an_export_that_dies_leaves_nothing_and_torch_is_used(resnet: Checkpoint, tmp_path: Path) -> None:
    def dies(order: Order) -> None:
        raise subprocess.CalledProcessError(-9, "exporting")

    with pytest.raises(NotExported, match="failed"):
        pictures_of(tmp_path, resnet, choice(Runtime.OPENVINO), dies)


def test_the_exporting_process_ends_with_its_parent_and_leaves_nothing_in_place(resnet: Checkpoint, tmp_path: Path) -> None:
    wanted = Wanted.of("images", resnet, choice(Runtime.OPENVINO))
    order = Order(wanted=(wanted,), models_dir=tmp_path, images_dir=tmp_path, threads=1)
    command = [sys.executable, "-m", "model_service.exporting", order.model_dump_json()]

    child = subprocess.run(command, input=b"", capture_output=True, timeout=60, check=False)

    assert child.returncode == 1, child.stderr
    assert not wanted.place(tmp_path, Precision.FP32).exists()


def test_an_exporting_process_that_takes_too_long_is_ended(resnet: Checkpoint, tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    order = Order(
        wanted=(Wanted.of("images", resnet, choice(Runtime.OPENVINO)),), models_dir=tmp_path, images_dir=tmp_path, threads=1
    )
    with pytest.raises(subprocess.CalledProcessError):
        run_process(order, longest_s=0.1)
    assert set(psutil.Process().children()) <= before


# --- the gate


class Spoilt(Part):
    """Calibrated on what no picture looks like, so that int8 cuts everything off."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self.transformer, self.exact = part.transformer, part.exact

    def write_source(self, path: Path) -> None:
        self._part.write_source(path)

    def check(self, exact: Graph) -> Agreement:
        return self._part.check(exact)

    def samples(self, exact: Graph) -> Sequence[Mapping[str, Any]]:
        return [{name: array * 1e-3 for name, array in sample.items()} for sample in self._part.samples(exact)]

    def compare(self, exact: Graph, other: Graph) -> Agreement:
        return self._part.compare(exact, other)

    def facts(self, folder: Path, exact: Graph) -> dict[str, Any]:
        return self._part.facts(folder, exact)


@pytest.mark.parametrize("runtime", [Runtime.OPENVINO, Runtime.ONNX])
def test_an_int8_that_loses_what_float32_finds_is_refused_recorded_and_not_tried_again(
    runtime: Runtime, resnet: Checkpoint, tmp_path: Path
) -> None:
    maker = Maker(Spoilt)

    export = pictures_of(tmp_path, resnet, choice(runtime, Precision.INT8), maker)
    again = pictures_of(tmp_path, resnet, choice(runtime, Precision.INT8), maker)

    refused = read(export.folder.parent / "images-int8")
    assert export.record.precision is Precision.FP32
    assert again == export
    assert maker.made == ["images"]
    assert "export_refused" in maker.told
    assert refused is not None
    assert not refused.accepted
    assert refused.reason is not None
    assert [path.name for path in (export.folder.parent / "images-int8").iterdir()] == [RECORD]


class Untraceable(Spoilt):
    def write_source(self, path: Path) -> None:
        raise ValueError("no such operator")


def test_two_who_share_a_folder_may_make_the_same_at_once_and_what_the_first_made_stays(
    resnet: Checkpoint, tmp_path: Path
) -> None:
    wanted = Wanted.of("images", resnet, choice(Runtime.ONNX))
    opened = parts.opened(wanted, HELD)
    for n in range(100):
        both = threading.Barrier(2)

        def told(event: str, *, level: str = "info", both: threading.Barrier = both, **_: object) -> None:
            both.wait(10)

        workshop = Workshop(tmp_path / str(n), HELD, 1, told)
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda shop: make(wanted, Untraceable(opened), shop), [workshop] * 2))
        record = wanted.place(workshop.models_dir, Precision.FP32) / RECORD
        first = record.read_bytes()
        make(wanted, Untraceable(opened), replace(workshop, tell=lambda *_, **__: None))
        assert record.read_bytes() == first, "somebody may be about to load it"


class Unlike(Spoilt):
    def check(self, exact: Graph) -> Agreement:
        return super().check(exact).model_copy(update={"least": 0.5})


@pytest.mark.parametrize(("spoilt", "told"), [(Untraceable, "ValueError"), (Unlike, "cosine to torch is 0.5")])
def test_a_checkpoint_that_cannot_be_exported_is_told_and_not_tried_at_each_start(
    spoilt: Callable[[Part], Part], told: str, resnet: Checkpoint, tmp_path: Path
) -> None:
    maker = Maker(spoilt)

    for _ in range(2):
        with pytest.raises(NotExported, match=told):
            pictures_of(tmp_path, resnet, choice(Runtime.ONNX, Precision.INT8), maker)

    assert maker.made == ["images"]


def test_int8_is_passed_over_where_it_is_not_there_and_cannot_be_made(resnet: Checkpoint, tmp_path: Path) -> None:
    made = Exports(tmp_path, tmp_path, choice(Runtime.ONNX, Precision.INT8), can_quantise=False, run=Maker())

    (export,) = made.have(made.wanted("images", resnet))

    assert export.record.precision is Precision.FP32


# --- pictures


def test_int8_of_drawn_pictures_is_made_anew_when_there_are_real_ones(resnet: Checkpoint, tmp_path: Path) -> None:
    maker = Maker()
    chosen = choice(Runtime.ONNX, Precision.INT8)
    pictures_of(tmp_path, resnet, chosen, maker)
    images = tmp_path / "images"
    images.mkdir()

    def asked() -> list[Kind]:
        made = Exports(tmp_path, images, chosen, can_quantise=True, run=maker)
        made.have(made.wanted("images", resnet))
        return maker.made

    assert asked() == ["images"]
    for n in range(64):
        (images / f"{n}.jpg").write_bytes(b"")
    with pytest.raises(NotExported):  # the maker draws again, so it is outdated still
        asked()
    assert maker.made == ["images", "images"]


def test_real_pictures_are_taken_from_all_over_the_folder_and_broken_ones_and_those_that_crash_a_decoder_passed_over(
    tmp_path: Path,
) -> None:
    for n in range(90):
        place = tmp_path / f"{n % 3}"
        place.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (n, 0, 0)).save(place / f"{n}.png")
    (tmp_path / "0" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "1" / "crashes.png").write_bytes(faulty(png(), "segfault"))
    os.mkfifo(tmp_path / "0" / "endless.jpg")

    with DecodingProcesses(DecodeLimits(), module="tests.faulty_decoding") as decoder:
        for wanted in (66, 90):
            found, origin = gathered(tmp_path, decoder, wanted=wanted)
            assert (len(found), origin) == (wanted, "pictures")
            assert len({int(pixels[0, 0, 0]) for pixels in found}) == wanted
        few, origin_of_few = gathered(tmp_path / "absent", decoder, wanted=8)

    assert (len(few), origin_of_few) == (8, "drawn")
    assert all(np.array_equal(one, other) for one, other in zip(few, drawn(8), strict=True))
