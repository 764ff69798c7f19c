"""The operator's page: static files. What they show they ask for, with the operator's key."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter

from turnwise.server.chat_page import READ, file

MODULES = ("admin", "charts", "session", "tables")


def admin_page() -> APIRouter:
    """The page at "/", and what it is made of beside it."""
    routes = APIRouter(include_in_schema=False)
    ours = resources.files(__package__).joinpath("admin")
    chat = resources.files(__package__).joinpath("page")
    names = {
        "": (ours, "index.html", "text/html; charset=utf-8"),
        "admin.css": (ours, "admin.css", "text/css"),
        **{f"{name}.js": (ours, f"{name}.js", "text/javascript") for name in MODULES},
        "turnwise.js": (chat, "turnwise.js", "text/javascript"),
        "icon.svg": (chat, "icon.svg", "image/svg+xml"),
    }
    for path, (folder, name, kind) in names.items():
        answer = file(folder.joinpath(name).read_bytes(), kind)
        routes.add_api_route(f"/{path}", answer, methods=READ)
    return routes
