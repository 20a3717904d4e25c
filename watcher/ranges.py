"""What the collections must hold of the images whose ids lie in one range, and how far the comparison with them has come.

A range is named by the beginning of the ids in it, in hexadecimal digits; ids are hashes, so ranges of one length hold about as many each.
"""

from __future__ import annotations

from core.sql.connection import Connection
from watcher.views import Expected, Settled

DIGITS = "0123456789abcdef"


def end_of(beginning: str) -> str:
    """What every id of the range is less than."""
    return beginning + "g"


def settled(connection: Connection, beginning: str) -> Settled:
    row = connection.execute(
        "SELECT count(*) AS images, coalesce(sum(segments), 0) AS segments FROM images"
        " WHERE image_id >= ? AND image_id < ? AND state = 'indexed'",
        (beginning, end_of(beginning)),
    ).fetchone()
    return Settled(row["images"], row["segments"])


def expected(connection: Connection, beginning: str) -> list[Expected]:
    """The indexed images of the range, in order of their id."""
    rows = connection.execute(
        "SELECT image_id, segments FROM images WHERE image_id >= ? AND image_id < ? AND state = 'indexed' ORDER BY image_id",
        (beginning, end_of(beginning)),
    )
    return [Expected(row["image_id"], row["segments"]) for row in rows]


def compared_to(connection: Connection, collection: str) -> str:
    """Where the comparison of the collection stopped; empty where it came to its end."""
    row = connection.execute("SELECT compared_to FROM comparisons WHERE collection = ?", (collection,)).fetchone()
    return "" if row is None else str(row["compared_to"])


def note(connection: Connection, collection: str, compared_to: str) -> None:
    connection.execute(
        "INSERT INTO comparisons VALUES (?, ?) ON CONFLICT (collection) DO UPDATE SET compared_to = excluded.compared_to",
        (collection, compared_to),
    )


def forget(connection: Connection, collection: str) -> None:
    """The comparison came to its end."""
    connection.execute("DELETE FROM comparisons WHERE collection = ?", (collection,))
