"""Telegram: a bot on Telegram, which polls for updates or receives them by webhook.

    telegram = Telegram(token)
    async with runtime, Polling(runtime, telegram): ...            # no public address needed
    app.include_router(telegram_webhook(runtime, telegram, secret))  # Telegram calls us

A chat is the session `telegram:<bot id>:<chat id>`, a topic of a group `...:<topic id>`. Needs the
extra: pip install 'turnwise[telegram]'.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from secrets import compare_digest
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Request, Response

from turnwise.channels.problems import ProblemRoute
from turnwise.conversation import Attachment, Message
from turnwise.errors import (
    ConfigurationError,
    Invalid,
    MissingExtra,
    NotFound,
    TooLarge,
    Unauthorized,
)
from turnwise.messengers import telegram_pieces, telegram_updates
from turnwise.messengers.courier import Courier
from turnwise.messengers.platform import (
    ChooseSession,
    HasGateway,
    Moved,
    Refused,
    Update,
    parsed,
    skipping,
)
from turnwise.messengers.polling import PolledPlatform
from turnwise.messengers.telegram_pieces import as_entities, keyboard

if TYPE_CHECKING:
    import aiogram

log = logging.getLogger("turnwise.messenger")

WAIT = 25.0
"""Seconds that Telegram keeps a request for updates open."""
PACE, GROUP_PACE = 1.5, 4.0
"""Seconds between two changes of a text that grows, alone with the bot and in a group."""
ALBUM = 1.0
"""Seconds that the other pictures of an album are waited for."""
KINDS = ["message", "edited_message", "callback_query"]
NO_PICTURE = ("PHOTO_INVALID_DIMENSIONS", "IMAGE_PROCESS_FAILED", "PHOTO_EXT_INVALID")
"""Why Telegram refuses an image as a picture, and takes it as a file."""
SECRET = "X-Telegram-Bot-Api-Secret-Token"


class Telegram(PolledPlatform):
    """A bot on Telegram. `api` is the URL of a Bot API server other than Telegram's, `local` if it
    runs with `--local` on this machine: then files are read from its disk. With `addressed` the bot
    answers in groups only what mentions it, replies to it, or is a command. With `grow` a long
    answer is shown while it grows."""

    name = "telegram"

    def __init__(
        self,
        token: str,
        *,
        api: str | None = None,
        local: bool = False,
        addressed: bool = False,
        grow: bool = True,
    ) -> None:
        try:
            import aiogram
            from aiogram.client.session.aiohttp import AiohttpSession
            from aiogram.client.telegram import PRODUCTION, TelegramAPIServer
            from aiogram.utils.token import TokenValidationError
        except ImportError:
            raise MissingExtra("Telegram", "telegram") from None
        server = TelegramAPIServer.from_base(api, is_local=local) if api else PRODUCTION
        try:
            self._bot: aiogram.Bot = aiogram.Bot(token, session=AiohttpSession(api=server))
        except TokenValidationError as error:
            raise ConfigurationError(f"This is not the token of a Telegram bot: {error}") from None
        self._addressed = addressed
        self._grow = grow
        self._names: tuple[str, int] | None = None
        self._offset = 0

    @property
    def channel(self) -> str:
        return f"telegram:{self._bot.id}"

    async def start(self) -> None:
        """Learn the bot's name, if it must know when it is addressed."""
        if self._addressed:
            me = await self._bot.get_me()
            self._names = f"@{me.username}".casefold(), me.id

    async def close(self) -> None:
        """Disconnect."""
        await self._bot.session.close()

    # Receiving

    async def updates(self) -> Sequence[Update]:
        """The next updates, within 25 seconds; each request confirms the previous updates."""
        found = await self._get(int(WAIT))
        if found and _album(found[-1]) is not None:  # the rest of it may be on its way
            await asyncio.sleep(ALBUM)
            found = await self._get(0)
        updates = self.read(found)
        if found:
            self._offset = int(found[-1]["update_id"]) + 1
        return updates

    async def _get(self, wait: int) -> list[dict[str, Any]]:
        """Updates as they come: aiogram decodes all of them or none."""
        from aiogram.methods import GetUpdates

        class Raw(GetUpdates):
            __returning__ = list[dict[str, Any]]

        method = Raw(offset=self._offset, timeout=wait, allowed_updates=KINDS)
        got: Any = await self._bot(method, request_timeout=wait + 10)
        return list(got)

    def read(self, found: Sequence[dict[str, Any]]) -> list[Update]:
        """The messages to the bot in some updates, an album as one; what cannot be read is logged,
        counted and passed over."""
        from aiogram import types

        updates: list[Update] = []
        albums: dict[str, Update] = {}
        for raw in found:
            update = None
            kinds = [key for key in raw if key != "update_id"]
            with skipping(self.name, f"update {raw.get('update_id')} ({kinds})"):
                given = types.Update.model_validate(raw)
                update = telegram_updates.read(given, self._bot.id, self._names)
            album = _album(raw)
            if update is None:
                continue
            if album is not None and album in albums:
                first = albums[album]
                first.attachments = [*first.attachments, *update.attachments]
                first.text = "\n".join(filter(None, (first.text, update.text)))
                continue
            if album is not None:
                albums[album] = update
            updates.append(update)
        return updates

    # Sending

    def pieces(self, message: Message) -> list[Message]:
        """Texts with their entities, then each attachment."""
        return telegram_pieces.pieces(message)

    async def send(self, update: Update, message: Message) -> str | None:
        """Send a piece. Raises Refused, Moved, and what aiogram raises for what may pass."""
        async with self._told(update):
            return str((await self._send(update, message)).message_id)

    @asynccontextmanager
    async def _told(self, update: Update) -> AsyncIterator[None]:
        """What Telegram will never take is Refused, and a chat that has another address Moved."""
        from aiogram import exceptions

        try:
            yield
        except exceptions.TelegramMigrateToChat as moved:
            chat = moved.migrate_to_chat_id
            to = {**telegram_updates.place(update.to), "chat": chat}
            raise Moved(to, f"{self.channel}:{chat}") from None
        except (
            exceptions.TelegramForbiddenError,
            exceptions.TelegramNotFound,
            exceptions.TelegramEntityTooLarge,
            exceptions.TelegramBadRequest,
        ) as error:
            raise Refused(type(error).__name__) from error

    async def _send(self, update: Update, message: Message) -> Any:
        from aiogram.exceptions import TelegramBadRequest

        to = telegram_updates.place(update.to)
        where: dict[str, Any] = {"chat_id": to["chat"], "message_thread_id": to.get("topic")}
        if not message.attachments:
            return await self._bot.send_message(
                text=message.text,
                entities=as_entities(message),
                reply_markup=keyboard(message, to.get("topic")),
                **where,
            )
        (attachment,) = message.attachments
        file = await self._file(update, attachment)
        match attachment.type.partition("/")[0]:
            case "image":
                try:
                    return await self._bot.send_photo(photo=file, **where)
                except TelegramBadRequest as error:
                    if not any(why in str(error) for why in NO_PICTURE):
                        raise
            case "audio":
                return await self._bot.send_audio(audio=file, **where)
            case "video":
                return await self._bot.send_video(video=file, **where)
        return await self._bot.send_document(document=file, **where)

    async def _file(self, update: Update, attachment: Attachment) -> Any:
        """What Telegram is given: its own id, an address that it fetches, or the bytes."""
        from aiogram.types import BufferedInputFile

        url = attachment.url
        if url.startswith("telegram:"):
            return url.removeprefix("telegram:")
        if url.startswith(("http://", "https://")):
            return url
        if url.startswith("data:"):
            content = data_in(url)
        else:
            content = await self.fetch(update.session, url)
        return BufferedInputFile(content, attachment.name or "file")

    async def edit(self, update: Update, id: str, message: Message) -> bool:
        """Change a text that was sent."""
        if message.attachments:
            return False
        from aiogram.exceptions import TelegramBadRequest

        to = telegram_updates.place(update.to)
        async with self._told(update):
            try:
                await self._bot.edit_message_text(
                    text=message.text,
                    chat_id=to["chat"],
                    message_id=int(id),
                    entities=as_entities(message),
                    reply_markup=keyboard(message, to.get("topic")),
                )
            except TelegramBadRequest as error:
                return "not modified" in str(error)
        return True

    def pace(self, update: Update) -> float | None:
        """Telegram takes one call a second in a chat, and twenty a minute in a group."""
        if not self._grow:
            return None
        return GROUP_PACE if int(telegram_updates.place(update.to)["chat"]) < 0 else PACE

    async def open(self, url: str, most: int) -> bytes | None:
        """The bytes of `telegram:<file id>`."""
        from aiogram import exceptions

        kind, _, id = url.partition(":")
        if kind != self.name:
            return None
        try:
            file = await self._bot.get_file(id)
            if (file.file_size or 0) > most or file.file_path is None:
                raise TooLarge(f"The file has more than {most:,} bytes.")
            content = _Bounded(most)
            await self._bot.download_file(file.file_path, content)
        except exceptions.TelegramBadRequest as error:
            if "too big" in str(error):  # for a Bot API server that is not your own
                raise TooLarge("Telegram gives bots no file above 20 MB.") from None
            raise NotFound("Telegram does not have this file.") from None
        except exceptions.TelegramNotFound:
            raise NotFound("Telegram does not have this file.") from None
        return content.getvalue()

    async def taken(self, update: Update) -> None:
        """A pressed button stops to wait."""
        pressed = update.note.get("telegram_callback")
        if pressed is not None:
            await self._bot.answer_callback_query(pressed)

    async def typing(self, update: Update) -> None:
        """Show that an answer is being made."""
        to = telegram_updates.place(update.to)
        await self._bot.send_chat_action(to["chat"], "typing", message_thread_id=to.get("topic"))


class _Bounded(BytesIO):
    """A buffer of at most `most` bytes; `write` raises TooLarge."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._most:
            raise TooLarge(f"The file has more than {self._most:,} bytes.")
        return super().write(data)


def data_in(url: str) -> bytes:
    """The bytes of a data URL. Raises Refused."""
    head, _, body = url.partition(",")
    try:
        return b64decode(body) if head.endswith(";base64") else unquote_to_bytes(body)
    except ValueError:
        raise Refused("the data URL cannot be read") from None


def _album(raw: dict[str, Any]) -> str | None:
    message = raw.get("message")
    return message.get("media_group_id") if isinstance(message, dict) else None


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
        raw = _parsed(await request.body())
        await courier.begin_with_platform()
        for update in telegram.read([raw]):
            # The next picture of an album comes when this one is acknowledged.
            update.album = update.album or _album(raw)
            await courier.take(update)
        return Response()

    return routes


def _parsed(body: bytes) -> dict[str, Any]:
    """An update, of which only that it is one is known. Raises Invalid."""
    try:
        found = parsed(body)
        if isinstance(found, dict) and isinstance(found["update_id"], int):
            return found
    except (ValueError, KeyError):
        pass
    raise Invalid("This is not a Telegram update.")
