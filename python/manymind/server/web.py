# SPDX-License-Identifier: Apache-2.0
"""The pages to look at: a chat and a dashboard, files of this package that load nothing from
elsewhere.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI
from starlette.responses import Response

_PAGES = {"/": "index.html", "/dashboard": "dashboard.html"}
_ASSETS = ("chat.js", "dashboard.js", "icon.svg", "metrics.js", "style.css")
_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


def add_pages(app: FastAPI) -> None:
    """Reads every file once and adds a route for each."""
    for path, name in [*_PAGES.items(), *((f"/pages/{name}", name) for name in _ASSETS)]:
        _add_file(app, path, name)


def _add_file(app: FastAPI, path: str, name: str) -> None:
    content = (files("manymind.server") / "pages" / name).read_bytes()
    media_type = _TYPES[name.rpartition(".")[2]]

    async def answer() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    app.add_api_route(path, answer, methods=["GET"], include_in_schema=False)
