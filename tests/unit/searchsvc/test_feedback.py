"""Feedback: only who holds a search's own token may rate it, once."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from core.databases import NewerRelease
from core.errors import Conflict, Unavailable
from searchsvc.feedback import FeedbackStore, Rating
from searchsvc.feedback_file import FileFeedback
from tests.fakes import picture
from tests.unit.searchsvc.conftest import SECRET, MakeWorld, World

PATH = "/api/v1/create-feedback"


async def _rate(world: World, body: Any) -> tuple[int, dict[str, Any]]:
    answer = await world.client.post(PATH, json=body)
    document: dict[str, Any] = json.loads(await answer.text())
    if answer.status >= 400:
        assert answer.content_type == "application/problem+json"
        assert document["status"] == answer.status
    return answer.status, document


def _rows(world: World) -> list[sqlite3.Row]:
    connection = sqlite3.connect(world.settings.data_dir / "feedback.sqlite")
    connection.row_factory = sqlite3.Row
    rows = connection.execute("SELECT * FROM feedback ORDER BY created_at").fetchall()
    connection.close()
    return rows


@pytest.fixture
async def shown(world: World) -> dict[str, Any]:
    await world.add(picture("red"), "red.png")
    await world.add(picture("blue"), "blue.png")
    return await world.search(text="red")


async def test_a_rating_is_kept_with_what_was_asked_and_shown(world: World, shown: dict[str, Any]) -> None:
    status, answer = await _rate(world, {"user_feedback": 5, "jwt": shown["jwt"]})
    assert status == 201
    (row,) = _rows(world)
    assert row["feedback_id"] == answer["feedback_id"]
    assert row["rating"] == 5
    assert row["image_id"] is None
    assert row["search_id"] == shown["search_id"]
    assert json.loads(row["query"]) == {"text": "red", "scope": "images"}
    assert json.loads(row["shown"]) == [match["image_id"] for match in shown["matches"]]


async def test_one_of_the_shown_images_can_be_rated_by_id(world: World, shown: dict[str, Any]) -> None:
    image_id = shown["matches"][1]["image_id"]
    assert (await _rate(world, {"user_feedback": 10, "jwt": shown["jwt"], "image_id": image_id}))[0] == 201
    assert _rows(world)[0]["image_id"] == image_id


async def test_each_match_can_be_rated_by_its_own_token(world: World, shown: dict[str, Any]) -> None:
    for match in shown["matches"]:
        assert (await _rate(world, {"user_feedback": 1, "jwt": match["jwt"]}))[0] == 201
        assert (await _rate(world, {"user_feedback": 1, "jwt": match["jwt"]}))[0] == 409
    assert {row["image_id"] for row in _rows(world)} == {match["image_id"] for match in shown["matches"]}
    other = shown["matches"][0]["image_id"]
    again = await world.search(text="red")
    assert (await _rate(world, {"user_feedback": 1, "jwt": again["matches"][1]["jwt"], "image_id": other}))[0] == 422


async def test_the_rating_of_a_region_names_the_region(world: World, shown: dict[str, Any]) -> None:
    region = (await world.search(text="red", scope="segments"))["matches"][0]
    assert (await _rate(world, {"user_feedback": 7, "jwt": region["jwt"]}))[0] == 201
    assert (_rows(world)[0]["image_id"], _rows(world)[0]["segment"]) == (region["image_id"], 0)


async def test_a_token_counts_once_whatever_it_rates(world: World, shown: dict[str, Any]) -> None:
    assert (await _rate(world, {"user_feedback": 5, "jwt": shown["jwt"]}))[0] == 201
    image_id = shown["matches"][0]["image_id"]
    assert (await _rate(world, {"user_feedback": 5, "jwt": shown["jwt"]}))[0] == 409
    assert (await _rate(world, {"user_feedback": 9, "jwt": shown["jwt"], "image_id": image_id}))[0] == 409
    assert len(_rows(world)) == 1


async def test_the_same_token_twenty_times_at_once_counts_once(world: World, shown: dict[str, Any]) -> None:
    outcomes = await asyncio.gather(*(_rate(world, {"user_feedback": 5, "jwt": shown["jwt"]}) for _ in range(20)))
    statuses = [status for status, _ in outcomes]
    assert sorted(statuses) == [201] + [409] * 19
    assert len(_rows(world)) == 1


@pytest.mark.parametrize("rating", [0, 11, -1, 10**30, True, False, 5.0, 5.5, "5", None, [], {}, float("nan")])
async def test_a_rating_out_of_range_or_no_integer_is_422_and_spends_nothing(
    world: World, shown: dict[str, Any], rating: object
) -> None:
    status, problem = await _rate(world, {"user_feedback": rating, "jwt": shown["jwt"]})
    assert status == 422
    assert problem["errors"][0]["field"] == "user_feedback"
    assert (await _rate(world, {"user_feedback": 5, "jwt": shown["jwt"]}))[0] == 201


@pytest.mark.parametrize("extra", [{"image_id": "0" * 64}, {"image_id": "x"}, {"image_id": 5}, {"comment": "nice"}])
async def test_what_was_not_shown_or_is_not_known_is_422_and_spends_nothing(
    world: World, shown: dict[str, Any], extra: dict[str, Any]
) -> None:
    assert (await _rate(world, {"user_feedback": 5, "jwt": shown["jwt"], **extra}))[0] == 422
    assert (await _rate(world, {"jwt": shown["jwt"]}))[0] == 422
    assert (await _rate(world, {"user_feedback": 5, "jwt": shown["jwt"]}))[0] == 201


def _claims(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def _signed(claims: dict[str, Any], key: str = SECRET, algorithm: str = "HS256", **headers: Any) -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers or None)


def _b64(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def _with_claims(token: str, **changes: Any) -> str:
    """Other claims under the old signature."""
    header, _, signature = token.split(".")
    return f"{header}.{_b64({**_claims(token), **changes})}.{signature}"


def _without(token: str, *names: str) -> str:
    return _signed({name: value for name, value in _claims(token).items() if name not in names})


def _flipped(token: str, at: int) -> str:
    return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]


ATTACKS: dict[str, Callable[[str], object]] = {
    "null": lambda _: None,
    "empty": lambda _: "",
    "a number": lambda _: 5,
    "a list": lambda token: [token],
    "an object": lambda token: {"jwt": token},
    "rubbish": lambda _: "rubbish",
    "three dots": lambda _: "...",
    "no signature": lambda token: token.rpartition(".")[0] + ".",
    "no third part": lambda token: token.rpartition(".")[0],
    "alg none": lambda token: f"{_b64({'alg': 'none', 'typ': 'JWT'})}.{token.split('.')[1]}.",
    "alg None with the old signature": lambda token: f"{_b64({'alg': 'None'})}.{token.split('.', 1)[1]}",
    "alg none by library": lambda token: jwt.encode(_claims(token), None, algorithm="none"),
    "wrong key": lambda token: _signed(_claims(token), key="f" * 64),
    "empty key": lambda token: _signed_by_hand(token, b""),
    "HS512 with the right key": lambda token: _signed(_claims(token), key=SECRET * 2, algorithm="HS512"),
    "HS384": lambda token: _signed(_claims(token), key=SECRET * 2, algorithm="HS384"),
    "expired": lambda token: _signed({**_claims(token), "exp": int(time.time()) - 1}),
    "expires now": lambda token: _signed({**_claims(token), "exp": int(time.time())}),
    "wrong audience": lambda token: _signed({**_claims(token), "aud": "someone else"}),
    "audience among others": lambda token: _signed({**_claims(token), "aud": ["imagesearch-feedback", "x"]}),
    "no audience": lambda token: _without(token, "aud"),
    "wrong issuer": lambda token: _signed({**_claims(token), "iss": "someone else"}),
    "no issuer": lambda token: _without(token, "iss"),
    "no expiry": lambda token: _without(token, "exp"),
    "no time of issue": lambda token: _without(token, "iat"),
    "no token id": lambda token: _without(token, "jti"),
    "no search id": lambda token: _without(token, "sid"),
    "no images": lambda token: _without(token, "ids"),
    "issued tomorrow": lambda token: _signed(
        {**_claims(token), "iat": int(time.time()) + 90_000, "exp": int(time.time()) + 99_000}
    ),
    "expiry as text": lambda token: _signed({**_claims(token), "exp": "9999999999"}),
    "expiry as fraction": lambda token: _signed({**_claims(token), "exp": time.time() + 100.5}),
    "expiry in the far infinite": lambda token: _signed_by_hand(token, SECRET.encode(), exp=float("inf")),
    "token id as number": lambda token: _signed({**_claims(token), "jti": 5}),
    "ids as text": lambda token: _signed({**_claims(token), "ids": "0" * 64}),
    "claims are a list": lambda _: jwt.PyJWS().encode(b"[]", SECRET, algorithm="HS256"),
    "other ids under the old signature": lambda token: _with_claims(token, ids=["0" * 64]),
    "new token id under the old signature": lambda token: _with_claims(token, jti="again"),
    "later expiry under the old signature": lambda token: _with_claims(token, exp=int(time.time()) + 10**6),
    "header changed": lambda token: _flipped(token, 5),
    "claims changed": lambda token: _flipped(token, len(token) // 2),
    "signature's first character changed": lambda token: _flipped(token, token.rindex(".") + 1),
    "signature's unused bits changed": lambda token: token[:-1] + chr(ord(token[-1]) + 1),
    "padding added": lambda token: token + "=",
    "blank added": lambda token: token + " ",
    "line added": lambda token: token + "\n",
    "characters that base64 skips": lambda token: token[:-5] + "!" + token[-5:],
    "two tokens": lambda token: token + "." + token,
    "overlong": lambda token: token + "A" * 40_000,
    "with Bearer": lambda token: "Bearer " + token,
    "unknown critical header": lambda token: _signed(_claims(token), crit=["x"], x=1),
}


def _signed_by_hand(token: str, key: bytes, **changes: Any) -> str:
    import hashlib
    import hmac

    signing = f"{_b64({'alg': 'HS256', 'typ': 'JWT'})}.{_b64({**_claims(token), **changes})}"
    signature = hmac.new(key, signing.encode(), hashlib.sha256).digest()
    return f"{signing}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
@pytest.mark.parametrize("attack", ATTACKS)
async def test_everything_but_an_untouched_token_is_401_and_spends_nothing(
    world: World, shown: dict[str, Any], attack: str
) -> None:
    forged = ATTACKS[attack](shown["jwt"])
    assert forged != shown["jwt"]
    status, problem = await _rate(world, {"user_feedback": 5, "jwt": forged})
    assert (status, problem["code"]) == (401, "unauthorized")
    assert _rows(world) == []
    assert (await _rate(world, {"user_feedback": 5, "jwt": shown["jwt"]}))[0] == 201


async def test_a_token_made_with_the_configured_secret_by_any_library_counts(world: World, shown: dict[str, Any]) -> None:
    assert (await _rate(world, {"user_feedback": 5, "jwt": _signed(_claims(shown["jwt"]))}))[0] == 201


@pytest.mark.parametrize("body", [{}, {"user_feedback": 5}, {"user_feedback": 99}, {"comment": "nice"}])
async def test_without_a_token_nothing_else_is_looked_at(world: World, body: dict[str, Any]) -> None:
    assert (await _rate(world, body))[0] == 401


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 422),
        (b"5", "application/json", 422),
        (b"user_feedback=5", "application/x-www-form-urlencoded", 415),
    ],
)
async def test_what_is_no_json_object_is_refused_before_the_token(
    world: World, body: bytes, content_type: str, status: int
) -> None:
    answer = await world.client.post(PATH, data=body, headers={"Content-Type": content_type})
    assert answer.status == status


async def test_the_largest_possible_token_is_still_accepted(world: World) -> None:
    for n in range(100):
        await world.add(picture("red", size=(8, 8), mark=n), f"{n}.png")
    longest = "\U0001f600" * 1000
    found = await world.search(text=longest, negative_text=longest[:-1] + "x", top_k=100)
    assert len(found["matches"]) == 100
    assert (await _rate(world, {"user_feedback": 5, "jwt": found["jwt"]}))[0] == 201
    assert json.loads(_rows(world)[0]["query"])["text"] == longest


async def test_a_short_secret_is_warned_of_and_works(make_world: MakeWorld, capsys: pytest.CaptureFixture[str]) -> None:
    world = await make_world(jwt_secret="short")
    found = await world.search(text="red")
    assert (await _rate(world, {"user_feedback": 5, "jwt": found["jwt"]}))[0] == 201
    assert "jwt_secret_short" in capsys.readouterr().out


def _rating(jti: str) -> Rating:
    return Rating(jti=jti, rating=5, image_id=None, segment=None, search_id="s", query={}, model="m", shown=[])


async def test_ratings_outlive_the_service_and_so_does_what_was_spent(tmp_path: Path) -> None:
    path = tmp_path / "new" / "feedback.sqlite"
    async with FeedbackStore(FileFeedback(path)) as store:
        await store.add(_rating("a"))
    async with FeedbackStore(FileFeedback(path)) as store:
        with pytest.raises(Conflict):
            await store.add(_rating("a"))
        await store.add(_rating("b"))
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM feedback").fetchone() == (2,)
    connection.close()


async def test_a_commit_reaches_the_disk_before_the_answer(tmp_path: Path) -> None:
    async with FeedbackStore(FileFeedback(tmp_path / "feedback.sqlite")) as store:
        pragma = await store._home.write(lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0])
    assert pragma == 2  # FULL: https://www.sqlite.org/pragma.html#pragma_synchronous


async def test_a_store_of_a_newer_release_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "feedback.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(NewerRelease, match="newer release"):
        async with FeedbackStore(FileFeedback(path)):
            pass
    assert path.read_bytes() == before


async def test_feedback_that_cannot_be_stored_is_unavailable_and_not_lost_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "feedback.sqlite"
    async with FeedbackStore(FileFeedback(path)) as store:
        other = sqlite3.connect(path)
        other.execute("DROP TABLE feedback")
        other.commit()
        other.close()
        with pytest.raises(Unavailable):
            await store.add(_rating("a"))
