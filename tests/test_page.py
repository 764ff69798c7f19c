"""The page's looks and places: brand, languages, themes, in one's own application, as a widget; and
the client that it is built on."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from playwright.async_api import expect
from starlette.requests import HTTPConnection

import turnwise
from conftest import needs, serving
from test_browser import PHONE, answers, open_page, say
from test_files import png
from turnwise import Bot, Message, Runtime, Settings, Turn
from turnwise.errors import ConfigurationError
from turnwise.server.app import create_app
from turnwise.server.chat_page import Brand
from turnwise.server.markdown import to_html

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ARABIC = {
    "new": "محادثة جديدة", "message": "اكتب رسالة", "send": "إرسال", "welcome": "اكتب رسالة",
    "today": "اليوم",
}  # fmt: skip
CODE = "Look:\n\n```python\ndef f(x):\n    return 'text'  # why\n```\n\n- [x] done\n- [ ] open\n"


async def reply(turn: Turn) -> AsyncIterator[str | Message]:
    if turn.text == "code":
        yield CODE
    elif turn.text == "sources":
        turn.metadata["sources"] = [{"url": "https://a.example/x", "title": "A source"}]
        yield "As it is written."
    else:
        yield f"You said: {turn.text}"


async def test_what_can_be_done_with_an_answer(sqlite_url: str, tmp_path: Path) -> None:
    """Copied whole or by its code, judged, saved with the conversation; it has its time, sources
    and colours; tasks have boxes."""
    runtime = Runtime(Bot(reply), sqlite_url)
    given: dict[str, Any] = {"permissions": ["clipboard-read", "clipboard-write"]}
    async with serving(create_app(runtime), lifespan="on") as url, open_page(url, **given) as page:
        await say(page, "code")
        answer = answers(page).last
        await expect(answer.locator(".hl-k").first).to_have_text("def")
        await expect(answer.locator(".hl-c")).to_have_text("# why")
        await expect(answer.locator("li.task")).to_have_text(["☑ done", "☐ open"])
        await answer.locator("pre").hover()
        await answer.get_by_role("button", name="Copy").click()
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied == "def f(x):\n    return 'text'  # why\n"
        item = page.locator(".message.assistant").last
        await expect(item.locator("time")).not_to_be_empty()
        await item.get_by_role("button", name="Copy", exact=True).last.click()
        assert await page.evaluate("navigator.clipboard.readText()") == CODE
        await item.get_by_role("button", name="A good answer").click()
        good = item.get_by_role("button", name="A good answer")
        await expect(good).to_have_attribute("aria-pressed", "true")
        await page.reload()
        await expect(good).to_have_attribute("aria-pressed", "true")
        await say(page, "sources")
        link = page.get_by_role("link", name="A source")
        await expect(link).to_have_attribute("href", "https://a.example/x")
        async with page.expect_download() as download:
            await page.get_by_role("button", name="Save this conversation").click()
        saved = await download.value
        await saved.save_as(tmp_path / "saved.md")
        text = (tmp_path / "saved.md").read_text()
        assert "As it is written." in text
        assert "def f(x):" in text


async def test_an_edit_keeps_the_files(sqlite_url: str, tmp_path: Path) -> None:
    """Another text for a message with a picture: the picture stays with it."""
    (tmp_path / "red.png").write_bytes(png())
    runtime = Runtime(Bot(reply), sqlite_url)
    async with serving(create_app(runtime), lifespan="on") as url, open_page(url) as page:
        await page.set_input_files("#files", tmp_path / "red.png")
        await expect(page.locator(".file:not(.sending)")).to_have_count(1)
        await say(page, "look")
        await expect(answers(page)).to_have_text("You said: look")
        await page.locator(".message.user").hover()
        await page.get_by_role("button", name="Edit").click()
        await say(page, "look again")
        await expect(answers(page)).to_have_text("You said: look again")
        await expect(page.locator(".message.user img.picture")).to_have_count(1)


async def test_the_list_is_searched_and_named(sqlite_url: str) -> None:
    """By its names, once it is long; a conversation has the name that its person gives it."""
    runtime = Runtime(Bot(reply), sqlite_url)
    async with serving(create_app(runtime), lifespan="on") as url, open_page(url) as page:
        for i in range(6):
            await page.click("#new")
            await say(page, f"topic {i}")
            await expect(answers(page)).to_have_text(f"You said: topic {i}")
        await expect(page.locator("#sessions h2")).to_have_text("Today")
        await page.fill("#search", "PIC 3")
        await expect(page.locator("#sessions li")).to_have_text(["topic 3"])
        await page.fill("#search", "nothing like it")
        await expect(page.locator("#sessions")).to_contain_text("No conversation has this")
        await page.fill("#search", "")
        await page.get_by_role("button", name="Rename this conversation").click()
        await expect(page.locator("#name")).to_have_value("topic 5")
        await page.fill("#name", "Holidays")
        await page.keyboard.press("Enter")
        await expect(page.locator("#title")).to_have_text("Holidays")
        await page.reload()
        await expect(page.locator("#sessions [aria-current]")).to_have_text("Holidays")


async def test_languages_and_themes(sqlite_url: str, tmp_path: Path) -> None:
    """The browser's language decides, also one that the host has added, from right to left; the
    theme is the person's choice, and stays."""
    runtime = Runtime(Bot(reply), sqlite_url)
    app = FastAPI(lifespan=runtime.lifespan)
    texts = {"ar": ARABIC}
    app.include_router(turnwise.page(runtime, texts=texts), prefix="/chat")
    async with serving(app, lifespan="on") as url:
        async with open_page(f"{url}/chat/", locale="de-DE") as page:
            await expect(page.locator("#new")).to_contain_text("Neues Gespräch")
            await expect(page.locator("#text")).to_have_attribute(
                "placeholder", "Nachricht schreiben"
            )
            dark = "getComputedStyle(document.body).backgroundColor"
            before = await page.evaluate(dark)
            await page.click("#theme")
            await page.click("#theme")
            assert await page.evaluate(dark) != before
            await page.reload()
            assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
        async with open_page(f"{url}/chat/", locale="ar-EG", viewport=PHONE) as page:
            await expect(page.locator("html")).to_have_attribute("dir", "rtl")
            await expect(page.locator("#welcome h2")).to_have_text("اكتب رسالة")
            await say(page, "مرحبا")
            await expect(answers(page)).to_contain_text("مرحبا")
            await page.click("#open-sidebar")
            await page.wait_for_timeout(400)  # it slides in
            box = await page.locator("#sidebar").bounding_box()
            assert box is not None
            assert box["x"] + box["width"] == pytest.approx(PHONE["width"], abs=2)
            await page.screenshot(path=tmp_path / "rtl.png")


