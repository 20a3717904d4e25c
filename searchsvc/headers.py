"""Headers that every answer carries, errors included."""

from __future__ import annotations

from aiohttp import hdrs, web

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    hdrs.CONTENT_SECURITY_POLICY: "default-src 'none'; frame-ancestors 'none'",
    hdrs.CACHE_CONTROL: "no-store",
}


async def add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`; what a route set itself stays."""
    for name, value in _ALWAYS.items():
        response.headers.setdefault(name, value)
