"""Requests are answered in batches of 8, or after 50 ms with those that have arrived by then.

uvicorn upper_batch:app
curl 'localhost:8000/upper/?x=cat'
"""

import asyncio

from fastapi import FastAPI

from turnwise import batched

app = FastAPI()
sizes: list[int] = []


@batched(max_size=8, min_size=8, max_wait=0.05, timeout=5.0)
async def upper(texts: list[str]) -> list[str]:
    """A model that takes as long for eight texts as for one."""
    sizes.append(len(texts))
    await asyncio.sleep(0.02)
    return [text.upper() for text in texts]


@app.get("/upper/")
async def answer(x: str) -> dict[str, str]:
    """A request waits for seven others or for 50 ms, and gets its own answer."""
    return {"result": await upper(x)}


@app.get("/sizes")
async def seen() -> list[int]:
    """How large the batches were."""
    return sizes
