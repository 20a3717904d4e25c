"""Tasks in the ledger: a row for each that is believed to be in the broker, made before it is sent, gone as soon as a worker has it.

So whatever became of a task, an image that is pending without a row is sent once more, and the broker may lose or repeat what it likes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from core.sql.connection import Connection
from watcher import jobs
from watcher.jobs import Job

_PROMPT_ROOM = 32
"""As many as are taken for prompt, see `locations`."""

_STEP_S = 0.00001
"""Between two tasks that are sent at once: what was sent first is handed out first."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is sent: an image to ingest. `priority` is the image's own, 1 for what somebody just copied."""

    image_id: str
    priority: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A task as it was sent last."""

    image_id: str
    sent_at: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What may be sent now: `room` tasks for the backfill, at most `most` in all. `above`: images of lower priority wait."""

    room: int
    most: int
    above: int


def enter(connection: Connection, demand: Demand, now: float) -> list[Task]:
    """Rows for pending images that are due and have none, in the order in which to send them. What is prompt needs no room."""
    rows = connection.execute(
        "INSERT INTO tasks (image_id, priority, sent_at)"  # noqa: S608 - ours
        f" SELECT image_id, priority, ? + {_STEP_S} * row_number() OVER (ORDER BY priority DESC, noticed_at) FROM"
        " (SELECT image_id, priority, noticed_at FROM images"
        " WHERE state = 'pending' AND orphaned_at IS NULL AND priority > ? AND next_attempt_at <= ? AND (priority > 0 OR ?)"
        " AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.image_id = images.image_id)"
        " ORDER BY priority DESC, noticed_at LIMIT ?) AS due ON CONFLICT (image_id) DO NOTHING RETURNING image_id, priority, sent_at",
        (now, demand.above, now, demand.room > 0, min(demand.most, max(demand.room, _PROMPT_ROOM))),
    ).fetchall()
    return [Task(row["image_id"], row["priority"]) for row in sorted(rows, key=lambda row: row["sent_at"])]


def unsent(connection: Connection, image_ids: Sequence[str]) -> None:
    """The broker did not take these."""
    with connection.transaction():
        connection.executemany("DELETE FROM tasks WHERE image_id = ?", [(image_id,) for image_id in image_ids])


def take(connection: Connection, image_id: str, now: float, lease_s: float, *, new_alone: bool) -> Job | None:
    """A worker has the task. None where there is nothing to do: the image is gone, ended, in other hands, or not due yet."""
    with connection.transaction():
        connection.execute("DELETE FROM tasks WHERE image_id = ?", (image_id,))
        return jobs.claim_pending(connection, image_id, now, lease_s, new_alone=new_alone)


def count(connection: Connection) -> int:
    """Tasks that are believed to be in the broker."""
    (found,) = connection.execute("SELECT count(*) FROM tasks").fetchone()
    return int(found)


def count_out(connection: Connection) -> int:
    """Likewise; what they were for and ended otherwise is forgotten first."""
    connection.execute(
        "DELETE FROM tasks WHERE image_id IN (SELECT image_id FROM tasks JOIN images USING (image_id)"
        " WHERE state <> 'pending' OR orphaned_at IS NOT NULL)"
    )
    return count(connection)


def first_out(connection: Connection, most: int) -> list[Sent]:
    """Those that a broker hands out first, in that order."""
    rows = connection.execute(
        "SELECT image_id, sent_at FROM tasks ORDER BY least(greatest(priority, -1), 1) DESC, sent_at, image_id LIMIT ?", (most,)
    )
    return [Sent(row["image_id"], row["sent_at"]) for row in rows]


def renew(connection: Connection, lost: Sequence[Sent], now: float) -> list[Task]:
    """Those that nobody took meanwhile, to be sent again, in the order in which to send them."""
    with connection.transaction():
        connection.executemany(
            "UPDATE tasks SET sent_at = ? WHERE image_id = ?", [(now + n * _STEP_S, sent.image_id) for n, sent in enumerate(lost)]
        )
        rows = connection.execute(
            "SELECT image_id, priority FROM tasks WHERE image_id IN (SELECT value FROM json_each(?)) ORDER BY sent_at",
            (json.dumps([sent.image_id for sent in lost]),),
        ).fetchall()
    return [Task(row["image_id"], row["priority"]) for row in rows]
