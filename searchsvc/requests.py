"""The ground of what the public API takes: strict requests and clean text."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StrictStr


class Request(BaseModel):
    """Base of all requests; validates from JSON's own types, converting nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _storable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be Unicode text without lone surrogates") from None
    return value


String = Annotated[StrictStr, AfterValidator(_storable)]
