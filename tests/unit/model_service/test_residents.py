"""Models of before are served beside those of the settings by whoever names their fingerprint, and by nobody else's word."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from core.errors import ModelUnavailable, NoModel
from core.model_client import ModelClient
from core.schemas import EngineState, ModelsInfo, Space
from model_service import registry, served
from model_service.app import create_app
from model_service.parts import Parts
from model_service.residents import Residents
from model_service.served import Choice
from model_service.settings import ModelSettings
from tests.fakes import picture
from tests.unit.model_service.checkpoints import tiny_onnx
from tests.unit.model_service.fakes import fake_parts

BEFORE, NOW = "aaaa", "bbbb"


def _of_profile(settings: ModelSettings) -> Parts:
    """`one` and `two`, each with a fingerprint and collections of its own."""
    fingerprint = {"one": BEFORE, "two": NOW}[settings.model_profile]
    parts = fake_parts(profile=settings.model_profile, fingerprint=fingerprint, segmenter=False)
    return Parts(
        profile=parts.profile,
        text_tower=parts.text_tower,
        image_towers=parts.image_towers,
        spaces=tuple(_named(space, fingerprint) for space in parts.spaces),
        segmenter=None,
        notice=None,
        fingerprint=fingerprint,
    )


def _named(space: Space, fingerprint: str) -> Space:
    return space.model_copy(update={"collection": f"{space.collection}-{fingerprint}"})


@asynccontextmanager
async def _service(
    models_dir: Path, profile: str, load: Callable[[ModelSettings], Parts] = _of_profile
) -> AsyncIterator[ModelClient]:
    settings = ModelSettings(models_dir=models_dir, model_profile=profile)
    async with TestServer(create_app(settings, load=load)) as server, ModelClient(str(server.make_url("/"))) as client:
        yield client


async def _known(client: ModelClient, fingerprint: str | None) -> ModelsInfo:
    async with asyncio.timeout(10):
        while (info := await client.info(fingerprint)).state is EngineState.LOADING:
            await asyncio.sleep(0.02)
    return info


async def test_models_of_before_embed_into_their_own_collections_beside_those_of_the_settings(tmp_path: Path) -> None:
    async with _service(tmp_path, "one") as client:
        assert (await _known(client, None)).fingerprint == BEFORE
    async with _service(tmp_path, "two") as client:
        before, now = await _known(client, BEFORE), await _known(client, None)
        assert (before.profile, now.profile) == ("one", "two")
        for fingerprint, info in ((BEFORE, before), (NOW, now), (None, now)):
            words = await client.embed_texts(["a dog"], fingerprint=fingerprint)
            analysis = await client.analyse(picture("red"), fingerprint=fingerprint)
            assert words.space == info.spaces[0]
            assert [one.collection for one in analysis.embeddings] == [space.collection for space in info.spaces]
            assert analysis.fingerprint == info.fingerprint


async def test_the_settings_models_are_not_loaded_twice_when_they_are_named(tmp_path: Path) -> None:
    loads: list[str] = []

    def counted(settings: ModelSettings) -> Parts:
        loads.append(settings.model_profile)
        return _of_profile(settings)

    async with _service(tmp_path, "one", counted) as client:
        await _known(client, None)
    async with _service(tmp_path, "one", counted) as client:
        assert (await _known(client, BEFORE)).fingerprint == BEFORE
        assert (await _known(client, None)).fingerprint == BEFORE
    assert loads == ["one", "one"]


@pytest.mark.parametrize("fingerprint", ["unknown", "../../etc/passwd", "a/b", ""])
async def test_what_was_never_served_is_not_loaded(tmp_path: Path, fingerprint: str) -> None:
    async with _service(tmp_path, "two") as client:
        await _known(client, None)
        info = await _known(client, fingerprint)
        assert info.state is EngineState.NO_MODEL
        with pytest.raises(NoModel, match="not known"):
            await client.embed_texts(["a dog"], fingerprint=fingerprint)


async def test_weights_that_were_replaced_since_are_not_taken_for_those_of_before(tmp_path: Path) -> None:
    async with _service(tmp_path, "one") as client:
        await _known(client, None)

    def replaced(settings: ModelSettings) -> Parts:
        parts = _of_profile(settings)
        for tower in parts.image_towers:
            tower.card = tower.card.model_copy(update={"revision": "2"})  # type: ignore[misc]
        return parts

    async with _service(tmp_path, "two", replaced) as client:
        info = await _known(client, BEFORE)
    assert info.state is EngineState.NO_MODEL
    assert "replaced" in (info.notice or "")


async def test_a_tower_that_came_since_is_left_out_of_the_models_of_before(tmp_path: Path) -> None:
    settings = ModelSettings(models_dir=tmp_path, model_profile="one")
    whole = _of_profile(settings)
    alone = Parts(whole.profile, whole.text_tower, whole.image_towers[:1], whole.spaces[:1], None, None, BEFORE)
    served.remember(settings, alone)
    again = served.load_again(settings, BEFORE, lambda _: whole)
    assert (again.spaces, len(again.image_towers), again.fingerprint) == (alone.spaces, 1, BEFORE)


async def test_models_of_before_go_when_nobody_asks_for_them_any_more(tmp_path: Path) -> None:
    now = 0.0
    settings = ModelSettings(models_dir=tmp_path, model_profile="two")
    served.remember(settings.model_copy(update={"model_profile": "one"}), _of_profile(ModelSettings(model_profile="one")))
    async with Residents(settings, _of_profile, when_ready=lambda: None, kept_s=60, clock=lambda: now) as residents:
        residence = await residents.of(BEFORE)
        async with asyncio.timeout(5):
            while residence.loaded is None:
                await asyncio.sleep(0.01)
        tower = weakref.ref(residence.loaded.parts.image_towers[0])
        now = 59.0
        await residents.forget(least_s=60)
        assert await residents.of(BEFORE) is residence
        now = 200.0
        await residents.forget(least_s=60)
        assert await residents.of(BEFORE) is not residence
        del residence
        gc.collect()
        assert tower() is None, "what they are made of is still held"


async def test_models_of_before_that_many_ask_for_at_once_are_loaded_once(tmp_path: Path) -> None:
    settings = ModelSettings(models_dir=tmp_path, model_profile="two")
    served.remember(settings.model_copy(update={"model_profile": "one"}), _of_profile(ModelSettings(model_profile="one")))
    loads: list[str] = []

    def counted(settings: ModelSettings) -> Parts:
        loads.append(settings.model_profile)
        return _of_profile(settings)

    async with Residents(settings, counted, when_ready=lambda: None) as residents:
        first, *others = await asyncio.gather(*(residents.of(BEFORE) for _ in range(5)))
        assert all(other is first for other in others)
        async with asyncio.timeout(5):
            while first.loaded is None or residents.own.loaded is None:
                await asyncio.sleep(0.01)
    assert sorted(loads) == ["one", "two"]


async def test_models_that_are_let_go_of_from_two_sides_at_once_go_once(tmp_path: Path) -> None:
    settings = ModelSettings(models_dir=tmp_path, model_profile="two")
    async with Residents(settings, _of_profile, when_ready=lambda: None) as residents:
        for fingerprint in ("cccc", "dddd"):
            await residents.of(fingerprint)
        await asyncio.gather(residents.forget(least_s=0), residents.forget(least_s=0))
        for fingerprint in ("eeee", "ffff"):
            await residents.of(fingerprint)


async def test_there_is_room_for_two_beside_and_no_more(tmp_path: Path) -> None:
    settings = ModelSettings(models_dir=tmp_path, model_profile="two")
    async with Residents(settings, _of_profile, when_ready=lambda: None) as residents:
        await residents.of("cccc")
        await residents.of("dddd")
        with pytest.raises(ModelUnavailable):
            await residents.of("eeee")
    async with Residents(settings, _of_profile, when_ready=lambda: None) as residents:
        asked = await asyncio.gather(*(residents.of(one) for one in ("cccc", "dddd", "eeee")), return_exceptions=True)
        assert sum(isinstance(one, ModelUnavailable) for one in asked) == 1


def test_a_folder_that_takes_no_writing_costs_the_way_back_alone() -> None:
    settings = ModelSettings(models_dir=Path("/proc/none"), model_profile="one")
    served.remember(settings, _of_profile(settings))
    assert served.recall(settings.models_dir, BEFORE) is None


def test_what_decides_over_vectors_and_segments_is_remembered() -> None:
    assert set(Choice.model_fields) <= set(ModelSettings.model_fields)


def test_a_graph_that_is_replaced_under_its_name_makes_another_fingerprint_and_collection(tmp_path: Path) -> None:
    """Its description's revision is a name, and stays."""
    tiny_onnx(tmp_path / "mine")
    settings = ModelSettings(models_dir=tmp_path, model_profile="mine", segmenter="none")
    before = registry.load(settings)
    with (tmp_path / "mine" / "image.onnx").open("ab") as graph:
        graph.write(b"\x32\x01x")  # a field `doc_string`
    after = registry.load(settings)
    assert before.fingerprint != after.fingerprint
    assert before.spaces[0].collection != after.spaces[0].collection
    assert before.image_towers[0].space == after.image_towers[0].space


def test_another_limit_of_segments_has_collections_of_its_own(tmp_path: Path) -> None:
    tiny_onnx(tmp_path / "mine")
    spaces = [
        registry.load(ModelSettings(models_dir=tmp_path, model_profile="mine", segmenter="none", max_segments=most)).spaces
        for most in (5, 6)
    ]
    assert not {space.collection for space in spaces[0]} & {space.collection for space in spaces[1]}
