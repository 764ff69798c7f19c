"""WhatsApp: a business number on WhatsApp's Cloud API, called by its webhook.

    whatsapp = WhatsApp(phone_id, token, app_secret)
    app.include_router(whatsapp_webhook(runtime, whatsapp, "verify-me"))  # /webhooks/whatsapp

A person's chat is the session `whatsapp:<phone id>:<person>`. Needs the extra:
pip install 'turnwise[whatsapp]'.
"""

from __future__ import annotations

import hmac
import logging
from hashlib import sha256
from importlib import import_module
from secrets import compare_digest
from typing import Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from turnwise.channels.problems import ProblemRoute
from turnwise.conversation import Attachment, Message
from turnwise.errors import (
    ConfigurationError,
    Forbidden,
    Invalid,
    MissingExtra,
    NotFound,
    TooLarge,
    Unauthorized,
)
from turnwise.messengers.courier import Courier
from turnwise.messengers.markup import Run, marked, quoted, runs, spelled, split, written
from turnwise.messengers.platform import (
    ChooseSession,
    Failure,
    HasGateway,
    Platform,
    Refused,
    Update,
    parsed,
    skipping,
)
from turnwise.messengers.telegram import data_in

log = logging.getLogger("turnwise.messenger")

LONGEST_TEXT, LONGEST_BODY = 4096, 1024
"""Maximum characters of a message, its marks included, and of one that has buttons."""
BUTTONS, ROWS = 3, 10
"""Choices that are buttons, and those that are rows of a list; others are numbered in the text."""
TITLE, ROW, DESCRIPTION = 20, 24, 72
"""Characters of a button's and of a row's title, and of a row's description."""
PASSING = {1, 2, 4, 80007, 130429, 131000, 131016, 131048, 131056, 133004, 133016}
"""Errors after which the same call may succeed: limits, and what is away. Others are lasting."""
MEDIA = {
    "image": "image", "sticker": "image", "audio": "audio", "voice": "audio", "video": "video",
    "document": "file",
}  # fmt: skip
SIGNATURE = "X-Hub-Signature-256"
QUOTE = "> "


