"""The page at /docs: readable documentation generated from the OpenAPI document.

It is one HTML page without scripts, and it loads no external resources.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

METHODS = ("get", "post", "put", "patch", "delete")

_HEAD = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{title} HTTP interface</title>
  <link rel="icon" href="{root}/page/icon.svg" type="image/svg+xml">
  <link rel="stylesheet" href="{root}/page/docs.css">
</head>
<body>
<header><h1>{title}</h1><p>{summary}</p><p>{description}</p>
<p>The same as JSON: <a href="{root}/openapi.json">openapi.json</a></p></header>
"""


def api_page(document: Mapping[str, Any], root: str = "") -> str:
    """The OpenAPI `document` as HTML; `root` is the path under which the application is reached."""
    return "".join(_page(document, escape(root)))


def _page(document: Mapping[str, Any], root: str) -> Iterator[str]:
    info = document["info"]
    yield _HEAD.format(
        title=escape(info["title"]),
        summary=escape(info.get("summary", "")),
        root=root,
        description=escape(info.get("description", "")),
    )
    routes = [
        (path, method, found[method])
        for path, found in sorted(document["paths"].items(), key=_sessions_first)
        for method in METHODS
        if method in found
    ]
    yield "<nav aria-label='Routes'><ul>"
    for path, method, _ in routes:
        yield f"<li><a href='#{_anchor(method, path)}'>{_route(method, path)}</a></li>"
    yield "</ul></nav><main>"
    schemas = document.get("components", {}).get("schemas", {})
    for path, method, operation in routes:
        yield from _operation(path, method, operation, schemas)
    yield "</main></body></html>\n"


def _operation(
    path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]
) -> Iterator[str]:
    yield f"<section id='{_anchor(method, path)}'><h2>{_route(method, path)}</h2>"
    yield f"<p>{escape(operation.get('description') or operation.get('summary') or '')}</p>"
    if parameters := operation.get("parameters"):
        rows = [
            (one["name"], f"{one['in']}, {_kind(one.get('schema', {}), schemas)}", _told(one))
            for one in parameters
        ]
        yield _table("Parameters", rows)
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        yield from _shape(f"Body, {kind}", media.get("schema", {}), schemas)
    for status, answer in operation.get("responses", {}).items():
        content = answer.get("content", {})
        yield f"<h3>{escape(status)} <small>{escape(answer.get('description', ''))}</small></h3>"
        if status.startswith("2"):
            for kind, media in content.items():
                yield from _shape(kind, media.get("schema", {}), schemas, media.get("example"))
    yield "</section>"


def _shape(
    title: str, schema: Mapping[str, Any], schemas: Mapping[str, Any], example: Any = None
) -> Iterator[str]:
    """A body's fields, and an example of it."""
    whole = _resolved(schema, schemas)
    required = set(whole.get("required", ()))
    rows = [
        (name, _kind(field, schemas) + ("" if name in required else ", optional"), _told(field))
        for name, field in whole.get("properties", {}).items()
    ]
    if rows:
        yield _table(title, rows)
    if example is None and rows:
        example = _example(whole, schemas, 0)
    if example is not None:
        text = example if isinstance(example, str) else json.dumps(example, indent=2)
        yield f"<pre><code>{escape(text)}</code></pre>"


def _table(title: str, rows: list[tuple[str, str, str]]) -> str:
    body = "".join(
        f"<tr><th scope='row'><code>{escape(name)}</code></th><td>{escape(kind)}</td>"
        f"<td>{escape(told)}</td></tr>"
        for name, kind, told in rows
    )
    return f"<div class='wide'><table><caption>{escape(title)}</caption>{body}</table></div>"


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in schema:
        found: Mapping[str, Any] = schemas.get(schema["$ref"].rsplit("/", 1)[1], {})
        return found
    return schema


def _kind(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """The type of a value as text: `string`, `array of Message`, `integer or null`."""
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    if "anyOf" in schema:
        return " or ".join(_kind(one, schemas) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"array of {_kind(schema.get('items', {}), schemas)}"
    return str(schema.get("type", "any"))


def _told(schema: Mapping[str, Any]) -> str:
    inner = schema.get("schema", {})
    told = schema.get("description") or inner.get("description", "")
    default = schema.get("default", inner.get("default"))
    return f"{told} Default: {default}.".strip() if default not in (None, "", [], {}) else told


def _example(schema: Mapping[str, Any], schemas: Mapping[str, Any], depth: int) -> Any:
    """A valid value: the schema's example, or one generated from its types."""
    schema = _resolved(schema, schemas)
    for found in (schema.get("examples"), [schema["example"]] if "example" in schema else None):
        if found:
            return found[0]
    if "default" in schema:
        return schema["default"]
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], schemas, depth)
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    match schema.get("type"):
        case "object" if depth < 4:
            fields = schema.get("properties", {})
            return {name: _example(field, schemas, depth + 1) for name, field in fields.items()}
        case "array" if depth < 4:
            return [_example(schema.get("items", {}), schemas, depth + 1)]
        case "array":
            return []
        case "integer" | "number":
            return max(1, schema.get("minimum", 1))
        case "boolean":
            return False
        case "string":
            return "…"
        case _:
            return {}


def _sessions_first(item: tuple[str, Any]) -> tuple[bool, str]:
    """In order of paths, the operations (health, metrics) last."""
    return not item[0].startswith("/sessions"), item[0]


def _route(method: str, path: str) -> str:
    return f"<b class='{method}'>{method.upper()}</b> <code>{escape(path)}</code>"


def _anchor(method: str, path: str) -> str:
    return method + "".join(c if c.isalnum() else "-" for c in path)
