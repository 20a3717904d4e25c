"""Pages: the search page, the interactive API documents, and their files, all from the package itself."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path

import openapi_ui_bundles
from aiohttp import hdrs, web

from core.errors import NotFound
from core.images.folder import open_regular
from core.web import Handler
from searchsvc.sending import opened_by, send_file

_PAGE = Path(__file__).resolve().parent.parent / "web"
_BUNDLES = Path(openapi_ui_bundles.__file__).parent
_DOCS_FILES = {
    "swagger-ui.css": _BUNDLES / "swagger_ui" / "vendor" / "swagger-ui.css",
    "swagger-ui-bundle.js": _BUNDLES / "swagger_ui" / "vendor" / "swagger-ui-bundle.js",
}
_REDOC_BUNDLE = _BUNDLES / "redoc" / "vendor" / "redoc.standalone.js"
_REDOC_LOGO = "https://cdn.redoc.ly/redoc/logo-mini.svg"
"""The bundle would fetch it from there, which the policy forbids; one that is empty it leaves out without a word."""

_FOR_AN_HOUR = "private, max-age=3600"
_PAGE_POLICY = "default-src 'self'; img-src {}; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_DOCS_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src blob:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)

_SWAGGER = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>API</title><link rel="icon" href="data:,"><link rel="stylesheet" href="/docs/files/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="/docs/files/swagger-ui-bundle.js"></script><script src="/docs/files/start.js"></script></body>
</html>
"""
_SWAGGER_START = """SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, presets: [SwaggerUIBundle.presets.apis]});
"""
_REDOC = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>API reference</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body><redoc spec-url="/openapi.json"></redoc><script src="/docs/files/redoc.standalone.js"></script></body>
</html>
"""


def routes(
    openapi_document: str, *, executor: Executor, page: Path = _PAGE, linked_origin: str | None = None
) -> list[web.RouteDef]:
    """`linked_origin` is where links to pictures lead, if they lead away."""
    page_files = _files_of(page)
    static = _serve_files(page_files, executor)
    docs = _serve_files(_DOCS_FILES, executor)
    return [
        web.get("/", _serve_index(page_files, executor, linked_origin)),
        web.get("/static/{name:.+}", static),
        web.get("/docs", _serve_text(_SWAGGER, "text/html", policy=_DOCS_POLICY)),
        web.get("/docs/files/start.js", _serve_text(_SWAGGER_START, "text/javascript", policy=_DOCS_POLICY)),
        web.get(
            "/docs/files/redoc.standalone.js", _serve_text(_redoc(), "text/javascript", policy=_DOCS_POLICY, cache=_FOR_AN_HOUR)
        ),
        web.get("/docs/files/{name}", docs),
        web.get("/redoc", _serve_text(_REDOC, "text/html", policy=_DOCS_POLICY)),
        web.get(
            "/openapi.json",
            _serve_text(openapi_document, "application/json", policy="default-src 'none'; frame-ancestors 'none'"),
        ),
    ]


def _files_of(root: Path) -> dict[str, Path]:
    """What may be served, by its name in the address: listed once, so that no name can lead elsewhere."""
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


def _redoc() -> str:
    return _REDOC_BUNDLE.read_text(encoding="utf-8").replace(_REDOC_LOGO, "data:,")


def _serve_text(text: str, content_type: str, *, policy: str, cache: str = "no-store") -> Handler:
    headers = {hdrs.CONTENT_SECURITY_POLICY: policy, hdrs.CACHE_CONTROL: cache}

    async def serve(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type=content_type, headers=headers)

    return serve


def _serve_files(files: Mapping[str, Path], executor: Executor) -> Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        return await _serve(request, files.get(request.match_info["name"]), executor)

    return serve


def _serve_index(files: Mapping[str, Path], executor: Executor, linked_origin: str | None) -> Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        return await _serve(request, files.get("index.html"), executor, linked_origin)

    return serve


async def _serve(
    request: web.Request, path: Path | None, executor: Executor, linked_origin: str | None = None
) -> web.StreamResponse:
    try:
        opened = await opened_by(executor, lambda: open_regular(path)) if path else None
    except OSError:
        opened = None
    if path is None or opened is None:
        raise NotFound("there is nothing at this address")
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers: dict[str, str] = {
        hdrs.CONTENT_TYPE: f"{kind}; charset=utf-8" if kind.startswith("text/") else kind,
        hdrs.CACHE_CONTROL: "no-cache",
        hdrs.CONTENT_SECURITY_POLICY: _PAGE_POLICY.format(" ".join(filter(None, ("'self'", "blob:", "data:", linked_origin)))),
    }
    etag = f"{int(opened.modified_at_s * 1e6):x}-{opened.size:x}"
    return await send_file(request, opened, etag=etag, headers=headers, executor=executor)
