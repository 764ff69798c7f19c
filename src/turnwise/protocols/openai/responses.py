"""The Responses API: a response is a turn."""

from __future__ import annotations

import time
from typing import Any

import orjson
from fastapi import Request, Response

from turnwise.channels.bodies import JSON
from turnwise.conversation import Answer, TurnRecord
from turnwise.errors import Invalid, MovedOn, NotFound, StreamEnded
from turnwise.protocols.asking import answers_to
from turnwise.protocols.door import Caller, Door
from turnwise.protocols.openai.fold import ResponseFold
from turnwise.protocols.openai.ids import ask_of, session_of, turn_of
from turnwise.protocols.openai.inputs import ConversationRef, Given, ResponseIn, given
from turnwise.protocols.openai.objects import asked, recorded
from turnwise.protocols.past import exchanges
from turnwise.stores.records import Submitted

REPEATED = 10.0
"""Seconds after a turn's end within which a repeated request means this turn."""
RETRY = "x-stainless-retry-count"
"""OpenAI's clients count in this header how often they have sent a request; they send no key."""


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
            raise Invalid("Name the conversation or the previous_response_id, not both.")
        said = given(body.input)
        note = {
            "door": "openai", "id": said.id, "model": body.model, "metadata": body.metadata,
            "instructions": body.instructions, "background": bool(body.background),
            "previous": body.previous_response_id,
        }  # fmt: skip
        note = {name: value for name, value in note.items() if value}
        submitted = await self._submit(caller, body, said, note)
        record = submitted.turn
        if body.stream:
            return self._door.stream(caller, record, ResponseFold(record))
        if not body.background:
            record = await self._door.gateway.wait(record.session, record.n, None)
            if record.open:
                raise StreamEnded()
        return JSON(orjson.dumps(recorded(record)))

    async def _submit(
        self, caller: Caller, body: ResponseIn, said: Given, note: dict[str, Any]
    ) -> Submitted:
        key = caller.request.headers.get("idempotency-key")
        if body.previous_response_id is not None:
            return await self._behind(caller, body.previous_response_id, said, note, key)
        repeated = int(caller.request.headers.get(RETRY, "0").strip() or "0") > 0
        if body.conversation is None:
            if key is None and repeated:
                found = await _repeated_alone(caller, said)
                if found is not None:
                    return found
            fresh = await caller.create(key=key, messages=said.before, alone=body.store is False)
            session_id = fresh.id
        else:
            named = body.conversation
            id = named.id if isinstance(named, ConversationRef) else named
            session_id = await caller.session_id(session_of(id))
            if id != session_of(id):
                await caller.check(session_id)
        if key is None and repeated:
            last = await _last(caller, session_id)
            if last is not None and _is_same(last, said):
                return Submitted(last, False)
        return await caller.submit(
            session_id, said.text, key=key, attachments=said.attachments, note=note,
            answers=await self._answers(session_id, said),
        )  # fmt: skip

    async def _answers(self, session_id: str, said: Given) -> list[Answer]:
        given = [(ask_of(call)[1], value) for call, value in said.answers]
        return await answers_to(self._door.gateway, session_id, given)

    async def _behind(
        self, caller: Caller, previous: str, said: Given, note: dict[str, Any], key: str | None
    ) -> Submitted:
        """The last turn of a session is continued there, any other one in a session of its own;
        which of them it is, the act decides that accepts the message."""
        gateway = self._door.gateway
        session_id, n = turn_of(previous)
        record = await self._turn(caller, session_id, n)
        if caller.request.headers.get(RETRY, "0") != "0" and key is None:
            last = await _last(caller, session_id)
            if last is not None and last.n > n and _is_same(last, said):
                return Submitted(last, False)
        answers = await self._answers(session_id, said)
        try:
            return await caller.submit(
                session_id, said.text, key=key, attachments=said.attachments, note=note,
                answers=answers, behind=n,
            )  # fmt: skip
        except MovedOn:
            await gateway.wait(session_id, record.n, None)
        fork = await gateway.fork(session_id, n, key=key)
        return await caller.submit(
            fork.id, said.text, key=key, attachments=said.attachments, note=note, answers=answers
        )

    # What there is

    async def _turn(self, caller: Caller, session_id: str, n: int) -> TurnRecord:
        await caller.check(await caller.session_id(session_id))
        return await self._door.gateway.turn(session_id, n)

    async def _named(self, request: Request) -> tuple[Caller, TurnRecord]:
        caller = await self._door.caller(request)
        session_id, n = turn_of(request.path_params["response"])
        return caller, await self._turn(caller, session_id, n)

    async def show(self, request: Request) -> Response:
        """The response, or its events behind `starting_after`."""
        caller, record = await self._named(request)
        if request.query_params.get("stream") == "true":
            after = request.query_params.get("starting_after", "-1")
            if not after.removeprefix("-").isdigit():
                raise Invalid("starting_after is the sequence_number of an event.")
            skip = max(0, int(after) + 1)
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
    limit = asked.get("limit", "20")
    if not limit.isdigit() or not 1 <= int(limit) <= 100:
        raise Invalid("limit is between 1 and 100.")
    if asked.get("order", "desc") != "asc":
        items = items[::-1]
    after = asked.get("after")
    if after is not None:
        place = next((i for i, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise NotFound("The item `after` does not exist.")
        items = items[place + 1 :]
    shown = items[: int(limit)]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > len(shown),
    }


async def _last(caller: Caller, session_id: str) -> TurnRecord | None:
    """The session's last turn, if there is one that the caller may see."""
    try:
        await caller.check(session_id)
        records, _ = await caller.gateway.turns(session_id, limit=1)
    except NotFound:
        return None
    return records[-1] if records else None


def _is_same(last: TurnRecord, said: Given) -> bool:
    """Whether a repeated request means this turn: it says the same, and has just been answered or
    is still to be."""
    recent = last.open or time.time() - (last.finished_at or 0.0) < REPEATED
    return recent and last.message is not None and last.message.text == said.text


async def _repeated_alone(caller: Caller, said: Given) -> Submitted | None:
    """The turn that a repeated request has made in a session of its own."""
    owner = caller.principal.owner
    if owner is None:
        return None
    for session in (await caller.gateway.sessions(owner, limit=10)).sessions:
        if session.turns == 1:
            last = await _last(caller, session.id)
            if last is not None and "previous" not in last.note and _is_same(last, said):
                return Submitted(last, False)
    return None
