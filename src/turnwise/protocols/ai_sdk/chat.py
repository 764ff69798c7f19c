"""The routes of useChat: send, resume, stop and load a chat, which is a session."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson
from fastapi import Request, Response

from turnwise.channels.bodies import JSON
from turnwise.channels.problems import as_problem
from turnwise.conversation import Answer, TurnRecord
from turnwise.conversation.cursors import MAX_NUMBER
from turnwise.errors import Invalid, NotFound
from turnwise.protocols.ai_sdk.fold import UIFold, message_id
from turnwise.protocols.ai_sdk.messages import (
    Approval,
    ChatIn,
    UIMessage,
    all_shown,
    results,
    text_of,
)
from turnwise.protocols.asking import asks_of, value_of
from turnwise.protocols.door import Caller, Door, name_of, number
from turnwise.protocols.past import exchanges, find, last
from turnwise.stores.records import Submitted

HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
VERSION = "x-ai-sdk-version"
"""With which an app says what its AI SDK is: nothing else in a request tells that."""
ASKED = "asked"
"""Where a turn's note has what was sent, in short."""
RUN = "x-workflow-run-id"
"""WorkflowChatTransport resumes a run by the id in this header."""


class Chat:
    """Sends, resumes, stops and loads chats."""

    def __init__(self, door: Door) -> None:
        self._door = door
        door.add("POST", "/chat", self.send)
        door.add("GET", "/chat/{chat}/stream", self.resume)
        door.add("POST", "/chat/{chat}/stop", self.stop)
        door.add("GET", "/chat/{chat}/messages", self.messages)
        door.add("GET", "/chats", self.chats)

    async def send(self, request: Request) -> Response:
        """Submit the last message, edit it, or have its answer again; the answer as a stream."""
        caller = await self._door.caller(request)
        body = await self._door.body(request, ChatIn)
        self._door.check_stream(request)
        said = _last_said(body)
        if not any(text_of(said)) and body.messages[-1].role != "assistant":
            raise Invalid("A message needs a text or a file.")
        if body.id is None:
            session_id = (await caller.create()).id
        else:
            session_id = await caller.begin(body.id)
        if body.trigger == "regenerate-message":
            submitted = await self._again(caller, session_id, body)
        elif body.messages[-1].role == "assistant":
            submitted = await self._answer(caller, session_id, body.messages[-1])
        else:
            submitted = await self._submit(caller, session_id, body)
        return self._stream(request, caller, submitted.turn)

    def _stream(
        self, request: Request, caller: Caller, record: TurnRecord, *, attempt: int = 1,
        skip: int = 0,
    ) -> Response:  # fmt: skip
        version = number(request.headers.get(VERSION, "").partition(".")[0], 0, 1000) or None
        fold = UIFold(record, attempt=attempt, version=version)
        headers = {**HEADERS, RUN: f"{record.n}.{record.session}".encode().hex()}
        return self._door.stream(caller, record, fold, skip=skip, headers=headers)

    async def _submit(self, caller: Caller, session_id: str, body: ChatIn) -> Submitted:
        """The last message of a person is a new turn, the same one that was sent before, or an
        edit, which takes the turn of its id back."""
        message = _last_said(body)
        text, files = text_of(message)
        content = [text, [[file.type, file.url] for file in files]]
        asked = sha256(orjson.dumps(content)).hexdigest()[:32]
        replaces = None
        found = None
        if message.id and not await self._is_new(session_id, body, message):
            found = await find(self._door.gateway, session_id, message.id)
        if found is not None:
            exchange, said = found
            record = exchange.record
            if record.note.get(ASKED, asked) == asked and said.text == text:
                if record.status == "cancelled" and not exchange.replies:  # withdrawn: once more
                    return await caller.again(session_id, exchange.n)
                return Submitted(record, False)
            replaces = exchange.n
        digest = sha256(f"{message.id}\0{asked}\0{replaces}".encode()).hexdigest()
        metadata = message.metadata if isinstance(message.metadata, dict) else None
        return await caller.submit(
            session_id, text, attachments=files, metadata=metadata, replaces=replaces,
            key=f"ai-sdk {digest}" if message.id else None,
            note={"door": "ai-sdk", ASKED: asked, **({"id": message.id} if message.id else {})},
        )  # fmt: skip

    async def _is_new(self, session_id: str, body: ChatIn, message: UIMessage) -> bool:
        """Whether the message comes right behind the last turn, as mostly: then it need not be
        looked for."""
        end = await last(self._door.gateway, session_id)
        if end is None:
            return True
        before = [one.id for one in body.messages if one is not message][-1:]
        if not before or end.has(message.id):
            return False
        return before[0] == message_id(end.record) or end.has(before[0])

    async def _again(self, caller: Caller, session_id: str, body: ChatIn) -> Submitted:
        """The answer to the last message of a person again."""
        message = _last_said(body)
        found = await find(self._door.gateway, session_id, message.id)
        if found is None:  # an earlier try did not reach the server
            return await self._submit(caller, session_id, body)
        return await caller.again(session_id, found[0].n)

    async def _answer(self, caller: Caller, session_id: str, message: UIMessage) -> Submitted:
        """The results of tools, and approvals, that a page has put into the bot's message."""
        given = dict(results(message))
        history = await self._door.gateway.history(session_id, limit=1)
        waiting = [id for id in given if id in history.asks]
        asks = await asks_of(self._door.gateway, session_id, waiting)
        answers = []
        for id in waiting:
            value = given[id]
            chosen = isinstance(value, Approval)
            found = value.choice(asks[id]) if chosen else value_of(asks[id], value)
            answers.append(Answer(id, found))
        if not answers:
            last = await self._door.gateway.turns(session_id, limit=1)
            if not last[0] or not given:
                raise Invalid("The last message is the bot's, and answers nothing.")
            return Submitted(last[0][-1], False)  # sent once more, or by another tab
        digest = sha256(orjson.dumps([list(answer) for answer in answers])).hexdigest()
        return await caller.submit(
            session_id, "", answers=answers, key=f"ai-sdk {digest}", note={"door": "ai-sdk"}
        )

    async def resume(self, request: Request) -> Response:
        """The running turn from its start, or of a run what comes behind `startIndex` chunks; 204
        if nothing runs."""
        caller = await self._door.caller(request)
        self._door.check_stream(request)
        name = request.path_params["chat"]
        start = request.query_params.get("startIndex")
        if start is not None:
            return await self._resume_run(request, caller, name, start)
        session_id = await caller.session_id(name)
        try:
            await caller.check(session_id)
            history = await self._door.gateway.history(session_id, limit=1)
        except NotFound:
            return Response(status_code=204)
        if not history.open:
            return Response(status_code=204)
        record = history.open[0]
        return self._stream(request, caller, record, attempt=max(1, record.attempt))

    async def _resume_run(self, request: Request, caller: Caller, run: str, start: str) -> Response:
        try:
            n, _, session_id = bytes.fromhex(run).decode().partition(".")
        except ValueError:
            raise NotFound("This run does not exist.") from None
        record = await caller.turn(session_id, max(0, number(n, 0, MAX_NUMBER)))
        skip = max(0, number(start, 0, MAX_NUMBER))
        return self._stream(request, caller, record, skip=skip)

    async def stop(self, request: Request) -> Response:
        """Stop the running turn and withdraw what waits."""
        caller = await self._door.caller(request)
        session = await caller.session(request.path_params["chat"])
        stopped = await self._door.gateway.stop(session.id)
        return JSON(orjson.dumps({"stopped": [record.n for record in stopped]}))

    async def messages(self, request: Request) -> Response:
        """The chat as UI messages, for a page that loads; a chat that is new has none."""
        caller = await self._door.caller(request)
        session_id = await caller.session_id(request.path_params["chat"])
        try:
            await caller.check(session_id)
            found = await exchanges(self._door.gateway, session_id)
        except NotFound:
            found = []
        return JSON(orjson.dumps(all_shown(found)))

    async def chats(self, request: Request) -> Response:
        """The caller's chats, the last used first."""
        caller = await self._door.caller(request)
        before = request.query_params.get("before")
        page = await caller.sessions(before=before)
        chats: list[dict[str, Any]] = [
            {"id": name_of(session), "title": session.name, "metadata": session.metadata}
            for session in page.sessions
        ]
        return JSON(orjson.dumps({"chats": chats, "next": page.next}))


def _last_said(body: ChatIn) -> UIMessage:
    """The last message of a person. Raises Invalid."""
    for message in reversed(body.messages):
        if message.role == "user":
            return message
    raise Invalid("A message of the user's is needed.")


def as_text(error: Exception) -> Response:
    """An error as useChat shows it: the text of the body, in plain words."""
    problem = as_problem(error)
    words = orjson.loads(problem.body)["detail"]
    headers = {name: problem.headers[name] for name in ("retry-after",) if name in problem.headers}
    return Response(words, problem.status_code, headers=headers, media_type="text/plain")
