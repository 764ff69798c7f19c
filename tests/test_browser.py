"""The chat page in a real browser: send, stream, stop, refresh, restart, queue, phone."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect

from conftest import Process, needs, serving
from turnwise import Ask, Bot, Message, Runtime, Settings, Turn
from turnwise.server.app import create_app

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--disable-quic",
]  # fmt: skip
OURS = r"(http|ws)://127|blob:"
PHONE = {"width": 390, "height": 780}
expect.set_options(timeout=15_000)
Serve = Callable[..., Process]


@contextlib.asynccontextmanager
async def open_page(url: str, **context: Any) -> AsyncIterator[Page]:
    """The chat page; whatever the browser complains of fails the test."""
    chromium = shutil.which("chromium")
    needs(chromium is not None, "chromium")
    complaints: list[str] = []
    elsewhere: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = await (await browser.new_context(**context)).new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda line: complaints.append(line.text) if "Content Security" in line.text else None,
        )
        page.on(
            "request",
            lambda r: None if re.match(OURS, r.url) else elsewhere.append(r.url),
        )
        await page.goto(url)
        yield page
        await browser.close()
    assert complaints == []
    assert elsewhere == []


async def say(page: Page, text: str) -> None:
    await page.fill("#text", text)
    await page.keyboard.press("Enter")


def answers(page: Page) -> Any:
    return page.locator("#messages .assistant .bubble")


async def test_talking(serve: Serve) -> None:
    """A message streams its answer, Markdown is rendered, the session has a name in the list."""
    async with open_page(serve().url) as page:
        await expect(page.locator("#welcome")).to_be_visible()
        await page.get_by_role("button", name="My name is Ada").click()
        await expect(answers(page).locator("strong")).to_have_text("Ada")
        await say(page, "Show me markdown")
        await expect(answers(page).last.locator("table")).to_be_visible()
        await expect(answers(page).last.locator("pre code")).to_be_visible()
        await expect(page.locator("#sessions [aria-current]")).to_have_text("My name is Ada")
        await page.click("#new")
        await say(page, "hello")
        await expect(answers(page)).to_have_count(1)
        await page.locator("#sessions button").nth(1).click()
        await expect(answers(page)).to_have_count(2)
        await expect(answers(page).last.locator("table")).to_be_visible()
        await page.screenshot(path="/tmp/turnwise-page.png")


async def test_stopping(serve: Serve) -> None:
    """Escape stops the answer; what was said stays, also after a reload."""
    async with open_page(serve().url) as page:
        await say(page, "count to 100")
        running = page.locator("#open .assistant .bubble")
        await expect(running).to_contain_text("3,")
        await expect(page.locator("#stop")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("#messages .meta")).to_have_text("Stopped")
        await expect(page.locator("#stop")).to_be_hidden()
        text = await answers(page).inner_text()
        assert text.startswith("Counting to 100: 1, 2, 3,")
        await page.reload()
        await expect(answers(page)).to_have_text(text)


async def test_an_answer_that_cannot_be_rendered(serve: Serve) -> None:
    """It is there whole, as plain text, though its first words were rendered while it came."""
    async with open_page(serve().url) as page:
        await say(page, "count to 20")
        running = page.locator("#open .assistant .bubble")
        await expect(running).to_contain_text("2,")
        await page.route("**/page/render", lambda route: route.abort())
        whole = "Counting to 20: " + ", ".join(map(str, range(1, 21))) + ". Done."
        await expect(answers(page)).to_have_text(whole)
        await expect(answers(page).locator(".plain").first).to_be_visible()


async def test_refresh_in_mid_stream(serve: Serve) -> None:
    """After a reload the running answer is there from its first word and goes on."""
    async with open_page(serve().url) as page:
        await say(page, "count to 20")
        running = page.locator("#open .assistant .bubble")
        await expect(running).to_contain_text("3,")
        await page.reload()
        await expect(running).to_contain_text(re.compile(r"Counting to 20: 1, 2, 3, 4,"))
        whole = "Counting to 20: " + ", ".join(map(str, range(1, 21))) + ". Done."
        await expect(answers(page)).to_have_text(whole)
        await expect(page.locator("#messages .user")).to_have_count(1)


async def test_server_restart_in_mid_stream(serve: Serve) -> None:
    """kill -9 and start again: the page comes back by itself, the answer is whole, once. What is
    sent meanwhile is kept and sent."""
    process = serve()
    async with open_page(process.url) as page:
        await say(page, "count to 15")
        await expect(page.locator("#open .assistant .bubble")).to_contain_text("3,")
        process.kill()
        await expect(page.locator("#link")).to_have_text("Reconnecting…")
        await say(page, "my name is Grace")
        await expect(page.locator(".pending")).to_have_count(1)
        process.start()
        await expect(answers(page)).to_have_count(2, timeout=30_000)
        whole = "Counting to 15: " + ", ".join(map(str, range(1, 16))) + ". Done."
        await expect(answers(page).first).to_have_text(whole)
        await expect(answers(page).last).to_contain_text("Grace")
        await expect(page.locator("#messages .user")).to_have_count(2)
        await expect(page.locator(".pending")).to_have_count(0)
        await expect(page.locator("#link")).to_have_text("")
        await expect(page.locator("#notice")).to_be_hidden()


async def test_writing_on_while_the_conversation_is_made(serve: Serve) -> None:
    """What is half written when the first message's conversation comes is not taken away."""
    async with open_page(serve().url) as page:
        written = asyncio.Event()

        async def when_written(route: Any) -> None:
            await written.wait()
            await route.continue_()

        await page.route("**/sessions", when_written)
        await say(page, "hello")
        await page.fill("#text", "never mi")
        written.set()
        await expect(answers(page)).to_have_count(1)
        await expect(page.locator("#text")).to_have_value("never mi")


