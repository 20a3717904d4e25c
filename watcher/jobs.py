"""Images in the ledger: pending → running → indexed | failed, by claims with a lease, and how the forgotten ones leave."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from core.errors import Reason
from core.points import LAYOUT
from core.schemas import ImageState
from core.sql.connection import Connection

SUSPECT_PRIORITY = -1
"""Pictures that the model service died with are tried last of the new ones, and alone."""

AGAIN_PRIORITY = -2
"""Pictures that other models settled before wait for all others: they can be found meanwhile."""


GIVEN = ""
"""Stands for the models' fingerprint of an image that is found by given vectors, in the ledger and in the payload: it seals nothing."""


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
    detail: str | None = None


def claim(connection: Connection, now: float, lease_s: float, *, new_alone: bool = False) -> Job | None:
    """Take the next pending image that is due: by priority, then the longest known. `new_alone` leaves those for AGAIN_PRIORITY."""
    return _take(
        connection,
        "(SELECT image_id FROM images INDEXED BY images_to_claim WHERE state = 'pending' AND orphaned_at IS NULL"
        " AND priority > ? AND next_attempt_at <= ? ORDER BY priority DESC, noticed_at LIMIT 1 /*pg FOR UPDATE SKIP LOCKED */)",
        (above(new_alone=new_alone), now),
        now + lease_s,
    )


def above(*, new_alone: bool) -> int:
    """Images of a higher priority than this may be claimed."""
    return AGAIN_PRIORITY if new_alone else AGAIN_PRIORITY - 1


def claim_image(connection: Connection, image_id: str, now: float, lease_s: float) -> Job | None:
    """Take this very image, whatever its state, unless it is gone or running already."""
    return _take(connection, "?", (image_id,), now + lease_s)


def claim_pending(connection: Connection, image_id: str, now: float, lease_s: float, *, new_alone: bool = False) -> Job | None:
    """Take this very image if it is to be ingested and due."""
    return _take(
        connection,
        "(SELECT image_id FROM images WHERE image_id = ? AND state = 'pending' AND priority > ? AND next_attempt_at <= ?)",
        (image_id, above(new_alone=new_alone), now),
        now + lease_s,
    )


def claim_given(connection: Connection, image_id: str, now: float, lease_s: float, *, settles: bool) -> Job | None:
    """Take this very image if it is to be ingested and not found yet; with `settles` also one that is found by given vectors alone."""
    return _take(
        connection,
        f"(SELECT image_id FROM images WHERE image_id = ? AND {_LACKING_GIVEN})",  # noqa: S608 - ours
        (image_id, settles, GIVEN),
        now + lease_s,
    )


_LACKING_GIVEN = "state = 'pending' AND orphaned_at IS NULL AND (indexed_at IS NULL OR (? AND fingerprint = ?))"


def lacking_given(connection: Connection, image_ids: Sequence[str], *, settles: bool) -> list[str]:
    """Those among these that `claim_given` would take."""
    rows = connection.execute(
        f"SELECT image_id FROM images WHERE image_id IN (SELECT value FROM json_each(?)) AND {_LACKING_GIVEN}",  # noqa: S608 - ours
        (json.dumps(list(image_ids)), settles, GIVEN),
    )
    return [row["image_id"] for row in rows]


def _take(connection: Connection, which: str, values: Sequence[object], lease_until: float) -> Job | None:
    """In one statement, so that of any number of processes one has it."""
    lease_id = uuid4().hex
    rows = connection.execute(
        "UPDATE images SET state = 'running', lease_id = ?, lease_until = ?"  # noqa: S608 - ours
        f" WHERE image_id = {which} AND state <> 'running' AND orphaned_at IS NULL"
        " RETURNING image_id, attempts, crashes, noticed_at, indexed_at",
        (lease_id, lease_until, *values),
    ).fetchall()
    if not rows:
        return None
    (row,) = rows
    was_indexed = row["indexed_at"] is not None  # SQLite 3.40 takes this very question to be answered by the index images_moved
    return Job(row["image_id"], lease_id, row["attempts"], row["crashes"], row["noticed_at"], was_indexed)


def renew(connection: Connection, lease_ids: Iterable[str], until: float) -> None:
    """The heartbeat."""
    with connection.transaction():
        connection.executemany(
            "UPDATE images SET lease_until = ? WHERE state = 'running' AND lease_id = ?", [(until, lease) for lease in lease_ids]
        )


