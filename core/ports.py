"""What the services ask of the world, as Protocols. Adapters are chosen in `__main__` and `standalone/compose.py` only.

Every method may raise the `Unavailable` of its port (`ModelUnavailable`, `VectorsUnavailable`, `CatalogUnavailable`); further errors are named.
Every adapter but an `ImageStore` is an async context manager; nothing works before it was entered or after it was left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol, Self

from core.schemas import (
    BBox,
    FailurePage,
    ImageAnalysis,
    ImageRecord,
    ImageStates,
    ImportAnswer,
    ImportRequest,
    IngestionStatus,
    ModelsAction,
    ModelsCourse,
    ModelsInfo,
    Priority,
    Segment,
    SegmentMode,
    Space,
    TextEmbeddings,
    Vector,
)

Payload = Mapping[str, Any]


# --- the model service -----------------------------------------------------------------------------------------------


class Embedder(Protocol):
    """Pictures and words to vectors and segments.

    `fingerprint` names the models that are meant, where they are not those of the settings: models of before are loaded beside them
    when they are first asked for, and for as long as they are.
    """

    async def info(self, fingerprint: str | None = None) -> ModelsInfo:
        """What is loaded now."""
        ...

    async def embed_texts(
        self, texts: Sequence[str], *, priority: Priority = Priority.QUERY, fingerprint: str | None = None
    ) -> TextEmbeddings:
        """Embed words into the text-and-image space, in input order. Raises NoModel, Overloaded."""
        ...

    async def analyse(
        self,
        image: bytes,
        *,
        segments: SegmentMode = SegmentMode.STANDARD,
        priority: Priority = Priority.INGEST,
        region: BBox | None = None,
        fingerprint: str | None = None,
    ) -> ImageAnalysis:
        """Decode, segment and embed one picture in every space. Raises ImageRejected, NoModel, Overloaded, ModelCrashed.

        With `region` the embeddings are those of this part alone, and nothing is segmented. Raises InvalidRequest where it
        lies outside the picture.
        """
        ...


# --- the vectors -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Match:
    """The payload field equals, or holds among its values, one of `any_of`."""

    key: str
    any_of: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The payload field lies within the closed interval; None leaves a side open."""

    key: str
    gte: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class Substring:
    """The payload field, or one of its values, holds `part` in it, byte by byte; only of a field indexed for it."""

    key: str
    part: str


@dataclass(frozen=True, slots=True)
class Prefix:
    """The payload field, or one of its values, begins with `beginning`; only of a field indexed for parts."""

    key: str
    beginning: str


Condition = Match | Range | Substring | Prefix


@dataclass(frozen=True, slots=True)
class Where:
    """A filter that Qdrant evaluates: all of `must`, none of `must_not`. Every key needs a payload index (`core.points`)."""

    must: tuple[Condition, ...] = ()
    must_not: tuple[Condition, ...] = ()


ANYTHING = Where()


@dataclass(frozen=True, slots=True)
class Point:
    """A vector with its payload. `id` is a UUID string."""

    id: str
    vector: Vector
    payload: Payload


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer of `query`: cosine similarity in -1..1, higher is nearer."""

    id: str
    score: float
    payload: Payload
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A stored point as `retrieve` and `scroll` return it."""

    id: str
    payload: Payload
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class FacetCount:
    """A value of a payload field, and how many points have it."""

    value: str
    points: int


@dataclass(frozen=True, slots=True)
class CollectionSize:
    """How large a collection is; `disk_bytes` is None where the engine does not tell. `dim`: numbers of a vector."""

    collection: str
    points: int
    disk_bytes: int | None
    dim: int


