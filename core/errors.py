"""One hierarchy; each class is a decision of whoever catches it.

ImageSearchError
├── Unavailable                 try again later (HTTP 503, Retry-After)
│   ├── Overloaded              ... because a bounded queue is full
│   ├── StorageFull             ... because a disk has no room left (HTTP 507)
│   ├── TooManyRequests         ... because this caller asked too often (429)
│   ├── ModelUnavailable        ... because the model service does not answer
│   │   ├── NoModel             ... because no weights are to be had
│   │   ├── ModelUnreachable    ... because this one is away or sick; another, if there is one, may be whole
│   │   └── ModelsDiffer        ... because the model services are of different models: go on with those known so far
│   ├── ModelCrashed            ... because it died or hung while it had this picture: counts against the picture
│   ├── VectorsUnavailable      ... because Qdrant does not answer
│   └── CatalogUnavailable      ... because the watcher does not answer
└── Rejected                    don't repeat it as it is (HTTP 4xx)
    ├── ImageRejected           the bytes can't become an image; carries a Reason
    ├── MalformedRequest        not parseable (400)
    ├── InvalidRequest          parsed, but not acceptable (422)
    ├── UnsupportedMediaType    415
    ├── PayloadTooLarge         413
    ├── StalledRequest          408
    ├── Unauthorized            401
    ├── Forbidden               403
    ├── NotFound                404
    └── Conflict                409

The HTTP mapping stands once, in `core.problems`.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a file is not indexed: the closed set of reason codes of `/api/v1/failures`."""

    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SLOW = "too_slow"
    CRASHES_DECODER = "crashes_decoder"
    PERMISSION_DENIED = "permission_denied"
    UNREADABLE = "unreadable"
    CRASHES_MODEL = "crashes_model"
    IGNORED = "ignored"


class ImageSearchError(Exception):
    """Root of everything this product raises on purpose.

    `str(error)` is fit to be shown to a user: it never holds a path outside the watched folder, a trace or a secret.
    """


class Unavailable(ImageSearchError):
    """Something this needs is away or busy; the same call may succeed later."""

    def __init__(self, message: str, *, retry_after_s: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """A bounded queue is full; refused before any work was done."""


class StorageFull(Unavailable):
    """A disk has no room left for what is to be kept; nothing of it was written."""


class TooManyRequests(Unavailable):
    """This caller asks more often than one may; others are served."""


class ModelUnavailable(Unavailable):
    """The model service does not answer, or is still loading."""


class NoModel(ModelUnavailable):
    """The model service runs, but no weights are to be had; the message says where to put them."""


class ModelUnreachable(ModelUnavailable):
    """A model service cannot be reached, breaks off, or answers something unintelligible. It says nothing of the input."""


class ModelsDiffer(ModelUnavailable):
    """The settings of the model services name different models, as in the midst of a rolling update."""


class ModelCrashed(Unavailable):
    """The model service died or hung while it worked on this very input, so a retry is counted against the input."""


class VectorsUnavailable(Unavailable):
    """Qdrant does not answer."""


class CatalogUnavailable(Unavailable):
    """The watcher does not answer."""


class Rejected(ImageSearchError):
    """The caller's input is at fault; repeating it as it is cannot help."""


class ImageRejected(Rejected):
    """These bytes cannot become an image."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MalformedRequest(Rejected):
    """The request cannot be parsed."""


class InvalidRequest(Rejected):
    """The request is understood and not acceptable. `field` names the offending part where there is one."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UnsupportedMediaType(Rejected):
    """The request's content type is not one that this route reads."""


class PayloadTooLarge(Rejected):
    """The request is larger than the byte limit."""


class StalledRequest(Rejected):
    """The request stopped arriving, or came too slowly to wait for."""


class Unauthorized(Rejected):
    """No valid credential came with the request."""


class Forbidden(Rejected):
    """Not from there, or not by that name: a credential is not what is missing."""


class NotFound(Rejected):
    """There is no such thing here."""


class Conflict(Rejected):
    """It was done already."""