def places(connection: Connection, image_id: str) -> Places:
    """Where the image lies now."""
    with connection.transaction():  # the version first: what changes in between is followed once more
        row = connection.execute("SELECT paths_version FROM images WHERE image_id = ?", (image_id,)).fetchone()
        found = connection.execute("SELECT path FROM paths WHERE image_id = ? ORDER BY path", (image_id,)).fetchall()
    return Places(tuple(path["path"] for path in found), row["paths_version"] if row else 0)


_ENDED = "state = CASE WHEN coalesce((SELECT target FROM course) = ?, TRUE) THEN ? ELSE 'pending' END"
"""By the models of this fingerprint, in this state."""


def complete(connection: Connection, job: Job, outcome: Outcome, now: float) -> bool:
    """Mark the image indexed, or pending again where other models are indexed for by now. False when the lease was lost, and with it the
    right to say so."""
    return _settle(
        connection,
        job,
        f"{_ENDED}, priority = 0, reason = NULL, detail = ?, failed_at = NULL, attempts = 0, crashes = 0, next_attempt_at = 0,"
        " indexed_at = ?, fingerprint = ?, width = ?, height = ?, segments = ?, payload_version = ?, layout = ?",
        (
            outcome.fingerprint,
            ImageState.INDEXED.value,
            outcome.detail,
            now,
            outcome.fingerprint,
            outcome.width,
            outcome.height,
            outcome.segments,
            outcome.payload_version,
            LAYOUT,
        ),
    )


def find_by_given(connection: Connection, job: Job, outcome: Outcome, now: float) -> bool:
    """The image is found by vectors that were given, as one that other models indexed before is; what they lack is made after all others."""
    return _settle(
        connection,
        job,
        f"state = 'pending', priority = {AGAIN_PRIORITY}, next_attempt_at = 0, indexed_at = ?, fingerprint = '{GIVEN}', width = ?, height = ?,"
        " segments = 0, payload_version = ?, layout = ?",
        (now, outcome.width, outcome.height, outcome.payload_version, LAYOUT),
    )


def reject(connection: Connection, job: Job, reason: Reason, detail: str, *, fingerprint: str, now: float) -> bool:
    """Mark the image failed for good: only other models could make another end of it."""
    return _settle(
        connection,
        job,
        f"{_ENDED}, reason = ?, detail = ?, failed_at = ?, fingerprint = ?, segments = 0",
        (fingerprint, ImageState.FAILED.value, reason.value, detail, now, fingerprint),
    )


def postpone(connection: Connection, job: Job, until: float) -> bool:
    """Give the image back; nothing counts against it."""
    return _settle(connection, job, "state = 'pending', next_attempt_at = ?", (until,))


def count_attempt(connection: Connection, job: Job, until: float, *, crashed: bool) -> bool:
    """Give the image back for another attempt, and count this one against it."""
    return _settle(
        connection,
        job,
        "state = 'pending', next_attempt_at = ?, attempts = attempts + 1, crashes = crashes + ?,"
        " priority = CASE WHEN ? THEN ? ELSE priority END",
        (until, int(crashed), crashed, SUSPECT_PRIORITY),
    )


def _settle(connection: Connection, job: Job, assignments: str, values: Sequence[object]) -> bool:
    ended = connection.execute(
        f"UPDATE images SET lease_id = NULL, lease_until = NULL, {assignments} WHERE image_id = ? AND lease_id = ?",  # noqa: S608
        (*values, job.image_id, job.lease_id),
    )
    return ended.rowcount == 1


def give_back(connection: Connection, lease_ids: Iterable[str]) -> None:
    """What this process still holds at its end is pending again."""
    with connection.transaction():
        connection.executemany(
            "UPDATE images SET state = 'pending', lease_id = NULL, lease_until = NULL WHERE state = 'running' AND lease_id = ?",
            [(lease,) for lease in lease_ids],
        )


def recover(connection: Connection) -> int:
    """What a dead process left running is pending again, where no other can be at work. The death is not the picture's fault."""
    return connection.execute(
        "UPDATE images SET state = 'pending', lease_id = NULL, lease_until = NULL WHERE state = 'running'"
    ).rowcount


