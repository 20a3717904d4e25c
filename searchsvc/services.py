"""What the routes work with, under one typed key of the application."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

from aiohttp import web

from core.images.places import BucketPlace
from core.ports import Catalog
from searchsvc.access import WriteAccess
from searchsvc.admission import Admission
from searchsvc.callers import Callers
from searchsvc.clients import Clients
from searchsvc.corpus import Corpus
from searchsvc.embeddings import Embeddings
from searchsvc.events import StatusEvents
from searchsvc.facets import Facets
from searchsvc.feedback import FeedbackStore
from searchsvc.feedback_export import FeedbackExport
from searchsvc.metrics import SearchMetrics
from searchsvc.originals import Originals
from searchsvc.readiness import Readiness
from searchsvc.receiving import Receiver
from searchsvc.reranking import Reranking
from searchsvc.search import Searcher
from searchsvc.state import StatusReader
from searchsvc.thumbnails import Thumbnails
from searchsvc.tokens import TokenSigner
from searchsvc.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running search service."""

    access: WriteAccess
    admission: Admission
    bucket: BucketPlace | None
    callers: Callers
    catalog: Catalog
    clients: Clients
    corpus: Corpus
    embeddings: Embeddings
    events: StatusEvents
    facets: Facets
    feedback: FeedbackStore
    feedback_export: FeedbackExport
    metrics: SearchMetrics
    originals: Originals
    query_timeout_s: float
    readiness: Readiness
    reading: Executor
    receiver: Receiver
    reranking: Reranking
    searcher: Searcher
    signer: TokenSigner
    status: StatusReader
    thumbnails: Thumbnails
    uploads: Uploads


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)
