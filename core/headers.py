"""Headers that every answer of every service carries, errors included."""

from __future__ import annotations

from aiohttp import hdrs, web

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    hdrs.CONTENT_SECURITY_POLICY: "default-src 'none'; frame-ancestors 'none'",
    hdrs.CACHE_CONTROL: "no-store",
}


def add_security_headers(response: web.StreamResponse) -> None:
    """What a route set itself stays."""
    for name, value in _ALWAYS.items():
        response.headers.setdefault(name, value)
    response.headers[hdrs.SERVER] = "imagesearch"  # aiohttp's tells its version and Python's
