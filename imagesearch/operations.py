"""What can be asked of the service, once for both clients."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from os import PathLike
from typing import Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from core.schemas import BBox, FailurePage, GivenEmbeddings, ImageStates, ImportAnswer, ModelsCourse
from imagesearch.adding import Adding
from imagesearch.errors import Unintelligible
from imagesearch.pictures import Picture, gathered, read
from imagesearch.question import DEFAULT_TOP_K, Example, Filter, Question
from imagesearch.results import Added, OnProgress
from imagesearch.steps import Retrying, Send, Steps, exchange, work
from searchsvc.schemas import (
    AnalysesPage,
    EmbeddingsPage,
    FeedbackAnswer,
    ImageView,
    NoticesAnswer,
    SegmentsAnswer,
    StatusAnswer,
    UploadAnswer,
)
from searchsvc.search_schema import CompareAnswer, MatchView, Scope, SearchAnswer

ModelT = TypeVar("ModelT", bound=BaseModel)

API = "/api/v1"
ExportFormat = Literal["jsonl", "qrels", "topics"]


class Operations:
    """Each method is one conversation; all may raise what `imagesearch.errors` draws."""

    def __init__(self, retrying: Retrying) -> None:
        self._retrying = retrying

    # --- search

    def search(
        self,
        text: str | None = None,
        *,
        picture: Picture | Sequence[Picture] | None = None,
        image_id: str | None = None,
        segment: int | None = None,
        region: BBox | None = None,
        like: Sequence[Example] = (),
        unlike: Sequence[Example] = (),
        negative_text: str | None = None,
        scope: Scope = "images",
        filter: Filter | None = None,  # noqa: A002 - the API's word
        top_k: int = DEFAULT_TOP_K,
        offset: int = 0,
        min_score: float | None = None,
        model: str | None = None,
        collapse: bool = False,
        diversity: float = 0,
        explain: bool = False,
        feedback: bool = True,
    ) -> Steps[SearchAnswer]:
        """Find pictures by words, by pictures or a part of one, by indexed images, or by several of these together; best first.

        `Question` tells what each option means, `ask` the two that are not part of the question.
        """
        question = Question(
            text,
            picture=picture,
            image_id=image_id,
            segment=segment,
            region=region,
            like=like,
            unlike=unlike,
            negative_text=negative_text,
            scope=scope,
            filter=filter,
            top_k=top_k,
            min_score=min_score,
            collapse=collapse,
            diversity=diversity,
            explain=explain,
            feedback=feedback,
        )
        return self.ask(question, model=model, offset=offset)

    def ask(self, question: Question, *, model: str | None = None, offset: int = 0) -> Steps[SearchAnswer]:
        """As `search`, with a question that was made before. `model` is a name or collection; `offset` matches are skipped."""
        how: dict[str, object] = {"offset": offset} if model is None else {"offset": offset, "model": model}
        return self._asked(SearchAnswer, "search-image", question, how)

    def more(self, answer: SearchAnswer | str, *, top_k: int | None = None) -> Steps[SearchAnswer | None]:
        """The next page of an answer, or of its cursor; None where nothing follows.

        The service has the whole question from the cursor, pictures included. Nothing comes twice or is passed over, though pictures
        arrive and are rated in between. Raises Refused for a cursor that has expired, Conflict where other models answer by now.
        """
        cursor = answer if isinstance(answer, str) else answer.cursor
        if cursor is None:
            return None
        body: dict[str, object] = {"cursor": cursor} if top_k is None else {"cursor": cursor, "top_k": top_k}
        return (yield from self._answer(SearchAnswer, Send("POST", f"{API}/search-image", json=body)))

    def compare(self, models: tuple[str, str], question: Question | str) -> Steps[CompareAnswer]:
        """Ask two models the same, and see where each image stands with either."""
        asked = Question(question) if isinstance(question, str) else question
        return self._asked(CompareAnswer, "compare-models", asked, {"models": list(models)})

    def _asked(self, model: type[ModelT], route: str, question: Question, how: Mapping[str, object]) -> Steps[ModelT]:
        """As JSON, or as a form where pictures go along."""
        said = {**question.fields(), **how}
        pictures = question.pictures
        if not pictures:
            return (yield from self._answer(model, Send("POST", f"{API}/{route}", json=said)))
        files = yield from work(lambda: tuple(map(read, pictures)))
        form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}
        return (yield from self._answer(model, Send("POST", f"{API}/{route}", form=form, files=files)))

    def rate(self, shown: SearchAnswer | MatchView | str, rating: int, *, image_id: str | None = None) -> Steps[str]:
        """Rate a search, one of its matches, or whatever a token is about, from 1 to 10; `image_id` picks one of a search's images.

        Returns the id of the feedback. Raises Conflict when this token was used before.
        """
        token = shown if isinstance(shown, str) else shown.jwt
        body: dict[str, object] = {"user_feedback": rating, "jwt": token}
        if image_id is not None:
            body["image_id"] = image_id
        answer = yield from self._answer(FeedbackAnswer, Send("POST", f"{API}/create-feedback", json=body))
        return answer.feedback_id

    def export(self, format: ExportFormat = "jsonl", *, since: datetime | None = None) -> Steps[bytes]:  # noqa: A002 - the API's word
        """All ratings as JSON Lines, or as TREC's qrels with the topics that they are about; those of `since` and later alone.

        Needs the API key wherever writing needs one. What broke off midway is Unreachable, never a part taken for the whole.
        """
        query = {"format": format} if since is None else {"format": format, "since": since.isoformat()}
        return self._content(Send("GET", f"{API}/feedback", query=query, accept="application/x-ndjson, text/plain"))

    # --- images

    def upload(
        self, picture: Picture, *, name: str | None = None, folder: str | None = None, backfill: bool = False
    ) -> Steps[UploadAnswer]:
        """Add one picture. The service answers before it is indexed; the same bytes twice are one image.

        One of a `backfill` is indexed after whatever is added otherwise.
        """
        own_name, content = yield from work(partial(read, picture))
        form = {**({"folder": folder} if folder else {}), **({"backfill": "true"} if backfill else {})}
        request = Send("POST", f"{API}/images", form=form, files=((name or own_name, content),))
        return (yield from self._answer(UploadAnswer, request))

    def add(
        self,
        paths: str | PathLike[str] | Iterable[str | PathLike[str]],
        *,
        folder: str | None = None,
        wait: bool = False,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Steps[tuple[Added, ...]]:
        """Add files, and folders with all pictures below them, which keep their folder's name as with `cp -r`.

        A file that is refused or cannot be read comes back as failed, and the rest goes on. With `wait` it returns when all are
        indexed or failed, or after `timeout_s`; then some have not `ended`. Raises OSError for a path that is not there.
        """
        named = [paths] if isinstance(paths, str | PathLike) else list(paths)
        files = yield from work(lambda: gathered(named, folder))
        adding = Adding(files, on_progress, upload=self._upload_file, image=self.image)
        yield from adding.send()
        if wait:
            yield from adding.follow(timeout_s)
        return adding.added

    def _upload_file(self, name: str, content: bytes, folder: str) -> Steps[UploadAnswer]:
        return self.upload(content, name=name, folder=folder)

    def image(self, image_id: str) -> Steps[ImageView]:
        """How far an image is, where it lies, and why it failed if it did. Raises NotFound."""
        return self._answer(ImageView, Send("GET", _image(image_id)))

    def image_states(self, image_ids: Sequence[str] = (), *, paths: Sequence[str] = ()) -> Steps[ImageStates]:
        """How far up to 1,000 images are, and what lies at up to 1,000 paths; what is not known there is left out."""
        body = {"image_ids": list(image_ids), "paths": list(paths)}
        return self._answer(ImageStates, Send("POST", f"{API}/image-states", json=body))

    def notice(self, paths: Sequence[str]) -> Steps[int]:
        """Have files looked at that somebody else put into the watched folder or bucket; up to 1,000. Returns how many will be."""
        answer = yield from self._answer(NoticesAnswer, Send("POST", f"{API}/image-notices", json={"paths": list(paths)}))
        return answer.hints

    def embeddings(
        self, model: str | None = None, *, cursor: str | None = None, limit: int = 500, segments: bool = False
    ) -> Steps[EmbeddingsPage]:
        """A page of the vectors that a model made. Pass its collection as `model` with its cursor: Refused where other models answer by then.

        Needs the API key wherever writing needs one.
        """
        query = {"limit": str(limit), "segments": str(segments).lower()}
        query |= {name: value for name, value in (("model", model), ("cursor", cursor)) if value is not None}
        return self._answer(EmbeddingsPage, Send("GET", f"{API}/embeddings", query=query))

    def analyses(self, *, cursor: str | None = None, limit: int = 20, fingerprint: str | None = None) -> Steps[AnalysesPage]:
        """A page of all that the models found in the pictures, as `import_embeddings` takes it elsewhere. Pass its fingerprint with its
        cursor: Conflict where other models answer by then. Needs the API key wherever writing needs one.
        """
        query = {"limit": str(limit)}
        query |= {name: value for name, value in (("fingerprint", fingerprint), ("cursor", cursor)) if value is not None}
        return self._answer(AnalysesPage, Send("GET", f"{API}/analyses", query=query))

    def import_embeddings(
        self, given: Sequence[GivenEmbeddings], *, checks: int = 1, whole_alone: bool = False
    ) -> Steps[ImportAnswer]:
        """Have pictures that lie there found by vectors that were made elsewhere; up to 500, and 1 MiB as JSON.

        Some are embedded there first, and compared: Refused, and nothing is taken, where they differ.
        """
        body = {"given": [one.model_dump(mode="json") for one in given], "checks": checks, "whole_alone": whole_alone}
        return self._answer(ImportAnswer, Send("POST", f"{API}/embeddings", json=body))

    def segments(self, image_id: str) -> Steps[SegmentsAnswer]:
        """The regions that were found in an image."""
        return self._answer(SegmentsAnswer, Send("GET", f"{_image(image_id)}/segments"))

    def file(self, image_id: str) -> Steps[bytes]:
        """The picture's file as it lies on the service's disk."""
        return self._content(Send("GET", f"{_image(image_id)}/file", accept="*/*"))

    def thumbnail(self, image_id: str, *, size: Literal[128, 256, 512] = 256) -> Steps[bytes]:
        """WebP, upright, `size` pixels on the long side."""
        return self._content(Send("GET", f"{_image(image_id)}/thumbnail", query={"size": str(size)}, accept="image/webp"))

    def mask(self, image_id: str, n: int) -> Steps[bytes]:
        """PNG of a region's mask, white on transparent: stretch it over the picture."""
        return self._content(Send("GET", f"{_image(image_id)}/segments/{n}/mask", accept="image/png"))

    def delete(self, image_id: str) -> Steps[None]:
        """Remove an image's files from the watched folder, and all that was known of it. Raises NotFound."""
        yield from self._content(Send("DELETE", _image(image_id)))

    # --- operations

    def status(self) -> Steps[StatusAnswer]:
        """How far the folder is, and which models answer."""
        return self._answer(StatusAnswer, Send("GET", f"{API}/status"))

    def models(self) -> Steps[ModelsCourse]:
        """Which models answer, how far a change of models is, and which answered before."""
        return self._answer(ModelsCourse, Send("GET", f"{API}/models"))

    def turn_models(self, action: Literal["stop", "resume", "revert", "drop"]) -> Steps[ModelsCourse]:
        """Stop, resume or revert a change of models, or drop what the models before made. Raises Conflict where there is none."""
        return self._answer(ModelsCourse, Send("POST", f"{API}/models", json={"action": action}))

    def failures(self, *, limit: int = 100, offset: int = 0, ignored: bool = False) -> Steps[FailurePage]:
        """Files that are not indexed, and why; with `ignored` also those that are no pictures."""
        query = {"limit": str(limit), "offset": str(offset), "ignored": str(ignored).lower()}
        return self._answer(FailurePage, Send("GET", f"{API}/failures", query=query))

    def _answer(self, model: type[ModelT], request: Send) -> Steps[ModelT]:
        answer = yield from exchange(request, self._retrying)
        try:
            return model.model_validate_json(answer.content, extra="ignore")  # a newer service may say more
        except ValidationError:
            raise _not_understood(answer) from None

    def _content(self, request: Send) -> Steps[bytes]:
        answer = yield from exchange(request, self._retrying)
        return answer.content


def _image(image_id: str) -> str:
    return f"{API}/images/{quote(image_id, safe='')}"


def _not_understood(answer: httpx.Response) -> Unintelligible:
    message = f"the answer of {answer.request.url} is not understood: is it an image search, and of this release?"
    return Unintelligible(message, status=answer.status_code, request_id=answer.headers.get("X-Request-ID"))
