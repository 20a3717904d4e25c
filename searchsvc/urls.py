"""Addresses of the public API: written here, routed in `searchsvc.routes`."""

from __future__ import annotations

API = "/api/v1"


def image(image_id: str) -> str:
    return f"{API}/images/{image_id}"


def image_file(image_id: str) -> str:
    return f"{image(image_id)}/file"


def thumbnail(image_id: str) -> str:
    return f"{image(image_id)}/thumbnail"


def segments(image_id: str) -> str:
    return f"{image(image_id)}/segments"


def mask(image_id: str, n: int) -> str:
    return f"{segments(image_id)}/{n}/mask"
