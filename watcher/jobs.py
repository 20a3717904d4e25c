"""Images in the ledger: pending → running → indexed | failed, by claims with a lease, and how the forgotten ones leave."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from core.errors import Reason
from core.points import LAYOUT
from core.schemas import ImageState
from watcher.database import transaction

SUSPECT_PRIORITY = -1
"""Pictures that the model service died with are tried last of the new ones, and alone."""

AGAIN_PRIORITY = -2
"""Pictures that other models settled before wait for all others: they can be found meanwhile."""


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed image: this worker alone drives it until the lease ends."""

    image_id: str
    lease_id: str
    attempts: int
    crashes: int
    noticed_at: float
    was_indexed: bool


@dataclass(frozen=True, slots=True)
class Places:
    """Where an image lies, and which version of that this is."""

    paths: tuple[str, ...]
    version: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What indexing an image came to."""

    fingerprint: str
    width: int
    height: int
    segments: int
    payload_version: int


def claim(connection: sqlite3.Connection, now: float, lease_s: float, *, new_alone: bool = False) -> Job | None:
    """Take the next pending image that is due: by priority, then the longest known. `new_alone` leaves those for AGAIN_PRIORITY."""
    row = connection.execute(
        "SELECT image_id FROM images INDEXED BY images_to_claim WHERE state = 'pending' AND orphaned_at IS NULL"
        " AND priority > ? AND next_attempt_at <= ? ORDER BY priority DESC, noticed_at LIMIT 1",
        (_above(new_alone), now),
    ).fetchone()
    return _take(connection, row["image_id"], now + lease_s) if row else None


def _above(new_alone: bool) -> int:
    return AGAIN_PRIORITY if new_alone else AGAIN_PRIORITY - 1


def claim_image(connection: sqlite3.Connection, image_id: str, now: float, lease_s: float) -> Job | None:
    """Take this very image, whatever its state, unless it is gone or running already."""
    return _take(connection, image_id, now + lease_s)


def _take(connection: sqlite3.Connection, image_id: str, lease_until: float) -> Job | None:
    lease_id = uuid4().hex
    rows = connection.execute(
        "UPDATE images SET state = 'running', lease_id = ?, lease_until = ?"
        " WHERE image_id = ? AND state <> 'running' AND orphaned_at IS NULL"
        " RETURNING attempts, crashes, noticed_at, indexed_at",
        (lease_id, lease_until, image_id),
    ).fetchall()
    if not rows:
        return None
    (row,) = rows
    was_indexed = row["indexed_at"] is not None  # SQLite 3.40 takes this very question to be answered by the index images_moved
    return Job(image_id, lease_id, row["attempts"], row["crashes"], row["noticed_at"], was_indexed)


def renew(connection: sqlite3.Connection, lease_ids: Iterable[str], until: float) -> None:
    """The heartbeat."""
    with transaction(connection):
        connection.executemany("UPDATE images SET lease_until = ? WHERE lease_id = ?", [(until, lease) for lease in lease_ids])


def places(connection: sqlite3.Connection, image_id: str) -> Places:
    """Where the image lies now."""
    with transaction(connection):
        row = connection.execute("SELECT paths_version FROM images WHERE image_id = ?", (image_id,)).fetchone()
        found = connection.execute("SELECT path FROM paths WHERE image_id = ? ORDER BY path", (image_id,)).fetchall()
    return Places(tuple(path["path"] for path in found), row["paths_version"] if row else 0)


_ENDED = "state = CASE WHEN coalesce((SELECT target FROM course) = ?, TRUE) THEN ? ELSE 'pending' END"
"""By the models of this fingerprint, in this state."""


def complete(connection: sqlite3.Connection, job: Job, outcome: Outcome, now: float) -> bool:
    """Mark the image indexed, or pending again where other models are indexed for by now. False when the lease was lost, and with it the
    right to say so."""
    return _settle(
        connection,
        job,
        f"{_ENDED}, priority = 0, reason = NULL, detail = NULL, failed_at = NULL, attempts = 0, crashes = 0, next_attempt_at = 0,"
        " indexed_at = ?, fingerprint = ?, width = ?, height = ?, segments = ?, payload_version = ?, layout = ?",
        (
            outcome.fingerprint,
            ImageState.INDEXED.value,
            now,
            outcome.fingerprint,
            outcome.width,
            outcome.height,
            outcome.segments,
            outcome.payload_version,
            LAYOUT,
        ),
    )


def reject(connection: sqlite3.Connection, job: Job, reason: Reason, detail: str, *, fingerprint: str, now: float) -> bool:
    """Mark the image failed for good: only other models could make another end of it."""
    return _settle(
        connection,
        job,
        f"{_ENDED}, reason = ?, detail = ?, failed_at = ?, fingerprint = ?, segments = 0",
        (fingerprint, ImageState.FAILED.value, reason.value, detail, now, fingerprint),
    )


def postpone(connection: sqlite3.Connection, job: Job, until: float) -> bool:
    """Give the image back; nothing counts against it."""
    return _settle(connection, job, "state = 'pending', next_attempt_at = ?", (until,))


def count_attempt(connection: sqlite3.Connection, job: Job, until: float, *, crashed: bool) -> bool:
    """Give the image back for another attempt, and count this one against it."""
    return _settle(
        connection,
        job,
        "state = 'pending', next_attempt_at = ?, attempts = attempts + 1, crashes = crashes + ?,"
        " priority = CASE WHEN ? THEN ? ELSE priority END",
        (until, int(crashed), crashed, SUSPECT_PRIORITY),
    )


def _settle(connection: sqlite3.Connection, job: Job, assignments: str, values: Sequence[object]) -> bool:
    ended = connection.execute(
        f"UPDATE images SET lease_id = NULL, lease_until = NULL, {assignments} WHERE image_id = ? AND lease_id = ?",  # noqa: S608
        (*values, job.image_id, job.lease_id),
    )
    return ended.rowcount == 1


def recover(connection: sqlite3.Connection) -> int:
    """What a dead process left running is pending again. The death is not the picture's fault."""
    return connection.execute(
        "UPDATE images SET state = 'pending', lease_id = NULL, lease_until = NULL WHERE state = 'running'"
    ).rowcount


