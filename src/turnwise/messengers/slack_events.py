"""What people do on Slack, as updates of the bot's sessions. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import unescape
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from turnwise.conversation import Attachment
from turnwise.errors import Invalid
from turnwise.messengers.platform import Update, parsed

SPOKEN = (None, "file_share", "thread_broadcast", "me_message")
"""Subtypes of events that are something that a person said."""
ACTION = "turnwise:"
"""With which the names of our buttons begin."""
_REFERENCE = re.compile(r"<([^<>|]+)(?:\|([^<>]*))?>")


class Bot(NamedTuple):
    """Who reads: what Slack says of the bot, and whether it goes on in threads unasked."""

    known: Mapping[str, Any]
    follows: bool


Reading = Callable[[dict[str, Any], Bot], "Update | None"]


def message(body: dict[str, Any], bot: Bot) -> Update | None:
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
    follows = bot.follows and thread is not None and not _mentions(event, bot)
    if not (direct or mentioned or follows):
        return None
    attachments = [
        Attachment(one["mimetype"], one["url_private"], one.get("name"), one.get("size"))
        for one in event.get("files") or ()
        if one.get("mimetype") and one.get("url_private")
    ]
    text = _heard(event.get("text") or "", bot)
    if not text and not attachments:
        return None
    made = Update(
        id=event.get("client_msg_id") or body.get("event_id") or f"{channel} {stamp}",
        text=text,
        attachments=attachments,
        metadata={"from": event.get("user"), "ts": stamp},
        **_where(bot, body, channel, None if direct else thread or stamp, thread),
    )
    made.known = not direct and not mentioned
    return made


def _where(
    bot: Bot, body: dict[str, Any], channel: str, own: str | None, thread: str | None
) -> dict[str, Any]:
    """The session, its earlier name, and the address. `own`: the thread that is a session."""
    given = body.get("team_id") or bot.known.get("team_id")
    team = next((a.get("team_id") for a in body.get("authorizations") or ()), given)
    place = f"{team}:{channel}" + (f":{own}" if own else "")
    app = body.get("api_app_id") or bot.known.get("bot_id")
    to = {"channel": channel, "thread": own or thread}
    return {"session": f"slack:{app}:{place}", "earlier": f"slack:{place}", "to": to}


def _mentions(event: dict[str, Any], bot: Bot) -> bool:
    """Whether the bot is named: then there is an event of that."""
    return f"<@{bot.known.get('user_id')}" in (event.get("text") or "")


def _heard(text: str, bot: Bot) -> str:
    """What a person reads on Slack, without the bot's own name."""
    own = bot.known.get("user_id")

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

    text = text.replace("\0", "").replace("\1", "")  # they stand for the brackets of a name
    heard = unescape(_REFERENCE.sub(read, text)).replace("\0", "<").replace("\1", ">")
    return heard.strip()


def button(body: dict[str, Any], bot: Bot) -> Update | None:
    """The button that was pressed."""
    (action, *_) = body.get("actions") or [{}]
    ask, _, number = str(action.get("action_id", "")).removeprefix(ACTION).rpartition("|")
    channel = (body.get("channel") or {}).get("id")
    beneath = body.get("message") or {}
    if not ask or not number.isdecimal() or not channel:
        return None
    body = {"team_id": (body.get("team") or {}).get("id"), **body}
    thread = beneath.get("thread_ts")
    own = None if channel.startswith("D") else thread
    made = Update(
        id=f"{action.get('action_ts')} {ask}",
        text=str((action.get("text") or {}).get("text", number)),
        metadata={"from": (body.get("user") or {}).get("id")},
        **_where(bot, body, channel, own, thread),
    )
    made.pressed = ask, int(number)
    return made


def check_body(body: bytes, kind: str) -> None:
    """Raises Invalid for a body that is not a JSON object, by itself or in a form: Bolt fails."""
    try:
        if kind.startswith("application/x-www-form-urlencoded"):
            found: Any = {}
            for text in parse_qs(body.decode()).get("payload", ()):
                found = parsed(text.encode("utf-8", "surrogatepass"))
        else:
            found = parsed(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Invalid("This is not an event of Slack.")
