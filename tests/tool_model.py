"""A server that speaks OpenAI's protocol and decides by rules, for agents of any library.

By the last message: a tool's result is repeated word by word; "weather in X" calls get_weather,
"mail X" calls send_mail, "how many" counts the results of tools in the prompt; anything else is
echoed. It streams if it is asked to. `delay` seconds lie between two words; `seen` are the prompts.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from conftest import serving

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


class ToolModel:
    def __init__(self) -> None:
        self.delay = 0.0
        self.seen: list[list[dict[str, Any]]] = []
        self._calls = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its address, as OPENAI_BASE_URL names it."""
        app = FastAPI()
        app.post("/v1/chat/completions")(self.complete)
        async with serving(app) as url:
            yield f"{url}/v1"

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        messages = body["messages"]
        self.seen.append(messages)
        text, call = self._decide(messages)
        if not body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if call is not None:
                message["tool_calls"] = [call]
            return JSONResponse(self._body("chat.completion", message=message, finish=_end(call)))
        return StreamingResponse(self._stream(text, call), media_type="text/event-stream")

    def _body(self, kind: str, finish: str | None, **choice: Any) -> dict[str, Any]:
        return {
            "id": "c1", "object": kind, "created": 1, "model": "m",
            "choices": [{"index": 0, "finish_reason": finish, **choice}],
            "usage": None if finish is None else USAGE,
        }  # fmt: skip

    async def _stream(self, text: str | None, call: dict[str, Any] | None) -> AsyncIterator[str]:
        for delta in _deltas(text, call):
            yield _line(self._body("chat.completion.chunk", None, delta=delta))
            await asyncio.sleep(self.delay)
        yield _line(self._body("chat.completion.chunk", _end(call), delta={}))
        yield "data: [DONE]\n\n"

    def _decide(self, messages: list[dict[str, Any]]) -> tuple[str | None, dict[str, Any] | None]:
        last = messages[-1]
        text = _text(last)
        if last["role"] == "tool":
            return f"The tool says: {text} and that is all there is to say about it.", None
        if found := re.search(r"weather in (\w+)", text):
            return None, self._call("get_weather", city=found[1])
        if found := re.search(r"mail (\w+)", text):
            return None, self._call("send_mail", to=found[1], text="hi")
        if "how many" in text:
            return f"I see {sum(m['role'] == 'tool' for m in messages)} results.", None
        return f"You said {text}.", None

    def _call(self, name: str, **arguments: str) -> dict[str, Any]:
        self._calls += 1
        function = {"name": name, "arguments": json.dumps(arguments)}
        return {"id": f"call_{self._calls}", "type": "function", "function": function}


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        content = " ".join(part.get("text", "") for part in content)
    return str(content)


def _end(call: Any) -> str:
    return "stop" if call is None else "tool_calls"


def _deltas(text: str | None, call: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    for word in re.findall(r"\S+\s*", text or ""):
        yield {"content": word}
    if call is not None:
        yield {"tool_calls": [{"index": 0, **call}]}


def _line(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
