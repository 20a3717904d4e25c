"""Many files on their way into the service: sent one by one, then followed until each has ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from core.schemas import ImageState
from imagesearch.errors import NotFound, Refused, Unauthorized
from imagesearch.pictures import LocalPicture
from imagesearch.results import Added, OnProgress, Progress
from imagesearch.steps import Pause, Steps, work
from searchsvc.schemas import ImageView, UploadAnswer

_LOOKED_AT_ONCE = 32
"""Images whose state is asked for in one round. The service takes them up in the order sent, so the first of the queue end first."""
_ROUND_PAUSE_S = 0.4

Upload = Callable[[str, bytes, str], Steps[UploadAnswer]]
"""Of a name, the content, and a folder."""


class Adding:
    def __init__(
        self,
        files: Sequence[LocalPicture],
        on_progress: OnProgress | None,
        *,
        upload: Upload,
        image: Callable[[str], Steps[ImageView]],
    ) -> None:
        self._files = files
        self._on_progress = on_progress
        self._upload = upload
        self._image = image
        self._added: list[Added] = []
        self._counts = {ImageState.INDEXED: 0, ImageState.FAILED: 0}

    @property
    def added(self) -> tuple[Added, ...]:
        """In the order of the files, as far as they were sent."""
        return tuple(self._added)

    def send(self) -> Steps[None]:
        """Raises what concerns not one file but all of them: Unauthorized, Unavailable, Unintelligible."""
        for file in self._files:
            added = yield from self._send(file)
            self._added.append(added)
            self._tell(added)

    def follow(self, timeout_s: float | None) -> Steps[None]:
        """Look at what has not ended until all has, or the time is over."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        open_ones = deque(index for index, added in enumerate(self._added) if not added.ended)
        while True:
            for _ in range(min(_LOOKED_AT_ONCE, len(open_ones))):
                index = open_ones.popleft()
                added = yield from self._look(self._added[index])
                self._added[index] = added
                if added.ended:
                    self._tell(added)
                else:
                    open_ones.append(index)
            if not open_ones or (deadline is not None and time.monotonic() >= deadline):
                return
            yield Pause(_ROUND_PAUSE_S)

    def _send(self, file: LocalPicture) -> Steps[Added]:
        content = yield from work(partial(_content, file.path))
        if isinstance(content, OSError):
            return Added(file.path, None, ImageState.FAILED, "unreadable", content.strerror)
        try:
            answer = yield from self._upload(file.name, content, file.folder)
        except Unauthorized:
            raise
        except Refused as error:
            return Added(file.path, None, ImageState.FAILED, error.code, str(error))
        return Added(file.path, answer.image_id, ImageState.PENDING)

    def _look(self, added: Added) -> Steps[Added]:
        if added.image_id is None:
            return added
        try:
            image = yield from self._image(added.image_id)
        except NotFound:  # the file lies there, and the watcher has yet to see it
            return added
        return replace(added, state=image.state, reason=image.reason and image.reason.value, detail=image.detail)

    def _tell(self, latest: Added) -> None:
        if latest.ended:
            self._counts[latest.state] += 1
        if self._on_progress is not None:
            indexed, failed = self._counts[ImageState.INDEXED], self._counts[ImageState.FAILED]
            self._on_progress(Progress(len(self._files), len(self._added), indexed, failed, latest))


def _content(path: Path) -> bytes | OSError:
    """The error as a value: one unreadable file does not end the others."""
    try:
        return path.read_bytes()
    except OSError as error:
        return error
