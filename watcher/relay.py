"""Hints for whoever notices, left in the shared ledger by a watcher on standby: callers behind one address cannot choose whom they tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from core.sql.connection import Connection
from watcher.ledger import Operations
from watcher.observer import Hint

_LOOK_S = 1.0
_AT_ONCE = 1000


def leave(connection: Connection, hints: Sequence[Hint]) -> None:
    """Each path once, in one order for all, so that two who leave the same ones never wait for each other."""
    prompt = {hint.path: hint.prompt for hint in sorted(hints, key=lambda hint: (hint.path, hint.prompt))}
    with connection.transaction():
        connection.executemany(
            "INSERT INTO hints (path, prompt) VALUES (?, ?) ON CONFLICT (path) DO UPDATE SET prompt = hints.prompt OR excluded.prompt",
            list(prompt.items()),
        )


def take(connection: Connection, most: int) -> list[Hint]:
    """What was left. A death before it is looked at loses it, which the reconcile mends."""
    rows = connection.execute("DELETE FROM hints WHERE path IN (SELECT path FROM hints LIMIT ?) RETURNING path, prompt", (most,))
    return [Hint(row["path"], prompt=row["prompt"]) for row in rows]


async def follow(ledger: Operations, took: Callable[[list[Hint]], None]) -> None:
    """For ever, for whoever notices."""
    while True:
        hints = await ledger.run(take, _AT_ONCE)
        if hints:
            took(hints)
        if len(hints) < _AT_ONCE:
            await asyncio.sleep(_LOOK_S)
