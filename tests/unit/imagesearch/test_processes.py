"""The command as a process: in a pipe, on a terminal that answers or does not, and interrupted."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes import picture
from tests.unit.imagesearch.conftest import Stub, document, image, text
from tests.unit.searchsvc.conftest import World

_COMMAND = (sys.executable, "-m", "imagesearch")
_REPOSITORY = Path(__file__).resolve().parents[3]
_QUESTION = b"\x1b[>q\x1b[c"


@pytest.fixture
def environment(address: str, tmp_path: Path) -> dict[str, str]:
    told = ("TERM", "TERM_PROGRAM", "COLORTERM", "NO_COLOR", "TMUX", "LC_TERMINAL", "IMAGESEARCH_API_KEY")
    inherited = {name: value for name, value in os.environ.items() if name not in told}
    return {**inherited, "IMAGESEARCH_URL": address, "XDG_STATE_HOME": str(tmp_path / "xdg"), "TERM": "xterm-256color"}


@dataclass
class Terminal:
    """A pseudo-terminal of 100 columns that is the command's own, with a person or nobody behind it."""

    environment: dict[str, str]
    answer: bytes = b""
    seen: bytes = b""

    def run(self, *arguments: str) -> int:
        """Until it ends; blocks. `answer` is given as soon as the terminal is asked for its attributes."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        child = subprocess.Popen(
            [sys.executable, "-c", _OWN_TERMINAL, *arguments],
            cwd=_REPOSITORY,
            env=self.environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            while chunk := _read(ours):
                self.seen += chunk
                if self.answer and _QUESTION in self.seen:
                    os.write(ours, self.answer)
                    self.answer = b""
            return child.wait(20)
        finally:
            os.close(ours)
            child.kill()
            child.wait()


_OWN_TERMINAL = """\
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from imagesearch.__main__ import main
sys.exit(main())
"""


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so when the other end is closed
        return b""


@pytest.fixture
async def indexed(world: World) -> None:
    for colour in ("red", "green", "blue"):
        await world.add(picture(colour), f"{colour}.png")


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize(
    ("colours", "answer", "expected"),
    [
        ("", b"\x1bP>|kitty(0.35.2)\x1b\\\x1b[?62;c", b"\x1b_Ga=T,"),
        ("", b"\x1b[?62;4;22c", b"\x1bP0;1q"),
        ("truecolor", b"\x1b[?62;22c", "▀".encode()),
        ("truecolor", b"", "▀".encode()),
        ("", b"", b"red.png  "),
    ],
)
async def test_a_terminal_gets_what_it_says_that_it_draws(
    environment: dict[str, str], colours: str, answer: bytes, expected: bytes
) -> None:
    terminal = Terminal({**environment, "COLORTERM": colours}, answer)
    assert await asyncio.to_thread(terminal.run, "search", "red") == 0
    assert expected in terminal.seen
    assert b"rate one: imagesearch rate 1 9" in terminal.seen
    if not answer and not colours:
        assert b"\x1b_G" not in terminal.seen
        assert b"\x1bP" not in terminal.seen
    assert b"?62" not in terminal.seen, "the terminal's answer must not be echoed"


@pytest.mark.usefixtures("indexed")
async def test_without_thumbnails_nothing_is_asked_and_nothing_drawn(environment: dict[str, str]) -> None:
    terminal = Terminal({**environment, "COLORTERM": "truecolor"})
    assert await asyncio.to_thread(terminal.run, "search", "red", "--no-thumbnails") == 0
    assert _QUESTION not in terminal.seen
    assert "▀".encode() not in terminal.seen
    assert b"red.png" in terminal.seen


@pytest.mark.usefixtures("indexed")
async def test_json_on_a_terminal_is_json_alone(environment: dict[str, str]) -> None:
    terminal = Terminal({**environment, "TERM": "xterm-kitty"})
    assert await asyncio.to_thread(terminal.run, "search", "red", "--json") == 0
    assert b"\x1b" not in terminal.seen
    assert terminal.seen.startswith(b'{"text":"red"')


async def test_adding_draws_bars_on_a_terminal_and_sums_up(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture("red"))
    terminal = Terminal(environment)
    assert await asyncio.to_thread(terminal.run, "add", str(tmp_path / "a.png")) == 0
    assert b"sending" in terminal.seen
    assert b"1 pending" in terminal.seen


@pytest.mark.usefixtures("indexed")
async def test_in_a_pipe_stdout_holds_lines_alone(environment: dict[str, str]) -> None:
    child = await asyncio.create_subprocess_exec(
        *_COMMAND, "search", "red", cwd=_REPOSITORY, env={**environment, "TERM": "xterm-kitty"}, stdout=-1, stderr=-1
    )
    out, err = await child.communicate()
    assert (child.returncode, err) == (0, b"")
    assert b"\x1b" not in out
    assert out.count(b"\n") == 3


async def test_a_reader_that_goes_away_ends_it_quietly(environment: dict[str, str], world: World) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    child = await asyncio.create_subprocess_exec(*_COMMAND, "status", cwd=_REPOSITORY, env=environment, stdout=theirs, stderr=-1)
    os.close(theirs)
    _, err = await child.communicate()
    assert (child.returncode, err) == (141, b"")


async def test_the_exit_code_stays_though_nobody_reads_what_is_said(environment: dict[str, str], world: World) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    child = await asyncio.create_subprocess_exec(
        *_COMMAND, "status", "--url", "http://127.0.0.1:1", cwd=_REPOSITORY, env=environment, stdout=-1, stderr=theirs
    )
    os.close(theirs)
    await child.communicate()
    assert child.returncode == 141, "and not 1, as if nothing had been found"


@pytest.mark.usefixtures("indexed")
async def test_what_a_shell_has_closed_is_nobody_and_no_error(environment: dict[str, str]) -> None:
    for closed, code, *arguments in (
        (">&-", 0, "status"),
        ("<&- 2>&-", 4, "search", "--picture", "-"),
        (">&- 2>&-", 0, "search", "red"),
    ):
        child = await asyncio.create_subprocess_exec(
            "sh", "-c", f'exec "$@" {closed}', "sh", *_COMMAND, *arguments, cwd=_REPOSITORY, env=environment, stdout=-1, stderr=-1
        )
        assert await child.communicate() == (b"", b"")
        assert child.returncode == code


def _hear_interrupts() -> None:
    """A shell makes what it starts in the background deaf to SIGINT, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("heard", [True, False])
