"""The operator's page in a real browser: on a phone and on a desk, light and dark."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from conftest import serving
from test_browser import open_page
from test_clients import HERE, installed
from turnwise import Bot, Runtime, Settings, Turn
from turnwise.server.app import create_app

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LOOKS = [
    ({"width": 1440, "height": 900}, "light"),
    ({"width": 390, "height": 780}, "dark"),
]


class Told:
    """A bot that says one word more whenever it is allowed to."""

    def __init__(self) -> None:
        self.words: asyncio.Queue[str | None] = asyncio.Queue()

    async def __call__(self, turn: Turn) -> AsyncIterator[str]:
        if turn.text == "fail":
            raise ValueError("secret")
        async with turn.step("look it up", {"q": turn.text}) as step:
            step.output = "found"
        while (word := await self.words.get()) is not None:
            yield word


async def unlock(page: Page) -> None:
    await page.locator("#key").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("This is not an admin key")).to_be_visible()
    await page.locator("#key").fill("the-admin-key")
    await page.keyboard.press("Enter")
    await expect(page.locator("#state")).to_have_text("Live")


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
async def test_looking_after_a_server(
    sqlite_url: str, tmp_path: Path, size: Any, scheme: Any
) -> None:
    """With the key one sees what runs, what waits and what failed; a session is opened by its link,
    its words come as they are said, it is stopped, saved and deleted; axe finds nothing serious."""
    axe = (installed(HERE) / "node_modules" / "axe-core" / "axe.min.js").read_text()
    reply = Told()
    settings = Settings(_env_file=None, admin_keys="the-admin-key")
    runtime = Runtime(Bot(reply, max_attempts=1), sqlite_url, settings=settings)
    given: dict[str, Any] = {"viewport": size, "color_scheme": scheme, "bypass_csp": True}
    app = create_app(runtime)
    async with serving(app, lifespan="on") as url, open_page(f"{url}/admin/", **given) as page:

        async def check(what: str) -> None:
            await page.evaluate(axe)
            found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            serious = [
                (one["id"], [node["html"] for node in one["nodes"]])
                for one in found["violations"]
                if one["impact"] in ("serious", "critical")
            ]
            assert not serious, (what, serious)

        gateway = runtime.gateway
        for id, text in (("ada/1", "What is a turn?"), ("ada/2", "fail")):
            await runtime.store.create(id, ttl=100.0, name=f"{id}: {text}", owner="ada")
            await gateway.submit(id, text)
        await gateway.submit("ada/1", "And a session?")
        await unlock(page)
        row = page.locator("#turns tbody tr")
        await expect(row).to_have_count(1)
        await expect(row).to_contain_text("running")
        await expect(row).to_contain_text("1 more")
        await expect(page.locator("#failures")).to_contain_text("handler_error")
        await expect(page.locator("#failures")).not_to_contain_text("secret")
        await expect(page.locator("#owners")).to_contain_text("ada")
        await expect(page.locator("#processes tbody tr")).to_have_count(1)
        await expect(page.locator("#figures")).to_contain_text("Running")
        await check("the whole")
        await row.get_by_role("link").click()
        transcript = page.locator("#transcript")
        await expect(transcript).to_contain_text("And a session?")
        await expect(transcript.locator(".running .step")).to_contain_text("look it up")
        reply.words.put_nowait("A message ")
        await expect(transcript.locator(".running .words")).to_have_text("A message ")
        reply.words.put_nowait("and its answer.")
        await expect(transcript.locator(".running .words")).to_have_text(
            "A message and its answer."
        )
        await check("a session")
        reply.words.put_nowait(None)
        await expect(transcript.locator(".running").filter(has_text="turn 2")).to_be_visible()
        await expect(transcript.locator(".running")).to_have_count(1)
        await page.get_by_role("button", name="Stop its turns").click()
        await expect(page.locator("#session-state")).to_have_text("idle")
        async with page.expect_download() as download:
            await page.get_by_role("button", name="Save as a file").click()
        saved = json.loads((await (await download.value).path()).read_text())
        assert [one["text"] for one in saved["messages"]][:2] == [
            "What is a turn?", "A message and its answer.",
        ]  # fmt: skip
        assert [one["status"] for one in saved["turns"]] == ["completed", "cancelled"]
        await page.get_by_role("button", name="Delete it").click()
        await page.locator("#sure-yes").click()
        await expect(page.locator("#session")).to_be_hidden()
        await expect(page.locator("#turns")).to_contain_text("Nobody waits")
        assert await runtime.store.session("ada/1") is None
        wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0


async def test_finding_a_session(sqlite_url: str) -> None:
    """By its whole id, which has an address of its own that can be reloaded; by a part of its
    name; and what is not there is said."""
    settings = Settings(_env_file=None, admin_keys="the-admin-key")
    runtime = Runtime(Bot(Told()), sqlite_url, settings=settings)
    async with (
        serving(create_app(runtime), lifespan="on") as url,
        open_page(f"{url}/admin/") as page,
    ):
        await runtime.store.create("tell/me more", ttl=100.0, name="The long one")
        await unlock(page)
        await page.get_by_role("searchbox").fill("long")
        await page.keyboard.press("Enter")
        await page.locator("#found").get_by_role("link").click()
        await expect(page.locator("#session-title")).to_have_text("The long one")
        await page.reload()
        await expect(page.locator("#session-title")).to_have_text("The long one")
        await page.keyboard.press("Escape")
        await page.get_by_role("searchbox").fill("tell/me more")
        await page.keyboard.press("Enter")
        await expect(page.locator("#session-id")).to_have_text("tell/me more")
        await page.get_by_role("button", name="Close").click()
        await page.get_by_role("searchbox").fill("nothing like it")
        await page.keyboard.press("Enter")
        await expect(page.locator("#found")).to_contain_text("No session has this id")