def expire(connection: Connection, now: float) -> int:
    """What nobody's heart beats for any more is pending again."""
    return connection.execute(
        "UPDATE images SET state = 'pending', lease_id = NULL, lease_until = NULL WHERE state = 'running' AND lease_until < ?",
        (now,),
    ).rowcount


def set_back(connection: Connection, now: float, longest_pause_s: float) -> int:
    """What lies further ahead than it ever would was written before the clock was set back: it is due now. Returns how many."""
    with connection.transaction():
        pauses = connection.execute(
            "UPDATE images SET next_attempt_at = ? WHERE state = 'pending' AND next_attempt_at > ?", (now, now + longest_pause_s)
        )
        graces = connection.execute("UPDATE images SET orphaned_at = ? WHERE orphaned_at > ?", (now, now))
    return pauses.rowcount + graces.rowcount


def has_pending(connection: Connection, *, new_alone: bool = False) -> bool:
    """Whether there is anything to claim, now or later."""
    (found,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM images WHERE state = 'pending' AND orphaned_at IS NULL AND priority > ?)",
        (above(new_alone=new_alone),),
    ).fetchone()
    return bool(found)


def next_due(connection: Connection, *, new_alone: bool = False) -> float | None:
    """When the next pending image may be claimed."""
    row = connection.execute(
        "SELECT min(next_attempt_at) AS due FROM images WHERE state = 'pending' AND orphaned_at IS NULL AND priority > ?",
        (above(new_alone=new_alone),),
    ).fetchone()
    due: float | None = row["due"]
    return due


def requeue(connection: Connection, image_id: str) -> bool:
    """An indexed image whose points are missing starts anew, in every edition."""
    return (
        connection.execute(
            "UPDATE images SET state = 'pending', next_attempt_at = 0, indexed_at = NULL WHERE image_id = ? AND state = 'indexed'",
            (image_id,),
        ).rowcount
        == 1
    )


def requeue_others(connection: Connection, fingerprint: str) -> int:
    """Everything that other models indexed or refused starts anew, and what an earlier release wrote less of: that is adopted."""
    return connection.execute(
        "UPDATE images SET state = 'pending', next_attempt_at = 0, attempts = 0, crashes = 0, priority = ?,"
        " reason = NULL, detail = NULL, failed_at = NULL"
        " WHERE state IN ('indexed', 'failed') AND fingerprint <> ? OR state = 'indexed' AND layout <> ?",
        (AGAIN_PRIORITY, fingerprint, LAYOUT),
    ).rowcount


# --- images that were moved, and images that lost their last path ------------------------------------------------------


def moved(connection: Connection, limit: int) -> list[str]:
    """Images whose points still show earlier paths."""
    rows = connection.execute(
        "SELECT image_id FROM images INDEXED BY images_moved WHERE payload_version <> paths_version AND indexed_at IS NOT NULL"
        " AND state <> 'running' AND orphaned_at IS NULL /*pg ORDER BY image_id */ LIMIT ?",  # by which it finds the index as well
        (limit,),
    )
    return [row["image_id"] for row in rows]


def mark_moved(connection: Connection, image_id: str, version: int) -> None:
    """The points show this version of the paths now."""
    connection.execute("UPDATE images SET payload_version = ? WHERE image_id = ?", (version, image_id))


def orphans(connection: Connection, before: float, limit: int) -> list[str]:
    """Images without a path since before then, and in nobody's hands."""
    rows = connection.execute(
        "SELECT image_id FROM images WHERE orphaned_at <= ? AND state <> 'running' ORDER BY orphaned_at LIMIT ?", (before, limit)
    )
    return [row["image_id"] for row in rows]


def next_orphan(connection: Connection) -> float | None:
    """Since when the oldest orphan that could be removed is one."""
    row = connection.execute("SELECT min(orphaned_at) AS since FROM images WHERE orphaned_at IS NOT NULL AND state <> 'running'")
    since: float | None = row.fetchone()["since"]
    return since


def condemn(connection: Connection, image_id: str) -> bool:
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


def remove(connection: Connection, image_id: str) -> bool:
    """After its points were removed: forget the image, unless a path turned up meanwhile."""
    return (
        connection.execute(
            "DELETE FROM images WHERE image_id = ? AND orphaned_at IS NOT NULL AND state = ?",
            (image_id, ImageState.PENDING.value),
        ).rowcount
        == 1
    )
