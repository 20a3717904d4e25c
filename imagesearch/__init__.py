"""The client of an image search service, for code (`Client`, `AsyncClient`) and terminal (`imagesearch`).

with Client() as client:
    answer = client.search("a red bag", scope="segments")
    client.rate(answer.matches[0], 9)
"""

from core.schemas import FailurePage, ImageState
from imagesearch.client import AsyncClient, Client
from imagesearch.errors import (
    Conflict,
    ImageSearchError,
    NotFound,
    Refused,
    Unauthorized,
    Unavailable,
    Unintelligible,
    Unreachable,
)
from imagesearch.question import Question
from imagesearch.results import Added, Progress
from imagesearch.steps import Retrying
from searchsvc.filter_schema import SearchFilter
from searchsvc.schemas import ImageView, StatusAnswer, UploadAnswer
from searchsvc.search_schema import CompareAnswer, ComparedImage, Explanation, MatchView, SearchAnswer, SegmentView, TermView

__all__ = [
    "Added",
    "AsyncClient",
    "Client",
    "CompareAnswer",
    "ComparedImage",
    "Conflict",
    "Explanation",
    "FailurePage",
    "ImageSearchError",
    "ImageState",
    "ImageView",
    "MatchView",
    "NotFound",
    "Progress",
    "Question",
    "Refused",
    "Retrying",
    "SearchAnswer",
    "SearchFilter",
    "SegmentView",
    "StatusAnswer",
    "TermView",
    "Unauthorized",
    "Unavailable",
    "Unintelligible",
    "Unreachable",
    "UploadAnswer",
]
