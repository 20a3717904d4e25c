"""What was rated can be read by those who may: every rating once, in an order that stays, in formats that others read."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.databases import KeptDatabase
from core.errors import Unavailable
from core.schemas import StatePart
from searchsvc.feedback import FeedbackStore, Rating
from searchsvc.feedback_file import FileFeedback
from searchsvc.feedback_report import ReportBuilder
from searchsvc.feedback_schema import _FIRST, _STEPS, VERSION, FeedbackFile
from searchsvc.topics import JudgedPool, grade_of, ndcg_at_10, topic_of
from tests.fakes import image_id_of, picture
from tests.unit.searchsvc.conftest import MakeWorld, World

PATH = "/api/v1/feedback"
REPORT = f"{PATH}/report"
RED, GREEN, BLUE = (letter * 64 for letter in "abc")


async def _rate(world: World, token: str, rating: int, **more: Any) -> None:
    answer = await world.client.post("/api/v1/create-feedback", json={"user_feedback": rating, "jwt": token, **more})
    assert answer.status == 201, await answer.text()


async def _lines(world: World, query: str = "") -> list[dict[str, Any]]:
    answer = await world.client.get(PATH + query)
    assert answer.status == 200, await answer.text()
    assert answer.content_type == "application/x-ndjson"
    return [json.loads(line) for line in (await answer.text()).splitlines()]


async def _text(world: World, query: str) -> list[list[str]]:
    answer = await world.client.get(PATH + query)
    assert (answer.status, answer.content_type) == (200, "text/plain")
    return [line.split("\t") if "\t" in line else line.split() for line in (await answer.text()).splitlines()]


@pytest.fixture
async def red_and_blue(world: World) -> World:
    await world.add(picture("red"), "red.png")
    await world.add(picture("blue"), "blue.png")
    return world


async def test_a_line_tells_what_was_asked_of_which_model_and_what_was_shown_at_which_rank(red_and_blue: World) -> None:
    found = await red_and_blue.search(text="red", filter={"folder": ""}, top_k=1, offset=1)
    await _rate(red_and_blue, found["jwt"], 7)
    (line,) = await _lines(red_and_blue)
    match = found["matches"][0]
    assert line["asked"]["text"] == "red"
    assert (line["model_name"], line["collection"]) == ("CLIP", "clip-fake-1")
    assert line["shown"] == [{"rank": 2, "image_id": match["image_id"], "score": pytest.approx(match["score"], abs=1e-5)}]
    assert (line["rating"], line["image_id"], line["search_id"]) == (7, None, found["search_id"])
    assert line["client"].startswith("local-")
    assert datetime.now(UTC) - datetime.fromisoformat(line["created_at"]) < timedelta(minutes=1)


async def test_the_rating_of_one_match_is_kept_with_the_whole_list_it_stood_in(red_and_blue: World) -> None:
    found = await red_and_blue.search(text="red")
    await _rate(red_and_blue, found["matches"][1]["jwt"], 2)
    (line,) = await _lines(red_and_blue)
    assert [shown["image_id"] for shown in line["shown"]] == [match["image_id"] for match in found["matches"]]
    assert line["image_id"] == found["matches"][1]["image_id"]


async def test_a_match_s_token_knows_its_place_when_the_service_has_forgotten_the_search(red_and_blue: World) -> None:
    found = await red_and_blue.search(text="red")
    for _ in range(2048):
        await red_and_blue.search(text="red", top_k=1)
    await _rate(red_and_blue, found["matches"][1]["jwt"], 2)
    (line,) = await _lines(red_and_blue)
    score = pytest.approx(found["matches"][1]["score"], abs=1e-5)
    assert line["shown"] == [{"rank": 2, "image_id": found["matches"][1]["image_id"], "score": score}]


async def test_a_query_picture_is_named_by_its_hash_and_not_kept(red_and_blue: World) -> None:
    asked = picture("red", mark=9)
    answer = await red_and_blue.client.post("/api/v1/search-image", data={"file": io.BytesIO(asked)})
    await _rate(red_and_blue, (await answer.json())["jwt"], 9)
    (line,) = await _lines(red_and_blue)
    assert line["asked"]["picture"] == image_id_of(asked)


async def test_the_export_continues_behind_a_cursor_and_nothing_is_lost_or_told_twice(red_and_blue: World) -> None:
    for rating in range(1, 8):
        await _rate(red_and_blue, (await red_and_blue.search(text="red"))["jwt"], rating)
    whole = await _lines(red_and_blue)
    assert [line["rating"] for line in whole] == list(range(1, 8))
    pieces, cursor = list[dict[str, Any]](), "0"
    while part := await _lines(red_and_blue, f"?limit=3&cursor={cursor}"):
        assert len(part) <= 3
        pieces, cursor = pieces + part, part[-1]["cursor"]
    assert pieces == whole
    await _rate(red_and_blue, (await red_and_blue.search(text="red"))["jwt"], 10)
    assert [line["rating"] for line in await _lines(red_and_blue, f"?cursor={cursor}")] == [10]


async def test_ratings_from_a_time_on(red_and_blue: World) -> None:
    await _rate(red_and_blue, (await red_and_blue.search(text="red"))["jwt"], 1)
    (first,) = await _lines(red_and_blue)
    await _rate(red_and_blue, (await red_and_blue.search(text="red"))["jwt"], 2)
    second = (await _lines(red_and_blue))[1]
    assert [line["rating"] for line in await _lines(red_and_blue, f"?since={second['created_at']}")] == [2]
    assert len(await _lines(red_and_blue, f"?since={first['created_at'].replace('Z', '+00:00')}")) == 2
    assert await _lines(red_and_blue, "?since=2999-01-01") == []


async def test_qrels_and_topics_fit_together(red_and_blue: World) -> None:
    red = await red_and_blue.search(text="red")
    await _rate(red_and_blue, red["matches"][0]["jwt"], 10)
    await _rate(red_and_blue, red["matches"][1]["jwt"], 1)
    blue = await red_and_blue.search(text="blue")
    await _rate(red_and_blue, blue["matches"][0]["jwt"], 7)
    await _rate(red_and_blue, (await red_and_blue.search(text="only as a whole"))["jwt"], 7)
    qrels, topics = await _text(red_and_blue, "?format=qrels"), await _text(red_and_blue, "?format=topics")
    assert [(iteration, grade) for _, iteration, _, grade in qrels] == [("0", "3"), ("0", "0"), ("0", "2")]
    assert [image_id for _, _, image_id, _ in qrels][:2] == [match["image_id"] for match in red["matches"]]
    assert [words for _, words, _ in topics] == ["red", "blue", "only as a whole"]
    assert {topic for topic, *_ in qrels} < {topic for topic, *_ in topics}
    assert json.loads(topics[0][2]) == {"text": "red", "scope": "images"}
    assert topics[0][0] == qrels[0][0] == (await _lines(red_and_blue))[0]["topic"]


@pytest.mark.parametrize("export_format", ["jsonl", "qrels", "topics"])
async def test_where_nothing_was_rated_the_export_is_empty(world: World, export_format: str) -> None:
    answer = await world.client.get(f"{PATH}?format={export_format}")
    assert (answer.status, await answer.text()) == (200, "")


@pytest.mark.parametrize(
    ("query", "field"),
    [("format=csv", "format"), ("format=", "format"), ("since=yesterday", "since"), ("since=", "since"), ("cursor=x", "cursor"),
     ("cursor=-1", "cursor"), ("cursor=9999999999999999", "cursor"), ("limit=0", "limit"), ("limit=1000001", "limit"),
     ("format=qrels&cursor=5", "cursor"), ("format=topics&limit=5", "limit"), ("since=0001-01-01T00:00:00%2B23:00", "since")],
)  # fmt: skip
async def test_what_cannot_be_asked_is_422_and_says_why(world: World, query: str, field: str) -> None:
    answer = await world.client.get(f"{PATH}?{query}")
    assert (answer.status, (await answer.json())["errors"][0]["field"]) == (422, field)


@pytest.mark.parametrize("path", [PATH, REPORT])
async def test_with_keys_only_they_may_read_what_people_rated(make_world: MakeWorld, path: str) -> None:
    world = await make_world(api_keys="first, second")
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert (await world.client.get(path, headers=headers)).status == 401
    assert (await world.client.get(path, headers={"Authorization": "Bearer second", "Host": "photos.example"})).status == 200


@pytest.mark.parametrize("path", [PATH, REPORT])
async def test_beyond_loopback_without_keys_nobody_may_read_it(make_world: MakeWorld, path: str) -> None:
    world = await make_world(host="0.0.0.0")
    assert (await world.client.get(path)).status == 401


@pytest.mark.parametrize("path", [PATH, REPORT])
async def test_without_keys_this_machine_reads_it_by_its_own_names_alone(world: World, path: str) -> None:
    """A page whose name was pointed to loopback (DNS rebinding) reads without an `Origin`, but says its name in `Host`."""
    assert (await world.client.get(path)).status == 200
    for host in ("localhost:3000", "127.0.0.1", "[::1]:3000"):
        assert (await world.client.get(path, headers={"Host": host})).status == 200
    for headers in ({"Host": ""}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        assert (await world.client.get(path, headers=headers)).status == 401
    assert (await world.client.get(path, headers={"Host": "evil.example:3000"})).status == 403


async def test_the_report_says_what_people_think(red_and_blue: World) -> None:
    good, bad = await red_and_blue.search(text="red"), await red_and_blue.search(text="blue")
    for rating, found in ((9, good), (3, bad)):
        await _rate(red_and_blue, found["jwt"], rating)
    await _rate(red_and_blue, good["matches"][0]["jwt"], 10)
    await _rate(red_and_blue, good["matches"][1]["jwt"], 1)
    report = await (await red_and_blue.client.get(REPORT)).json()
    assert (report["ratings"], report["clients"], report["queries"]) == (4, 1, 2)
    assert report["searches"]["mean"] == 6
    assert report["searches"]["low"] < 6 < report["searches"]["high"]
    assert report["images"]["mean"] == 5.5
    assert report["ndcg_at_10"]["mean"] == 1
    assert [query["asked"]["text"] for query in report["worst_queries"]] == ["blue", "red"]
    assert report["most_rated_queries"][0]["ratings"] == 3
    assert {image["image_id"] for image in report["most_rated_images"]} == {match["image_id"] for match in good["matches"]}
    assert report["models"][0]["model_name"] == "CLIP"


async def test_a_report_of_nothing_has_no_means(world: World) -> None:
    report = await (await world.client.get(REPORT)).json()
    assert (report["ratings"], report["searches"], report["ndcg_at_10"], report["worst_queries"]) == (0, None, None, [])
    assert (await world.client.get(f"{REPORT}?since=never")).status == 422


# --- what the numbers mean -------------------------------------------------------------------------------------------


def _rating(rating: int = 5, *, text: str = "red", image_id: str | None = None, search: str = "s", **more: Any) -> Rating:
    made: dict[str, Any] = {
        "jti": "x",
        "segment": None,
        "query": {"text": text},
        "model": "m",
        "shown": [RED, GREEN, BLUE],
        **more,
    }
    return Rating(rating=rating, image_id=image_id, search_id=search, **made)


def _kept(ratings: Sequence[Rating], into: JudgedPool | ReportBuilder) -> None:
    from searchsvc.feedback import KeptRating

    for n, rating in enumerate(ratings, start=1):
        into.add(KeptRating(n, f"f{n}", "2026-01-01T00:00:00+00:00", rating))


def test_grades_follow_the_mean_rating() -> None:
    assert [grade_of(rating) for rating in range(1, 11)] == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert (grade_of(4.99), grade_of(8.99)) == (0, 2)


def test_of_each_client_the_last_rating_counts_and_clients_count_alike() -> None:
    pool = JudgedPool()
    spam = [_rating(1, image_id=RED, client="net-spam") for _ in range(50)]
    _kept(
        [
            *spam,
            _rating(10, image_id=RED, client="a"),
            _rating(3, image_id=RED, client="b"),
            _rating(10, image_id=RED, client="b"),
        ],
        pool,
    )
    (topic,) = {topic_of(rating) for rating in spam}
    assert pool.grades(topic) == {RED: grade_of((1 + 10 + 10) / 3)}


def test_ratings_without_a_client_are_each_a_voice_of_their_own() -> None:
    pool = JudgedPool()
    _kept([_rating(10, image_id=RED), _rating(6, image_id=RED)], pool)
    assert pool.grades(topic_of(_rating())) == {RED: 2}


def test_ndcg_leaves_unjudged_images_out_and_misses_those_that_others_found() -> None:
    assert ndcg_at_10([RED, GREEN, BLUE], {RED: 3, BLUE: 1}) == 1
    assert ndcg_at_10([BLUE, GREEN, RED], {RED: 3, BLUE: 1}) == pytest.approx((1 + 7 * 0.63093) / (7 + 0.63093), abs=1e-4)
    assert ndcg_at_10([GREEN], {RED: 3}) == 0
    assert ndcg_at_10([RED], {RED: 0}) is None
    assert ndcg_at_10([*"0123456789", RED], {**dict.fromkeys("0123456789", 0), RED: 3}) == 0


def test_a_search_whose_first_place_is_not_known_has_no_ndcg() -> None:
    builder = ReportBuilder()
    _kept([_rating(10, image_id=RED, first_rank=11), _rating(10, image_id=RED, search="other")], builder)
    ndcg = builder.report().ndcg_at_10
    assert ndcg is not None
    assert (ndcg.mean, ndcg.of, ndcg.low) == (1, 1, None)


def test_equal_questions_are_one_topic_and_pictures_of_an_old_release_are_not_mistaken_for_one_another() -> None:
    assert topic_of(_rating(query={"text": "red", "scope": "images"})) == topic_of(
        _rating(query={"scope": "images", "text": "red"})
    )
    assert topic_of(_rating(text="red")) != topic_of(_rating(text="Red"))
    old = {"picture": True}
    assert topic_of(_rating(query=old, search="one")) != topic_of(_rating(query=old, search="two"))


# --- the file --------------------------------------------------------------------------------------------------------


def _of_the_first_release(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(_FIRST + "PRAGMA user_version = 1;")
    rows = [
        (
            f"f{n}",
            f"t{n}",
            n,
            RED if n % 2 else None,
            None,
            "s",
            '{"text": "red"}',
            "m",
            json.dumps([RED, BLUE]),
            "2026-01-01T00:00:00+00:00",
        )
        for n in range(1, 6)
    ]
    connection.executemany("INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.execute("DELETE FROM feedback WHERE feedback_id = 'f2'")
    connection.commit()
    connection.close()


async def test_ratings_of_the_first_release_are_kept_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "feedback.sqlite"
    _of_the_first_release(path)
    async with FeedbackStore(FileFeedback(path)) as store:
        await store.add(_rating(10, image_id=RED, jti="new", client="key-1", scores=[0.5, 0.4, 0.3], first_rank=4))
        kept = [one async for page in store.pages() for one in page]
    assert [one.rating.rating for one in kept] == [1, 3, 4, 5, 10]
    assert [one.sequence for one in kept] == sorted({one.sequence for one in kept})
    old, new = kept[0].rating, kept[-1].rating
    assert (old.query, old.shown, old.scores, old.first_rank, old.client) == ({"text": "red"}, [RED, BLUE], [], 1, None)
    assert (new.scores, new.first_rank, new.client) == ([0.5, 0.4, 0.3], 4, "key-1")


async def test_a_token_spent_in_the_first_release_stays_spent(tmp_path: Path) -> None:
    from core.errors import Conflict

    path = tmp_path / "feedback.sqlite"
    _of_the_first_release(path)
    async with FeedbackStore(FileFeedback(path)) as store:
        with pytest.raises(Conflict):
            await store.add(_rating(jti="t3"))


def test_a_migration_that_breaks_off_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "feedback.sqlite"
    _of_the_first_release(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE judged (in_the_way)")
    connection.commit()
    step = KeptDatabase(path, _STEPS, part=StatePart.FEEDBACK, synchronous="FULL")
    with pytest.raises(sqlite3.OperationalError):
        step.connect()
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM feedback").fetchone() == (4,)
    connection.execute("DROP TABLE judged")
    connection.commit()
    connection.close()
    file = FeedbackFile(path)
    migrated = file.open()
    assert migrated.execute("PRAGMA user_version").fetchone() == (VERSION,)
    file.close(migrated)


async def test_an_export_ends_with_what_was_there_when_it_began_and_holds_up_no_rating(tmp_path: Path) -> None:
    async with FeedbackStore(FileFeedback(tmp_path / "feedback.sqlite")) as store:
        for n in range(600):
            await store.add(_rating(jti=f"{n}"))
        pages = store.pages()
        first = await anext(pages)
        for n in range(5):
            await store.add(_rating(jti=f"later {n}"))
        rest = [one async for page in pages for one in page]
    assert (len(first), len(rest)) == (500, 100)


async def test_a_store_that_is_closed_is_unavailable(tmp_path: Path) -> None:
    store = FeedbackStore(FileFeedback(tmp_path / "feedback.sqlite"))
    with pytest.raises(Unavailable):
        await store.before_last(5)