async def test_in_ones_own_application(sqlite_url: str) -> None:
    """Below a prefix, with a brand and a login by cookie: the list follows the owner to another
    device, and nobody else."""

    def who(connection: HTTPConnection, session_id: str | None) -> str | bool:
        return connection.cookies.get("user", False)

    runtime = Runtime(Bot(reply), sqlite_url)
    app = FastAPI(lifespan=runtime.lifespan)
    looks: dict[str, Any] = {
        "title": "Help <desk>", "greeting": "How can we help?", "accent": "#0a7d55, #4fd1a1",
        "ideas": ["Where is my parcel?"], "login": "/login/me",
    }  # fmt: skip
    app.include_router(turnwise.page(runtime, authorize=who, **looks), prefix="/chat")

    @app.get("/login/{user}")
    async def login(user: str) -> Response:
        answer = Response("welcome")
        answer.set_cookie("user", user)
        return answer

    async with serving(app, lifespan="on") as url:
        async with open_page(f"{url}/login/ada") as page:
            await page.goto(f"{url}/chat")
            await expect(page.locator("#welcome h2")).to_have_text("How can we help?")
            assert await page.title() == "Help <desk>"
            accent = "getComputedStyle(document.documentElement).getPropertyValue('--accent')"
            assert "#0a7d55" in await page.evaluate(accent)
            await page.get_by_role("button", name="Where is my parcel?").click()
            await expect(answers(page)).to_have_text("You said: Where is my parcel?")
            await page.reload()
            await expect(answers(page)).to_have_text("You said: Where is my parcel?")
        async with open_page(f"{url}/login/ada") as page:
            await page.goto(f"{url}/chat/")
            await page.get_by_role("button", name="Where is my parcel?").first.click()
            await expect(answers(page)).to_have_text("You said: Where is my parcel?")
        async with open_page(f"{url}/login/bob") as page:
            await page.goto(f"{url}/chat/")
            await expect(page.locator("#welcome")).to_be_visible()
            await expect(page.locator("#sessions li")).to_have_count(0)
            await runtime.ask("by phone", "hello", owner="bob")
            await page.wait_for_timeout(2100)
            await page.evaluate("dispatchEvent(new Event('focus'))")
            await expect(page.locator("#sessions li")).to_have_count(1)
            await say(page, "first")
            await expect(answers(page)).to_have_text("You said: first")
            await page.context.clear_cookies()
            await say(page, "am I still here?")
            await expect(page.locator("#notice")).to_contain_text("no longer logged in")
            await page.get_by_role("button", name="Log in").click()
            await expect(page).to_have_url(f"{url}/login/me")
        async with open_page(f"{url}/chat/") as page:
            await say(page, "a stranger")
            await expect(page.locator("#notice")).to_contain_text("Please log in")
            await expect(page.locator("#text")).to_have_value("a stranger")


@pytest.mark.parametrize(
    "wrong", [{"accent": "red; } body { display: none"}, {"accent": "a,b,c"}, {"logo": "no.png"}]
)
def test_brands_that_are_none(wrong: dict[str, str]) -> None:
    """A colour is a colour, and a logo is there."""
    with pytest.raises(ConfigurationError):
        Brand(**wrong)  # type: ignore[arg-type]