async def test_three_messages_at_once(serve: Serve) -> None:
    """They stand in line with their place, one can be withdrawn, the others come in order."""
    async with open_page(serve().url) as page:
        for text in ("count to 200", "never mind", "my name is Ada"):
            await say(page, text)
        places = page.locator("#open .waiting .meta")
        await expect(places).to_have_count(2)
        await expect(places.nth(0)).to_contain_text("1 message ahead")
        await expect(places.nth(1)).to_contain_text("2 messages ahead")
        await places.nth(0).get_by_role("button", name="Withdraw").click()
        await expect(places).to_have_count(1)
        await expect(places.nth(0)).to_contain_text("1 message ahead")
        await page.keyboard.press("Escape")
        await expect(answers(page)).to_have_count(2)
        said = await page.locator("#messages .user .bubble").all_inner_texts()
        assert said == ["count to 200", "my name is Ada"]


async def test_a_message_for_another_conversation(serve: Serve) -> None:
    """What could not be sent goes to its own conversation, also when another is open by then."""
    process = serve()
    async with open_page(process.url) as page:
        await say(page, "hello")
        await expect(answers(page)).to_have_count(1)
        process.kill()
        await say(page, "my name is Grace")
        await expect(page.locator(".pending")).to_have_count(1)
        await page.click("#new")
        process.start()
        await say(page, "count to 2")
        await expect(answers(page)).to_contain_text("Done.", timeout=30_000)
        await expect(page.locator("#messages .user")).to_have_count(1)
        await page.locator("#sessions button", has_text="hello").click()
        await expect(answers(page).last).to_contain_text("Grace")
        await expect(page.locator("#messages .user")).to_have_count(2)


async def test_a_message_stays_in_the_conversation_it_was_written_in(serve: Serve) -> None:
    """Switching away while a new conversation is being made sends nothing to the other one."""
    async with open_page(serve().url) as page:
        await say(page, "hello")
        await expect(answers(page)).to_have_count(1)

        async def slowly(route: Any) -> None:
            await asyncio.sleep(0.7)
            await route.continue_()

        await page.route("**/sessions", slowly)
        await page.click("#new")
        await say(page, "my name is Eve")
        await page.locator("#sessions button", has_text="hello").click()
        await expect(page.locator("#sessions button", has_text="Eve")).to_have_count(1)
        await page.locator("#sessions button", has_text="hello").click()
        await expect(page.locator("#messages .user .bubble")).to_have_text(["hello"])
        await page.locator("#sessions button", has_text="Eve").click()
        await expect(answers(page)).to_contain_text("Eve")


