"""The chat page, the widget and the client: static files, a brand, and Markdown as safe HTML."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from importlib import resources
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from turnwise.channels.access import Access
from turnwise.channels.bodies import JSON, read_body
from turnwise.channels.problems import ProblemRoute
from turnwise.errors import ConfigurationError, Unauthorized
from turnwise.runtime import Runtime
from turnwise.server.markdown import to_html
from turnwise.urls import as_text

READ = ["GET", "HEAD"]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors {framed}"
)
MODULES = (
    "app", "api", "asks", "conversation", "growing", "list", "screen", "steps", "texts", "theme",
    "tools", "uploads",
)  # fmt: skip
SMALL = 500
"""Bytes that are not worth to be compressed."""
STYLES = ("app", "docs")
_COLOUR = re.compile(r"#[0-9a-fA-F]{3,8}|[a-zA-Z]{3,30}")


@dataclass(frozen=True)
class Brand:
    """How the page looks. `accent` is a colour, or two, for light and dark: "#4f46e5, #8b85ff";
    `logo` a file; `ideas` the first messages that the page suggests; `texts` what it says, by
    language: {"fr": {"new": "Nouvelle conversation"}}; `login` where one logs in, or "" if a host
    decides and says nothing of it. Raises ConfigurationError."""

    title: str = "Turnwise"
    greeting: str = ""
    accent: str = ""
    logo: str | Path | None = None
    ideas: Sequence[str] = ()
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    login: str | None = None

    def __post_init__(self) -> None:
        if len(self.colours) > 2 or not all(map(_COLOUR.fullmatch, self.colours)):
            raise ConfigurationError(f"The accent {self.accent!r} is not a colour such as #4f46e5.")
        if self.logo is not None and not Path(self.logo).is_file():
            raise ConfigurationError(f"The logo {str(self.logo)!r} is not a file.")

    @property
    def colours(self) -> list[str]:
        """The accent, for light and for dark."""
        return [one.strip() for one in self.accent.split(",") if one.strip()]

    @property
    def css(self) -> bytes:
        """The accent as CSS."""
        if not self.colours:
            return b"/* no colour of one's own */\n"
        light, dark = self.colours[0], self.colours[-1]
        return f":root {{ --accent: light-dark({light}, {dark}); }}\n".encode()


class Texts(BaseModel):
    """Markdown to be shown."""

    texts: list[str] = Field(max_length=100)


def chat_page(runtime: Runtime, access: Access, brand: Brand) -> APIRouter:
    """The page at "/", what it is made of below "/page", the widget, and the client."""
    routes = APIRouter(route_class=ProblemRoute, include_in_schema=False)
    folder = resources.files(__package__).joinpath("page")

    def add(path: str, content: bytes, kind: str, **more: str) -> None:
        routes.add_api_route(f"/{path}", file(content, kind, **more), methods=READ)

    for name in MODULES:
        add(f"page/{name}.js", folder.joinpath(f"{name}.js").read_bytes(), "text/javascript")
    for name in STYLES:
        add(f"page/{name}.css", folder.joinpath(f"{name}.css").read_bytes(), "text/css")
    add("page/brand.css", brand.css, "text/css")
    logo = folder.joinpath("icon.svg").read_bytes(), "image/svg+xml"
    add("page/icon.svg", *logo)
    if brand.logo is not None:
        place = Path(brand.logo)
        logo = place.read_bytes(), guess_type(place.name)[0] or "application/octet-stream"
    add("page/logo", *logo)
    everywhere = {
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    client = folder.joinpath("turnwise.js").read_bytes()
    add("page/turnwise.js", client, "text/javascript")
    add("turnwise.js", client, "text/javascript", **everywhere)
    types = folder.joinpath("turnwise.d.ts").read_bytes()
    add("turnwise.d.ts", types, "text/plain; charset=utf-8", **everywhere)
    widget = folder.joinpath("widget.js").read_bytes()
    add("widget.js", widget, "text/javascript", **everywhere)
    html = folder.joinpath("index.html").read_text()
    html = html.replace("<title>Turnwise<", f"<title>{escape(brand.title)}<")
    html = html.replace('class="logo" src="page/icon.svg"', 'class="logo" src="page/logo"')
    html = html.replace(
        'rel="icon" href="page/icon.svg" type="image/svg+xml"', 'rel="icon" href="page/logo"'
    )
    add("", html.encode(), "text/html; charset=utf-8")
    origins = " ".join(as_text(one) for one in runtime.settings.origins())
    embedded = html.replace("<body>", '<body class="embedded">').encode()
    framed = POLICY.format(framed=f"'self' {origins}".strip())
    add("embedded", embedded, "text/html; charset=utf-8", **{"Content-Security-Policy": framed})
    _add_calls(routes, runtime, access, brand)
    return routes


def _add_calls(routes: APIRouter, runtime: Runtime, access: Access, brand: Brand) -> None:
    """What the page asks beside the session routes."""

    @routes.get("/page/about")
    async def about(request: Request) -> Response:
        try:
            listed = (await access.to_list(request)).owner is not None
        except Unauthorized:
            listed = False
        about: dict[str, Any] = {
            "title": brand.title,
            "greeting": brand.greeting,
            "ideas": list(brand.ideas),
        }
        about = {**about, "texts": dict(brand.texts), "login": brand.login}
        return JSON(orjson.dumps({**about, "listed": listed}))

    @routes.post("/page/render")
    async def render(request: Request) -> Response:
        await access.anybody(request)
        settings = runtime.settings
        body = await read_body(
            request,
            Texts,
            runtime.gateway.hub.alarms,
            limit=settings.max_body,
            timeout=settings.body_timeout,
        )

        def rendered() -> bytes:
            return orjson.dumps({"html": [to_html(text) for text in body.texts]})

        return await asyncio.to_thread(lambda: _as_accepted(request, rendered()))


def _as_accepted(request: Request, content: bytes) -> Response:
    """JSON, compressed if the browser accepts that: HTML shrinks to a fifth."""
    if len(content) < SMALL or "gzip" not in request.headers.get("accept-encoding", ""):
        return JSON(content)
    more = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return JSON(gzip.compress(content, 5), 200, **more)


def page_headers(framed: str = "'none'") -> dict[str, str]:
    """The headers of a page that loads nothing from elsewhere and is framed nowhere else."""
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY.format(framed=framed),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def file(content: bytes, kind: str, **more: str) -> Any:
    """An endpoint that answers with a file, or with 304."""
    tag = f'"{sha256(content).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Vary": "Accept-Encoding", **page_headers(), **more}
    small = gzip.compress(content, 9, mtime=0)
    kind = f"{kind}; charset=utf-8" if kind in ("text/javascript", "text/css") else kind

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        if len(small) < len(content) and "gzip" in request.headers.get("accept-encoding", ""):
            zipped = {**headers, "Content-Encoding": "gzip"}
            return Response(small, headers=zipped, media_type=kind)
        return Response(content, headers=headers, media_type=kind)

    return answer
