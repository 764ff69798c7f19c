"""The pictures of README and docs, as the page really looks; `make pictures` writes them anew."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from conftest import Process
from test_browser import answers, open_page, say

pytestmark = [pytest.mark.browser, pytest.mark.slow]
IMAGES = Path(__file__).parent.parent / "docs" / "images"
PLACES = {"desk": (1280, 800, "light"), "phone": (390, 780, "dark")}


def place(name: str, folder: Path) -> Path:
    """Where a picture goes: into the docs only if they are to be written."""
    return (IMAGES if os.environ.get("PICTURES") else folder) / f"{name}.png"


async def shoot(page: Page, path: Path) -> None:
    await page.evaluate("document.activeElement?.blur()")
    await page.mouse.move(0, 0)
    assert len(await page.screenshot(path=path)) > 10_000


def test_all_of_them_are_there() -> None:
    """Each picture that README or a page of the docs shows is a file."""
    root = IMAGES.parent.parent
    for page in [root / "README.md", *(root / "docs").rglob("*.md")]:
        for shown in re.findall(
            r"!\[[^\]]+\]\(([^)]+)\)|<img [^>]*src=\"([^\"]+)\"", page.read_text()
        ):
            assert (page.parent / (shown[0] or shown[1])).exists(), (page, shown)


@pytest.mark.parametrize("name", PLACES)
async def test_the_chat_page(name: str, tmp_path: Path, processes: list[Process]) -> None:
    """A conversation with the demo bot: a table and code, on a desk and on a phone."""
    width, height, scheme = PLACES[name]
    process = Process(tmp_path, None)
    processes.append(process)
    process.start()
    given: dict[str, Any] = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    async with open_page(process.url, **given) as page:
        await say(page, "My name is Ada")
        await expect(answers(page)).to_have_count(1)
        await say(page, "Show me markdown")
        await expect(answers(page).last.locator("pre code")).to_be_visible()
        await expect(answers(page).last.locator("table")).to_be_visible()
        await expect(page.locator("#open > *")).to_have_count(0)
        await shoot(page, place(f"page-{name}", tmp_path))


async def test_the_operators_view(tmp_path: Path, processes: list[Process]) -> None:
    """Turns that run and wait, seen while people talk to the demo bot."""
    environment = {"TURNWISE_ADMIN_KEYS": "the-key", "TURNWISE_CONCURRENCY": "6"}
    process = Process(tmp_path, None, environment=environment)
    processes.append(process)
    process.start()
    given: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
    async with process.client() as client, open_page(f"{process.url}/admin/", **given) as page:
        await page.fill("#key", "the-key")
        await page.keyboard.press("Enter")
        for i in range(9):
            body = {"name": f"Conversation {i + 1}"}
            made = (await client.post("/sessions", json=body)).json()
            bearer = {"Authorization": f"Bearer {made['token']}"}
            for text in (*["hello"] * 8, "count to 300", "hello again"):
                path = f"/sessions/{made['id']}/turns"
                await client.post(path, json={"text": text}, headers=bearer)
        await expect(page.locator("#turns tbody tr")).to_have_count(9)
        await expect(page.locator("#figures")).to_contain_text("of 6")
        await page.wait_for_timeout(8000)  # so that the pictures have lines
        await shoot(page, place("operators", tmp_path))
