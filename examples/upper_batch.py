"""Requests answered in batches of 8, or of those that came within 50 ms: whichever comes first.

uvicorn upper_batch:app
curl 'localhost:8000/upper/?x=cat'
"""

import asyncio

from fastapi import FastAPI

from turnwise import batched

app = FastAPI()
sizes: list[int] = []


@batched(max_size=8, max_wait=0.05, timeout=5.0)
async def upper(texts: list[str]) -> list[str]:
    """A model that takes as long for eight texts as for one."""
    sizes.append(len(texts))
    await asyncio.sleep(0.02)
    return [text.upper() for text in texts]


@app.get("/upper/")
async def answer(x: str) -> dict[str, str]:
    """Alone it goes at once; beside others it waits for more of them, and gets its own answer."""
    return {"result": await upper(x)}


@app.get("/sizes")
async def seen() -> list[int]:
    """How large the batches were."""
    return sizes
