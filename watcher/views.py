"""What the ledger shows to others: counts, one image, the failures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from core.errors import Reason
from core.schemas import Failure, FailurePage, ImageRecord, ImageState, ImageStateRecord, PathStateRecord, StateCounts
from core.sql.connection import Connection

_ANSWERED = "(indexed_at IS NOT NULL AND state IN ('pending', 'running') AND fingerprint <> (SELECT target FROM course))"
"""Of images that other models indexed before: they can be found by those until the target's take over."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Images that other models indexed before count as indexed, and again as `unsettled`."""

    images: StateCounts
    unsettled: int
    segments: int
    oldest_pending_at: float | None


@dataclass(frozen=True, slots=True)
class Settled:
    """What the target's collections must hold by now."""

    images: int
    segments: int


@dataclass(frozen=True, slots=True)
class Expected:
    """How many points each collection must hold of one indexed image."""

    image_id: str
    segments: int


def totals(connection: Connection) -> Totals:
    rows = connection.execute("SELECT state, count(*) AS images, sum(segments) AS segments FROM images GROUP BY state").fetchall()
    by_state = {row["state"]: row["images"] for row in rows}
    answered = connection.execute(
        f"SELECT state, count(*) AS images, sum(segments) AS segments FROM images INDEXED BY images_unsettled"  # noqa: S608 - ours
        f" WHERE state IN ('pending', 'running') AND fingerprint IS NOT NULL AND {_ANSWERED} GROUP BY state"
    ).fetchall()
    for row in answered:
        by_state[row["state"]] -= row["images"]
        by_state[ImageState.INDEXED] = by_state.get(ImageState.INDEXED, 0) + row["images"]
    (refused,) = connection.execute(
        "SELECT count(*) FROM paths WHERE reason IS NOT NULL AND reason <> ?", (Reason.IGNORED.value,)
    ).fetchone()
    (oldest,) = connection.execute(
        f"SELECT min(noticed_at) FROM images WHERE state = 'pending' AND orphaned_at IS NULL AND NOT coalesce({_ANSWERED}, FALSE)"  # noqa: S608
    ).fetchone()
    counts = StateCounts(
        pending=by_state.get(ImageState.PENDING, 0),
        running=by_state.get(ImageState.RUNNING, 0),
        indexed=by_state.get(ImageState.INDEXED, 0),
        failed=by_state.get(ImageState.FAILED, 0) + refused,
    )
    segments = sum(row["segments"] for row in (*[row for row in rows if row["state"] == ImageState.INDEXED], *answered))
    return Totals(counts, sum(row["images"] for row in answered), segments, oldest)


def settled(connection: Connection) -> Settled:
    row = connection.execute("SELECT count(*), coalesce(sum(segments), 0) FROM images WHERE state = 'indexed'").fetchone()
    return Settled(*row)


def image(connection: Connection, image_id: str) -> ImageRecord | None:
    """The image, unless it is unknown or has no file any more."""
    row = connection.execute(
        f"SELECT *, coalesce({_ANSWERED}, FALSE) AS answered FROM images WHERE image_id = ? AND orphaned_at IS NULL",  # noqa: S608 - ours
        (image_id,),
    ).fetchone()
    if row is None:
        return None
    paths = connection.execute("SELECT path FROM paths WHERE image_id = ? ORDER BY path", (image_id,)).fetchall()
    return ImageRecord(
        image_id=image_id,
        state=_state(row),
        reason=_reason(row),
        detail=row["detail"],
        paths=tuple(path["path"] for path in paths),
        bytes=row["bytes"],
        width=row["width"],
        height=row["height"],
        segments=row["segments"],
        attempts=row["attempts"],
        noticed_at=_time(row["noticed_at"]),
        indexed_at=_time(row["indexed_at"]) if row["indexed_at"] is not None else None,
    )


def image_states(connection: Connection, image_ids: Sequence[str]) -> list[ImageStateRecord]:
    """Of those that are known and have a file."""
    rows = connection.execute(
        f"SELECT image_id, state, reason, detail, coalesce({_ANSWERED}, FALSE) AS answered FROM images"  # noqa: S608 - ours
        " WHERE orphaned_at IS NULL AND image_id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(image_ids)),),
    )
    return [
        ImageStateRecord(image_id=row["image_id"], state=_state(row), reason=_reason(row), detail=row["detail"]) for row in rows
    ]


def path_states(connection: Connection, paths: Sequence[str]) -> list[PathStateRecord]:
    """Of those that are known; a file that never became an image has failed."""
    found = connection.execute(
        "SELECT path, image_id, reason, detail FROM paths WHERE path IN (SELECT value FROM json_each(?))",
        (json.dumps(list(paths)),),
    ).fetchall()
    images = {state.image_id: state for state in image_states(connection, [row["image_id"] for row in found if row["image_id"]])}
    told: list[PathStateRecord] = []
    for row in found:
        image = images.get(row["image_id"])
        if row["image_id"] is None:
            told.append(PathStateRecord(path=row["path"], state=ImageState.FAILED, reason=_reason(row), detail=row["detail"]))
        elif image is not None:
            told.append(PathStateRecord(path=row["path"], **dict(image)))
    return told


_FAILURES = """
    SELECT path, reason, detail, NULL AS image_id, seen_at AS failed_at FROM paths
    WHERE reason IS NOT NULL AND (:ignored OR reason <> 'ignored')
    UNION ALL
    SELECT paths.path, images.reason, images.detail, images.image_id, images.failed_at FROM images JOIN paths USING (image_id)
    WHERE images.state = 'failed'
"""


def failures(connection: Connection, *, limit: int, offset: int, ignored: bool) -> FailurePage:
    names = {"ignored": ignored, "limit": limit, "offset": offset}
    (total,) = connection.execute(f"SELECT count(*) FROM ({_FAILURES}) AS failures", names).fetchone()  # noqa: S608
    rows = connection.execute(f"{_FAILURES} ORDER BY failed_at DESC, path LIMIT :limit OFFSET :offset", names)
    found = tuple(
        Failure(
            path=row["path"],
            reason=Reason(row["reason"]),
            detail=row["detail"],
            image_id=row["image_id"],
            failed_at=_time(row["failed_at"]),
        )
        for row in rows
    )
    return FailurePage(failures=found, total=total)


def expected(connection: Connection, after: str, limit: int) -> list[Expected]:
    """Indexed images in order of their id, beyond `after`."""
    rows = connection.execute(
        "SELECT image_id, segments FROM images WHERE state = 'indexed' AND image_id > ? ORDER BY image_id LIMIT ?", (after, limit)
    )
    return [Expected(row["image_id"], row["segments"]) for row in rows]


def states(connection: Connection, image_ids: Sequence[str]) -> dict[str, Expected | None]:
    """Of each image that is known: what its collections must hold, or None while that is not settled."""
    rows = connection.execute(
        "SELECT image_id, state, segments FROM images WHERE image_id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(image_ids)),),
    )
    return {
        row["image_id"]: Expected(row["image_id"], row["segments"]) if row["state"] == ImageState.INDEXED else None
        for row in rows
    }


def _state(row: Any) -> ImageState:
    return ImageState.INDEXED if row["answered"] else ImageState(row["state"])


def _reason(row: Any) -> Reason | None:
    return Reason(row["reason"]) if row["reason"] else None


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
