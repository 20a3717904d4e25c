"""`python -m model_service.exporting ORDER`: makes exports, tells its progress as JSON lines, and ends when its standard input does.

A process of its own, since it takes memory, every core and libraries that serving needs none of.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import TextIO

from core.decode import DecodeLimits
from core.decoding import DecodingProcesses
from core.threads import limit_libraries
from model_service.exports import Order


def main() -> int:
    order = Order.model_validate_json(sys.argv[1])
    told = _protocol()
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    limit_libraries(order.threads)

    def tell(event: str, *, level: str = "info", **fields: object) -> None:
        print(json.dumps({"event": event, "level": level, **fields}, default=str), file=told, flush=True)

    from model_service.exporting.making import Held, Workshop, make  # noqa: PLC0415 - torch reads the limits when it is imported
    from model_service.exporting.parts import opened  # noqa: PLC0415
    from model_service.exporting.pictures import gathered  # noqa: PLC0415

    with DecodingProcesses(DecodeLimits()) as decoder:
        held = Held.of(*gathered(order.images_dir, decoder))
    tell("export_pictures_gathered", pictures=len(held.calibrating) + len(held.comparing), origin=held.origin)
    workshop = Workshop(order.models_dir, held, order.threads, tell)
    for wanted in order.wanted:
        make(wanted, opened(wanted, held), workshop)
    return 0


def _protocol() -> TextIO:
    """What was standard output, where libraries draw their bars."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    return told


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