async def test_a_bot_of_ones_own(serve: Serve) -> None:
    """The demo's suggestions are the demo's."""
    async with open_page(serve("bots:echo").url) as page:
        await say(page, "hi")
        await expect(answers(page)).to_have_text("1: hi")
        await page.click("#new")
        await expect(page.locator("#welcome")).to_be_visible()
        await expect(page.locator("#ideas button")).to_have_count(0)


async def test_on_a_phone(serve: Serve) -> None:
    """Nothing is wider than the screen; the list is behind a button; dark when asked for."""
    async with open_page(serve().url, viewport=PHONE, color_scheme="dark", has_touch=True) as page:
        await say(page, "show me markdown")
        await expect(answers(page).locator("table")).to_be_visible()
        await say(page, "x" * 300)
        await expect(answers(page)).to_have_count(2)
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"]
        await expect(page.locator("#sidebar")).to_be_hidden()
        await page.click("#open-sidebar")
        await expect(page.locator("#sidebar")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("#sidebar")).to_be_hidden()
        paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(21, 22, 28)"


async def test_what_people_write_is_text(serve: Serve) -> None:
    """Scripts, pictures and links to scripts do nothing, from people and from the bot."""
    async with open_page(serve().url) as page:
        attack = "<img src=x onerror=alert(1)> <script>alert(2)</script> [x](javascript:alert(3))"
        await say(page, attack)
        await expect(answers(page)).to_have_count(1)
        await expect(page.locator("#messages .user .bubble")).to_have_text(attack)
        assert await page.locator("#messages img, #messages script").count() == 0
        assert await page.locator('#messages a[href^="javascript"]').count() == 0


async def test_keyboard_and_screen_readers(serve: Serve) -> None:
    """Every control has a name, the answer is announced once it is whole, Tab finds the way."""
    async with open_page(serve().url) as page:
        for button in await page.get_by_role("button").all():
            name = await button.evaluate(
                "b => (b.getAttribute('aria-label') || b.innerText).trim()"
            )
            assert name
        await say(page, "my name is Ada")
        await expect(page.locator("#spoken")).to_contain_text("Nice to meet you")
        await expect(page.get_by_label("Message", exact=True)).to_be_focused()
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("second line")
        assert await page.locator("#text").input_value() == "\nsecond line"


async def test_deleting_and_emptying(serve: Serve) -> None:
    """Both ask first; an emptied conversation goes on, a deleted one is gone from the list."""
    async with open_page(serve().url) as page:
        await say(page, "hello")
        await expect(answers(page)).to_have_count(1)
        await page.click("#reset")
        await page.get_by_role("button", name="Empty", exact=True).click()
        await expect(answers(page)).to_have_count(0)
        await say(page, "who am i?")
        await expect(answers(page)).to_contain_text("do not know")
        await page.click("#delete")
        await page.get_by_role("button", name="Delete", exact=True).click()
        await expect(page.locator("#sessions li")).to_have_count(0)
        await expect(page.locator("#welcome")).to_be_visible()


async def test_a_session_that_is_gone(serve: Serve) -> None:
    """A conversation that was deleted elsewhere is told in words, and one can begin anew."""
    process = serve()
    async with open_page(process.url) as page:
        await say(page, "hello")
        await expect(answers(page)).to_have_count(1)
        stored = await page.evaluate("JSON.parse(localStorage.getItem('turnwise.sessions'))[0]")
        async with process.client() as client:
            headers = {"Authorization": f"Bearer {stored['token']}"}
            await client.delete(f"/sessions/{stored['id']}", headers=headers)
        await begin_again(page, "no longer on the server")


async def begin_again(page: Page, why: str) -> None:
    """A message to a conversation that is gone: it stays in the field and opens the next one."""
    await expect(page.locator("#notice")).to_contain_text(why)
    await say(page, "who am i?")
    await expect(page.locator(".pending")).to_have_count(0)
    await expect(page.locator("#notice")).to_contain_text(why)
    await page.locator("#notice").get_by_role("button", name="New conversation").click()
    await expect(page.locator("#notice")).to_be_hidden()
    await expect(page.locator("#text")).to_have_value("who am i?")
    await page.press("#text", "Enter")
    await expect(answers(page)).to_have_count(1)
    await expect(answers(page)).to_contain_text("do not know")


