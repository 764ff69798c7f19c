"""The Responses API: a response is a turn."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Request, Response

from turnwise.channels.bodies import JSON
from turnwise.conversation import TurnRecord
from turnwise.conversation.cursors import MAX_NUMBER
from turnwise.errors import Invalid, MovedOn, NotFound, Rejected, StreamEnded
from turnwise.protocols.asking import answers_to
from turnwise.protocols.door import Caller, Door, number
from turnwise.protocols.openai.fold import ResponseFold
from turnwise.protocols.openai.ids import ask_of, is_ours, session_of, turn_of
from turnwise.protocols.openai.inputs import (
    ConversationRef,
    Given,
    ResponseIn,
    check_said,
    given,
)
from turnwise.protocols.openai.objects import asked, recorded
from turnwise.protocols.openai.repeats import ASKED, Repeats
from turnwise.protocols.past import exchanges
from turnwise.stores.records import Submitted


class Responses:
    """Makes, shows, follows and cancels responses."""

    def __init__(self, door: Door) -> None:
        self._door = door
        door.add("POST", "/responses", self.make)
        door.add("GET", "/responses/{response}", self.show)
        door.add("DELETE", "/responses/{response}", self.delete)
        door.add("POST", "/responses/{response}/cancel", self.cancel)
        door.add("GET", "/responses/{response}/input_items", self.items)

    async def make(self, request: Request) -> Response:
        """Submit the input; answer with the response when it has ended, at once in the background,
        or as a stream."""
        caller = await self._door.caller(request)
        body = await self._door.body(request, ResponseIn)
        if body.conversation is not None and body.previous_response_id is not None:
            raise Rejected("Name the conversation or the previous_response_id, not both.")
        said = given(body.input)
        check_said(said)
        if body.stream:
            self._door.check_stream(request)
        repeats = Repeats(caller, body)
        note = {
            "door": "openai", "id": said.id, "model": body.model, "metadata": body.metadata,
            "instructions": body.instructions, "background": bool(body.background),
            "previous": body.previous_response_id, ASKED: repeats.asked,
        }  # fmt: skip
        note = {name: value for name, value in note.items() if value}
        submitted = await self._submit(caller, body, said, note, repeats)
        record = submitted.turn
        if body.stream:
            return self._door.stream(caller, record, ResponseFold(record))
        if not body.background:
            record = await self._door.gateway.wait(record.session, record.n, None)
            if record.open:
                raise StreamEnded()
        return JSON(orjson.dumps(recorded(record)))

    async def _submit(
        self, caller: Caller, body: ResponseIn, said: Given, note: dict[str, Any], repeats: Repeats
    ) -> Submitted:
        key = caller.request.headers.get("idempotency-key")
        if body.previous_response_id is not None:
            return await self._behind(caller, body.previous_response_id, said, note, key, repeats)
        if body.conversation is None:
            found, own = (None, key) if key is not None else await repeats.alone("")
            if found is not None:
                return found
            made = await caller.create(key=own, messages=said.before, alone=body.store is False)
            session_id = made.id
        else:
            named = body.conversation
            id = named.id if isinstance(named, ConversationRef) else named
            if is_ours(id):
                session_id = (await caller.by_id(session_of(id))).id
            else:
                session_id = await caller.begin(id)
            found = await repeats.in_session(session_id) if key is None else None
            if found is not None:
                return found
        return await self._say(caller, session_id, said, note, key)

    async def _say(
        self, caller: Caller, session_id: str, said: Given, note: dict[str, Any], key: str | None,
        **more: Any,
    ) -> Submitted:  # fmt: skip
        answered = [(ask_of(call)[1], value) for call, value in said.answers]
        return await caller.submit(
            session_id, said.text, key=key, attachments=said.attachments, note=note,
            answers=await answers_to(self._door.gateway, session_id, answered), **more,
        )  # fmt: skip

    async def _behind(
        self,
        caller: Caller,
        previous: str,
        said: Given,
        note: dict[str, Any],
        key: str | None,
        repeats: Repeats,
    ) -> Submitted:
        """The last turn of a session is continued there, any other one in a session of its own;
        which of them it is, the act decides that accepts the message."""
        gateway = self._door.gateway
        session_id, n = turn_of(previous)
        record = await caller.turn(session_id, n)
        found, own = await repeats.in_session(session_id) if key is None else None, key
        if found is None and key is None:
            found, own = await repeats.alone(f"fork {session_id}")
        if found is not None:
            return found
        try:
            return await self._say(caller, session_id, said, note, key, behind=n)
        except MovedOn:
            await gateway.wait(session_id, record.n, None)
        fork = await gateway.fork(session_id, n, key=own)
        return await self._say(caller, fork.id, said, note, own)

    # What there is

    async def _named(self, request: Request) -> tuple[Caller, TurnRecord]:
        caller = await self._door.caller(request)
        session_id, n = turn_of(request.path_params["response"])
        return caller, await caller.turn(session_id, n)

    async def show(self, request: Request) -> Response:
        """The response, or its events behind `starting_after`."""
        caller, record = await self._named(request)
        if request.query_params.get("stream") == "true":
            self._door.check_stream(request)
            skip = number(request.query_params.get("starting_after"), -1, MAX_NUMBER) + 1
            return self._door.stream(caller, record, ResponseFold(record), skip=skip)
        return JSON(orjson.dumps(recorded(record)))

    async def cancel(self, request: Request) -> Response:
        """Stop the turn, or withdraw it."""
        _, record = await self._named(request)
        record = await self._door.gateway.cancel(record.session, record.n)
        return JSON(orjson.dumps(recorded(record)))

    async def delete(self, request: Request) -> Response:
        """Delete a response that is all of its session. Raises Invalid for others."""
        _, record = await self._named(request)
        gateway = self._door.gateway
        if (await gateway.session(record.session)).turns > 1:
            raise Invalid("This response is a part of a conversation: delete the conversation.")
        await gateway.delete(record.session)
        gone = {"id": request.path_params["response"], "object": "response", "deleted": True}
        return JSON(orjson.dumps(gone))

    async def items(self, request: Request) -> Response:
        """What the person has sent."""
        _, record = await self._named(request)
        found = await exchanges(self._door.gateway, record.session)
        mine = [item for one in found if one.n == record.n for item in asked(one)]
        return JSON(orjson.dumps(page(mine, request)))


def page(items: list[dict[str, Any]], request: Request) -> dict[str, Any]:
    """A page of items, the newest first unless `order=asc`, behind the item `after`."""
    asked = request.query_params
    limit = number(asked.get("limit", "20"), 0, 101)
    if not 1 <= limit <= 100:
        raise Invalid("limit is between 1 and 100.")
    if asked.get("order", "desc") != "asc":
        items = items[::-1]
    after = asked.get("after")
    if after is not None:
        place = next((i for i, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise NotFound("The item `after` does not exist.")
        items = items[place + 1 :]
    shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > len(shown),
    }
