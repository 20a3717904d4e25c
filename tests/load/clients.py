"""An open loop: requests come when they come, whatever became of those before, as from many people at once."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
import numpy as np
from PIL import Image

from tests.checkpoints import COLOURS, SHAPES, synthetic_picture

ACCEPTED = {200, 201, 202}
REFUSED = {429, 503}

_PATIENCE_S = 60.0
_RATABLE = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request; `status` 0 is one without an answer. Seconds; `at` since the loop began."""

    kind: str
    status: int
    at: float
    took: float
    retry_after: str | None


@dataclass
class Crowd:
    """People who search by words and by pictures, upload, and rate. What the service said it has taken is kept, to be looked for."""

    base_url: str
    seed: int
    uploaded: set[str] = field(default_factory=set)
    """Ids of the images that were accepted."""
    rated: set[str] = field(default_factory=set)
    """Ids of the feedback that was accepted."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._tokens: deque[str] = deque(maxlen=_RATABLE)
        self._query = synthetic_picture("red", "circle", 200, seed=self.seed)
        self._session: aiohttp.ClientSession | None = None
        kinds = {"words": self._search, "picture": self._search_by_picture, "upload": self._upload, "rating": self._rate}
        self._kinds: dict[str, Callable[[], Awaitable[tuple[int, str | None]]]] = kinds

    async def __aenter__(self) -> Crowd:
        self._session = aiohttp.ClientSession(
            self.base_url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=_PATIENCE_S)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        assert self._session is not None
        return self._session

    # --- loops

    async def one_by_one(self, workers: int, seconds: float) -> list[Answer]:
        """A closed loop: each worker asks again when it has its answer. Its rate is what the service can hold."""
        began, answers = time.monotonic(), list[Answer]()

        async def work() -> None:
            while time.monotonic() - began < seconds:
                answers.append(await self._one(began))

        await asyncio.gather(*(work() for _ in range(workers)))
        return answers

    async def at_rate(self, per_s: float, seconds: float) -> list[Answer]:
        """An open loop with pauses drawn from an exponential distribution."""
        began, due, asked = time.monotonic(), 0.0, list[asyncio.Task[Answer]]()
        while due < seconds:
            await asyncio.sleep(max(0.0, due - (time.monotonic() - began)))
            asked.append(asyncio.create_task(self._one(began)))
            due += self._random.expovariate(per_s)
        return list(await asyncio.gather(*asked))

    async def _one(self, began: float) -> Answer:
        kind = self._random.choices(("words", "picture", "upload", "rating"), (65, 5, 10, 20))[0]
        started = time.monotonic()
        try:
            status, retry_after = await self._kinds[kind]()
        except (aiohttp.ClientError, TimeoutError) as error:
            print(kind, repr(error))
            status, retry_after = 0, None
        return Answer(kind, status, started - began, time.monotonic() - started, retry_after)

    # --- what people do

    async def _search(self) -> tuple[int, str | None]:
        words = f"{self._random.choice([*COLOURS])} {self._random.choice(SHAPES)} {self._random.random()}"
        return await self._found(json={"text": words})

    async def _search_by_picture(self) -> tuple[int, str | None]:
        return await self._found(data=_form(self._query))

    async def _found(self, *, json: object = None, data: aiohttp.FormData | None = None) -> tuple[int, str | None]:
        async with self._http.post("/api/v1/search-image", json=json, data=data) as answer:
            document = await answer.json(content_type=None)
            if answer.status == 200:
                self._tokens.append(document["jwt"])
            return answer.status, answer.headers.get("Retry-After")

    async def _upload(self) -> tuple[int, str | None]:
        async with self._http.post("/api/v1/images", data=_form(_new_picture(self._random))) as answer:
            document = await answer.json(content_type=None)
            if answer.status in ACCEPTED:
                self.uploaded.add(document["image_id"])
            return answer.status, answer.headers.get("Retry-After")

    async def _rate(self) -> tuple[int, str | None]:
        if not self._tokens:
            return await self._search()
        rating = {"jwt": self._tokens.popleft(), "user_feedback": self._random.randint(1, 10)}
        async with self._http.post("/api/v1/create-feedback", json=rating) as answer:
            document = await answer.json(content_type=None)
            if answer.status in ACCEPTED:
                self.rated.add(document["feedback_id"])
            return answer.status, answer.headers.get("Retry-After")


def percentile(answers: Sequence[Answer], percent: float) -> float:
    """Of the seconds that these answers took."""
    return float(np.percentile([answer.took for answer in answers], percent)) if answers else 0.0


def _form(picture: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("file", picture, filename="crowd.png", content_type="image/png")
    return form


def _new_picture(drawn: random.Random) -> bytes:
    """Of noise, so that no two are alike."""
    pixels = np.frombuffer(drawn.randbytes(48 * 48 * 3), dtype=np.uint8).reshape(48, 48, 3)
    written = io.BytesIO()
    Image.fromarray(pixels).resize((192, 192)).save(written, "PNG")
    return written.getvalue()
