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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response

from turnwise.channels.problems import ProblemRoute
from turnwise.conversation import Attachment, Message
from turnwise.errors import (
    ConfigurationError,
    MissingExtra,
    NotFound,
    StoreUnavailable,
    TooLarge,
    Unauthorized,
)
from turnwise.messengers import slack_events
from turnwise.messengers.courier import Courier
from turnwise.messengers.markup import Run, marked, quoted, runs, spelled, split, written
from turnwise.messengers.platform import (
    ChooseSession,
    HasGateway,
    Platform,
    Refused,
    Update,
    mended,
    skipping,
)
from turnwise.messengers.slack_events import ACTION, Bot, Reading
from turnwise.messengers.telegram import data_in

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncApp
    from slack_sdk.signature import SignatureVerifier

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
LINKS = ("http://", "https://", "mailto:", "tel:")
QUOTE = "&gt; "
_AS_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_IN_LINK = str.maketrans({"&": "&amp;", "<": "%3C", ">": "%3E", "|": "%7C"})


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
        self.signing_secret = signing_secret
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

    def read(self, reading: Reading, body: dict[str, Any]) -> Update | None:
        """What `message` or `button` finds; what they cannot read is logged and passed over."""
        with skipping(self.name, f"event {body.get('event_id')}"):
            update = reading(body, Bot(self._bot, self._follow))
            if update is not None:
                update.check()
                return update
        return None

    async def complete(self, body: dict[str, Any]) -> None:
        """Ask for what an event does not say of files: of those of another company's workspace only
        their ids are there. A file that Slack does not tell is passed over."""
        event = body.get("event")
        files: Any = event.get("files") if isinstance(event, dict) else None
        for at, one in enumerate(files if isinstance(files, list) else ()):
            if isinstance(one, dict) and one.get("file_access") == "check_file_info":
                with skipping(self.name, f"file {one.get('id')}"):
                    told = await self._client.files_info(file=str(one["id"]))
                    files[at] = told["file"]

    # Sending

    def pieces(self, message: Message) -> list[Message]:
        """Texts in Slack's own markup, then each attachment; the buttons of a question are with its
        last text."""
        said = spelled(runs(message.text), LINKS)
        limit = LONGEST_TEXT if message.ask is None else LONGEST_BLOCK
        found = [Message(written(piece, _marked, QUOTE)) for piece in split(said, limit, _length)]
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
            text = _link(attachment.url, (attachment.name or attachment.type).translate(_AS_TEXT))
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
    text = marked(text, styles)
    return _link(styles["link"], text) if "link" in styles else text


def _link(address: str, text: str) -> str:
    """A link, whose address must not end it."""
    return f"<{address.translate(_IN_LINK)}|{text}>"


def _length(run: Run) -> int:
    """The most characters that it has, its marks included."""
    text = _marked(run)
    return quoted(text, QUOTE) if ("quote", "") in run.styles else len(text)


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
    from slack_sdk.signature import SignatureVerifier

    courier = Courier(runtime, slack, session=session)
    handler = AsyncSlackRequestHandler(slack.app)
    signed = SignatureVerifier(slack.signing_secret)
    routes = APIRouter(route_class=ProblemRoute, tags=["messengers"], lifespan=courier.lifespan)

    async def keep(reading: Reading, body: Any) -> None:
        try:
            await courier.begin_with_platform()
            body = mended(body)
            await slack.complete(body)
            update = slack.read(reading, body)
            if update is not None:
                await courier.take(update)
        except Exception as error:
            raise _NotKept() from error

    async def take(body: dict[str, Any]) -> None:
        await keep(slack_events.message, body)

    async def press(ack: Any, body: dict[str, Any]) -> None:
        await keep(slack_events.button, body)
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
        body = await request.body()
        if not _is_signed(signed, body, request):
            raise Unauthorized()  # before Bolt, which fails at what is not an event
        slack_events.check_body(body, request.headers.get("Content-Type", ""))
        with skipping(slack.name, "a request"):
            return await handler.handle(request)
        return Response()

    return routes


def _is_signed(signed: SignatureVerifier, body: bytes, request: Request) -> bool:
    """Whether Slack has signed the request; what is not UTF-8 is not Slack's."""
    try:
        return signed.is_valid_request(body, dict(request.headers))
    except UnicodeDecodeError:
        return False
