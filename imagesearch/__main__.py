"""`imagesearch`: the terminal's way in."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from contextlib import suppress
from dataclasses import fields

from imagesearch.client import DEFAULT_URL, Client
from imagesearch.command.add import Add
from imagesearch.command.backfill import Backfill
from imagesearch.command.embeddings import Embeddings
from imagesearch.command.exits import Exit, UsageError, exit_of
from imagesearch.command.export import Export
from imagesearch.command.models import Models
from imagesearch.command.rate import Rate
from imagesearch.command.screen import Screen
from imagesearch.command.search import Search
from imagesearch.command.sizing import Sizing
from imagesearch.command.status import Status
from imagesearch.errors import ImageSearchError, Unauthorized, Unavailable
from imagesearch.steps import Retrying

Command = Search | Add | Backfill | Embeddings | Status | Models | Rate | Export | Sizing
_COMMANDS: dict[str, tuple[type[Command], str]] = {
    "search": (Search, "find pictures by words, by pictures, by what was found, or by all together"),
    "add": (Add, "send pictures and folders to the watched folder"),
    "backfill": (Backfill, "bring millions of pictures from a folder, a bucket or a manifest, and go on after anything"),
    "embeddings": (Embeddings, "take the vectors of all pictures out, or bring such as were made elsewhere"),
    "status": (Status, "how far the folder is, which models answer, what failed"),
    "models": (Models, "which models answer; stop, resume or revert a change of them"),
    "rate": (Rate, "say what you think of the last search, or of one of its hits"),
    "export": (Export, "what people rated, for programs"),
    "sizing": (Sizing, "what so many pictures take: disk, memory, nodes, cores; asks no service"),
}
_EPILOG = """\
exit codes: 0 found or done; 1 nothing found, or a file failed; 2 wrong command line; 3 the service is away;
            4 the service refuses; 130 Ctrl-C
environment: IMAGESEARCH_URL, the address; IMAGESEARCH_API_KEY, where writing needs one
"""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code, as `imagesearch.command.exits` names them."""
    _open_what_is_closed()
    given = _parser().parse_args(arguments)
    command = _command(given)
    screen = Screen(as_json=given.json)
    try:
        return _run(command, given, screen)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains as it flushes
        return Exit.PIPE_CLOSED
    except KeyboardInterrupt:
        with suppress(BrokenPipeError):  # Ctrl-C has ended the reader as well
            screen.say("interrupted")
        return Exit.INTERRUPTED


def _open_what_is_closed() -> None:
    """A shell may start it without stdin, stdout or stderr: Python then has None for it, and the next file would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - until the process ends


def _run(command: Command, given: Namespace, screen: Screen) -> Exit:
    try:
        with _client(command, given, screen) as client:
            return command.run(client, screen)
    except UsageError as error:
        screen.say(f"imagesearch: {error}", "red")
        return Exit.USAGE
    except ImageSearchError as error:
        _tell(error, command, screen)
        return exit_of(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        screen.say(f"imagesearch: {error.filename or ''}: {error.strerror or error}", "red")
        return Exit.USAGE


def _client(command: Command, given: Namespace, screen: Screen) -> Client:
    def on_pause(error: Unavailable, pause_s: float) -> None:
        screen.say(f"{error}; trying again in {pause_s:.0f} s", "dim")

    url = given.url or (command.searched_at() if isinstance(command, Rate | Search) else None)
    try:
        return Client(url, timeout_s=given.timeout, retrying=Retrying(on_pause=on_pause))
    except (ValueError, ImportError) as error:  # of the address, or of a proxy that the environment names
        raise UsageError(str(error)) from None


def _tell(error: ImageSearchError, command: Command, screen: Screen) -> None:
    screen.say(f"imagesearch: {error}", "red")
    if isinstance(error, Unauthorized) and isinstance(command, Add | Backfill | Embeddings | Export | Models):
        screen.say("the API key is taken from IMAGESEARCH_API_KEY", "dim")
    if error.status is not None and error.status >= 500 and error.request_id:
        screen.say(f"request {error.request_id}, as the service's log has it", "dim")


def _command(given: Namespace) -> Command:
    kind = _COMMANDS[given.command][0]
    return kind(**{field.name: getattr(given, field.name) for field in fields(kind)})


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="imagesearch",
        description="Find pictures by words, by another picture, or by a region of one.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (kind, says) in _COMMANDS.items():
        command = commands.add_parser(name, help=says, description=f"{says[0].upper()}{says[1:]}.")
        kind.arguments(command)
        every = command.add_argument_group("of every command")
        every.add_argument("--json", action="store_true", help="JSON on stdout, and nothing else there")
        every.add_argument("--url", help=f"the service's address (default: IMAGESEARCH_URL, else {DEFAULT_URL})")
        every.add_argument("--timeout", type=float, default=60.0, metavar="S", help="longest wait for an answer (default 60 s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