class VectorStore(Protocol):
    """Collections of points: Qdrant Edge in the process or a Qdrant server, one contract (tests/congruence)."""

    async def ping(self) -> None:
        """Return if the store answers now. Raises VectorsUnavailable."""
        ...

    async def ensure(self, space: Space) -> None:
        """Create the space's collection and payload indexes if they are missing. Raises InvalidRequest if its dimension differs."""
        ...

    async def collections(self) -> list[str]:
        """Names of the collections that exist, sorted."""
        ...

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """Write points, replacing those with the same id. On return they survive `kill -9` and are seen by `query`."""
        ...

    async def query(
        self,
        collection: str,
        vector: Vector,
        *,
        where: Where = ANYTHING,
        limit: int = 10,
        offset: int = 0,
        min_score: float | None = None,
        with_vectors: bool = False,
    ) -> list[Hit]:
        """Nearest points, best first, of those that score above `min_score`; a collection that does not exist is empty."""
        ...

    async def retrieve(self, collection: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        """The points that exist among `ids`, in any order."""
        ...

    def scroll(
        self,
        collection: str,
        *,
        where: Where = ANYTHING,
        with_payload: bool = True,
        with_vectors: bool = False,
        first: str | None = None,
        batch: int = 1000,
    ) -> AsyncIterator[Record]:
        """All matching points in order of their id, from the id `first` on."""
        ...

    async def set_payload(self, collection: str, where: Where, payload: Payload) -> None:
        """Merge `payload` into every matching point; other fields and the vector stay."""
        ...

    async def delete(self, collection: str, where: Where) -> None:
        """Remove every matching point; a collection that does not exist is empty. An empty `where` is refused with ValueError."""
        ...

    async def count(self, collection: str, *, where: Where = ANYTHING) -> int:
        """Exact number of matching points."""
        ...

    async def facet(self, collection: str, key: str, *, where: Where = ANYTHING, limit: int = 100) -> list[FacetCount]:
        """The values of a keyword field among the matching points: the most frequent first, then by value; at most `limit`."""
        ...

    async def sizes(self) -> list[CollectionSize]:
        """Of each collection, by name. Cheap enough for every few seconds, so a count may lag behind a write under way."""
        ...

    async def drop(self, collection: str) -> None:
        """Remove a whole collection, if it exists. A kill leaves all of it or nothing."""
        ...

    async def flush(self) -> None:
        """On return everything written before survives a power cut."""
        ...


# --- the pictures ----------------------------------------------------------------------------------------------------


class StoredFile(NamedTuple):
    """A file or an object, without its bytes. `version` differs whenever they were replaced: an inode, or an ETag."""

    path: str
    size: int
    modified_ns: int
    version: str


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """An open regular file and what it was when it was opened. It has a descriptor, and stays what it is whatever becomes of its name."""

    file: BinaryIO
    size: int
    modified_at_s: float
    first_bytes: bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@dataclass(frozen=True, slots=True)
class ShownAs:
    """What a browser is told of a file that it fetches by a link. `disposition` is a whole Content-Disposition."""

    content_type: str
    disposition: str
    lifetime_s: int


class ImageStore(Protocol):
    """Where the pictures lie: a folder or a bucket, one contract (tests/congruence). Paths are those of the ledger.

    It needs no entering. Every method blocks on a disk or a network: call it in an executor. Unavailable: the home is away.
    """

    def check(self) -> None:
        """Return if the home is there."""
        ...

    def list(self, below: str = "", *, after: str = "") -> Iterator[list[StoredFile]]:
        """All files but hidden ones, a page at a time, in order of their paths' bytes, beyond `after`, which need not exist.

        Raises Unavailable when it cannot go on: what it then has not told of may be there.
        """
        ...

    def stat(self, path: str) -> StoredFile:
        """Raises NotFound, Forbidden."""
        ...

    def read(self, path: str, *, most_bytes: int) -> tuple[StoredFile, bytes]:
        """The first bytes of one version of the file. Raises NotFound, Forbidden."""
        ...

    def open(self, path: str) -> OpenedFile:
        """Raises NotFound, Forbidden; StorageFull where it would have to be fetched and there is no room."""
        ...

    def peek(self, path: str) -> tuple[StoredFile, bytes]:
        """The file's first bytes (`core.images.kinds.TELLING_BYTES`), without fetching more. Raises NotFound, Forbidden."""
        ...

    def add(self, within: str, names: Sequence[str], content: bytes) -> str:
        """Write a new file under the first of the names that no other bytes have, whole or not at all. Returns its path.

        `within` is a folder, made if it is missing. Raises Unavailable, StorageFull, InvalidRequest.
        """
        ...

    def delete(self, path: str) -> None:
        """Of no effect where there is none. Raises Unavailable where it must stay."""
        ...

    def forget(self, path: str) -> None:
        """Nothing of the file is kept elsewhere any more, such as of one that is about to be deleted. Raises NotFound, Forbidden."""
        ...

    def link(self, path: str, shown: ShownAs, *, method: str = "GET") -> str | None:
        """Where a browser that has no key of ours can fetch the file for a while; None where it must be sent by us."""
        ...


# --- the catalog -----------------------------------------------------------------------------------------------------


class Catalog(Protocol):
    """The watcher, seen from the search service: what lies in the folder and how far it is."""

    async def status(self) -> IngestionStatus: ...

    async def image(self, image_id: str) -> ImageRecord:
        """Raises NotFound."""
        ...

    async def failures(self, *, limit: int = 100, offset: int = 0, ignored: bool = False) -> FailurePage:
        """Files that are not indexed, newest first; with `ignored` also those that were left alone because they are no pictures."""
        ...

    async def states(self, image_ids: Sequence[str], paths: Sequence[str] = ()) -> ImageStates:
        """How far each of these images is, and what lies at each of these paths; what is not known is left out."""
        ...

    async def notice(self, path: str, *, backfill: bool = False) -> ImageRecord:
        """Admit a complete file (path relative to the folder) now instead of waiting for its event. Raises NotFound, ImageRejected.

        It overtakes whatever waits; of a `backfill`, nothing.
        """
        ...

    async def hint(self, paths: Sequence[str], *, backfill: bool = False) -> int:
        """Something happened to the files at these paths, it is said: they are looked at soon, or missed by nobody if that is not so.

        Returns how many will be: each once, none that is hidden or lies elsewhere.
        """
        ...

    async def delete(self, image_id: str) -> None:
        """Remove the image's files from the folder, and its points. Raises NotFound."""
        ...

    async def resegment(self, image_id: str, mode: SegmentMode) -> list[Segment]:
        """Segment the picture again, replace its segment points, and return the segments. Raises NotFound, ImageRejected."""
        ...

    async def take_embeddings(self, request: ImportRequest) -> ImportAnswer:
        """Have pictures that lie there found by vectors that were made elsewhere. What was taken before is `known`; of the rest, some are
        embedded here first and compared. Raises InvalidRequest where they differ, or of other models; Conflict while models change.
        """
        ...

    async def models(self) -> ModelsCourse:
        """Which models answer. Cheap enough for every search."""
        ...

    async def turn_models(self, action: ModelsAction) -> ModelsCourse:
        """Stop, resume or revert a change of models, or drop what models of before made. Raises Conflict where there is none."""
        ...
