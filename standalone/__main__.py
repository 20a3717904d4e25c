"""`python -m standalone`, which is `make run`: read the settings, set up the log, run until a signal."""

from __future__ import annotations

import asyncio
import os
import sys

import structlog
from pydantic import ValidationError

from core import logs
from core.errors import ImageSearchError
from core.settings import faults_of
from standalone.launch import launch
from standalone.listeners import AddressInUse
from standalone.settings import StandaloneSettings

log = structlog.get_logger()


def main() -> int:
    """Returns the exit code: 0 after a drained stop, 1 when something that the user can change stands in the way, 130 when stopped early."""
    try:
        settings = StandaloneSettings()
        logs.configure(level=settings.log_level, log_format=settings.log_format, service="standalone")
        asyncio.run(launch(settings))
    except ValidationError as error:
        print(f"The settings don't hold:\n{faults_of(error)}", file=sys.stderr)
        return 1
    except AddressInUse as error:
        print(f"Cannot start: {error}. Choose another one: make run PORT=3001", file=sys.stderr)
        return 1
    except (ImageSearchError, OSError) as error:
        log.debug("start_failed", exc_info=True)
        print(f"Cannot start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before there was anything to drain
        print("Stopped before it had started", file=sys.stderr, flush=True)
        os._exit(130)  # imports may go on in their thread, which an ordinary end would wait for
    return 0


if __name__ == "__main__":
    sys.exit(main())
