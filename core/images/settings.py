"""Where the pictures lie, as the settings of those services name it that read or write them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from core.folders import FolderPath
from core.images.places import BucketPlace, keys_of

if TYPE_CHECKING:
    from core.images.bucket import ImageBucket

_CACHE_NAME = "pictures"


class ImageSettings(BaseSettings):
    """A part of `core.settings.FolderSettings`."""

    images_dir: FolderPath = Field(default=Path("images"), description="the watched folder")
    images_url: str | None = Field(
        default=None,
        description="a bucket that holds the pictures instead of a folder, `s3://bucket` or `s3://bucket/prefix`; its keys are"
        " `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_REGION`, or those of a role",
    )
    images_s3_endpoint: str | None = Field(
        default=None,
        description="the S3 service of that bucket, e.g. `http://minio:9000`; unset: `AWS_ENDPOINT_URL_S3`, else Amazon's",
    )
    images_cache_bytes: int = Field(
        default=4 * 2**30,
        ge=2**20,
        description="how much of `DATA_DIR` pictures of that bucket may take that were read lately; the least lately used go first",
    )

    @model_validator(mode="after")
    def _in_a_bucket(self) -> Self:
        if self.images_url is not None:
            try:
                BucketPlace.of(self.images_url, endpoint=self.images_s3_endpoint)
            except ValueError as error:
                raise ValueError(f"IMAGES_URL, or the service that it is of: {error}") from None
        return self

    @property
    def bucket_place(self) -> BucketPlace | None:
        """None: the watched folder."""
        return BucketPlace.of(self.images_url, endpoint=self.images_s3_endpoint) if self.images_url is not None else None


def bucket_of(place: BucketPlace, *, data_dir: Path, cache_bytes: int, link_endpoint: str | None = None) -> ImageBucket:
    """Raises ImageSearchError where what it takes is not installed, or no key is to be had."""
    from core.file_cache import FileCache  # noqa: PLC0415 - for those alone who have a bucket
    from core.images.bucket import ImageBucket  # noqa: PLC0415 - as above

    cache = FileCache(data_dir / _CACHE_NAME, max_bytes=cache_bytes)
    return ImageBucket(place, cache, keys=keys_of(place), link_endpoint=link_endpoint)
