"""Whether the service has these bytes: asked for several at once, of whoever asks within a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

_MOMENT_S = 0.02
_MOST = 1000

Known = Callable[[Sequence[str]], Awaitable[set[str]]]
"""Of these image ids, those that the service knows."""


class Asking:
    def __init__(self, known: Known) -> None:
        self._known = known
        self._asked: dict[str, asyncio.Future[bool]] = {}
        self._round: asyncio.Task[None] | None = None
        self._rounds: set[asyncio.Task[None]] = set()

    async def is_known(self, image_id: str) -> bool:
        """Raises what the asking raised."""
        answer = self._asked.get(image_id)
        if answer is None:
            answer = self._asked[image_id] = asyncio.get_running_loop().create_future()
        if self._round is None:
            self._round = asyncio.create_task(self._ask())
            self._rounds.add(self._round)
            self._round.add_done_callback(self._rounds.discard)
        return await asyncio.shield(answer)

    async def _ask(self) -> None:
        await asyncio.sleep(_MOMENT_S)
        asked, self._asked, self._round = self._asked, {}, None
        ids = list(asked)
        try:
            found: set[str] = set()
            for first in range(0, len(ids), _MOST):
                found |= await self._known(ids[first : first + _MOST])
        except Exception as error:  # noqa: BLE001 - theirs who asked
            for answer in asked.values():
                answer.set_exception(error)
                answer.exception()  # they may have gone
        else:
            for image_id, answer in asked.items():
                answer.set_result(image_id in found)