class WhatsApp(Platform):
    """A business number. `phone_id` is the number's id, `token` the system user's, `app_secret` the
    app's, which signs what the webhook gets; `api` another server than Meta's."""

    name = "whatsapp"

    def __init__(
        self, phone_id: str, token: str, app_secret: str, *, api: str | None = None
    ) -> None:
        try:
            import httpx
            from pywa_async.client import WhatsApp as Client
        except ImportError:
            raise MissingExtra("WhatsApp", "whatsapp") from None
        if not phone_id or not token or not app_secret:
            raise ConfigurationError("WhatsApp needs a phone id, a token and the app's secret.")
        self.phone_id = str(phone_id)
        self.secret = app_secret.encode()
        self._session = httpx.AsyncClient(timeout=30)
        self._client = Client(phone_id=self.phone_id, token=token, session=self._session)
        if api is not None:
            self._session.base_url = httpx.URL(api)

    @property
    def channel(self) -> str:
        return f"whatsapp:{self.phone_id}"

    async def close(self) -> None:
        """Disconnect."""
        await self._session.aclose()

    # Receiving

    def updates(self, body: dict[str, Any]) -> list[Update]:
        """The messages to this number in a call; what cannot be read is logged and passed over."""
        found: list[Update] = []
        with skipping(self.name, "a call"):
            for entry in body.get("entry", ()):
                with skipping(self.name, "an entry"):
                    for change in entry.get("changes", ()):
                        found += self._said(change.get("value"))
        return found

    def _said(self, value: Any) -> list[Update]:
        """The messages in one change, if it is about this number."""
        found: list[Update] = []
        with skipping(self.name, "a change"):
            value = value or {}
            if (value.get("metadata") or {}).get("phone_number_id") != self.phone_id:
                return found
            names: dict[Any, Any] = {}
            with skipping(self.name, "a contact"):
                for one in value.get("contacts", ()):
                    name = (one.get("profile") or {}).get("name")
                    names |= {one.get("wa_id"): name, one.get("user_id"): name}
            for message in value.get("messages", ()):
                id = message.get("id") if isinstance(message, dict) else None
                with skipping(self.name, f"message {id}"):
                    update = self._read(message, names)
                    update.check()
                    if update.text or update.attachments:
                        found.append(update)
        return found

    def failures(self, body: dict[str, Any]) -> list[Failure]:
        """What WhatsApp has taken and does not deliver, as it says in a call of its own."""
        found: list[Failure] = []
        with skipping(self.name, "the statuses of a call"):
            values = [c.get("value") for e in body.get("entry", ()) for c in e.get("changes", ())]
            for value in values:
                for status in (value or {}).get("statuses", ()):
                    with skipping(self.name, "a status"):
                        found += self._failed(status, value["metadata"]["phone_number_id"])
        return found

    def _failed(self, status: dict[str, Any], phone_id: str) -> list[Failure]:
        if status["status"] != "failed" or phone_id != self.phone_id:
            return []
        who = str(status.get("recipient_id") or status["recipient_user_id"])
        error, *_ = status.get("errors") or [{}]
        why = f"{error.get('title') or 'failed'} {error.get('code') or ''}".strip()
        return [Failure(f"{self.channel}:{who}", {"to": who}, str(status["id"]), why)]

    def _read(self, message: Any, names: dict[Any, Any]) -> Update:
        # One who hides their number has an id for this business alone.
        kind, number = message["type"], message.get("from")
        who = str(number or message["from_user_id"])
        made = Update(
            id=str(message["id"]),
            session=f"{self.channel}:{who}",
            text="",
            to={"to": who} if number else {"recipient": who},
            metadata={"from": names.get(who), "from_id": who, "message_id": message["id"]},
        )
        if (replied := (message.get("context") or {}).get("id")) is not None:
            made.metadata["reply_to"] = replied
        self._fill(made, kind, message.get(kind))
        return made

    def _fill(self, update: Update, kind: str, content: Any) -> None:
        """What was said, by its kind."""
        if kind == "text":
            update.text = content["body"]
        elif kind in MEDIA:
            update.text = content.get("caption") or ""
            url = f"whatsapp:{content['id']}"
            update.attachments = [Attachment(MEDIA[kind], url, content.get("filename"))]
        elif kind == "location":
            at = f"geo:{content['latitude']},{content['longitude']}"
            update.attachments = [Attachment("location", at, content.get("name"))]
        elif kind == "contacts":
            update.attachments = [
                Attachment("contact", f"tel:{phone.get('phone')}", one["name"]["formatted_name"])
                for one in content
                for phone in one.get("phones", [{}])[:1]
            ]
        elif kind == "button":
            update.text = content.get("text") or content["payload"]
        elif kind == "interactive":
            chosen = content[content["type"]]
            update.text = chosen["title"]
            ask, bar, number = str(chosen["id"]).rpartition("|")
            if bar and number.isdecimal():
                update.pressed = ask, int(number)
        else:  # a reaction, a poll: no message to the bot
            log.info("a message of the kind %s is passed over", kind)

    # Sending

    def pieces(self, message: Message) -> list[Message]:
        """Texts in WhatsApp's own markup, then each attachment; the choices of a question are with
        its last text."""
        said = [*runs(message.text)]
        choices = (message.ask.choices if message.ask is not None else None) or []
        if len(choices) > ROWS:
            said += [Run(f"\n{i}. {choice}") for i, choice in enumerate(choices, 1)]
        limit = LONGEST_BODY if 0 < len(choices) <= ROWS else LONGEST_TEXT
        pieces = split(spelled(said, ()), limit, _length)
        found = [Message(written(piece, _marked, QUOTE)) for piece in pieces]
        if choices:
            found = found or [Message("?")]
            found[-1].ask = message.ask
        return [*found, *(Message(attachments=[one]) for one in message.attachments)]

    async def send(self, update: Update, message: Message) -> str | None:
        """Send a piece. Raises Refused, and what pywa raises for what may pass."""
        from pywa.errors import WhatsAppError

        try:
            sent = await self._send(update, message)
        except WhatsAppError as error:
            if error.code in PASSING:
                raise
            raise Refused(f"{type(error).__name__} {error.code}") from error
        return str(sent.id)

    async def _send(self, update: Update, message: Message) -> Any:
        to = update.to.get("to") or update.to["recipient"]  # the client tells an id from a number
        if not message.attachments:
            return await self._client.send_message(to, message.text, buttons=_buttons(message))
        (attachment,) = message.attachments
        file = await self._file(update, attachment)
        more: dict[str, Any] = (
            {} if isinstance(file, str) else {"mime_type": _media_type(attachment)}
        )
        match attachment.type.partition("/")[0]:
            case "image":
                return await self._client.send_image(to, file, **more)
            case "audio":
                return await self._client.send_audio(to, file, **more)
            case "video":
                return await self._client.send_video(to, file, **more)
        name = attachment.name or "file"
        return await self._client.send_document(to, file, filename=name, **more)

    async def open(self, url: str, most: int) -> bytes | None:
        """The bytes of `whatsapp:<media id>`."""
        from pywa.errors import WhatsAppError

        kind, _, id = url.partition(":")
        if kind != self.name:
            return None
        try:
            media = await self._client.get_media_url(id)
            if media.file_size > most:
                raise TooLarge(f"The file has more than {most:,} bytes.")
            return await self._client.get_media_bytes(url=media.url)
        except WhatsAppError as error:
            if error.code in PASSING:
                raise
            raise NotFound("WhatsApp does not have this file.") from None

    async def _file(self, update: Update, attachment: Attachment) -> str | bytes:
        """WhatsApp's own id, an address that it fetches, or the bytes."""
        url = attachment.url
        if url.startswith("whatsapp:"):
            return url.removeprefix("whatsapp:")
        if url.startswith(("http://", "https://")):
            return url
        return data_in(url) if url.startswith("data:") else await self.fetch(update.session, url)


