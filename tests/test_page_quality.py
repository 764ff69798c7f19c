"""The page for everybody: what axe finds, what it weighs, what an answer costs on the line."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from playwright.async_api import expect

import turnwise
from conftest import serving
from test_browser import answers, open_page, say
from test_clients import HERE, installed
from test_page import ARABIC, CODE
from turnwise import Ask, Bot, Message, Runtime, Turn
from turnwise.server.app import create_app

pytestmark = [pytest.mark.browser, pytest.mark.slow]
WORDS = "Words that are said one after another, as a model does. " * 180
LOOKS = [
    ({"width": 1440, "height": 900}, "light", "en-US"),
    ({"width": 390, "height": 780}, "dark", "de-DE"),
    ({"width": 390, "height": 780}, "light", "ar-EG"),
    ({"width": 1440, "height": 900}, "dark", "ar-EG"),
]


async def reply(turn: Turn) -> AsyncIterator[str | Message]:
    if turn.text == "ask":
        async with turn.step("look", {"a": 1}) as step:
            step.output = "found"
        yield Ask("Shall I?", choices=["yes", "no"])
    elif turn.text == "long":
        for i in range(0, len(WORDS), 50):
            yield WORDS[i : i + 50]
            await asyncio.sleep(0.001)
    else:
        yield CODE


@pytest.mark.parametrize(("size", "scheme", "locale"), LOOKS)
async def test_nothing_serious_is_in_anybodys_way(
    sqlite_url: str, size: Any, scheme: Any, locale: str
) -> None:
    """axe finds nothing serious: on a phone and on a desk, light and dark, from both sides; empty,
    with a conversation, with a question, while a name is asked."""
    axe = (installed(HERE) / "node_modules" / "axe-core" / "axe.min.js").read_text()
    runtime = Runtime(Bot(reply), sqlite_url)
    app = FastAPI(lifespan=runtime.lifespan)
    app.include_router(turnwise.page(runtime, texts={"ar": ARABIC}), prefix="/chat")
    given: dict[str, Any] = {"viewport": size, "color_scheme": scheme, "locale": locale}
    given["bypass_csp"] = True  # for axe alone
    async with serving(app, lifespan="on") as url, open_page(f"{url}/chat/", **given) as page:

        async def check(what: str) -> None:
            await page.evaluate(axe)
            found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            serious = [
                (one["id"], [node["html"] for node in one["nodes"]])
                for one in found["violations"]
                if one["impact"] in ("serious", "critical")
            ]
            assert not serious, (what, serious)

        await expect(page.locator("#welcome")).to_be_visible()
        await check("empty")
        await say(page, "code")
        await expect(answers(page).locator("pre")).to_be_visible()
        await say(page, "ask")
        await expect(page.locator(".ask button").first).to_be_visible()
        await check("a conversation")
        if size["width"] > 400:
            await page.click("#rename")
            await check("a dialog")


async def test_the_page_is_small(sqlite_url: str) -> None:
    """All that it loads is at most 150 kB compressed; an answer of 10 kB costs at most 30 kB on
    the line, in events and in rendered blocks."""
    runtime = Runtime(Bot(reply), sqlite_url)
    async with serving(create_app(runtime), lifespan="on") as url, open_page(url) as page:
        loaded: set[str] = set()
        page.on("request", lambda request: loaded.add(request.url))
        await page.reload()
        await expect(page.locator("#welcome")).to_be_visible()
        async with httpx.AsyncClient() as client:
            bodies = [(await client.get(one)).content for one in loaded if "/sessions" not in one]
        assert sum(len(gzip.compress(body)) for body in bodies) < 150_000
        received = 0

        def frame(payload: str | bytes) -> None:
            nonlocal received
            received += len(payload)

        page.on("websocket", lambda socket: socket.on("framereceived", frame))
        sizes: list[Any] = []
        page.on("response", lambda response: sizes.append(response))
        await say(page, "long")
        await expect(answers(page)).to_contain_text(WORDS[-60:].strip(), timeout=30_000)
        await page.wait_for_timeout(500)
        for response in sizes:
            if response.url.startswith(url):
                received += (await response.request.sizes())["responseBodySize"]
        assert len(WORDS) > 10_000
        assert received < 3 * len(WORDS), received
