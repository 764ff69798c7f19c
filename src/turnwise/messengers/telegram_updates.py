"""What people send on Telegram, as updates of the bot's sessions. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from turnwise.conversation import Attachment
from turnwise.messengers.platform import Update

if TYPE_CHECKING:
    from aiogram import types

FILES = {
    "document": "file", "voice": "audio", "audio": "audio", "video": "video",
    "video_note": "video", "animation": "video", "sticker": "image",
}  # fmt: skip
"""The kinds of files beside photos, and the types that they are given where they have none."""
GROUPS = ("group", "supergroup")


def place(to: Any) -> dict[str, Any]:
    """Where a chat is: its id, and the topic in it."""
    return to if isinstance(to, dict) else {"chat": to}


def read(given: types.Update, bot: int, names: tuple[str, int] | None) -> Update | None:
    """The message in an update, or the button that was pressed; None if neither is for the bot.
    `names`: the bot's own, if it answers in groups only where it is addressed."""
    if given.callback_query is not None:
        return _pressed(given.update_id, given.callback_query, bot)
    message = given.message or given.edited_message
    if message is None or (message.from_user is not None and message.from_user.id == bot):
        return None
    if given.edited_message is not None and message.location is not None:
        return None  # somebody who shares where they are has moved
    attachments = _attachments(message)
    text = message.text or message.caption or ""
    if not text and not attachments:
        return None
    if names is not None and message.chat.type in GROUPS and not _is_addressed(message, names):
        return None
    made = Update(
        id=str(given.update_id),
        text=text,
        attachments=attachments,
        metadata={**_who(message.from_user), **_about(message)},
        note={"telegram_message": message.message_id},
        **_where(message, bot),
    )
    if message.media_group_id is not None:
        made.note = {"telegram_album": message.media_group_id}
    if given.edited_message is not None:
        made.edits = made.note
        made.album = message.media_group_id
    return made


def _where(message: Any, bot: int, known: int | None = None) -> dict[str, Any]:
    """The session of a chat or a topic, its earlier name, and its address. `known`: the topic, if
    it is not in the message."""
    chat = message.chat.id
    to, session = {"chat": chat}, f"telegram:{bot}:{chat}"
    topic = known
    if getattr(message, "is_topic_message", None):
        topic = getattr(message, "message_thread_id", None)
    if topic is not None:
        return {"session": f"{session}:{topic}", "to": {**to, "topic": topic}}
    return {"session": session, "to": to, "earlier": f"telegram:{chat}"}


def _pressed(id: int, query: types.CallbackQuery, bot: int) -> Update | None:
    """A button: of a question of ours, or one whose data is what the person says."""
    data, topic = query.data or "", None
    if (found := _OURS.fullmatch(data)) is not None and found.group("topic"):
        topic = int(found.group("topic"))
    if query.message is not None:
        where = _where(query.message, bot, topic)
    else:
        chat = query.from_user.id
        where = {"session": f"telegram:{bot}:{chat}", "to": {"chat": chat}}
        where["earlier"] = f"telegram:{chat}"
    made = Update(
        id=str(id), text=data, metadata=_who(query.from_user),
        note={"telegram_callback": query.id}, **where,
    )  # fmt: skip
    if found is not None:
        made.pressed = found.group("ask"), int(found.group("number"))
        made.text = _label(query, data)
    return made if data else None


_OURS = re.compile(r"(?P<ask>ask_\w+)\|(?P<number>\d{1,4})(?:\|t(?P<topic>\d{1,18}))?")
"""The data of a button of ours: the ask, the number of the choice, and the topic that it is in."""


def _label(query: types.CallbackQuery, data: str) -> str:
    """What a button of ours says: that is what a person says whose question waits no more. Nothing
    if Telegram does not tell it, as of old messages."""
    markup = getattr(query.message, "reply_markup", None)
    rows = markup.inline_keyboard if markup is not None else []
    labels = [button.text for row in rows for button in row if button.callback_data == data]
    return labels[0] if labels else ""


def _who(person: types.User | None) -> dict[str, Any]:
    if person is None:
        return {}
    found = {
        "from": person.first_name, "from_id": person.id, "username": person.username,
        "language": person.language_code,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def _about(message: types.Message) -> dict[str, Any]:
    """What else is known: the message's id, what it replies to, the command that it is."""
    found: dict[str, Any] = {"message_id": message.message_id}
    if message.reply_to_message is not None:
        found["reply_to"] = message.reply_to_message.message_id
    if message.chat.type in GROUPS and message.chat.title:
        found["group"] = message.chat.title
    if message.text and message.text.startswith("/"):
        command, *argument = re.split(r"\s+", message.text[1:], maxsplit=1)
        found["command"] = command.partition("@")[0]
        if argument and argument[0]:
            found["argument"] = argument[0].strip()
    return found


def _attachments(message: types.Message) -> list[Attachment]:
    found = []
    if message.photo:
        found.append(Attachment("image", f"telegram:{message.photo[-1].file_id}"))
    for kind, type in FILES.items():
        if kind == "document" and message.animation is not None:
            continue  # Telegram says it twice
        file = getattr(message, kind)
        if file is not None:
            name, size = getattr(file, "file_name", None), getattr(file, "file_size", None)
            found.append(Attachment(type, f"telegram:{file.file_id}", name, size))
    if message.location is not None:
        at = message.location
        found.append(Attachment("location", f"geo:{at.latitude},{at.longitude}"))
    if message.contact is not None:
        who = message.contact
        name = " ".join(part for part in (who.first_name, who.last_name) if part)
        found.append(Attachment("contact", f"tel:{who.phone_number}", name))
    return found


def _is_addressed(message: types.Message, names: tuple[str, int]) -> bool:
    """Whether a message in a group is for the bot: it names it, replies to it, or is a command for
    it or for any bot."""
    name, id = names
    text = (message.text or message.caption or "").casefold()
    replied = message.reply_to_message
    begun = replied is not None and replied.message_id == message.message_thread_id
    by = replied.from_user if replied is not None else None
    if by is not None and by.id == id and not (begun and message.is_topic_message):
        return True  # but each message in a topic replies to its first one
    if text.startswith("/"):
        command = text.split()[0]
        return "@" not in command or command.endswith(name)
    said = message.text or message.caption or ""
    for entity in message.entities or message.caption_entities or ():
        if entity.type == "mention" and entity.extract_from(said).casefold() == name:
            return True
        if entity.type == "text_mention" and entity.user is not None and entity.user.id == id:
            return True
    return False
