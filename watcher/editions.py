"""Editions in the ledger: which one answers, which one images are indexed for, and which are kept or may go.

Every change of course is one transaction with what follows from it for the images, so that a kill at any instant finds both or neither.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from core.errors import Conflict
from core.schemas import ModelsInfo
from core.sql.connection import Connection
from watcher import jobs


@dataclass(frozen=True, slots=True)
class Edition:
    """What the models of one fingerprint make of the pictures."""

    fingerprint: str
    profile: str
    collections: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """`searched` answers, images are indexed for `target`, `previous` is kept for the way back. `declined` are models of the settings
    that a revert turned away from."""

    searched: Edition
    target: Edition
    previous: Edition | None
    declined: str | None
    stopped: bool

    @property
    def is_changing(self) -> bool:
        return self.searched.fingerprint != self.target.fingerprint


@dataclass(frozen=True, slots=True)
class Progress:
    """Images that are settled by the target's models, and those that other models settled before."""

    done: int
    left: int


def course(connection: Connection) -> Course | None:
    """None before any models were met."""
    row = connection.execute("SELECT * FROM course").fetchone()
    if row is None:
        return None
    searched, target = _edition(connection, row["searched"]), _edition(connection, row["target"])
    previous = _edition(connection, row["previous"]) if row["previous"] else None
    return Course(searched, target, previous, row["declined"], bool(row["stopped"]))


def _edition(connection: Connection, fingerprint: str) -> Edition:
    row = connection.execute("SELECT * FROM editions WHERE fingerprint = ?", (fingerprint,)).fetchone()
    return Edition(fingerprint, row["profile"], tuple(json.loads(row["collections"])))


def meet(connection: Connection, info: ModelsInfo, now: float) -> tuple[Course, int]:
    """The settings' models are these. Returns the course by now, and how many images start anew for it.

    The first models that are ever met answer at once. Others become the target, unless a revert turned away from them.
    """
    with connection.transaction(patient=True):
        connection.execute(
            "INSERT INTO editions (fingerprint, profile, collections, met_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (fingerprint) DO UPDATE SET profile = excluded.profile, collections = excluded.collections",
            (info.fingerprint, info.profile, json.dumps([space.collection for space in info.spaces]), now),
        )
        connection.execute(
            "INSERT INTO course (only_one, searched, target) VALUES (1, :met, :met) ON CONFLICT DO NOTHING",
            {"met": info.fingerprint},
        )
        connection.execute(
            "UPDATE course SET target = :met, declined = NULL, stopped = stopped AND target = :met WHERE declined IS NULL OR declined <> :met",
            {"met": info.fingerprint},
        )
        return _followed(connection)


def _followed(connection: Connection) -> tuple[Course, int]:
    now_is = course(connection)
    assert now_is is not None  # noqa: S101 - whoever calls has just written it
    return now_is, jobs.requeue_others(connection, now_is.target.fingerprint)


def is_covered(connection: Connection) -> bool:
    """Whether other models wait for nothing but to take over: whatever was settled before is settled by them."""
    row = connection.execute(
        "SELECT searched <> target AND NOT stopped AND NOT EXISTS (SELECT 1 FROM images INDEXED BY images_unsettled"
        " WHERE state IN ('pending', 'running') AND fingerprint IS NOT NULL AND orphaned_at IS NULL) AS covered FROM course"
    ).fetchone()
    return row is not None and bool(row["covered"])


def switch(connection: Connection) -> bool:
    """Let the target answer from now on, if it still covers all. The one before is kept."""
    with connection.transaction():
        if not is_covered(connection):
            return False
        connection.execute("UPDATE course SET previous = searched, searched = target")
    return True


def progress(connection: Connection) -> Progress:
    (done,) = connection.execute(
        "SELECT count(*) FROM images INDEXED BY images_by_fingerprint"
        " WHERE state IN ('indexed', 'failed') AND fingerprint = (SELECT target FROM course)"
    ).fetchone()
    (left,) = connection.execute(
        "SELECT count(*) FROM images INDEXED BY images_unsettled WHERE state IN ('pending', 'running') AND fingerprint IS NOT NULL"
    ).fetchone()
    return Progress(done, left)


# --- what an operator may do, and what follows when weights are gone ----------------------------------------------------


def stop(connection: Connection) -> None:
    """Raises Conflict."""
    if not connection.execute("UPDATE course SET stopped = TRUE WHERE searched <> target").rowcount:
        raise Conflict("no change of models is under way")


def resume(connection: Connection) -> None:
    """Go on, or take up again what a revert turned away from, if the settings still name it. Raises Conflict."""
    if not connection.execute(
        "UPDATE course SET stopped = FALSE, declined = NULL WHERE stopped OR declined IS NOT NULL"
    ).rowcount:
        raise Conflict("no change of models was stopped or reverted")


def revert(connection: Connection, configured: str | None) -> None:
    """Back to the models that answer, or, when no change is under way, to those before. Raises Conflict.

    `configured` is the fingerprint of the settings' models: they are met again and again, and are not to begin anew.
    """
    with connection.transaction(patient=True):
        back = connection.execute(
            "UPDATE course SET target = CASE WHEN searched <> target THEN searched ELSE previous END,"
            " previous = CASE WHEN searched <> target THEN target ELSE previous END,"
            " stopped = FALSE, declined = coalesce(?, target) WHERE searched <> target OR previous IS NOT NULL",
            (configured,),
        )
        if not back.rowcount:
            raise Conflict("there are no models to go back to: none answered before, or what they made was dropped")
        connection.execute("UPDATE course SET declined = NULL WHERE declined = target")
        _followed(connection)


def drop(connection: Connection) -> None:
    """Give up the way back. Raises Conflict."""
    if not connection.execute("UPDATE course SET previous = NULL WHERE searched = target AND previous IS NOT NULL").rowcount:
        now_is = course(connection)
        if now_is is not None and now_is.is_changing:
            raise Conflict("a change of models is under way: stop or revert it first")
        raise Conflict("there is nothing to drop: no models answered before, or what they made was dropped")


def release(connection: Connection) -> None:
    """The target's weights are gone for good: the settings' models are no longer declined."""
    connection.execute("UPDATE course SET declined = NULL")


_LED_TO = "EXISTS (SELECT 1 FROM course WHERE fingerprint IN (searched, target, coalesce(previous, target)))"


def abandoned(connection: Connection) -> list[Edition]:
    """Editions that nothing leads back to, once no change is under way."""
    rows = connection.execute(
        f"SELECT fingerprint FROM editions WHERE (SELECT searched = target FROM course) AND NOT {_LED_TO}"  # noqa: S608 - ours
    ).fetchall()
    return [_edition(connection, row["fingerprint"]) for row in rows]


def forget(connection: Connection, fingerprint: str) -> None:
    """Its collections are gone, and nothing led to it again meanwhile."""
    connection.execute(f"DELETE FROM editions WHERE fingerprint = ? AND NOT {_LED_TO}", (fingerprint,))  # noqa: S608 - ours
