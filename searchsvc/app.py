"""The wiring: from settings and ready ports to an application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from core import damage
from core.decoding import decoder_of
from core.file_cache import FileCache
from core.gate import Gate
from core.hosts import KnownHosts
from core.images.folder import ImageFolder
from core.images.settings import bucket_of
from core.metrics import measure_disk, service_registry
from core.ports import Catalog, Embedder, ImageStore, VectorStore
from core.room import Rooms
from core.web import make_application, metrics_route
from searchsvc import openapi, urls
from searchsvc.access import WriteAccess
from searchsvc.admission import Admission
from searchsvc.api_keys import is_short
from searchsvc.callers import Callers
from searchsvc.clients import Clients
from searchsvc.corpus import Corpus
from searchsvc.cursors import Cursors
from searchsvc.embeddings import Embeddings
from searchsvc.events import StatusEvents
from searchsvc.facets import Facets
from searchsvc.feedback_export import FeedbackExport
from searchsvc.feedback_file import feedback_of
from searchsvc.limiting import limiting
from searchsvc.limits import Kind, RateLimits
from searchsvc.metrics import SearchMetrics
from searchsvc.models import QueryModels
from searchsvc.originals import Originals
from searchsvc.paging import Pager
from searchsvc.pictures import PictureReader
from searchsvc.question import Questions
from searchsvc.ranking import Ranking
from searchsvc.readiness import Readiness
from searchsvc.receiving import Receiver
from searchsvc.reranking import Reranking
from searchsvc.routes import embeddings, facets, feedback, image_events, images, operations, pages, search
from searchsvc.search import Searcher
from searchsvc.searched import SearchedModels
from searchsvc.secret import jwt_key, key_ring
from searchsvc.services import SERVICES, Services
from searchsvc.settings import SearchSettings
from searchsvc.state import StatusReader
from searchsvc.thumbnail_sweep import ThumbnailSweep
from searchsvc.thumbnails import Thumbnails
from searchsvc.tokens import TokenSigner
from searchsvc.uploads import Uploads

log = structlog.get_logger()

_MAX_JSON_BYTES = 2**20
_ROUTINE = ("/static", "/docs/files", f"{urls.API}/status", f"{urls.API}/events", urls.image(""))
"""What a page fetches beside what its user asked for."""


def create_app(
    settings: SearchSettings,
    *,
    embedder: Embedder,
    vectors: VectorStore,
    catalog: Catalog,
    registry: CollectorRegistry | None = None,
) -> web.Application:
    """The search service over entered ports. What it opens itself (feedback, secret, thumbnails) opens and closes with the application.

    `registry` is one that the ports count in, where they do.
    """
    registry = registry or service_registry()
    measure_disk(registry, settings.data_dir)
    access = WriteAccess(settings.api_keys, listens_on=settings.host)
    if short := sum(map(is_short, settings.api_keys)):
        log.warning("api_keys_short", keys=short, advice="make key")
    hosts = KnownHosts(listens_on=settings.host, allowed=settings.allowed_hosts)
    gate = Gate(hosts, is_known=access.knows)
    app = make_application("searchsvc", registry, gate=gate, client_max_size=_MAX_JSON_BYTES, routine=_ROUTINE)
    callers = Callers(settings.trusted_proxies)
    app.middlewares.append(limiting(_limits(settings), callers))
    reading = ThreadPoolExecutor(4, thread_name_prefix="reading")
    metrics = SearchMetrics(registry)

    async def services(app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(reading.shutdown, wait=False)
            app[SERVICES] = await _services(
                settings,
                access,
                callers,
                embedder=SearchedModels(embedder, catalog),
                vectors=vectors,
                catalog=catalog,
                metrics=metrics,
                reading=reading,
                stack=stack,
            )
            yield

    app.cleanup_ctx.append(services)
    app.on_shutdown.append(_end_event_streams)
    for module in (search, facets, feedback, images, embeddings, image_events, operations):
        app.add_routes(module.routes())
    app.add_routes([web.get("/metrics", metrics_route(registry))])
    app.add_routes(pages.routes(openapi.document_json(), executor=reading, linked_origin=_linked_origin(settings)))
    return app


def _image_store(settings: SearchSettings, stack: AsyncExitStack) -> ImageStore:
    place = settings.bucket_place
    if place is not None:
        cache_bytes, link_endpoint = settings.images_cache_bytes, settings.images_link_endpoint
        bucket = bucket_of(place, data_dir=settings.data_dir, cache_bytes=cache_bytes, link_endpoint=link_endpoint)
        stack.callback(bucket.close)
        return bucket
    folder = ImageFolder(settings.images_dir)
    folder.remove_leftovers()
    return folder


def _linked_origin(settings: SearchSettings) -> str | None:
    """Where the page's pictures may come from besides this service: a browser follows no link that its policy does not name."""
    place = settings.bucket_place
    if place is None or settings.images_links != "presigned":
        return None
    where = urlsplit(settings.images_link_endpoint or place.endpoint)
    return f"{where.scheme}://{where.netloc}"