def _media_type(attachment: Attachment) -> str:
    """A media type, where the bytes are uploaded."""
    if "/" in attachment.type:
        return attachment.type
    head = attachment.url.removeprefix("data:").partition(",")[0].partition(";")[0]
    return head if "/" in head and attachment.url.startswith("data:") else "text/plain"


def _marked(run: Run) -> str:
    """A run in WhatsApp's markup, whose marks end where it ends."""
    text, styles = run.text, dict(run.styles)
    if "pre" in styles:
        return f"```{text}```"
    return marked(text, styles)


def _length(run: Run) -> int:
    """The most characters that it has, its marks included."""
    text = _marked(run)
    return quoted(text, QUOTE) if ("quote", "") in run.styles else len(text)


def _buttons(message: Message) -> Any:
    """The choices of a question, as far as WhatsApp shows them."""
    types: Any = import_module("pywa.types")
    choices = (message.ask.choices if message.ask is not None else None) or []
    if message.ask is None or not 0 < len(choices) <= ROWS:
        return None
    id = message.ask.id
    if len(choices) <= BUTTONS and all(len(one) <= TITLE for one in choices):
        return [types.Button(title=one, callback_data=f"{id}|{i}") for i, one in enumerate(choices)]
    rows = [
        types.SectionRow(
            title=one[:ROW],
            callback_data=f"{id}|{i}",
            description=one[:DESCRIPTION] if len(one) > ROW else None,
        )
        for i, one in enumerate(choices)
    ]
    sections = [types.Section(title="…", rows=rows)]
    return types.SectionList(button_title="…", sections=sections)


def whatsapp_webhook(
    runtime: HasGateway,
    whatsapp: WhatsApp,
    verify_token: str,
    *,
    session: ChooseSession | None = None,
) -> APIRouter:
    """Routes for a FastAPI application that WhatsApp calls: /webhooks/whatsapp.

    GET answers Meta's check of the address, which brings `verify_token`. POST is acknowledged when
    all its messages are stored; one that the app's secret has not signed is refused.
    `session(update)` chooses the session.
    """
    if not verify_token:
        raise ConfigurationError("A WhatsApp webhook needs a verify token.")
    courier = Courier(runtime, whatsapp, session=session)
    routes = APIRouter(route_class=ProblemRoute, tags=["messengers"], lifespan=courier.lifespan)

    @routes.get("/webhooks/whatsapp")
    async def verify(
        token: str = Query("", alias="hub.verify_token"),
        challenge: str = Query("", alias="hub.challenge", max_length=200),
    ) -> PlainTextResponse:
        """Say that this address is ours."""
        if not compare_digest(token.encode("utf-8", "replace"), verify_token.encode()):
            raise Forbidden("This is not the verify token.")
        return PlainTextResponse(challenge)

    @routes.post("/webhooks/whatsapp", response_class=Response)
    async def webhook(request: Request) -> Response:
        """Accept messages; the replies are sent when they are ready."""
        body = await request.body()
        given = request.headers.get(SIGNATURE, "").encode("utf-8", "replace")
        wanted = b"sha256=" + hmac.new(whatsapp.secret, body, sha256).hexdigest().encode()
        if not compare_digest(given, wanted):
            raise Unauthorized()
        call = _parsed(body)
        for update in whatsapp.updates(call):
            await courier.take(update)
        for failure in whatsapp.failures(call):
            await courier.turned_down(failure)
        return Response()

    return routes


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        found = parsed(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Invalid("This is not a WhatsApp webhook's body.")
    return found
