"""Finding: from a question to ranked, signed matches, a page at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

from core.errors import Conflict, InvalidRequest
from core.schemas import ModelsInfo
from searchsvc.comparison import compared
from searchsvc.cursors import Continuation, Cursors
from searchsvc.explanation import Explainer
from searchsvc.feedback import RecentSearch
from searchsvc.matches import match_view
from searchsvc.metrics import SearchMetrics
from searchsvc.models import QueryModels
from searchsvc.paging import Page, Pager, Shown
from searchsvc.question import Question, Questions
from searchsvc.ranking import Ranking
from searchsvc.reranking import Reranking
from searchsvc.search_schema import (
    CompareAnswer,
    CompareOptions,
    Explanation,
    FeedbackUse,
    MatchView,
    QueryOptions,
    SearchAnswer,
    SearchOptions,
)
from searchsvc.tokens import ShownSearch, TokenSigner

_BESIDE_A_CURSOR = {"cursor", "top_k"}


class Searcher:
    def __init__(
        self,
        *,
        models: QueryModels,
        questions: Questions,
        ranking: Ranking,
        pager: Pager,
        reranking: Reranking,
        cursors: Cursors,
        signer: TokenSigner,
        metrics: SearchMetrics,
    ) -> None:
        self._models = models
        self._questions = questions
        self._pager = pager
        self._explainer = Explainer(ranking)
        self._reranking = reranking
        self._cursors = cursors
        self._signer = signer
        self._metrics = metrics

    async def search(self, options: SearchOptions, pictures: Sequence[bytes] = ()) -> SearchAnswer:
        """Answer a question, or go on with an answer.

        Raises InvalidRequest, NotFound, Conflict (not indexed yet; or other models since), ImageRejected, NoModel, Unavailable.
        """
        started = time.perf_counter()
        info = await self._models.info()
        if options.cursor is not None:
            return await self._answer(self._continued(options, pictures, info), info, started)
        question = await self._asked(options, pictures, info, options.model)
        going = Continuation(question=question, top_k=options.top_k)
        return await self._answer(going, info, started, skip=options.offset)

    async def compare(self, options: CompareOptions, pictures: Sequence[bytes] = ()) -> CompareAnswer:
        """Ask two models the same. Raises as `search` does."""
        info = await self._models.info()
        answers: list[SearchAnswer] = []
        for model in options.models:
            started = time.perf_counter()
            question = await self._asked(options, pictures, info, model)
            answers.append(await self._answer(Continuation(question=question, top_k=options.top_k), info, started))
        return compared(*answers)

    async def _asked(self, options: QueryOptions, pictures: Sequence[bytes], info: ModelsInfo, model: str | None) -> Question:
        at = time.perf_counter()
        question = await self._questions.understand(options, pictures, info, model)
        at = self._metrics.observe("embed", at)
        if not options.feedback:
            return question
        turned = await self._reranking.turn(question.space.collection, question.vector)
        self._metrics.observe("feedback", at)
        if turned is None:
            return question
        use = FeedbackUse(ratings=turned.judgements, clients=turned.clients, rotation_degrees=round(turned.degrees, 3))
        return question.model_copy(update={"turned": turned.vector, "feedback": use})

    def _continued(self, options: SearchOptions, pictures: Sequence[bytes], info: ModelsInfo) -> Continuation:
        beside = sorted(options.model_fields_set - _BESIDE_A_CURSOR) + ["file"] * bool(pictures)
        if beside:
            raise InvalidRequest("a cursor goes on with its own question: send nothing but `top_k` beside it", field=beside[0])
        going = self._cursors.read(options.cursor or "")
        if going.question.space not in info.spaces:
            raise Conflict("other models answer by now: search again")
        return going.model_copy(update={"top_k": options.top_k}) if "top_k" in options.model_fields_set else going

    async def _answer(self, going: Continuation, info: ModelsInfo, started: float, *, skip: int = 0) -> SearchAnswer:
        question, at = going.question, time.perf_counter()
        page = await self._pager.page(going, skip=skip)
        at = self._metrics.observe("vectors", at)
        explanations: Mapping[str, Explanation] = {}
        if question.explain:
            explanations = await self._explainer.explain(question, [shown.ranked for shown in page.matches])
            at = self._metrics.observe("explain", at)
        seen = [(match, shown) for shown in page.matches if (match := match_view(shown.ranked, question.filter)) is not None]
        matches = [_complete(match, shown, explanations) for match, shown in seen]
        search = _shown_search(question, matches, page)
        recent = RecentSearch(question.vector, search.shown, search.scores, search.first_rank)
        self._reranking.remember(search.search_id, recent)
        answer = SearchAnswer(
            text=question.text,
            model_name=question.space.model_name,
            matches=tuple(self._signed(match, search) for match in matches),
            cursor=self._cursors.write(page.further) if page.further else None,
            jwt=self._signer.issue(search),
            search_id=search.search_id,
            took_ms=0.0,
            notice=info.notice,
            feedback=question.feedback,
        )
        self._metrics.observe("render", at)
        return answer.model_copy(update={"took_ms": round((time.perf_counter() - started) * 1000, 2)})

    def _signed(self, match: MatchView, search: ShownSearch) -> MatchView:
        """With a token of its own."""
        place = search.shown.index(match.image_id)
        about = replace(
            search,
            shown=[match.image_id],
            scores=[match.score],
            first_rank=search.first_rank + place,
            about="match",
            segment=match.segment.n if match.segment else None,
        )
        return match.model_copy(update={"jwt": self._signer.issue(about)})


def _complete(match: MatchView, shown: Shown, explanations: Mapping[str, Explanation]) -> MatchView:
    added = {"near_duplicates": shown.near_duplicates, "explanation": explanations.get(shown.ranked.key)}
    return match.model_copy(update=added)


def _shown_search(question: Question, matches: Sequence[MatchView], page: Page) -> ShownSearch:
    scores: dict[str, float] = {}
    for match in matches:
        scores.setdefault(match.image_id, match.score)
    return ShownSearch(
        search_id=str(uuid4()),
        query=question.told,
        model=question.space.collection,
        shown=list(scores),
        model_name=question.space.model_name,
        scores=list(scores.values()),
        first_rank=page.first_rank,
        rotation=question.feedback.rotation_degrees if question.feedback else 0.0,
    )