def delete_files(folder: Path) -> None:
    for file in folder.glob("*.db*"):
        file.unlink()


async def test_a_server_that_begins_afresh(serve: Serve, tmp_path: Path) -> None:
    """With the page open, the store's files are deleted and the server starts again."""
    process = serve()
    async with open_page(process.url) as page:
        await say(page, "hello")
        await expect(answers(page)).to_have_count(1)
        process.kill()
        delete_files(tmp_path)
        process.start()
        await begin_again(page, "does not accept this browser's key")


async def test_a_server_that_asks_for_a_key(serve: Serve) -> None:
    """The page asks for it, once."""
    async with open_page(serve(None, "--api-keys", "secret").url) as page:
        await say(page, "hello")
        await page.fill("#key", "secret")
        await page.get_by_role("button", name="Continue").click()
        await expect(answers(page)).to_have_count(1)


LONG = "\n\n".join(
    [f"Paragraph {i} with **bold** words and `code`, long enough to fill a line or two of it."
     for i in range(12)] + ["```python\nprint(1)\n\nprint(2)\n```", "1. one\n2. two", "The end."]
)  # fmt: skip


@contextlib.asynccontextmanager
async def page_of(bot: Bot, folder: Path, **context: Any) -> AsyncIterator[Page]:
    """The chat page of a bot of the test's own."""
    runtime = Runtime(bot, f"sqlite:///{folder / 'b.db'}", settings=Settings(_env_file=None))
    async with serving(create_app(runtime)) as url:
        async with open_page(url, **context) as page:
            yield page
        runtime.retire()


async def slowly(turn: Turn) -> AsyncIterator[str]:
    for word in re.findall(r"\S+\s*", LONG):
        yield word
        await asyncio.sleep(0.01)


async def test_streaming_draws_nothing_twice(tmp_path: Path) -> None:
    """A selection survives the stream and its end; the traffic is in proportion to the answer;
    finished blocks are rendered while the answer goes on."""
    async with page_of(Bot(slowly), tmp_path) as page:
        sent: list[int] = []
        page.on(
            "request",
            lambda r: sent.append(len(r.post_data or "")) if "/page/render" in r.url else None,
        )
        await say(page, "go")
        running = page.locator("#open .assistant .bubble")
        await expect(running.locator("strong").nth(2)).to_be_visible()
        await page.evaluate(
            """() => {
                const place = document.querySelector("#open .assistant .bubble p");
                getSelection().selectAllChildren(place);
            }"""
        )
        chosen = await page.evaluate("getSelection().toString()")
        assert chosen.startswith("Paragraph 0")
        await expect(answers(page)).to_contain_text("The end.")
        await expect(answers(page).locator("ol li")).to_have_count(2)
        await expect(answers(page).locator("pre code")).to_have_text("print(1)\n\nprint(2)\n")
        assert await page.evaluate("getSelection().toString()") == chosen
        await expect(answers(page).locator("p")).to_have_count(13)
        assert sum(sent) < 3 * len(LONG), sent


async def test_the_end_stays_in_sight(tmp_path: Path) -> None:
    """While the answer grows, when the window shrinks as under a phone's keyboard, and when a
    notice comes; not for somebody who has scrolled away."""
    async with page_of(Bot(slowly), tmp_path, viewport=PHONE) as page:

        async def distance() -> float:
            return float(await page.evaluate(
                "(({scrollHeight, scrollTop, clientHeight}) => scrollHeight - scrollTop - "
                "clientHeight)(document.getElementById('scroller'))"
            ))  # fmt: skip

        async def at_end() -> None:
            async with asyncio.timeout(5):
                while await distance() > 2:
                    await asyncio.sleep(0.02)

        await say(page, "go")
        await expect(answers(page)).to_contain_text("The end.")
        await at_end()
        for height in (420, 780, 360):
            await page.set_viewport_size({"width": 390, "height": height})
            await at_end()
        await page.evaluate("document.getElementById('notice').hidden = false")
        await page.evaluate("document.getElementById('notice').textContent = 'x '.repeat(200)")
        await at_end()
        await page.evaluate("document.getElementById('scroller').scrollTop = 0")
        await expect(page.locator("#latest")).to_be_visible()
        await page.set_viewport_size({"width": 390, "height": 600})
        await asyncio.sleep(0.2)
        assert await distance() > 100


