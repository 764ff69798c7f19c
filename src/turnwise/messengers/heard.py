"""What a turn says, message by message: while it runs, from its events, and in the end. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from turnwise.conversation import Message, TurnRecord, events
from turnwise.conversation.events import Event
from turnwise.conversation.stamps import seconds

ERROR = 1_000_000
"""The place of the words about a failure, behind all messages."""


@dataclass(slots=True)
class Said:
    """A message of a reply: its place, what is known of it, whether it asks (what it asks is known
    when the turn is committed), and whether it is complete."""

    place: int
    message: Message
    asks: bool = False
    complete: bool = False


class Heard:
    """What an attempt has said so far; a new attempt voids it."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self._said: dict[int, Said] = {}

    def hear(self, event: Event) -> None:
        """Take in an event of the turn."""
        match event.type:
            case events.STARTED:
                self.attempt, self._said = event.json()["attempt"], {}
            case events.MESSAGE_STARTED:
                body = event.json()
                head, place = body["message"], body["index"]
                message = Message.begun(head, seconds(body["at"]))
                self._said[place] = Said(place, message, head.get("asks", False))
            case events.DELTA:
                body = event.json()
                place = body.get("index", 0)  # events of earlier versions have neither
                said = self._said.setdefault(place, Said(place, Message()))
                said.message.text += body["text"]
            case events.MESSAGE_ENDED:
                place = event.json()["index"]
                if place in self._said:
                    self._said[place].complete = True

    def after(self, place: int) -> Said | None:
        """The message at this place, if it has begun."""
        return self._said.get(place)


def messages_of(record: TurnRecord) -> list[tuple[int, Message]]:
    """What to send of a turn that has ended, by its places: its replies, or the error."""
    if record.merged_into is not None:  # that turn's own message brings them
        return []
    if record.status == "failed":
        words = record.error.message if record.error else "Something went wrong."
        return [(ERROR, Message(words))]
    replies = record.reply.messages if record.reply else []
    return [(i, reply) for i, reply in enumerate(replies) if reply.text or reply.attachments]
