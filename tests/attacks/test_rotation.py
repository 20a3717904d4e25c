"""Keys that change while tokens and cursors are on their way: what was given stays good, what was withdrawn does not."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

import pytest
from pydantic import ValidationError

from searchsvc.settings import SearchSettings
from tests.fakes import picture
from tests.unit.searchsvc.conftest import SECRET, MakeWorld, World

OLD, NEW = "o1d" * 3 + "abcdefghijklmnopqrstuvwxyz", "n3w" * 3 + "zyxwvutsrqponmlkjihgfedcba"
ROTATIONS = {
    "from one secret to named keys": ({"jwt_secret": SECRET}, {"jwt_secret": SECRET, "jwt_secrets": f"new:{NEW}"}, {"jwt_secrets": f"new:{NEW}"}),
    "from a named key to the next": (
        {"jwt_secrets": f"old:{OLD}"},
        {"jwt_secrets": f"new:{NEW},old:{OLD}"},
        {"jwt_secrets": f"new:{NEW}"},
    ),
}  # fmt: skip


def _kid(token: str) -> object:
    header = json.loads(urlsafe_b64decode(token.partition(".")[0] + "=="))
    return header.get("kid")


async def _started(make_world: MakeWorld, **keys: str) -> World:
    world = await make_world(**{"jwt_secret": None, **keys})
    for n in range(3):
        await world.add(picture("red", mark=n), f"{n}.png")
    return world


async def _rated(world: World, token: str) -> int:
    return (await world.client.post("/api/v1/create-feedback", json={"user_feedback": 5, "jwt": token})).status


async def _next_page(world: World, cursor: str) -> tuple[int, Any]:
    answer = await world.client.post("/api/v1/search-image", json={"cursor": cursor})
    return answer.status, (await answer.json(content_type=None)).get("matches")


@pytest.mark.parametrize("rotation", ROTATIONS)
async def test_what_was_given_before_a_rotation_is_good_until_its_key_is_removed(make_world: MakeWorld, rotation: str) -> None:
    before, between, after = ROTATIONS[rotation]
    old = await _started(make_world, **before)
    given = [await old.search(text="red", top_k=1) for _ in range(3)]
    tokens, cursor = [answer["jwt"] for answer in given], given[0]["cursor"]
    _, expected = await _next_page(old, cursor)
    await old.client.close()

    both = await _started(make_world, **between)
    fresh = await both.search(text="red", top_k=1)
    assert (_kid(fresh["jwt"]), _kid(tokens[0])) == ("new", "old" if "jwt_secrets" in before else None)
    assert await _rated(both, tokens[0]) == 201
    assert await _rated(both, tokens[0]) == 409
    status, page = await _next_page(both, cursor)
    assert (status, [match["image_id"] for match in page]) == (200, [match["image_id"] for match in expected])
    await both.client.close()

    only_new = await _started(make_world, **after)
    assert await _rated(only_new, tokens[1]) == 401
    assert (await _next_page(only_new, cursor))[0] == 422
    assert await _rated(only_new, fresh["jwt"]) == 201
    assert (await _next_page(only_new, fresh["cursor"]))[0] == 200


async def test_a_rotation_that_is_taken_back_keeps_what_either_signed(make_world: MakeWorld) -> None:
    there = await _started(make_world, jwt_secrets=f"new:{NEW},old:{OLD}")
    token = (await there.search(text="red"))["jwt"]
    await there.client.close()
    back = await _started(make_world, jwt_secrets=f"old:{OLD},new:{NEW}")
    assert _kid((await back.search(text="red"))["jwt"]) == "old"
    assert await _rated(back, token) == 201


async def test_one_secret_alone_signs_without_a_name_as_before(make_world: MakeWorld) -> None:
    world = await _started(make_world, jwt_secret=SECRET)
    assert _kid((await world.search(text="red"))["jwt"]) is None
    await world.client.close()
    kept = await _started(make_world)
    token = (await kept.search(text="red"))["jwt"]
    await kept.client.close()
    again = await _started(make_world)
    assert await _rated(again, token) == 201, "the key that was made once is kept"


async def test_who_rated_is_the_same_client_after_a_rotation(make_world: MakeWorld) -> None:
    clients = []
    for keys in ({"jwt_secrets": f"old:{OLD}"}, {"jwt_secrets": f"new:{NEW}"}):
        world = await _started(make_world, **keys)
        assert await _rated(world, (await world.search(text="red"))["jwt"]) == 201
        lines = (await (await world.client.get("/api/v1/feedback")).text()).splitlines()
        clients.append(json.loads(lines[-1])["client"])
        await world.client.close()
    assert clients[0] == clients[1]


@pytest.mark.parametrize(
    "given",
    [
        NEW, f":{NEW}", f"a b:{NEW}", f"{'n' * 65}:{NEW}", "new:short", "new:", f"new:{'a' * 64}", f"new:{NEW},new:{OLD}", f"new:{NEW},old:{NEW}",
        f"../new:{NEW}", ",".join(f"k{n}:{NEW}{n}" for n in range(17)),
    ],
)  # fmt: skip
def test_keys_that_cannot_be_used_are_refused_at_the_start_and_not_repeated(given: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SearchSettings(jwt_secrets=given)
    assert NEW not in str(refused.value)
    assert "jwt_secrets" in str(refused.value)
