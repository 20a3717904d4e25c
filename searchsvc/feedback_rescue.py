"""Ratings out of a damaged feedback file: every page of it and of its journal is read for rows, whatever still leads to the page.

Rows are only ever added to that table, so any whole row found anywhere is a rating. What is damaged beyond that fails its own checks:
the number and types of its columns, its JSON, its times.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from core.schemas import CONTENT_HASH_PATTERN

_FIRST = "feedback_id, jti, rating, image_id, segment, search_id, query, model, shown, created_at"
_TODAY = (
    "sequence, feedback_id, jti, rating, image_id, segment, search_id, query, model, model_name, shown, scores, first_rank, client,"
    " rotation, query_vector, created_at"
)
_SHAPES: dict[int, tuple[str, ...]] = {len(shape.split(", ")): tuple(shape.split(", ")) for shape in (_FIRST, _TODAY)}
"""Columns of a row by their number: those of each schema that was released."""

_PICTURE = re.compile(CONTENT_HASH_PATTERN)
_PAGE_SIZES = tuple(2**n for n in range(9, 17))
_LEAF_OF_TABLE = 13
_WAL_HEADER, _FRAME_HEADER = 32, 24
_WAL_MAGIC = b"\x37\x7f\x06"
_LENGTH_ERROR = 0.01
_WIDTHS = (0, 1, 2, 3, 4, 6, 8)

Value = int | float | str | bytes | None
Row = dict[str, Value]


_BESIDE: Mapping[str, Callable[[Any], bool]] = {
    "segment": lambda value: value is None or isinstance(value, int),
    "model_name": lambda value: value is None or isinstance(value, str),
    "scores": lambda value: isinstance(value, str) and _are_numbers(json.loads(value)),
    "first_rank": lambda value: isinstance(value, int) and value >= 1,
    "client": lambda value: value is None or isinstance(value, str),
    "rotation": lambda value: isinstance(value, int | float) and math.isfinite(value),
    "query_vector": lambda value: value is None or (isinstance(value, bytes) and _is_vector(value)),
}
"""Columns without which a rating is one all the same, and whether what they hold is whole."""


def rescue(folder: Path, connection: sqlite3.Connection) -> str:
    """Bring what can be read in `folder` into the feedback file. Returns how much that was, for people."""
    rows = sorted(readable(folder), key=lambda row: ("sequence" not in row, row.get("sequence") or 0, str(row["created_at"])))
    connection.execute("BEGIN IMMEDIATE")
    for row in rows:
        if not _add(connection, row):
            _add(
                connection, {name: value for name, value in row.items() if name != "sequence"}
            )  # its place may be taken by another
    connection.execute("COMMIT")
    kept, last = connection.execute("SELECT count(*), coalesce(max(sequence), 0) FROM feedback").fetchone()
    lost = f"{last - kept} are missing among them" if last > kept else "none is missing among them"
    return f"{kept} ratings and the tokens they spent were rescued, {lost}; whether later ones were lost cannot be told"


def _add(connection: sqlite3.Connection, row: Row) -> bool:
    marks = ", ".join("?" * len(row))
    added = connection.execute(f"INSERT OR IGNORE INTO feedback ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))  # noqa: S608
    return added.rowcount == 1


def readable(folder: Path) -> Iterator[Row]:
    """Every whole rating in the database and the journal in this folder, some more than once."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.endswith("-shm"):
            content = path.read_bytes()
            for images in (
                _journalled(content) if content.startswith(_WAL_MAGIC) or path.name.endswith("-wal") else _plain(content)
            ):
                for page in images.pages:
                    yield from _rows_of(page, images)


@dataclass(frozen=True, slots=True)
class _Images:
    """Pages as they lie in one file, and where those of a number are, for rows that go on elsewhere."""

    pages: Sequence[bytes]
    numbers: dict[int, Sequence[bytes]]
    size: int


def _plain(content: bytes) -> Iterator[_Images]:
    """By the page size that the header tells, else by each that there may be."""
    told = int.from_bytes(content[16:18], "big") if content.startswith(b"SQLite format 3\x00") else 0
    told = 2**16 if told == 1 else told
    for size in (told,) if told in _PAGE_SIZES else _PAGE_SIZES[::-1]:
        pages = [content[start : start + size] for start in range(0, len(content) - size + 1, size)]
        yield _Images(pages, {number: (page,) for number, page in enumerate(pages, start=1)}, size)


def _journalled(content: bytes) -> Iterator[_Images]:
    told = int.from_bytes(content[8:12], "big")
    for size in (told,) if told in _PAGE_SIZES else _PAGE_SIZES[::-1]:
        pages, numbers = [], dict[int, list[bytes]]()
        for start in range(_WAL_HEADER, len(content) - _FRAME_HEADER - size + 1, _FRAME_HEADER + size):
            page = content[start + _FRAME_HEADER : start + _FRAME_HEADER + size]
            pages.append(page)
            numbers.setdefault(int.from_bytes(content[start : start + 4], "big"), []).append(page)
        yield _Images(pages, {number: found[::-1] for number, found in numbers.items()}, size)