async def test_directions_and_tables(tmp_path: Path) -> None:
    """Hebrew is laid out from the right, block by block; on a phone a table scrolls and breaks no
    words."""
    text = (
        "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd\n\nLeft to right.\n\n"
        "| A long heading | Incomprehensibilities |\n|---|---|\n"
        "| Donaudampfschifffahrtsgesellschaft | Rindfleischetikettierung |\n"
    )
    async with page_of(Bot(lambda turn: text), tmp_path, viewport=PHONE) as page:
        await say(page, "\u05e9\u05dc\u05d5\u05dd")
        await expect(answers(page).locator("table")).to_be_visible()
        directions = await page.evaluate(
            "[...document.querySelectorAll('.assistant .bubble p')].map("
            "(p) => getComputedStyle(p).direction)"
        )
        assert directions == ["rtl", "ltr"]
        mine = page.locator("#messages .user .bubble")
        assert await mine.evaluate("(b) => getComputedStyle(b).direction") == "rtl"
        lines = await page.evaluate(
            "[...document.querySelectorAll('.assistant td')].map((td) => {"
            "  const range = document.createRange(); range.selectNodeContents(td);"
            "  return range.getClientRects().length; })"
        )
        assert lines == [1, 1]
        table = page.locator(".assistant table")
        assert await table.evaluate("(t) => t.scrollWidth > t.clientWidth")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390


async def test_why_an_answer_ended(tmp_path: Path) -> None:
    """The page says that an answer is not whole."""

    async def reply(turn: Turn) -> AsyncIterator[str]:
        turn.metadata["ended"] = "length"
        yield "This is as long as"

    async with page_of(Bot(reply), tmp_path) as page:
        await say(page, "go")
        await expect(page.locator("#messages .meta")).to_have_text(
            "The answer reached its maximum length."
        )


async def test_an_agent_at_work(serve: Serve) -> None:
    """Steps are shown while they run and fold open; buttons answer what the agent asks, once; after
    a reload all of it is there. A message instead of an answer takes the buttons away."""
    async with open_page(serve().url) as page:
        await page.get_by_role("button", name="Plan a trip to Paris").click()
        await expect(page.locator(".step.running .name")).to_have_text(["get weather"])
        await expect(page.locator(".ask button")).to_have_text(["Yes", "No"])
        names = page.locator("#messages .step .name")
        await expect(names).to_have_text(["thinking", "get weather"])
        await expect(page.locator("#messages .thought").first).to_be_hidden()
        await page.locator("#messages .step summary").last.click()
        await expect(page.locator("#messages .step pre").first).to_contain_text("Paris")
        await page.reload()
        await page.get_by_role("button", name="Yes").click()
        await expect(page.locator("#messages .user .bubble").last).to_have_text("Yes")
        await expect(answers(page).last).to_contain_text("Done.")
        await expect(page.locator(".ask")).to_have_count(0)
        await say(page, "Plan a trip to Atlantis")
        failed = page.locator("#messages .step.failed .state")
        await expect(failed).to_have_text("no station in Atlantis reports.")
        await say(page, "Plan a trip to Rome")
        await expect(page.locator(".ask button")).to_have_count(2)
        await say(page, "show my notes")
        await expect(page.locator(".ask")).to_have_count(0)
        await expect(answers(page).last).to_contain_text("Paris")
        assert await answers(page).last.locator("text=Rome").count() == 0


