"""Folders and buckets as sources: all that is named like a picture, in the order of the paths, so that one goes on behind any of them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from core.errors import Unavailable
from core.images.calls import Calls
from core.images.listing import Listing
from core.images.places import BucketPlace, is_odd, keys_of
from imagesearch.backfill.manifests import CsvManifest, ParquetManifest
from imagesearch.backfill.rows import BATCH, Batch, Naming, Row, Source, UnreadableSource, bad_row
from imagesearch.pictures import is_named_like_a_picture, printable

if TYPE_CHECKING:
    from obstore.store import S3Store


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder with all below it. As with `cp -r`, its own name comes along. Its cursor is a path below it."""

    root: Path
    naming: Naming
    total: int | None = None

    @property
    def identity(self) -> str:
        return f"{self.root.resolve()}/"

    def batches(self, cursor: str, *, most: int | None = None) -> Iterator[Batch]:
        home = printable(self.root.resolve().name)
        found = itertools.islice(_files(self.root, "", cursor), most)
        while paths := list(itertools.islice(found, BATCH)):
            yield Batch([self.naming.local(self.root / path, PurePosixPath(home, printable(path))) for path in paths], paths[-1])


def _files(root: Path, below: str, after: str) -> Iterator[str]:
    """In order of the paths. What cannot be looked into is an error: its pictures would be missed in silence."""
    with os.scandir(root / below) as found:
        entries = sorted((f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name) for entry in found)
    for entry in entries:
        path = below + entry
        if entry.startswith("."):
            continue
        if entry.endswith("/"):
            if path > after or after.startswith(path):
                yield from _files(root, path, after)
        elif path > after and is_named_like_a_picture(entry):
            yield path


@dataclass(frozen=True, slots=True)
class BucketSource:
    """What lies in a bucket below a prefix; names that nobody can ask for are told as bad rows. Its cursor is a name within the bucket."""

    url: str
    naming: Naming
    total: int | None = None

    @property
    def identity(self) -> str:
        return self.url

    def batches(self, cursor: str, *, most: int | None = None) -> Iterator[Batch]:
        from obstore.exceptions import BaseError  # noqa: PLC0415 - an extra

        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        try:
            with closing(Calls()) as calls:
                place = BucketPlace.of(f"s3://{bucket}")
                listing = Listing(bucket_store(bucket), place, keys_of(place), calls)
                pages = listing.pages(prefix.strip("/"), cursor, odd=True)
                found = itertools.islice(
                    (file.path for page in pages for file in page if is_named_like_a_picture(file.path)), most
                )
                while paths := list(itertools.islice(found, BATCH)):
                    yield Batch([self._row(bucket, path) for path in paths], paths[-1])
        except (BaseError, Unavailable, ValueError) as error:
            raise UnreadableSource(f"{self.url} cannot be listed further: {_first_line(error)}") from None

    def _row(self, bucket: str, path: str) -> Row:
        address = f"s3://{bucket}/{path}"
        return bad_row(f"no object of such a name can be asked for: {address}") if is_odd(path) else self.naming.address(address)


def bucket_store(bucket: str) -> S3Store:
    """Keys, region and endpoint as AWS_... of the environment name them. Raises UnreadableSource where obstore is not installed."""
    if find_spec("obstore") is None:
        raise UnreadableSource("buckets need obstore, which is not installed: pip install '.[s3]', or make build")
    from obstore.store import S3Store  # noqa: PLC0415 - an extra

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return S3Store(
        bucket,
        config={"endpoint": endpoint} if endpoint else None,
        client_options={"allow_http": endpoint is not None and endpoint.startswith("http://")},
    )


def source_of(text: str, naming: Naming) -> Source:
    """A folder, `s3://bucket/prefix`, or a manifest by its suffix. Raises UnreadableSource, OSError."""
    if text.startswith("s3://"):
        bucket_store(text.removeprefix("s3://").partition("/")[0])
        return BucketSource(text, naming)
    path = Path(text)
    if path.is_dir():
        return FolderSource(path, naming)
    path.stat()
    match path.suffix.lower():
        case ".csv":
            return CsvManifest(path, naming)
        case ".parquet" | ".pq":
            return ParquetManifest(path, naming)
        case _:
            raise UnreadableSource(f"{text}: neither a folder, nor a bucket (s3://), nor a manifest (.csv, .parquet)")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