def expire(connection: sqlite3.Connection, now: float) -> int:
    """What nobody's heart beats for any more is pending again."""
    return connection.execute(
        "UPDATE images SET state = 'pending', lease_id = NULL, lease_until = NULL WHERE state = 'running' AND lease_until < ?",
        (now,),
    ).rowcount


def set_back(connection: sqlite3.Connection, now: float, longest_pause_s: float) -> int:
    """What lies further ahead than it ever would was written before the clock was set back: it is due now. Returns how many."""
    with transaction(connection):
        pauses = connection.execute(
            "UPDATE images SET next_attempt_at = ? WHERE state = 'pending' AND next_attempt_at > ?", (now, now + longest_pause_s)
        )
        graces = connection.execute("UPDATE images SET orphaned_at = ? WHERE orphaned_at > ?", (now, now))
    return pauses.rowcount + graces.rowcount


def has_pending(connection: sqlite3.Connection, *, new_alone: bool = False) -> bool:
    """Whether there is anything to claim, now or later."""
    (found,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM images WHERE state = 'pending' AND orphaned_at IS NULL AND priority > ?)",
        (_above(new_alone),),
    ).fetchone()
    return bool(found)


def next_due(connection: sqlite3.Connection, *, new_alone: bool = False) -> float | None:
    """When the next pending image may be claimed."""
    row = connection.execute(
        "SELECT min(next_attempt_at) AS due FROM images WHERE state = 'pending' AND orphaned_at IS NULL AND priority > ?",
        (_above(new_alone),),
    ).fetchone()
    due: float | None = row["due"]
    return due


def requeue(connection: sqlite3.Connection, image_id: str) -> bool:
    """An indexed image whose points are missing starts anew, in every edition."""
    return (
        connection.execute(
            "UPDATE images SET state = 'pending', next_attempt_at = 0, indexed_at = NULL WHERE image_id = ? AND state = 'indexed'",
            (image_id,),
        ).rowcount
        == 1
    )


def requeue_others(connection: sqlite3.Connection, fingerprint: str) -> int:
    """Everything that other models indexed or refused starts anew, and what an earlier release wrote less of: that is adopted."""
    return connection.execute(
        "UPDATE images SET state = 'pending', next_attempt_at = 0, attempts = 0, crashes = 0, priority = ?,"
        " reason = NULL, detail = NULL, failed_at = NULL"
        " WHERE state IN ('indexed', 'failed') AND fingerprint <> ? OR state = 'indexed' AND layout <> ?",
        (AGAIN_PRIORITY, fingerprint, LAYOUT),
    ).rowcount


# --- images that were moved, and images that lost their last path ------------------------------------------------------


def moved(connection: sqlite3.Connection, limit: int) -> list[str]:
    """Images whose points still show earlier paths."""
    rows = connection.execute(
        "SELECT image_id FROM images INDEXED BY images_moved WHERE payload_version <> paths_version AND indexed_at IS NOT NULL"
        " AND state <> 'running' AND orphaned_at IS NULL LIMIT ?",
        (limit,),
    )
    return [row["image_id"] for row in rows]


def mark_moved(connection: sqlite3.Connection, image_id: str, version: int) -> None:
    """The points show this version of the paths now."""
    connection.execute("UPDATE images SET payload_version = ? WHERE image_id = ?", (version, image_id))


def orphans(connection: sqlite3.Connection, before: float, limit: int) -> list[str]:
    """Images without a path since before then, and in nobody's hands."""
    rows = connection.execute(
        "SELECT image_id FROM images WHERE orphaned_at <= ? AND state <> 'running' ORDER BY orphaned_at LIMIT ?", (before, limit)
    )
    return [row["image_id"] for row in rows]


def next_orphan(connection: sqlite3.Connection) -> float | None:
    """Since when the oldest orphan that could be removed is one."""
    row = connection.execute("SELECT min(orphaned_at) AS since FROM images WHERE orphaned_at IS NOT NULL AND state <> 'running'")
    since: float | None = row.fetchone()["since"]
    return since


def condemn(connection: sqlite3.Connection, image_id: str) -> bool:
    """Before its points are removed: should a path turn up meanwhile, the image is indexed anew. False if it must stay."""
    return (
        connection.execute(
            "UPDATE images SET state = 'pending', indexed_at = NULL, fingerprint = NULL, segments = 0, next_attempt_at = 0,"
            " attempts = 0, crashes = 0, reason = NULL, detail = NULL, failed_at = NULL"
            " WHERE image_id = ? AND orphaned_at IS NOT NULL AND state <> 'running'",
            (image_id,),
        ).rowcount
        == 1
    )


def remove(connection: sqlite3.Connection, image_id: str) -> bool:
    """After its points were removed: forget the image, unless a path turned up meanwhile."""
    return (
        connection.execute(
            "DELETE FROM images WHERE image_id = ? AND orphaned_at IS NOT NULL AND state = ?",
            (image_id, ImageState.PENDING.value),
        ).rowcount
        == 1
    )
