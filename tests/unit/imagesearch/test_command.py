"""The command `imagesearch` as programs and people use it, without a terminal."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from core.schemas import Failure, ModelChange, ModelsAction, ModelsCourse
from imagesearch.__main__ import main
from tests.fakes import image_id_of, index, picture
from tests.unit.imagesearch.conftest import Stub, problem, text
from tests.unit.searchsvc.conftest import MakeWorld, World


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """What stdout holds, if that is one line of JSON and nothing else."""
        (line,) = self.out.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


Command = Callable[..., Awaitable[Ended]]


@pytest.fixture(autouse=True)
def quiet_service() -> Iterator[None]:
    """The service shares the test's stdout: its log stays out of what the command says."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def command(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run it in a thread: the service shares the test's loop."""
    monkeypatch.setenv("IMAGESEARCH_URL", address)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("IMAGESEARCH_API_KEY", raising=False)

    def run(arguments: tuple[object, ...]) -> int:
        try:
            return main([str(argument) for argument in arguments])
        except SystemExit as ended:  # argparse's way
            return int(ended.code or 0)

    async def start(*arguments: object) -> Ended:
        code = await asyncio.to_thread(run, arguments)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return start


@pytest.fixture
async def colours(world: World) -> dict[str, str]:
    return {colour: await world.add(picture(colour), f"{colour}/{colour}.png") for colour in ("red", "green", "blue")}


# --- search


async def test_what_is_found_is_a_line_for_each_with_tabs_between(command: Command, colours: dict[str, str]) -> None:
    ended = await command("search", "something", "red", "-k", "2")
    assert (ended.code, ended.err) == (0, "")
    assert [row[0] for row in ended.rows] == ["1", "2"]
    assert ended.rows[0][2:] == ["red/red.png", "", colours["red"]]
    assert 0 < float(ended.rows[0][1]) <= 1


async def test_as_json_it_is_the_services_answer_and_nothing_else(command: Command, colours: dict[str, str]) -> None:
    ended = await command("search", "red", "--json", "--scope", "segments")
    assert ended.document["matches"][0]["segment"]["label"] == "half"
    assert ended.document["jwt"]
    assert ended.err == ""


async def test_what_the_service_says_of_its_models_is_told_in_a_sentence_and_whole_by_status(
    command: Command, world: World, colours: dict[str, str]
) -> None:
    world.embedder.models = world.embedder.models.model_copy(
        update={"notice": "The small model answers. Put weights there. Restart."}
    )
    found = await command("search", "red")
    assert found.err == "The small model answers. More: imagesearch status\n"
    assert len(found.rows) == len(colours)
    assert "Put weights there. Restart." in (await command("status", "--json")).out


async def test_nothing_found_is_one(command: Command) -> None:
    assert [(await command("search", "red", *more)).code for more in ((), ("--json",))] == [1, 1]


async def test_a_picture_words_and_every_filter_go_along(command: Command, colours: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "q.png").write_bytes(picture("blue", mark=3))
    assert (await command("search", "--picture", tmp_path / "q.png", "--text", "blue", "-k", 1)).rows[0][2] == "blue/blue.png"
    kept = ("--folder", "green", "--label", "half", "--label", "cat", "--from", "2024-06-01", "--to", "2024-06-30")
    ended = await command("search", "red", *kept, "--filter", '{"size": {"min_width": 1}}', "--not", "blue", "--model", "clip")
    assert [row[2] for row in ended.rows] == ["green/green.png"]
    assert (await command("search", "red", "--from", "2025-01-01")).code == 1
    assert (await command("search", "--image-id", colours["red"], "--offset", 1)).rows[0][0] == "2"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("search",),
        ("search", "red", "--text", "blue"),
        ("search", "red", "--filter", "{"),
        ("search", "red", "--filter", "[]"),
        ("search", "--picture", "/nowhere/q.png"),
        ("search", "red", "-k", "many"),
        ("search", "red", "--url", "localhost:3000"),
        ("add", "/nowhere"),
        ("rate",),
        ("rate", "11"),
        ("rate", "1", "2", "3"),
        ("rate", "1", "2", "--jwt", "x"),
        ("rate", "5"),
        ("export", "--format", "qrels", "--json"),
        ("status", "--watch", "--failures"),
    ],
)
async def test_a_command_line_that_does_not_serve_is_two_and_says_why(command: Command, arguments: tuple[str, ...]) -> None:
    ended = await command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err
    assert "Traceback" not in ended.err


async def test_what_the_service_refuses_is_four(command: Command) -> None:
    ended = await command("search", "red", "--top-k", "1000", "--json")
    assert (ended.code, ended.out) == (4, "")
    assert "top_k" in ended.err


async def test_a_service_that_is_away_or_another_one_is_three(command: Command, stub: Stub) -> None:
    for answer in (problem(503, "no_model", detail="no weights"), problem(500), text("<html>")):
        stub.answers = [answer]
        ended = await command("search", "red", "--url", stub.url)
        assert (ended.code, ended.out) == (3, "")
    assert (await command("status", "--url", "http://127.0.0.1:1")).code == 3


async def test_a_pause_is_told(command: Command, stub: Stub, world: World, colours: dict[str, str]) -> None:
    stub.answers = [problem(503, "overloaded", detail="the queue is full", retry_after="1"), problem(503, "no_model")]
    ended = await command("search", "red", "--url", stub.url)
    assert "the queue is full; trying again in 1 s" in ended.err


# --- rate


async def test_the_last_search_and_its_hits_are_rated_by_their_numbers(
    command: Command, world: World, colours: dict[str, str]
) -> None:
    await command("search", "red")
    assert (await command("rate", "8")).code == 0
    assert (await command("rate", "2", "9", "--json")).document["user_feedback"] == 9
    again = await command("rate", "2", "9")
    assert (again.code, "already" in again.err) == (4, True)
    for number in ("0", "4", "-1"):
        assert (await command("rate", "--", number, "9")).code == 2


async def test_hits_keep_the_numbers_that_they_were_shown_with(command: Command, colours: dict[str, str]) -> None:
    await command("search", "red", "--offset", "1")
    assert [(await command("rate", number, "9")).code for number in ("1", "2", "3", "4")] == [2, 0, 0, 2]


async def test_a_rating_goes_to_the_service_that_was_searched(
    command: Command, colours: dict[str, str], monkeypatch: pytest.MonkeyPatch, stub: Stub, address: str
) -> None:
    await command("search", "red", "--url", address)
    monkeypatch.setenv("IMAGESEARCH_URL", stub.url)
    assert (await command("rate", "1", "9")).code == 0
    assert not stub.asked


async def test_a_search_that_found_nothing_is_not_remembered_over_one_that_did(command: Command, colours: dict[str, str]) -> None:
    await command("search", "red")
    assert (await command("search", "red", "--min-score", "1")).code == 1
    assert (await command("rate", "1", "9")).code == 0


async def test_what_is_remembered_is_the_users_alone(command: Command, colours: dict[str, str], tmp_path: Path) -> None:
    await command("search", "red")
    (kept,) = (path for path in (tmp_path / "xdg").rglob("*") if path.is_file())
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    kept.write_text("{not json")
    assert (await command("rate", "1", "9")).code == 2


async def test_a_search_that_cannot_be_remembered_still_answers(
    command: Command, colours: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "xdg").write_text("a file where the folder should be")
    ended = await command("search", "red")
    assert (ended.code, len(ended.rows)) == (0, 3)
    assert "cannot be remembered" in ended.err


async def test_a_token_from_json_is_rated(command: Command, colours: dict[str, str]) -> None:
    match = (await command("search", "red", "--json")).document["matches"][1]
    assert (await command("rate", "--jwt", match["jwt"], "7")).code == 0
    assert (await command("rate", "--jwt", "forged", "7")).code == 4


# --- add


async def test_added_files_are_told_one_by_one(world: World, command: Command, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(picture("red"))
    (photos / "b.jpg").write_bytes(b"no picture")
    ended = await command("add", photos, "--folder", "mine")
    assert ended.code == 1, "a file failed"
    assert [row[1:] for row in ended.rows] == [["pending", image_id_of(picture("red")), ""], ["failed", "", "not_an_image"]]
    lines = [json.loads(line) for line in (await command("add", photos, "--json")).out.splitlines()]
    assert [line["state"] for line in lines] == ["pending", "failed"]
    assert lines[0]["path"] == str(photos / "a.png")


async def test_waiting_tells_each_file_when_it_has_ended(world: World, command: Command, tmp_path: Path) -> None:
    content = picture("red")
    (tmp_path / "a.png").write_bytes(content)
    adding = asyncio.create_task(command("add", tmp_path / "a.png", "--wait", "--json"))
    await asyncio.sleep(0.5)
    assert not adding.done()
    await index(world.embedder, world.vectors, world.catalog, content, "a.png")
    ended = await adding
    assert (ended.code, ended.document["state"]) == (0, "indexed")


async def test_what_is_not_indexed_in_time_is_told_and_one(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture("red"))
    ended = await command("add", tmp_path / "a.png", "--wait-s", "0.1")
    assert (ended.code, ended.rows[0][1]) == (1, "pending")


async def test_an_empty_folder_is_nothing(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (await command("add", tmp_path / "empty")).code == 1


async def test_without_the_key_adding_is_refused_at_the_first_file(
    make_world: MakeWorld, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world(api_keys=("the-key",))
    (tmp_path / "a.png").write_bytes(picture("red"))
    url = str(world.client.make_url("/"))
    refused = await command("add", tmp_path / "a.png", "--url", url)
    assert refused.code == 4
    assert "IMAGESEARCH_API_KEY" in refused.err
    monkeypatch.setenv("IMAGESEARCH_API_KEY", "the-key")
    assert (await command("add", tmp_path / "a.png", "--url", url)).code == 0


# --- status, export


async def test_status_counts(command: Command, colours: dict[str, str]) -> None:
    assert (await command("status", "--json")).document["images"]["indexed"] == 3
    ended = await command("status")
    assert (ended.code, ended.rows[0][0]) == (0, "indexed=3")


async def test_failures_are_listed_with_their_reasons(command: Command, world: World) -> None:
    world.catalog.failed.append(Failure(path="a\nb.jpg", reason="truncated", detail="ends early", failed_at=datetime.now(UTC)))
    assert (await command("status", "--failures")).rows == [["a�b.jpg", "truncated", "ends early"]]
    assert (await command("status", "--failures", "--json")).document["failures"][0]["path"] == "a\nb.jpg"


async def test_programs_are_told_of_every_failure(command: Command, world: World) -> None:
    paths = [f"{n}.jpg" for n in range(2100)]
    world.catalog.failed += [Failure(path=path, reason="truncated", detail=None, failed_at=datetime.now(UTC)) for path in paths]
    assert [row[0] for row in (await command("status", "--failures")).rows] == paths
    told = (await command("status", "--failures", "--json")).document
    assert ([failure["path"] for failure in told["failures"]], told["total"]) == (paths, 2100)


async def test_ratings_are_exported_to_stdout_or_into_a_file_of_the_users_own(
    command: Command, colours: dict[str, str], tmp_path: Path
) -> None:
    assert (await command("export")).code == 1, "nothing was rated yet"
    await command("search", "red")
    await command("rate", "1", "9")
    assert (await command("export", "--json")).document["rating"] == 9
    target = tmp_path / "judgements.qrels"
    ended = await command("export", "--format", "qrels", "-o", target, "--json")
    assert ended.document == {"output": str(target), "format": "qrels", "lines": 1}
    assert colours["red"] in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert (await command("export", "-o", tmp_path / "absent" / "x")).code == 2


# --- models


async def test_a_change_of_models_is_told_and_stopped(command: Command, world: World) -> None:
    assert (await command("models", "stop")).code == 4, "there is none"
    change = ModelChange(profile="clip", answering="starter", done=1200, total=5000, stopped=False)
    world.catalog.course = ModelsCourse(searched="f", profile="starter", change=change, previous="shoes")
    assert (await command("models")).rows == [["answers=starter", "change=clip", "done=1200", "total=5000", "previous=shoes"]]
    assert (await command("models", "stop", "--json")).document["change"]["done"] == 1200
    assert world.catalog.turned == [ModelsAction.STOP]
    assert (await command("models", "destroy")).code == 2


# --- odd places and streams


async def test_ratings_leave_as_the_bytes_that_came_whatever_the_locale(
    stub: Stub, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.answers = [text('{"topic": "Übung ж"}\n')]
    with io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="latin-1") as narrow:
        monkeypatch.setattr("sys.stdout", narrow)
        assert await asyncio.to_thread(main, ["export", "--url", stub.url]) == 0
    assert capfdbinary.readouterr().out.decode() == '{"topic": "Übung ж"}\n'


async def test_a_name_of_255_bytes_is_written_and_what_is_no_file_is_written_into(
    stub: Stub, command: Command, tmp_path: Path
) -> None:
    stub.answers = [text("{}\n")]
    longest = tmp_path / ("x" * 255)
    assert (await command("export", "--url", stub.url, "-o", longest)).code == 0
    assert longest.read_text() == "{}\n"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert (await command("export", "--url", stub.url, "-o", tmp_path / "pipe")).code == 0
    assert os.read(reader, 100) == b"{}\n"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode), "such as /dev/null is not replaced by a file"


async def test_a_picture_whose_name_is_not_utf_8_is_searched_by(
    command: Command, colours: dict[str, str], tmp_path: Path
) -> None:
    query = tmp_path / os.fsdecode(b"\xfc.png")
    query.write_bytes(picture("red"))
    assert (await command("search", "--picture", query)).code == 0
    assert (await command("rate", "1", "9")).code == 0


async def test_a_proxy_that_nothing_here_speaks_to_is_two(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    ended = await command("status", "--url", "http://example.invalid")
    assert (ended.code, "SOCKS" in ended.err) == (2, True)