def _rows_of(page: bytes, images: _Images) -> Iterator[Row]:
    """Rows of a leaf of a table. The first page begins with the file's header."""
    begin = 100 if page.startswith(b"SQLite format 3\x00") else 0
    if page[begin] != _LEAF_OF_TABLE:
        return
    cells = int.from_bytes(page[begin + 3 : begin + 5], "big")
    for cell in range(min(cells, len(page) // 4)):
        at = begin + 8 + 2 * cell
        with suppress(IndexError, ValueError):
            found = _row(page, int.from_bytes(page[at : at + 2], "big"), images)
            if found is not None:
                yield found


def _row(page: bytes, at: int, images: _Images) -> Row | None:
    """Raises IndexError or ValueError for what cannot be one."""
    length, at = _varint(page, at)
    rowid, at = _varint(page, at)
    values = _record(_payload(page, at, length, images))
    names = _SHAPES.get(len(values))
    if names is None:
        return None
    row = dict(zip(names, values, strict=True))
    if "sequence" in row:
        row["sequence"] = rowid  # an INTEGER PRIMARY KEY is stored as the row's number
    return {name: value for name, value in row.items() if _is_whole(name, value)} if _is_rating(row) else None


def _payload(page: bytes, at: int, length: int, images: _Images) -> bytes:
    """A row's bytes, those that went to other pages included."""
    usable = images.size
    most, least = usable - 35, (usable - 12) * 32 // 255 - 23
    if length <= most:
        return page[at : at + length]
    here = least + (length - least) % (usable - 4)
    here = here if here <= most else least
    payload, number = page[at : at + here], int.from_bytes(page[at + here : at + here + 4], "big")
    while len(payload) < length and len(payload) < images.size * len(images.pages):
        (following, *_) = images.numbers.get(number, (b"",))
        if len(following) < usable:
            raise ValueError("it goes on in a page that is not there")
        number = int.from_bytes(following[:4], "big")
        payload += following[4:]
    return payload[:length]


def _record(payload: bytes) -> list[Value]:
    header, at = _varint(payload, 0)
    kinds = []
    while at < header:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    if at != header:
        raise ValueError("not the header of a row")
    values: list[Value] = []
    for kind in kinds:
        value, at = _value(payload, at, kind)
        values.append(value)
    if at != len(payload):
        raise ValueError("not the length of a row")
    return values


def _value(payload: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind in {0, 8, 9}:
        return (None if kind == 0 else kind - 8), at
    if kind >= 12:
        end = at + (kind - 12) // 2
        piece = payload[at:end]
        return (piece.decode() if kind % 2 else piece), end
    if kind == 7:
        (number,) = struct.unpack(">d", payload[at : at + 8])
        return float(number), at + 8
    end = at + _WIDTHS[kind]
    return int.from_bytes(payload[at:end], "big", signed=True), end


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Big-endian, seven bits a byte; all eight of a ninth."""
    number = 0
    for _ in range(8):
        byte = content[at]
        at += 1
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, at
    return number << 8 | content[at], at + 1


def _is_rating(row: Row) -> bool:
    """Whether every column holds what such a column holds: chance, or other bytes in the middle of it, would not do that."""
    try:
        UUID(_text(row, "feedback_id"))
        datetime.fromisoformat(_text(row, "created_at"))
        shown, query = json.loads(_text(row, "shown")), json.loads(_text(row, "query"))
    except (ValueError, TypeError):
        return False
    rating = row["rating"]
    texts = all(_text(row, name) for name in ("jti", "search_id", "model"))
    pictures = (
        isinstance(shown, list) and all(map(_is_picture, shown)) and (row["image_id"] is None or _is_picture(row["image_id"]))
    )
    return texts and isinstance(rating, int) and 1 <= rating <= 10 and pictures and isinstance(query, dict)


def _is_picture(image_id: object) -> bool:
    return isinstance(image_id, str) and _PICTURE.fullmatch(image_id) is not None


def _is_whole(name: str, value: Value) -> bool:
    """Whether this column of a rating can be read again."""
    try:
        return name not in _BESIDE or _BESIDE[name](value)
    except ValueError:
        return False


def _are_numbers(scores: object) -> bool:
    return isinstance(scores, list) and all(isinstance(score, int | float) and math.isfinite(score) for score in scores)


def _is_vector(stored: bytes) -> bool:
    """Of length 1, as every query has it: another one would seem near to what it is not."""
    return len(stored) % 4 == 0 and abs(math.hypot(*struct.unpack(f"<{len(stored) // 4}f", stored)) - 1) < _LENGTH_ERROR


def _text(row: Row, name: str) -> str:
    value: Any = row[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value
