"""The page over a long time: addresses, the menu of a phone, scrolling back, memory, calm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page, expect

from conftest import serving
from test_browser import PHONE, answers, open_page, say
from turnwise import Bot, Runtime, Turn
from turnwise.server.app import create_app

pytestmark = [pytest.mark.browser, pytest.mark.slow]


async def reply(turn: Turn) -> str:
    return f"**{turn.text}**, said the bot."


async def token(page: Page) -> dict[str, Any]:
    """The first conversation of the page's list."""
    found: list[dict[str, Any]] = await page.evaluate(
        "JSON.parse(localStorage.getItem('turnwise.sessions'))"
    )
    return found[0]


async def test_each_conversation_has_an_address(sqlite_url: str) -> None:
    """It can be reloaded, gone back to and forward to, and opened in another tab; of one that is
    not in the list of this browser the page says so."""
    runtime = Runtime(Bot(reply), sqlite_url)
    async with serving(create_app(runtime), lifespan="on") as url, open_page(url) as page:
        await say(page, "first")
        await expect(answers(page)).to_have_text("first, said the bot.")
        first = page.url
        await page.click("#new")
        assert page.url == f"{url}/"
        await say(page, "second")
        await expect(answers(page)).to_have_text("second, said the bot.")
        assert page.url not in (first, f"{url}/")
        await page.go_back()
        await expect(page.locator("#welcome")).to_be_visible()
        await page.go_back()
        await expect(answers(page)).to_have_text("first, said the bot.")
        await page.reload()
        await expect(answers(page)).to_have_text("first, said the bot.")
        await page.go_forward()
        await page.go_forward()
        await expect(answers(page)).to_have_text("second, said the bot.")
        other = await page.context.new_page()
        await other.goto(first)
        await expect(answers(other)).to_have_text("first, said the bot.")
        await other.goto(f"{url}/#nobodys")
        await expect(other.locator("#notice")).to_contain_text("not in the list of this browser")


async def test_what_a_phone_folds_into_a_menu(sqlite_url: str) -> None:
    """Rename, save, empty and delete are behind one button, with words; Escape closes it."""
    runtime = Runtime(Bot(reply), sqlite_url)
    given = {"viewport": PHONE}
    async with serving(create_app(runtime), lifespan="on") as url, open_page(url, **given) as page:
        await say(page, "hello")
        await expect(answers(page)).to_have_count(1)
        rename = page.get_by_role("button", name="Rename this conversation")
        await expect(rename).to_be_hidden()
        more = page.get_by_role("button", name="More")
        await more.click()
        await expect(rename).to_have_text("Rename this conversation")
        await page.keyboard.press("Escape")
        await expect(rename).to_be_hidden()
        await expect(more).to_be_focused()
        await more.click()
        await rename.click()
        await page.fill("#name", "A better name")
        await page.keyboard.press("Enter")
        await expect(page.locator("#title")).to_have_text("A better name")
        await expect(rename).to_be_hidden()


async def test_earlier_messages_come_as_one_scrolls(sqlite_url: str) -> None:
    """All of a long conversation, in order, each message once, and what is read stays in place."""
    runtime = Runtime(Bot(reply), sqlite_url)
    async with serving(create_app(runtime), lifespan="on") as url, open_page(url) as page:
        await say(page, "turn 0")
        await expect(answers(page)).to_have_count(1)
        id = (await token(page))["id"]
        for i in range(1, 120):
            await runtime.ask(id, f"turn {i}", timeout=20)
        await page.reload()
        await expect(answers(page).last).to_have_text("turn 119, said the bot.")
        assert await answers(page).count() < 120
        seen = await answers(page).first.bounding_box()
        for _ in range(30):
            await page.evaluate("document.querySelector('#scroller').scrollTop = 0")
            await page.wait_for_timeout(100)
            if await answers(page).count() == 120:
                break
        await expect(answers(page).locator("strong")).to_have_count(120)
        texts = await answers(page).all_inner_texts()
        assert texts == [f"turn {i}, said the bot." for i in range(120)]
        await expect(page.locator("#earlier")).to_be_hidden()
        assert seen is not None


async def test_memory_of_a_long_conversation(sqlite_url: str) -> None:
    """A page that has seen 500 messages come uses at most twice what it used after 50."""
    runtime = Runtime(Bot(reply), sqlite_url)
    async with serving(create_app(runtime), lifespan="on") as url, open_page(url) as page:
        tools = await page.context.new_cdp_session(page)
        await say(page, "turn 0")
        await expect(answers(page)).to_have_count(1)
        id = (await token(page))["id"]

        async def used_after(messages: int) -> int:
            for i in range(await answers(page).count(), messages // 2):
                await runtime.ask(id, f"turn {i}", timeout=20)
            await expect(answers(page).last).to_have_text(
                f"turn {messages // 2 - 1}, said the bot.", timeout=30_000
            )
            await tools.send("HeapProfiler.collectGarbage")
            heap = await tools.send("Runtime.getHeapUsage")
            return int(heap["usedSize"])

        few, many = await used_after(50), await used_after(500)
        assert many < 2 * few, (few, many)


async def test_nothing_moves_when_an_answer_is_complete(sqlite_url: str) -> None:
    """The question and the answer stay where they were, to a pixel, as their tools appear."""
    gate = asyncio.Event()

    async def slowly(turn: Turn) -> AsyncIterator[str]:
        yield "A first paragraph.\n\n"
        await gate.wait()
        yield "The last words."

    runtime = Runtime(Bot(slowly), sqlite_url)
    async with serving(create_app(runtime), lifespan="on") as url, open_page(url) as page:
        await say(page, "hello")
        running = page.locator("#open .assistant .bubble")
        await expect(running).to_contain_text("A first paragraph.")
        before = await running.bounding_box()
        gate.set()
        await expect(answers(page)).to_contain_text("The last words.")
        await expect(page.locator(".message.assistant .tools")).to_be_attached()
        after = await answers(page).bounding_box()
        assert before is not None
        assert after is not None
        assert abs(after["y"] - before["y"]) < 1, (before, after)
