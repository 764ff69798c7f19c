"""The useChat example in a real browser: a page of another origin, built without a framework."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.async_api import Page, expect
from starlette.staticfiles import StaticFiles

from conftest import Process, serving
from test_browser import open_page
from test_clients import installed

pytestmark = [pytest.mark.browser, pytest.mark.slow]
EXAMPLE = Path(__file__).parent.parent / "examples" / "usechat"


async def test_usechat_in_a_browser(tmp_path: Path) -> None:
    """Sending, an edit, another answer, an approval, a reload in mid-answer, a stop that stops."""
    folder = installed(EXAMPLE)
    build = await asyncio.create_subprocess_exec("npm", "run", "--silent", "build", cwd=folder)
    assert await build.wait() == 0
    server = Process(tmp_path, "bots:clients")
    server.start()
    try:
        async with serving(StaticFiles(directory=folder), lifespan="off") as address:
            where = f"{address}/index.html?server={quote(server.url)}"
            async with open_page(where) as page:
                await talk(page)
    finally:
        server.kill()


async def talk(page: Page) -> None:
    """One person at that page."""
    box, main = page.get_by_label("Message"), page.locator("main")

    async def say(text: str, answer: str, button: str = "Send") -> None:
        await box.fill(text)
        await page.get_by_role("button", name=button, exact=True).click()
        await expect(main).to_contain_text(answer)

    await say("hello", "1: hello")
    await page.get_by_role("button", name="Answer again").click()
    await expect(page.get_by_role("button", name="Answer again")).to_be_visible()
    await expect(page.locator("article")).to_have_count(2)
    await page.get_by_role("button", name="Edit").click()
    await say("hi", "1: hi", "Save")
    await expect(main).not_to_contain_text("hello")
    await say("ask", "Send?")
    await page.get_by_role("button", name="yes").click()
    await expect(main).to_contain_text("answered yes")
    await say("count 30", "0 1 2")
    await page.reload()
    await expect(page.locator("article.assistant").last).to_contain_text("0 1 2 3 4 5 6 7")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_role("button", name="Answer again")).to_be_visible()
    await expect(main).not_to_contain_text("29")
    await say("still there?", "still there?")