async def test_a_form(tmp_path: Path) -> None:
    """A form's fields become one JSON object; an ask without choices takes a text."""

    async def reply(turn: Turn) -> AsyncIterator[str | Message]:
        if turn.answers:
            yield f"got {turn.answers[0].value!r}"
        elif turn.text == "form":
            fields = [
                {"name": "age", "label": "Your age", "type": "number"},
                {"name": "size", "choices": ["small", "large"]},
                {"name": "gift", "type": "boolean"},
            ]
            yield Ask("Fill this in", kind="form", data={"fields": fields})
        else:
            yield Ask("Why?")

    async with page_of(Bot(reply), tmp_path) as page:
        await say(page, "form")
        await page.get_by_label("Your age").fill("7")
        await page.locator(".ask select").select_option("large")
        await page.locator(".ask button").click()
        told = "got {'age': 7, 'size': 'large', 'gift': False}"
        await expect(answers(page).last).to_have_text(told)
        await say(page, "why")
        await page.get_by_label("Your answer").fill("so")
        await page.keyboard.press("Enter")
        await expect(answers(page).last).to_have_text("got 'so'")


async def test_taking_back_on_the_page(tmp_path: Path) -> None:
    """Edit, answer again, branch, change what waits: also in another window that looks on."""
    gate = asyncio.Event()

    async def reply(turn: Turn) -> Any:
        turn.state["n"] = turn.state.get("n", 0) + 1
        if turn.text == "wait":
            await gate.wait()
        yield f"{turn.state['n']} (turn {turn.n}): {turn.text or turn.reason}"

    settings = Settings(_env_file=None, grace=1.0)
    runtime = Runtime(Bot(reply), f"sqlite:///{tmp_path / 'b.db'}", settings=settings)
    async with serving(create_app(runtime)) as url, open_page(url) as page:
        for text in ("one", "two", "three"):
            await say(page, text)
        await expect(answers(page)).to_have_text(
            ["1 (turn 1): one", "2 (turn 2): two", "3 (turn 3): three"]
        )
        other = await page.context.new_page()
        await other.goto(url)
        await expect(answers(other)).to_have_count(3)
        mine = page.locator("#messages .user")
        await mine.nth(1).hover()
        await page.screenshot(path="/tmp/turnwise-tools.png")
        await mine.nth(1).get_by_role("button", name="Edit").click()
        await expect(page.locator("#editing")).to_be_visible()
        await expect(page.locator("#text")).to_have_value("two")
        await page.screenshot(path="/tmp/turnwise-edit.png")
        await say(page, "zwei")
        for window in (page, other):
            await expect(answers(window)).to_have_text(["1 (turn 1): one", "2 (turn 4): zwei"])
        await expect(page.locator("#editing")).to_be_hidden()
        await answers(page).last.hover()
        await page.get_by_role("button", name="Answer again").last.click()
        for window in (page, other):
            await expect(answers(window)).to_have_text(["1 (turn 1): one", "2 (turn 5): zwei"])
        await page.reload()
        await expect(answers(page)).to_have_text(["1 (turn 1): one", "2 (turn 5): zwei"])
        await page.get_by_role("button", name="Branch from here").first.click()
        await expect(answers(page)).to_have_text(["1 (turn 1): one"])
        await expect(page.locator("#sessions [aria-current]")).to_have_text("one · branch")
        await say(page, "wait")
        await say(page, "later")
        await page.get_by_role("button", name="Change").click()
        await say(page, "sooner")
        await expect(page.locator("#open .waiting .bubble")).to_have_text("sooner")
        gate.set()
        await expect(answers(page)).to_have_count(3)
        await expect(answers(page).last).to_have_text("3 (turn 3): sooner")
        (session,) = [s for s in (await runtime.sessions()).sessions if s.name == "one · branch"]
        await runtime.wake(session.id, "tea is ready")
        await expect(answers(page).last).to_have_text("4 (turn 4): tea is ready")
        await expect(page.locator("#messages .user")).to_have_count(3)
        await page.locator("#sessions button").nth(1).click()
        await expect(answers(page)).to_have_text(["1 (turn 1): one", "2 (turn 5): zwei"])


