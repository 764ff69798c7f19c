"""The toy dialog: a greeting, a question about music, a farewell; anything else is "Ooops".

uvicorn toy_script:app --workers 4
curl 'localhost:8000/chat?user_id=ada' -H 'Content-Type: application/json' -d '{"text": "Hi"}'
"""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from turnwise import Bot, Runtime
from turnwise.script import Exact, Node, Script, To

script = Script(
    {
        "greeting_flow": {
            "start_node": Node(transitions=[To("node1", when=Exact("Hi"))]),
            "node1": Node(
                response="Hi, how are you?",
                transitions=[To("node2", when=Exact("i'm fine, how are you?"))],
            ),
            "node2": Node(
                response="Good. What do you want to talk about?",
                transitions=[To("node3", when=Exact("Let's talk about music."))],
            ),
            "node3": Node(
                response="Sorry, I can not talk about music now.",
                transitions=[To("node4", when=Exact("Ok, goodbye."))],
            ),
            "node4": Node(response="bye", transitions=[To("node1", when=Exact("Hi"))]),
            "fallback_node": Node(response="Ooops", transitions=[To("node1", when=Exact("Hi"))]),
        }
    },
    start=("greeting_flow", "start_node"),
    fallback=("greeting_flow", "fallback_node"),
)
runtime = Runtime(Bot(script), "sqlite:///toy_script.db")
app = FastAPI(lifespan=runtime.lifespan)


class Said(BaseModel):
    text: str = Field(min_length=1)


@app.post("/chat")
async def chat(user_id: str, message: Said) -> dict[str, Any]:
    """One user's messages are answered one after another, even if they are sent at once."""
    reply = await runtime.ask(user_id, message.text)
    return {"user_id": user_id, "response": {"text": reply.text}}
