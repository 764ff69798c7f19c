"""The Conversations API: a conversation is a session, its items are what was said in it."""

from __future__ import annotations

import orjson
from fastapi import Request, Response

from turnwise.channels.bodies import JSON
from turnwise.conversation import Session
from turnwise.errors import Invalid, NotFound
from turnwise.protocols.door import Caller, Door
from turnwise.protocols.openai.ids import is_ours, session_of
from turnwise.protocols.openai.inputs import ConversationIn, ItemsIn, message_of
from turnwise.protocols.openai.objects import MODEL, conversation, items_of, said_by_bot
from turnwise.protocols.openai.responses import page
from turnwise.protocols.past import exchanges


class Conversations:
    """Makes, shows, changes and deletes conversations, and lists their items."""

    def __init__(self, door: Door) -> None:
        self._door = door
        path = "/conversations/{conversation}"
        door.add("POST", "/conversations", self.make)
        door.add("GET", path, self.show)
        door.add("POST", path, self.update)
        door.add("DELETE", path, self.delete)
        door.add("GET", path + "/items", self.items)
        door.add("POST", path + "/items", self.add_items)
        door.add("GET", path + "/items/{item}", self.item)
        door.add("DELETE", path + "/items/{item}", self.delete_item)
        door.add("GET", "/models", self.models)
        door.add("GET", "/models/{model:path}", self.model)

    async def make(self, request: Request) -> Response:
        """A new conversation, which may begin with given items."""
        caller = await self._door.caller(request)
        body = await self._door.body(request, ConversationIn)
        messages = [message for item in body.items or () if (message := message_of(item))]
        made = await caller.create(
            key=request.headers.get("idempotency-key"), messages=messages, metadata=body.metadata
        )
        return JSON(orjson.dumps(conversation(made)))

    async def _named(self, request: Request) -> tuple[Caller, Session]:
        caller = await self._door.caller(request)
        id = request.path_params["conversation"]
        if is_ours(id):
            return caller, await caller.by_id(session_of(id))
        return caller, await caller.session(id)

    async def show(self, request: Request) -> Response:
        """The conversation."""
        _, session = await self._named(request)
        return JSON(orjson.dumps(conversation(session)))

    async def update(self, request: Request) -> Response:
        """Change its metadata."""
        _, session = await self._named(request)
        body = await self._door.body(request, ConversationIn)
        changed = await self._door.gateway.update(session.id, {"metadata": body.metadata})
        return JSON(orjson.dumps(conversation(changed)))

    async def delete(self, request: Request) -> Response:
        """Delete the session and all its data."""
        _, session = await self._named(request)
        await self._door.gateway.delete(session.id)
        gone = {"id": conversation(session)["id"], "deleted": True}
        return JSON(orjson.dumps({**gone, "object": "conversation.deleted"}))

    async def items(self, request: Request) -> Response:
        """What was said, the newest first unless `order=asc`."""
        _, session = await self._named(request)
        return JSON(orjson.dumps(page(await self._items(session), request)))

    async def _items(self, session: Session) -> list[dict[str, object]]:
        found = await exchanges(self._door.gateway, session.id)
        return [item for exchange in found for item in items_of(exchange)]

    async def add_items(self, request: Request) -> Response:
        """Put messages into the history without having them answered."""
        caller, session = await self._named(request)
        caller.check_host()
        body = await self._door.body(request, ItemsIn)
        messages = [message for item in body.items if (message := message_of(item))]
        if len(messages) < len(body.items):
            raise Invalid("Only messages with a text can be put into a conversation.")
        key = request.headers.get("idempotency-key")
        await self._door.gateway.say(session.id, messages, key=key)
        added = [item for message in messages for item in said_by_bot(message)]
        first, last = added[0]["id"], added[-1]["id"]
        shown = {"data": added, "first_id": first, "last_id": last, "has_more": False}
        return JSON(orjson.dumps({"object": "list", **shown}))

    async def item(self, request: Request) -> Response:
        """One of the items."""
        _, session = await self._named(request)
        for item in await self._items(session):
            if item["id"] == request.path_params["item"]:
                return JSON(orjson.dumps(item))
        raise NotFound("This item does not exist.")

    async def delete_item(self, request: Request) -> Response:
        """Refuse: a turn is kept or taken back as a whole."""
        await self._named(request)
        raise Invalid("An item cannot be deleted alone: delete the conversation.")

    # Models

    async def models(self, request: Request) -> Response:
        """The bot, as the only model."""
        await self._door.caller(request)
        return JSON(orjson.dumps({"object": "list", "data": [_model(MODEL)]}))

    async def model(self, request: Request) -> Response:
        """The bot, under any name."""
        await self._door.caller(request)
        return JSON(orjson.dumps(_model(request.path_params["model"])))


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "turnwise"}
