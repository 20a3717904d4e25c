"""An import from its beginning, or from where it was left, until every picture is found, known or given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from core.schemas import GivenEmbeddings, ImportOutcome
from imagesearch.backfill.journal import Journal, Pending
from imagesearch.backfill.pace import Pace
from imagesearch.backfill.rows import Batch, Kind
from imagesearch.backfill.talking import patiently
from imagesearch.client import AsyncClient
from imagesearch.importing.sources import Vectors

_MOST_BYTES = 512 * 1024
_LARGEST_BYTES = 960 * 1024
"""Of a request by choice, and of a picture with all its regions: the service takes a MiB."""
_MOST_GIVEN = 250
_NUMBER_BYTES = 5.4
"""Of a number of a vector as base64."""
_SEGMENT_BYTES = 2500
"""Of what is told of a segment beside its vectors."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0

Numbered = tuple[int, GivenEmbeddings]


@dataclass(frozen=True, slots=True)
class Options:
    at_once: int = 4
    checks: int = 16
    """Compared in the first request; in all others one is."""
    whole_alone: bool = False
    patience_s: float = 900.0
    wait_s: float = 600.0
    """For how long pictures that the service does not know are waited for."""


class Import:
    """One run. What ends it early leaves the journal such that another goes on; what is given twice is known."""

    def __init__(
        self, client: AsyncClient, source: Vectors, journal: Journal, options: Options, *, moved: Callable[[Journal], None]
    ) -> None:
        """`moved` is told now and then."""
        self._client = client
        self._source = source
        self._journal = journal
        self._options = options
        self._moved = moved
        self._pace = Pace(most=options.at_once, rate=None, patience_s=options.patience_s)
        self._checks = options.checks

    async def run(self) -> None:
        """Raises Refused (vectors of other models), Unauthorized, OutOfPatience, UnreadableSource."""
        if not self._journal.has_read_all:
            batches = self._source.batches(int(self._journal.cursor or 0))
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                taken = self._journal.take_in(Batch(batch.rows, str(batch.first + len(batch.rows))))
                await self._give(_paired(taken, batch.first, batch.given))
            self._journal.note_end()
        await self._give_again()

    async def _give_again(self) -> None:
        """What waits is given again until it is there, or has been waited for."""
        until, pause_s = time.monotonic() + self._options.wait_s, _FIRST_PAUSE_S
        while left := self._journal.left().get("waiting", 0):
            await self._give_waiting(give_up=time.monotonic() >= until)
            now_left = self._journal.left().get("waiting", 0)
            if now_left:
                pause_s = _FIRST_PAUSE_S if now_left < left else min(2 * pause_s, _LONGEST_PAUSE_S)
                await asyncio.sleep(min(pause_s, max(until - time.monotonic(), _FIRST_PAUSE_S)))

    async def _give_waiting(self, *, give_up: bool) -> None:
        """All of it once, in the order of the source. `give_up`: a picture that is not there by now is not to come."""
        last = 0
        while waiting := self._journal.waiting(last):
            last = waiting[-1].number
            by_number = {one.number: one for one in waiting}
            first = waiting[0].number - 1
            batches = self._source.batches(first)
            while by_number and (batch := await asyncio.to_thread(next, batches, None)) is not None:
                here = [by_number.pop(n + 1) for n in range(batch.first, batch.first + len(batch.rows)) if n + 1 in by_number]
                await self._give(_paired(here, batch.first, batch.given), give_up=give_up)

    async def _give(self, numbered: Sequence[Numbered], *, give_up: bool = False) -> None:
        fitting = [one for one in numbered if _size_of(one[1]) <= _LARGEST_BYTES]
        sent = {number for number, _ in fitting}
        self._journal.park(
            [(number, "too_large", "more than a request may have") for number, _ in numbered if number not in sent]
        )
        requests = list(_requests(fitting))
        while requests and self._checks > 1:  # before anything else is given, many are compared
            checked = await self._request(requests.pop(0), self._checks, give_up=give_up)
            self._checks = 1 if checked else self._checks
        async with asyncio.TaskGroup() as group:
            for given in requests:
                group.create_task(self._request(given, 1, give_up=give_up))
        self._moved(self._journal)

    async def _request(self, numbered: Sequence[Numbered], checks: int, *, give_up: bool) -> int:
        """Returns how many were compared."""
        given = [one for _, one in numbered]
        call = partial(self._client.import_embeddings, given, checks=checks, whole_alone=self._options.whole_alone)
        answer = await patiently(self._pace, call)
        ended: dict[ImportOutcome, list[int]] = {outcome: [] for outcome in ImportOutcome}
        refused: list[tuple[int, str, str]] = []
        for (number, _), result in zip(numbered, answer.results, strict=True):
            ended[result.outcome].append(number)
            if result.outcome is ImportOutcome.REFUSED:
                refused.append((number, "refused", result.detail or ""))
            elif result.outcome is ImportOutcome.UNKNOWN and give_up:
                refused.append((number, "not_seen", "no such picture lies there"))
        self._journal.note_indexed([*ended[ImportOutcome.INDEXED], *ended[ImportOutcome.FOUND]], how="uploaded")
        self._journal.note_indexed(ended[ImportOutcome.KNOWN], how="known")
        self._journal.park(refused)
        return answer.checked


def _paired(pending: Sequence[Pending], first: int, given: Sequence[GivenEmbeddings | None]) -> list[Numbered]:
    """The journal counts from 1."""
    found = ((one.number, given[one.number - 1 - first]) for one in pending if one.row.kind is Kind.VECTOR)
    return [(number, one) for number, one in found if one is not None]


def _requests(numbered: Sequence[Numbered]) -> Iterator[list[Numbered]]:
    """No larger than they should be, where one picture alone is not."""
    size, request = 0.0, list[Numbered]()
    for one in numbered:
        own = _size_of(one[1])
        if request and (size + own > _MOST_BYTES or len(request) >= _MOST_GIVEN):
            yield request
            size, request = 0.0, []
        size += own
        request.append(one)
    if request:
        yield request


def _size_of(given: GivenEmbeddings) -> float:
    vectors = [*given.embeddings, *(one for segment in given.segments for one in segment.embeddings)]
    masks = sum(len(segment.mask.counts) + _SEGMENT_BYTES for segment in given.segments)
    return 200 + masks + sum(_NUMBER_BYTES * one.vector.size + 100 for one in vectors)
