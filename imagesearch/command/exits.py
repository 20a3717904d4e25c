"""What the command's exit codes mean; docs/how-to/use-from-code-and-terminal.md tells them to users."""

from __future__ import annotations

from enum import IntEnum

from imagesearch.errors import ImageSearchError, Refused


class Exit(IntEnum):
    DONE = 0
    NOTHING = 1
    """Nothing was found; or of the files to add, one failed or was not indexed in time."""
    USAGE = 2
    """The command line, or a file that it names, does not serve. argparse ends with it as well."""
    UNAVAILABLE = 3
    """The service is away, busy beyond patience, or no image search."""
    REFUSED = 4
    """The service refuses: no key, no such image, rated before, options out of range."""
    INTERRUPTED = 130
    """Ctrl-C, as shells say it."""
    PIPE_CLOSED = 141
    """Whoever read the output went away, as shells say it."""


class UsageError(Exception):
    """What the user asked for cannot be done as asked; the message says why."""


def exit_of(error: ImageSearchError) -> Exit:
    return Exit.REFUSED if isinstance(error, Refused) else Exit.UNAVAILABLE
