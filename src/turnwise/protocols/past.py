"""Past: what was said in a session, as clients that keep whole conversations show it.

A message that a client has sent comes back under the client's own id, which its turn's note keeps;
otherwise the client would show it twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from turnwise.conversation import Attachment, Message, TurnRecord
from turnwise.gateway.gateway import Gateway

PAGE = 100
"""Turns that are read at once."""
ID = "id"
"""Where a turn's note has the client's id of its message."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a person has said: its id is the client's, if there is one."""

    id: str
    text: str
    attachments: Sequence[Attachment] = ()
    answers: Sequence[tuple[str, object]] = ()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A turn, and the message or messages that it answers: several if they were merged."""

    record: TurnRecord
    said: Sequence[Said]

    @property
    def n(self) -> int:
        """The turn's number."""
        return self.record.n

    def has(self, message: str) -> bool:
        """Whether a message with this id belongs to this turn."""
        ids = [*(said.id for said in self.said), *(reply.id for reply in self.replies)]
        return message in ids

    @property
    def asked(self) -> Exchange:
        """The same without its answer."""
        bare = replace(self.record, replies_json=(), steps=(), data=())
        return Exchange(bare, self.said)

    @property
    def replies(self) -> Sequence[Message]:
        """The reply's messages; of a running turn there are none yet."""
        reply = self.record.reply
        return reply.messages if reply is not None else ()


async def backwards(
    gateway: Gateway, session_id: str, *, page: int = PAGE
) -> AsyncIterator[Exchange]:
    """The visible turns of a session, the latest first. Raises NotFound."""
    before: int | None = None
    ids: dict[str, str] = {}
    more = True
    while more:
        records, more = await gateway.turns(session_id, before=before, limit=page)
        for record in reversed(records):
            if record.message is not None and record.note.get(ID):
                ids[record.message.id] = record.note[ID]
            if record.status != "merged":
                yield Exchange(record, _said(record, ids))
                ids = {}
        before = records[0].n if records else None


async def exchanges(gateway: Gateway, session_id: str) -> list[Exchange]:
    """All visible turns of a session, in order. Raises NotFound."""
    return [found async for found in backwards(gateway, session_id)][::-1]


async def last(gateway: Gateway, session_id: str) -> Exchange | None:
    """The last visible turn, if there is one. Raises NotFound."""
    async for found in backwards(gateway, session_id, page=1):
        return found
    return None


async def find(gateway: Gateway, session_id: str, message: str) -> tuple[Exchange, Said] | None:
    """The latest visible turn whose message has this id. Raises NotFound."""
    async for exchange in backwards(gateway, session_id):
        for said in exchange.said:
            if said.id == message:
                return exchange, said
    return None


def _said(record: TurnRecord, ids: dict[str, str]) -> list[Said]:
    """What a turn answers; `ids` are the clients' ids of the messages that were merged into it."""
    message = record.message
    if message is None:
        return []
    answers = [tuple(answer) for answer in message.answers]
    if not message.parts:
        own = record.note.get(ID) or message.id
        return [Said(own, message.text, message.attachments, answers)]
    found = [Said(ids.get(part["id"], part["id"]), part["text"]) for part in message.parts]
    if message.attachments or answers:
        last = found[-1]
        found[-1] = Said(last.id, last.text, message.attachments, answers)
    return found
