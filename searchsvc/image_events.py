"""Notifications of an S3 service, as Amazon and MinIO send them: hints at which objects to look, and nothing more.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, Field

from core.filenames import is_hidden
from core.images.places import BucketPlace
from core.schemas import Wire

_MOST_RECORDS = 10_000
_LONGEST_NAME = 4096
_TOLD_OF = ("ObjectCreated:", "ObjectRemoved:", "ObjectRestore:", "LifecycleExpiration:")


class _Said(BaseModel):
    """What others send says more than is asked for."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Bucket(_Said):
    name: Annotated[str, Field(max_length=_LONGEST_NAME)] = ""


class _Object(_Said):
    key: Annotated[str, Field(max_length=3 * _LONGEST_NAME)] = Field(default="", description="URL-encoded, a blank as `+`")


class _Entity(_Said):
    bucket: _Bucket = _Bucket()
    object: _Object = _Object()


class ImageEventRecord(_Said):
    eventName: str = Field(default="", description="`ObjectCreated:Put`, with or without `s3:` before it")  # noqa: N815 - the service's
    s3: _Entity = _Entity()


class ImageEvents(_Said):
    """A notification; a test event has no records."""

    Records: tuple[ImageEventRecord, ...] = Field(default=(), max_length=_MOST_RECORDS)


class ImageEventsAnswer(Wire):
    hints: int = Field(description="objects that will be looked at")
    ignored: int = Field(description="records of other buckets, other names, or other events, and of objects told of before")


def hinted_paths(events: ImageEvents, place: BucketPlace) -> list[str]:
    """Each once, in the order in which they were told of."""
    found: dict[str, None] = {}
    for record in events.Records:
        path = _path(record, place)
        if path:
            found[path] = None
    return list(found)


def _path(record: ImageEventRecord, place: BucketPlace) -> str | None:
    told_of = record.eventName.removeprefix("s3:").startswith(_TOLD_OF)
    path = place.path(unquote_plus(record.s3.object.key))
    if not told_of or record.s3.bucket.name != place.bucket or not path or path.endswith("/"):
        return None
    return None if is_hidden(path) or not _is_text(path) else path


def _is_text(path: str) -> bool:
    """A name on S3 is UTF-8; what claims to be another leads nowhere."""
    return "\ufffd" not in path and "\x00" not in path and len(path) <= _LONGEST_NAME


def example(bucket: str, key: str) -> dict[str, Any]:
    """For the API's documents."""
    entity = {"bucket": {"name": bucket}, "object": {"key": key}}
    return {"Records": [{"eventName": "ObjectCreated:Put", "s3": entity}]}
