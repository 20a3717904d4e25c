"""What is searched is what the watcher says, for as long as it says so; the take-over is between two answers and never within one."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from aiohttp import FormData

from core.errors import CatalogUnavailable
from core.schemas import ModelChange, ModelsAction, ModelsCourse, ModelsInfo, Space
from searchsvc.searched import SearchedModels
from tests.fakes import READY, FakeCatalog, FakeEmbedder, picture
from tests.unit.searchsvc.conftest import World

_OLD = Space(collection="old-clip", model_name="Old", dim=32, text=True)
BEFORE = READY.model_copy(update={"spaces": (_OLD,), "fingerprint": "before", "profile": "starter"})
CHANGE = ModelChange(profile="clip", answering="starter", done=1200, total=5000, stopped=False)


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def catalog() -> FakeCatalog:
    return FakeCatalog()


@pytest.fixture
def searched(catalog: FakeCatalog, clock: list[float]) -> Callable[[], SearchedModels]:
    embedder = FakeEmbedder(before={"before": BEFORE})
    return lambda: SearchedModels(embedder, catalog, clock=lambda: clock[0])


async def test_the_models_of_the_settings_answer_until_the_watcher_says_anything(
    searched: Callable[[], SearchedModels], catalog: FakeCatalog
) -> None:
    assert await searched().info() == READY
    catalog.away = CatalogUnavailable("the watcher does not answer")
    assert await searched().info() == READY


async def test_what_the_watcher_said_last_holds_while_it_is_away(
    searched: Callable[[], SearchedModels], catalog: FakeCatalog, clock: list[float]
) -> None:
    models = searched()
    catalog.course = ModelsCourse(searched="before", profile="starter", change=CHANGE)
    assert await models.info() == BEFORE
    catalog.away = CatalogUnavailable("the watcher does not answer")
    clock[0] += 100
    assert await models.info() == BEFORE
    catalog.away, catalog.course = None, ModelsCourse(searched="fake-1", profile="clip")
    assert await models.info() == BEFORE, "it is not asked again at once"
    clock[0] += 5
    assert await models.info() == READY


async def test_what_a_user_must_know_of_a_change_is_in_the_notice(
    searched: Callable[[], SearchedModels], catalog: FakeCatalog
) -> None:
    catalog.course = ModelsCourse(searched="fake-1", profile="clip", change=CHANGE, notice="Weights are gone.")
    info: ModelsInfo = await searched().info()
    assert info.notice == "Weights are gone."


async def test_a_search_is_answered_by_the_searched_models_and_told_what_is_coming(world: World) -> None:
    world.embedder.before["before"] = BEFORE
    for name, info in (("now", READY), ("before", BEFORE)):
        world.embedder.models = info
        await world.add(picture("red", mark=len(name)), f"{name}.png")
    world.embedder.models = READY
    world.catalog.course = ModelsCourse(searched="before", profile="starter", change=CHANGE)

    found = await world.search(text="red")
    form = FormData()
    form.add_field("file", io.BytesIO(picture("red", mark=9)), filename="query.png")
    by_picture = await world.client.post("/api/v1/search-image", data=form)
    status = await (await world.client.get("/api/v1/status")).json()

    assert (found["model_name"], [match["image_name"] for match in found["matches"]]) == ("Old", ["before.png"])
    assert [match["image_name"] for match in (await by_picture.json())["matches"]] == ["before.png"]
    assert (status["model_change"]["done"], [space["model_name"] for space in status["spaces"]]) == (1200, ["Old"])


async def test_the_course_is_told_and_turned(world: World) -> None:
    told = await (await world.client.get("/api/v1/models")).json()
    assert told == {"searched": None, "profile": None, "change": None, "previous": None, "notice": None}
    refused = await world.client.post("/api/v1/models", json={"action": "stop"})
    assert refused.status == 409
    world.catalog.course = ModelsCourse(searched="before", profile="starter", change=CHANGE)
    turned = await world.client.post("/api/v1/models", json={"action": "stop"})
    assert (turned.status, world.catalog.turned) == (200, [ModelsAction.STOP])
    assert (await world.client.post("/api/v1/models", json={"action": "destroy"})).status == 422
