"""Telegram: a bot on Telegram, which polls for updates or receives them by webhook.

    telegram = Telegram(token)
    async with runtime, Polling(runtime, telegram): ...            # no public address needed
    app.include_router(telegram_webhook(runtime, telegram, secret))  # Telegram calls us

A chat is the session `telegram:<chat id>`. Needs the extra: pip install 'turnwise[telegram]'.
"""

from __future__ import annotations

from collections.abc import Sequence
from secrets import compare_digest
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from turnwise.channels.problems import ProblemRoute
from turnwise.conversation import Attachment, Message
from turnwise.errors import ConfigurationError, Invalid, MissingExtra, Unauthorized
from turnwise.messengers.courier import ChooseSession, Courier, HasGateway, Update
from turnwise.messengers.polling import PolledPlatform

if TYPE_CHECKING:
    import aiogram
    from aiogram import types

LONGEST_TEXT = 4096
"""Maximum number of characters that Telegram accepts in one message."""
WAIT = 25.0
"""Seconds that Telegram keeps a request for updates open."""
SECRET = "X-Telegram-Bot-Api-Secret-Token"


class Telegram(PolledPlatform):
    """A bot on Telegram. `api` is the URL of a Bot API server other than Telegram's."""

    name = "telegram"

    def __init__(self, token: str, *, api: str | None = None) -> None:
        try:
            import aiogram
            from aiogram.client.session.aiohttp import AiohttpSession
            from aiogram.client.telegram import PRODUCTION, TelegramAPIServer
            from aiogram.utils.token import TokenValidationError
        except ImportError:
            raise MissingExtra("Telegram", "telegram") from None
        server = TelegramAPIServer.from_base(api) if api else PRODUCTION
        try:
            self._bot: aiogram.Bot = aiogram.Bot(token, session=AiohttpSession(api=server))
        except TokenValidationError as error:
            raise ConfigurationError(f"This is not the token of a Telegram bot: {error}") from None
        self._offset = 0

    async def close(self) -> None:
        """Disconnect."""
        await self._bot.session.close()

    async def updates(self) -> Sequence[Update]:
        """The next updates, within 25 seconds; each request confirms the previous updates."""
        found = await self._bot.get_updates(
            offset=self._offset,
            timeout=int(WAIT),
            allowed_updates=["message"],
            request_timeout=int(WAIT) + 10,
        )
        if found:
            self._offset = found[-1].update_id + 1
        return [update for one in found if (update := self.update(one)) is not None]

    def update(self, given: types.Update) -> Update | None:
        """The message in an update; None if it contains no message to the bot."""
        message = given.message
        if message is None:
            return None
        attachments = []
        if message.photo:
            attachments.append(Attachment("image", f"telegram:{message.photo[-1].file_id}"))
        if message.document:
            name = message.document.file_name
            attachments.append(Attachment("file", f"telegram:{message.document.file_id}", name))
        text = message.text or message.caption or ""
        if not text and not attachments:
            return None
        who = message.from_user
        return Update(
            id=str(given.update_id),
            session=f"telegram:{message.chat.id}",
            text=text,
            to=message.chat.id,
            attachments=attachments,
            metadata={"from": who.first_name, "language": who.language_code} if who else {},
        )

    async def send(self, update: Update, message: Message) -> None:
        """Send a message of the reply; a long text in pieces, an image by its URL."""
        text = message.text
        for start in range(0, len(text), LONGEST_TEXT):
            await self._bot.send_message(update.to, text[start : start + LONGEST_TEXT])
        for attachment in message.attachments:
            if attachment.type.startswith("image"):
                await self._bot.send_photo(update.to, attachment.url)
            else:
                await self._bot.send_document(update.to, attachment.url)


def telegram_webhook(
    runtime: HasGateway, telegram: Telegram, secret: str, *, session: ChooseSession | None = None
) -> APIRouter:
    """A route for a FastAPI application that Telegram calls: POST /webhooks/telegram.

    It answers as soon as the update is stored. `secret` is the `secret_token` that was passed to
    `setWebhook`; a call without it is refused. `session(update)` chooses the session.
    """
    if not secret:
        raise ConfigurationError("A Telegram webhook needs a secret.")
    courier = Courier(runtime, telegram, session=session)
    routes = APIRouter(route_class=ProblemRoute, tags=["messengers"], lifespan=courier.lifespan)

    @routes.post("/webhooks/telegram", response_class=Response)
    async def webhook(request: Request) -> Response:
        """Accept an update; the reply is sent when it is ready."""
        given = request.headers.get(SECRET, "").encode("utf-8", "replace")
        if not compare_digest(given, secret.encode()):
            raise Unauthorized()
        update = telegram.update(_parsed(await request.body()))
        if update is not None:
            await courier.take(update)
        return Response()

    return routes


def _parsed(body: bytes) -> types.Update:
    from aiogram import types

    try:
        return types.Update.model_validate_json(body)
    except ValidationError:
        raise Invalid("This is not a Telegram update.") from None
