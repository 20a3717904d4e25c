"""Lines for whoever started it, who may have closed the terminal since, or ended the program that read them."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def tell(line: str) -> None:
    """On standard output; where nobody reads that any more, nobody is told, now and later."""
    try:
        print(line, flush=True)
    except OSError:
        with Path(os.devnull).open("wb") as nobody:  # what is still buffered would fail the end as well
            os.dup2(nobody.fileno(), sys.stdout.fileno())