async def test_a_support_chat_with_its_own_login(tmp_path: Path) -> None:
    """Two people and somebody who is not logged in, in three browsers: each has the own questions,
    and nobody sees another's, however the address is guessed."""
    from test_examples import running

    chromium = shutil.which("chromium")
    needs(chromium is not None, "chromium")
    with running("support_chat", tmp_path, workers=2) as url:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            pages = [await (await browser.new_context()).new_page() for _ in range(3)]
            ada, bob, guest = pages
            for page, name in ((ada, "ada"), (bob, "bob")):
                await page.goto(url)
                await page.fill("[name=user]", name)
                await page.click("button")
                await expect(page.locator("h1")).to_have_text(f"Support for {name}")
            await ada.fill("[name=text]", "Where is my parcel?")
            await ada.click("button")
            await expect(ada.locator("#talk li")).to_have_text(
                ["Where is my parcel?", "We look into this, ada: Where is my parcel?"]
            )
            await expect(ada.locator("#questions li")).to_have_text(["Where is my parcel?"])
            await ada.screenshot(path="/tmp/turnwise-support-ada.png")
            await bob.reload()
            await expect(bob.locator("h1")).to_have_text("Support for bob")
            found = await ada.evaluate("call('')")
            path = f"/chat/sessions/{found['sessions'][0]['id']}/messages"
            for page, status in ((ada, 200), (bob, 404), (guest, 404)):
                answered = await page.context.request.get(url + path)
                assert answered.status == status
            assert (await bob.evaluate("call('')"))["sessions"] == []
            await bob.screenshot(path="/tmp/turnwise-support-bob.png")
            listed = await guest.context.request.get(f"{url}/chat/sessions")
            assert listed.status == 401
            await guest.goto(url)
            await expect(guest.locator("[name=user]")).to_be_visible()
            await guest.screenshot(path="/tmp/turnwise-support-guest.png")
            await ada.reload()
            await ada.locator("#questions li").click()
            await expect(ada.locator("#talk li")).to_have_count(2)
            await ada.click("a")
            await expect(ada.locator("[name=user]")).to_be_visible()
            await browser.close()


async def test_files_on_the_page(tmp_path: Path) -> None:
    """Chosen, pasted and dropped; images are shown, also after a reload; one may be removed."""
    from test_files import png

    async def reply(turn: Turn) -> str:
        sizes = [len(await turn.file(one)) for one in turn.message.attachments]
        return f"{turn.text} {sizes}"

    settings = Settings(_env_file=None, grace=1.0)
    runtime = Runtime(Bot(reply), f"sqlite:///{tmp_path / 'f.db'}", settings=settings)
    async with serving(create_app(runtime)) as url, open_page(url) as page:
        red: Any = {"name": "red.png", "mimeType": "image/png", "buffer": png(80)}
        notes: Any = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"buy milk"}
        await page.set_input_files("#files", [red, notes])
        await expect(page.locator("#attached .file:not(.sending)")).to_have_count(2)
        await page.get_by_role("button", name="Remove notes.txt").click()
        await page.screenshot(path="/tmp/turnwise-attached.png")
        await say(page, "look")
        await expect(answers(page)).to_have_text(f"look [{len(png(80))}]")
        picture = page.locator("#messages .user .picture")
        await expect(picture).to_have_js_property("naturalWidth", 80)
        drop = """(bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "drop.txt", {type: "text/plain"}));
          const kind = {bubbles: true, cancelable: true};
          window.dispatchEvent(new DragEvent("drop", {...kind, dataTransfer: data}));
          document.querySelector("#text").dispatchEvent(
            new ClipboardEvent("paste", {...kind, clipboardData: data}));
        }"""
        await page.evaluate(drop, list(b"hello"))
        await expect(page.locator("#attached .file:not(.sending)")).to_have_count(2)
        await page.click("#send")
        await expect(answers(page).last).to_have_text("[5, 5]")
        await page.reload()
        await expect(picture).to_have_js_property("naturalWidth", 80)
        await expect(page.locator("#messages .user .link")).to_have_count(2)
        await page.screenshot(path="/tmp/turnwise-files.png")
        wrong: Any = {"name": "a.png", "mimeType": "image/png", "buffer": b"no image"}
        await page.set_input_files("#files", [wrong])
        await expect(page.locator("#notice")).to_contain_text("not of the type")
