"""A blocking model that keeps its context in thread-local memory, and still answers correctly.

Turnwise runs all turns of a session in one thread of one worker. If that worker dies, the next
worker starts with an empty context, which is filled from the history.

    uvicorn sticky_thread:app --workers 4
    curl -X POST 'localhost:8000/chat/ada?text=hello'
"""

import threading
import time

from fastapi import FastAPI

from turnwise import Bot, Runtime, Turn

context = threading.local()


def blocking_model(prompt: str) -> str:
    """Stands for a C library that blocks and keeps what this thread passed to it."""
    context.said.append(prompt)
    time.sleep(0.01)
    return f"{len(context.said)}: " + ", ".join(context.said)


def reply(turn: Turn) -> str:
    if not hasattr(context, "said"):
        context.said = [m.text for m in turn.messages[:-1] if m.role == "user"]
    return blocking_model(turn.text)


runtime = Runtime(Bot(reply, history=1000), "sqlite:///sticky_thread.db")
app = FastAPI(lifespan=runtime.lifespan)


@app.post("/chat/{session}")
async def chat(session: str, text: str) -> str:
    return (await runtime.ask(session, text, timeout=60)).text