async def test_the_widget_on_another_origin(sqlite_url: str) -> None:
    """A bubble on any page of an allowed origin, nothing before it is pressed; on a page of another
    origin the browser refuses the frame."""

    async def host(scope: Any, receive: Any, send: Any) -> None:
        html = f'<!doctype html><title>Shop</title><h1>Shop</h1><script src="{chat}/widget.js" data-color="#0a7" data-label="Chat with us"></script>'  # noqa: E501
        await Response(html, media_type="text/html")(scope, receive, send)

    chat = ""
    async with (
        serving(host, lifespan="off") as shop,
        serving(host, lifespan="off") as stranger,
    ):
        runtime = Runtime(
            Bot(reply), sqlite_url, settings=Settings(_env_file=None, allowed_origins=shop)
        )
        async with serving(create_app(runtime), lifespan="on") as url:
            chat = url
            async with open_page(shop) as page:
                button = page.get_by_role("button", name="Chat with us")
                await expect(button).to_have_attribute("aria-expanded", "false")
                assert len(page.frames) == 1
                await button.click()
                frame = page.frame_locator("iframe")
                await frame.locator("#text").fill("hello from the shop")
                await frame.locator("#send").click()
                await expect(frame.locator(".assistant .bubble")).to_have_text(
                    "You said: hello from the shop"
                )
                await expect(frame.locator("#sidebar")).to_be_hidden()
                await button.click()
                await expect(page.locator("iframe")).to_be_hidden()
            async with open_page(shop, viewport=PHONE) as page:
                await page.get_by_role("button", name="Chat with us").click()
                box = await page.locator("iframe").bounding_box()
                assert box is not None
                assert box["height"] > PHONE["height"] - 120
                assert box["width"] == PHONE["width"]
            async with httpx.AsyncClient(base_url=url) as client:
                headers = (await client.get("/embedded")).headers
                alone = (await client.get("/")).headers
            assert f"frame-ancestors 'self' {shop}" in headers["content-security-policy"]
            assert stranger not in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in alone["content-security-policy"]


CLIENT = """
import { Client, Outbox } from "%s/turnwise.js";
const client = new Client("%s");
const session = await client.create();
const turn = await session.ask("hello");
const events = [];
await new Promise((resolve) => {
  const line = session.follow(0, {
    onEvent(event) {
      events.push(event.type);
      if (event.type !== "turn.completed") return;
      line.close();
      resolve();
    },
  });
});
const kept = new Map();
const storage = {
  getItem: (name) => kept.get(name) ?? null,
  setItem: (name, text) => kept.set(name, text),
};
const sent = [];
const on = { session: () => session, sent: (one) => sent.push(one.text), failed() {} };
const outbox = new Outbox({ storage, on });
outbox.put(session, { text: "one" });
outbox.put(session, { text: "two" });
await outbox.flush();
const last = (await session.turn(3, 20)).reply.text;
const left = outbox.messages.length;
const result = { text: turn.reply.text, first: events[0], sent, last, left };
"""
FOUND = {
    "text": "You said: hello", "first": "turn.queued", "sent": ["one", "two"],
    "last": "You said: two", "left": 0,
}  # fmt: skip


async def test_the_client_alone(sqlite_url: str, tmp_path: Path) -> None:
    """turnwise.js in node, over server-sent events, and in a browser, over a socket."""
    needs(bool(shutil.which("node")), "node is not installed")
    runtime = Runtime(Bot(reply), sqlite_url)
    async with serving(create_app(runtime), lifespan="on") as url:
        async with httpx.AsyncClient() as client:
            module = (await client.get(f"{url}/turnwise.js")).text
            assert (await client.get(f"{url}/turnwise.d.ts")).status_code == 200
        (tmp_path / "turnwise.mjs").write_text(module)
        program = CLIENT.replace('"%s/turnwise.js"', '"./turnwise.mjs"') % url
        (tmp_path / "program.mjs").write_text(f"{program}console.log(JSON.stringify(result));")
        node = await asyncio.create_subprocess_exec(
            "node", "program.mjs", cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await node.communicate()
        assert json.loads(out) == FOUND
        async with open_page(url) as page:
            program = f"(async () => {{ {CLIENT % (url, url)} return result; }})()"
            program = program.replace(
                f'import {{ Client, Outbox }} from "{url}/turnwise.js";',
                f'const {{ Client, Outbox }} = await import("{url}/turnwise.js");',
            )
            assert await page.evaluate(program) == FOUND


def test_markdown_that_is_coloured_is_safe() -> None:
    """Whatever the code and its language say, only our own classes come out."""
    html = to_html("```html\n<script>alert(1)</script>\n```")
    assert "<script" not in html
    assert 'class="hl-k"' in html
    assert to_html("```nonsense-language\nx < 1\n```").count("&lt;") == 1
    assert "hl-" not in to_html("```python\n" + "x = 1\n" * 5000 + "```")
