"""What the terminal can draw: told by its environment where that is certain, else by itself within a short time."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Mapping
from enum import StrEnum

_ANSWER_WITHIN_S = 0.4
_ASKS = b"\x1b[>q\x1b[c"
"""XTVERSION, then the primary device attributes. Both are plain CSI, which a terminal that knows neither leaves out; each one answers
the second, so its answer is the end. A kitty graphics query would be printed by terminals that don't know APC."""
_ATTRIBUTES = re.compile(rb"\x1b\[\?([\d;]*)c")
_NAME = re.compile(rb"\x1bP>\|([^\x1b]*)\x1b\\")
_SIXEL = b"4"


class Graphics(StrEnum):
    KITTY = "kitty"
    ITERM2 = "iterm2"
    SIXEL = "sixel"
    BLOCKS = "blocks"
    NONE = "none"


_BY_TERM = {"xterm-kitty": Graphics.KITTY, "xterm-ghostty": Graphics.KITTY}
_BY_PROGRAM = {
    "ghostty": Graphics.KITTY,
    "iTerm.app": Graphics.ITERM2,
    "WezTerm": Graphics.ITERM2,
    "mintty": Graphics.ITERM2,
    "Apple_Terminal": Graphics.BLOCKS,
}
_BY_NAME = ((b"kitty", Graphics.KITTY), (b"ghostty", Graphics.KITTY), (b"wezterm", Graphics.ITERM2), (b"iterm2", Graphics.ITERM2))
"""As XTVERSION answers, in lower case."""
_MULTIPLEXERS = ("screen", "tmux")
_NEVER_ASKED = ("dumb", "linux", "")


def graphics_of_terminal() -> Graphics:
    """For a stdout that is a terminal."""
    return graphics_of(os.environ, ask=_ask_terminal)


def graphics_of(environment: Mapping[str, str], *, ask: Callable[[], bytes]) -> Graphics:
    """`ask` gives the terminal's answers to `_ASKS`, or nothing."""
    term = environment.get("TERM", "")
    otherwise = _in_colour(environment, term)
    if term in _NEVER_ASKED:
        return otherwise
    within = "TMUX" in environment or term.startswith(_MULTIPLEXERS)
    if not within:  # a multiplexer passes its own terminal's names on, but not its pictures
        named = _BY_TERM.get(term) or _BY_PROGRAM.get(environment.get("TERM_PROGRAM", ""))
        if named is None and environment.get("LC_TERMINAL") == "iTerm2":
            named = Graphics.ITERM2
        if named is not None:
            return otherwise if named is Graphics.BLOCKS else named
    return _told(ask()) or otherwise


def _told(answer: bytes) -> Graphics | None:
    if name := _NAME.search(answer):
        for known, graphics in _BY_NAME:
            if name[1].lower().startswith(known):
                return graphics
    attributes = _ATTRIBUTES.search(answer)
    return Graphics.SIXEL if attributes and _SIXEL in attributes[1].split(b";")[1:] else None


def _in_colour(environment: Mapping[str, str], term: str) -> Graphics:
    """Half blocks want 24-bit colour, and a user who did not ask for none (no-color.org)."""
    colours = environment.get("COLORTERM") in {"truecolor", "24bit"} or term.endswith("-direct")
    return Graphics.BLOCKS if colours and not environment.get("NO_COLOR") and term != "dumb" else Graphics.NONE


def _ask_terminal() -> bytes:
    """Nothing where nobody may be asked: in the background, while something was typed ahead, or without an answer in time."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return _answer_of(terminal)
    except (OSError, termios.error):
        return b""
    finally:
        os.close(terminal)


def _answer_of(terminal: int) -> bytes:
    if os.tcgetpgrp(terminal) != os.getpgrp() or _readable(terminal, 0.0):
        return b""
    sys.stdout.flush()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)  # nothing is echoed, and Ctrl-C stays Ctrl-C
        os.write(terminal, _ASKS)
        return _read_answer(terminal)
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)  # what comes late is thrown away instead of typed into the shell


def _read_answer(terminal: int) -> bytes:
    deadline = time.monotonic() + _ANSWER_WITHIN_S
    answer = b""
    while not _ATTRIBUTES.search(answer):
        if not _readable(terminal, deadline - time.monotonic()):
            return b""
        answer += os.read(terminal, 1024)
    return answer


def _readable(terminal: int, timeout_s: float) -> bool:
    return bool(select.select([terminal], [], [], max(0.0, timeout_s))[0])
