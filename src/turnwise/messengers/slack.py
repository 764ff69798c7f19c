"""Slack: a bot on Slack, called by Slack's Events API.

    slack = Slack(token, signing_secret)
    app.include_router(slack_webhook(runtime, slack))    # POST /webhooks/slack

Direct messages are the session `slack:<app>:<team>:<channel>`; when the bot is mentioned it answers
in a thread, and each thread is a separate session, in which it needs no further mention. Needs the
extra: pip install 'turnwise[slack]'.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from html import unescape
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import orjson
from fastapi import APIRouter, Request, Response

from turnwise.channels.problems import ProblemRoute
from turnwise.conversation import Attachment, Message
from turnwise.errors import (
    ConfigurationError,
    Invalid,
    MissingExtra,
    NotFound,
    StoreUnavailable,
    TooLarge,
)
from turnwise.messengers.courier import Courier
from turnwise.messengers.markup import Run, runs, split
from turnwise.messengers.platform import (
    ChooseSession,
    HasGateway,
    Platform,
    Refused,
    Update,
    skipping,
)
from turnwise.messengers.telegram import data_in

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncApp

log = logging.getLogger("turnwise.messenger")

LONGEST_TEXT = 4000
"""Characters of a message that Slack shows without truncation, its marks included."""
FILES = ("https", "files.slack.com")
"""Where Slack keeps the files that people share."""
PACE = 2.0
"""Seconds between two changes of a text that grows."""
LONGEST_BLOCK = 3000
"""The same of a text with buttons."""
PASSING = {
    "ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable",
    "request_timeout", "team_added_to_org", "accesslimited",
}  # fmt: skip
"""Errors after which the same call may succeed; all others are for good."""
SPOKEN = (None, "file_share", "thread_broadcast", "me_message")
"""Subtypes of events that are something that a person said."""
ACTION = "turnwise:"
_AS_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_MARKS = {"bold": "*", "italic": "_", "strike": "~", "code": "`"}
_REFERENCE = re.compile(r"<([^<>|]+)(?:\|([^<>]*))?>")


class RateLimited(Exception):
    """Slack asks the client to wait `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"in {retry_after} s")
        self.retry_after = retry_after


class _NotKept(Exception):
    """An event could not be stored."""


class Slack(Platform):
    """A bot in a workspace. `token` is the bot's (xoxb-...); `api` another server than Slack's.
    With `follow` the bot answers in a thread, once it has been mentioned there, whoever writes;
    with `grow` a long answer is shown while it grows."""

    name = "slack"

    def __init__(
        self,
        token: str,
        signing_secret: str,
        *,
        api: str | None = None,
        follow: bool = True,
        grow: bool = True,
    ) -> None:
        try:
            from slack_bolt.async_app import AsyncApp
            from slack_bolt.authorization import AuthorizeResult
            from slack_sdk.web.async_client import AsyncWebClient
        except ImportError:
            raise MissingExtra("Slack", "slack") from None
        if not token or not signing_secret:
            raise ConfigurationError("Slack needs the bot's token and the app's signing secret.")
        options: dict[str, Any] = {"base_url": f"{api.rstrip('/')}/"} if api else {}
        self._client = AsyncWebClient(token, **options)
        self._follow = follow
        self._grow = grow
        self._token = token
        self._origins = {FILES, *([urlsplit(api)[:2]] if api else [])}
        self._bot: dict[str, Any] = {}

        async def authorize(enterprise_id: str | None, team_id: str | None) -> AuthorizeResult:
            # Bolt's own asks Slack at the first event, and acknowledges that if Slack is away.
            return AuthorizeResult(
                enterprise_id=enterprise_id, team_id=team_id, bot_token=token,
                bot_id=self._bot.get("bot_id"), bot_user_id=self._bot.get("user_id"),
            )  # fmt: skip

        self.app: AsyncApp = AsyncApp(
            client=self._client,
            authorize=authorize,
            signing_secret=signing_secret,
            process_before_response=True,  # acknowledged when it is stored
        )

    @property
    def channel(self) -> str:
        return f"slack:{self._bot.get('bot_id', '')}"

    async def start(self) -> None:
        """Learn who the bot is. Raises StoreUnavailable while Slack does not say it: then an event
        is not acknowledged, and Slack sends it again."""
        try:
            self._bot = dict((await self._client.auth_test()).data)  # type: ignore[arg-type]
        except Exception as error:
            raise StoreUnavailable("Slack does not say who the bot is.") from error

    # Receiving

    def read(
        self, reading: Callable[[dict[str, Any]], Update | None], body: dict[str, Any]
    ) -> Update | None:
        """What `update` or `pressed` finds; what they cannot read is logged and passed over."""
        with skipping(self.name, f"event {body.get('event_id')}"):
            update = reading(body)
            if update is not None:
                update.check()
                return update
        return None

    def update(self, body: dict[str, Any]) -> Update | None:
        """The message in an event; None if it contains no message to the bot."""
        event = body.get("event") or {}
        channel, stamp = event.get("channel"), event.get("ts")
        spoken = event.get("subtype") in SPOKEN and not event.get("bot_id")
        if not spoken or event.get("edited") or not channel or not stamp:
            return None
        direct, thread = event.get("channel_type") == "im", event.get("thread_ts")
        mentioned = event.get("type") == "app_mention"
        if mentioned and str(channel).startswith("D"):
            return None  # Slack sends it as a direct message, too
        follows = self._follow and thread is not None and not self._mentions(event)
        if not (direct or mentioned or follows):
            return None
        attachments = [
            Attachment(one["mimetype"], one["url_private"], one.get("name"), one.get("size"))
            for one in event.get("files") or ()
            if one.get("mimetype") and one.get("url_private")
        ]
        text = self._heard(event.get("text") or "")
        if not text and not attachments:
            return None
        made = Update(
            id=event.get("client_msg_id") or body.get("event_id") or f"{channel} {stamp}",
            text=text,
            attachments=attachments,
            metadata={"from": event.get("user"), "ts": stamp},
            **self._where(body, channel, None if direct else thread or stamp, thread),
        )
        made.known = not direct and not mentioned
        return made

    def _where(
        self, body: dict[str, Any], channel: str, own: str | None, thread: str | None
    ) -> dict[str, Any]:
        """The session, its earlier name, and the address. `own`: the thread that is a session."""
        given = body.get("team_id") or self._bot.get("team_id")
        team = next((a.get("team_id") for a in body.get("authorizations") or ()), given)
        place = f"{team}:{channel}" + (f":{own}" if own else "")
        app = body.get("api_app_id") or self._bot.get("bot_id")
        to = {"channel": channel, "thread": own or thread}
        return {"session": f"slack:{app}:{place}", "earlier": f"slack:{place}", "to": to}

    def _mentions(self, event: dict[str, Any]) -> bool:
        """Whether the bot is named: then there is an event of that."""
        return f"<@{self._bot.get('user_id')}" in (event.get("text") or "")

    def _heard(self, text: str) -> str:
        """What a person reads on Slack, without the bot's own name."""
        own = self._bot.get("user_id")

        def read(found: re.Match[str]) -> str:
            target, label = found.group(1), found.group(2)
            if target.startswith("@"):
                return "" if target[1:] == own else f"\0@{target[1:]}\1"
            if target.startswith("#"):
                return f"#{label or target[1:]}"
            if target.startswith("!"):
                return f"@{label or target[1:].partition('^')[0]}"
            address = target.removeprefix("mailto:").removeprefix("tel:")
            return address if label in (None, "", address) else f"{label} ({address})"

        heard = unescape(_REFERENCE.sub(read, text)).replace("\0", "<").replace("\1", ">")
        return heard.strip()

    def pressed(self, body: dict[str, Any]) -> Update | None:
        """The button that was pressed."""
        (action, *_) = body.get("actions") or [{}]
        ask, _, number = str(action.get("action_id", "")).removeprefix(ACTION).rpartition("|")
        channel = (body.get("channel") or {}).get("id")
        message = body.get("message") or {}
        if not ask or not number.isdecimal() or not channel:
            return None
        body = {"team_id": (body.get("team") or {}).get("id"), **body}
        thread = message.get("thread_ts")
        own = None if channel.startswith("D") else thread
        made = Update(
            id=f"{action.get('action_ts')} {ask}",
            text=str((action.get("text") or {}).get("text", number)),
            metadata={"from": (body.get("user") or {}).get("id")},
            **self._where(body, channel, own, thread),
        )
        made.pressed = ask, int(number)
        return made

    # Sending

    def pieces(self, message: Message) -> list[Message]:
        """Texts in Slack's own markup, then each attachment; the buttons of a question are with its
        last text."""
        said = runs(message.text)
        limit = LONGEST_TEXT if message.ask is None else LONGEST_BLOCK
        pieces = split(said, limit, lambda run: len(_marked(run)))
        found = [Message("".join(map(_marked, piece))) for piece in pieces]
        if message.ask is not None and message.ask.choices:
            found = found or [Message("?")]
            found[-1].ask = message.ask
        return [*found, *(Message(attachments=[one]) for one in message.attachments)]

    async def send(self, update: Update, message: Message) -> str | None:
        """Send a piece to where the question came from. Raises Refused, RateLimited."""
        channel, thread = update.to["channel"], update.to["thread"]
        text = message.text
        if message.attachments:
            (attachment,) = message.attachments
            if not attachment.url.startswith(("http://", "https://")):
                await self._upload(update, attachment)
                return None
            text = f"<{attachment.url}|{attachment.name or attachment.type}>"
        more = {"blocks": _blocks(message)} if message.ask is not None else {}
        sent = await self._call(
            self._client.chat_postMessage, channel=channel, thread_ts=thread, text=text, **more
        )
        return str(sent.get("ts")) if sent.get("ts") else None

    async def _upload(self, update: Update, attachment: Attachment) -> None:
        url = attachment.url
        content = data_in(url) if url.startswith("data:") else await self.fetch(update.session, url)
        await self._call(
            self._client.files_upload_v2,
            channel=update.to["channel"],
            thread_ts=update.to["thread"],
            content=content,
            filename=attachment.name or "file",
        )

    async def edit(self, update: Update, id: str, message: Message) -> bool:
        """Change a text that was sent."""
        if message.attachments:
            return False
        more = {"blocks": _blocks(message)} if message.ask is not None else {}
        await self._call(
            self._client.chat_update, channel=update.to["channel"], ts=id, text=message.text, **more
        )
        return True

    def pace(self, update: Update) -> float | None:
        """Slack takes fifty changes a minute."""
        return PACE if self._grow else None

    async def open(self, url: str, most: int) -> bytes | None:
        """The bytes behind the private address of a file."""
        import aiohttp

        if urlsplit(url)[:2] not in self._origins:
            return None
        given = {"Authorization": f"Bearer {self._token}"}
        async with (
            aiohttp.ClientSession(headers=given) as client,
            client.get(url, allow_redirects=False) as answer,
        ):
            if answer.status in (429, *range(500, 600)):
                raise RateLimited(float(answer.headers.get("Retry-After", "1")))
            if answer.status != 200:  # without the right it leads to a page for logging in
                raise NotFound("Slack does not give this file; the app needs files:read.")
            content = bytearray()
            async for part in answer.content.iter_any():
                content += part
                if len(content) > most:
                    raise TooLarge(f"The file has more than {most:,} bytes.")
            return bytes(content)

    async def _call(self, method: Any, **arguments: Any) -> Any:
        """A call of Slack's API. Raises Refused for what it will never do."""
        from slack_sdk.errors import SlackApiError

        try:
            return await method(**arguments)
        except SlackApiError as error:
            response: Any = error.response
            if response.status_code == 429:
                raise RateLimited(float(response.headers.get("Retry-After", "1"))) from None
            name = str(response.get("error") or "")
            if response.status_code >= 500 or name in PASSING or not name:
                raise
            raise Refused(name) from None


def _marked(run: Run) -> str:
    """A run in Slack's markup, whose marks end where it ends."""
    text = run.text.translate(_AS_TEXT)
    styles = dict(run.styles)
    if "pre" in styles:
        return f"```\n{text}\n```"
    for name, mark in _MARKS.items():
        if name in styles and text.strip():
            head = text[: len(text) - len(text.lstrip())]
            tail = text[len(text.rstrip()) :]
            text = f"{head}{mark}{text.strip()}{mark}{tail}"
    if styles.get("link", "").startswith(("http://", "https://", "mailto:")):
        text = f"<{styles['link']}|{text}>"
    if "quote" in styles:
        text = "\n".join(f"&gt; {line}" if line else line for line in text.split("\n"))
    return text


def _blocks(message: Message) -> Sequence[dict[str, Any]]:
    """The text and the buttons of a question."""
    assert message.ask is not None
    buttons = [
        {
            "type": "button",
            "action_id": f"{ACTION}{message.ask.id}|{i}",
            "text": {"type": "plain_text", "text": choice[:75]},
        }
        for i, choice in enumerate(message.ask.choices or [])
    ]
    text = {"type": "section", "text": {"type": "mrkdwn", "text": message.text}}
    rows = [buttons[at : at + 25] for at in range(0, len(buttons), 25)]
    return [text, *({"type": "actions", "elements": row} for row in rows)]


def slack_webhook(
    runtime: HasGateway, slack: Slack, *, session: ChooseSession | None = None
) -> APIRouter:
    """A route for a FastAPI application that Slack calls: POST /webhooks/slack.

    It is the Request URL of the app's event subscriptions `message.im` and `app_mention` (and
    `message.channels`, to follow threads), and of its interactivity. Requests that Slack has not
    signed are refused; an event is acknowledged when it is stored, and repeated deliveries are
    recognised by their id. `session(update)` chooses the session.
    """
    from slack_bolt import BoltResponse
    from slack_bolt.adapter.fastapi.async_handler import AsyncSlackRequestHandler

    courier = Courier(runtime, slack, session=session)
    handler = AsyncSlackRequestHandler(slack.app)
    routes = APIRouter(route_class=ProblemRoute, tags=["messengers"], lifespan=courier.lifespan)

    async def keep(reading: Callable[[dict[str, Any]], Update | None], body: Any) -> None:
        try:
            await courier.begin_with_platform()
            update = slack.read(reading, body)
            if update is not None:
                await courier.take(update)
        except Exception as error:
            raise _NotKept() from error

    async def take(body: dict[str, Any]) -> None:
        await keep(slack.update, body)

    async def press(ack: Any, body: dict[str, Any]) -> None:
        await keep(slack.pressed, body)
        await ack()

    async def failed(error: Exception, body: dict[str, Any]) -> BoltResponse:
        """Slack sends again what is not kept; what Bolt itself cannot read is passed over."""
        if isinstance(error, _NotKept):
            log.error("an event could not be kept", exc_info=error.__cause__)
            return BoltResponse(status=500)
        with skipping(slack.name, f"event {body.get('event_id')}"):
            raise error
        return BoltResponse(status=200)

    slack.app.error(failed)
    slack.app.event("message")(take)
    slack.app.event("app_mention")(take)
    slack.app.action(re.compile(f"^{ACTION}"))(press)

    @routes.post("/webhooks/slack", response_class=Response)
    async def webhook(request: Request) -> Response:
        """Accept an event; the reply is sent when it is ready."""
        _check_body(await request.body(), request.headers.get("Content-Type", ""))
        with skipping(slack.name, "a request"):
            return await handler.handle(request)
        return Response()

    return routes


def _check_body(body: bytes, kind: str) -> None:
    """Raises Invalid for a body that is not a JSON object, by itself or in a form: Bolt fails."""
    try:
        if kind.startswith("application/x-www-form-urlencoded"):
            found: Any = {}
            for text in parse_qs(body.decode()).get("payload", ()):
                found = orjson.loads(text)
        else:
            found = orjson.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Invalid("This is not an event of Slack.")