async def test_ctrl_c_while_waiting_ends_with_a_word_and_130(
    environment: dict[str, str], tmp_path: Path, world: World, heard: bool
) -> None:
    """Also where it has ended the reader of what is said as well."""
    (tmp_path / "a.png").write_bytes(picture("red"))
    child = await asyncio.create_subprocess_exec(
        *_COMMAND,
        "add",
        str(tmp_path / "a.png"),
        "--wait",
        cwd=_REPOSITORY,
        env=environment,
        stdout=-1,
        stderr=-1,
        preexec_fn=_hear_interrupts,
    )
    deadline = time.monotonic() + 30
    while not world.catalog.noticed and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    if not heard:
        child._transport.get_pipe_transport(2).close()  # type: ignore[attr-defined]
    child.send_signal(signal.SIGINT)
    out, err = await child.communicate()
    assert (child.returncode, out) == (130, b"")
    assert (b"interrupted" in err) == heard
    assert b"Traceback" not in err


@pytest.mark.usefixtures("indexed")
async def test_a_person_sees_how_a_score_comes_about_and_how_to_go_on(environment: dict[str, str]) -> None:
    for more, colours in (("--no-thumbnails", ""), ("--scope=both", "truecolor")):
        terminal = Terminal({**environment, "COLORTERM": colours}, b"\x1b[?62;22c")
        assert await asyncio.to_thread(terminal.run, "search", "red", "--not", "blue", "--explain", "-k", "2", more) == 0
        assert "“red”" in terminal.seen.decode()
        assert "not “blue”" in terminal.seen.decode()
        assert b"imagesearch search --next" in terminal.seen
        assert (b"its region 0" in terminal.seen) == (more == "--scope=both")
    terminal = Terminal(environment, b"\x1b[?62;22c")
    assert await asyncio.to_thread(terminal.run, "search", "--next") == 0
    assert b"imagesearch rate 3 9" in terminal.seen
    assert b"--next" not in terminal.seen, "nothing follows"


@pytest.mark.usefixtures("indexed")
async def test_a_thumbnail_that_is_no_picture_leaves_the_words_and_the_other_hits(
    environment: dict[str, str], world: World, stub: Stub
) -> None:
    asked = await world.client.post("/api/v1/search-image", json={"text": "red"})
    stub.answers = [
        document(await asked.json()),
        text("<html>Log in</html>"),
        image(picture("red")[:40]),
        image(picture("red")),
    ]
    terminal = Terminal({**environment, "IMAGESEARCH_URL": stub.url, "COLORTERM": "truecolor"})
    assert await asyncio.to_thread(terminal.run, "search", "red", "--thumbnails", "blocks") == 0
    assert all(f"{colour}.png".encode() in terminal.seen for colour in ("red", "green", "blue"))
    assert "▀".encode() in terminal.seen


async def test_a_person_sees_two_models_side_by_side_with_rank_changes(
    environment: dict[str, str], world: World, stub: Stub
) -> None:
    """The fakes are of one mind: what they answer is told with other ranks."""
    ids = [await world.add(picture(colour), f"{colour}.png") for colour in ("red", "green", "blue", "yellow", "white")]
    asked = {"text": "red", "models": ["CLIP", "CLIP"], "top_k": 5}
    compared = await (await world.client.post("/api/v1/compare-models", json=asked)).json()
    compared["answers"][1]["model_name"] = "ResNet"
    ranks = [(1, 3), (4, 1), (2, 2), (None, 4), (3, None)]
    compared["images"] = [
        {"image_id": image_id, "ranks": pair, "scores": [rank and rank / 10 for rank in pair]}
        for image_id, pair in zip(ids, ranks, strict=True)
    ]
    stub.answers = [document({**compared, "overlap": 3})]
    terminal = Terminal({**environment, "IMAGESEARCH_URL": stub.url})
    assert await asyncio.to_thread(terminal.run, "search", "red", "--compare", "CLIP", "ResNet") == 0
    assert [line.split() for line in terminal.seen.decode().splitlines()[:-1]] == [
        ["CLIP", "ResNet"],
        ["1", "0.100", "3", "0.300", "↓2", "red.png"],
        ["4", "0.400", "1", "0.100", "↑3", "green.png"],
        ["2", "0.200", "2", "0.200", "=", "blue.png"],
        ["4", "0.400", "new", "yellow.png"],
        ["3", "0.300", "white.png"],
    ]
    assert b"3 of 5 by both" in terminal.seen


@pytest.mark.usefixtures("indexed")
async def test_a_person_is_told_how_many_images_a_hit_stands_for(environment: dict[str, str], world: World) -> None:
    for image_format in ("BMP", "TIFF"):
        await world.add(picture("red", image_format=image_format), f"red.{image_format}")
    terminal = Terminal(environment)
    assert await asyncio.to_thread(terminal.run, "search", "red", "--collapse", "-k", "1", "--no-thumbnails") == 0
    assert b"and 2 near-duplicates" in terminal.seen