def _limits(settings: SearchSettings) -> RateLimits:
    return RateLimits(
        {Kind.SEARCH: settings.searches_per_s, Kind.RATING: settings.ratings_per_s, Kind.WRITING: settings.writes_per_s}
    )


def _threads(stack: AsyncExitStack, count: int, name: str) -> ThreadPoolExecutor:
    """A named executor. Its release does not wait on the loop: what runs ends before the process does."""
    executor = ThreadPoolExecutor(count, thread_name_prefix=name)
    stack.callback(executor.shutdown, wait=False)
    return executor


async def _end_event_streams(app: web.Application) -> None:
    app[SERVICES].events.close()


async def _services(
    settings: SearchSettings,
    access: WriteAccess,
    callers: Callers,
    *,
    embedder: Embedder,
    vectors: VectorStore,
    catalog: Catalog,
    metrics: SearchMetrics,
    reading: ThreadPoolExecutor,
    stack: AsyncExitStack,
) -> Services:
    loop = asyncio.get_running_loop()
    writing = _threads(stack, 1, "upload-writer")
    decoding = _threads(stack, 2, "upload-decoder")
    root = await loop.run_in_executor(writing, jwt_key, settings.jwt_secret, settings.data_dir)
    keys = key_ring(settings.jwt_secrets, settings.jwt_secret, root)
    signer = TokenSigner(keys, issuer=settings.jwt_issuer, audience=settings.jwt_audience, ttl_s=settings.jwt_ttl_s)
    decoder = decoder_of(settings, on_death=metrics.decoder_deaths.inc)
    pictures = PictureReader(decoder)
    store = await loop.run_in_executor(writing, _image_store, settings, stack)
    originals = Originals(store, link_lifetime_s=settings.images_link_s if settings.images_links == "presigned" else None)
    rooms = Rooms({"the ledger": settings.data_dir, "the vectors": settings.data_dir / "vectors"})
    uploads = Uploads(
        store,
        originals=originals,
        catalog=catalog,
        format_of=pictures.format_of,
        decoding=decoding,
        writing=writing,
        rooms=rooms,
    )
    feedback_store = await stack.enter_async_context(feedback_of(settings))
    repairs = await loop.run_in_executor(writing, damage.repairs, settings.data_dir)
    status = StatusReader(catalog=catalog, embedder=embedder, writing_needs_key=access.needs_key, repairs=repairs)
    reranking = await stack.enter_async_context(Reranking(settings.feedback_reranking, store=feedback_store, vectors=vectors))
    ranking = Ranking(vectors)
    models = QueryModels(embedder, metrics)
    questions = Questions(
        models, vectors=vectors, catalog=catalog, originals=originals, reading=reading, max_file_bytes=settings.max_image_bytes
    )
    thumbnails = await stack.enter_async_context(
        Thumbnails(
            FileCache(settings.data_dir / "thumbnails", max_bytes=settings.thumbnails_max_bytes),
            originals=originals,
            render=pictures.thumbnail,
            max_bytes=settings.max_image_bytes,
            metrics=metrics,
        )
    )
    await stack.enter_async_context(ThumbnailSweep(thumbnails, catalog))
    services = Services(
        access=access,
        admission=Admission(settings.max_requests),
        bucket=settings.bucket_place,
        callers=callers,
        catalog=catalog,
        clients=Clients(root, access),
        corpus=Corpus(embedder=embedder, vectors=vectors, catalog=catalog, executor=reading),
        embeddings=Embeddings(models, vectors, reading),
        events=StatusEvents(status, max_listeners=settings.max_event_streams),
        facets=Facets(models, vectors),
        feedback=feedback_store,
        feedback_export=FeedbackExport(feedback_store, reading),
        metrics=metrics,
        originals=originals,
        query_timeout_s=settings.query_timeout_s,
        readiness=Readiness(embedder=embedder, vectors=vectors, catalog=catalog, rooms=rooms, executor=reading, repairs=repairs),
        reading=reading,
        receiver=Receiver(
            max_at_once=settings.max_uploads,
            max_file_bytes=settings.max_image_bytes,
            longest_pause_s=settings.receive_timeout_s,
        ),
        reranking=reranking,
        searcher=Searcher(
            models=models,
            questions=questions,
            ranking=ranking,
            pager=Pager(ranking, near_duplicate=settings.near_duplicate_similarity),
            reranking=reranking,
            cursors=Cursors(keys, ttl_s=settings.jwt_ttl_s),
            signer=signer,
            metrics=metrics,
        ),
        signer=signer,
        status=status,
        thumbnails=thumbnails,
        uploads=uploads,
    )
    stack.enter_context(decoder)  # last, so that it is released first: whoever waits for a picture then waits no more
    return services
