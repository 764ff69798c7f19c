"""Sentence embeddings for a Batcher.

    embed = Batcher(encode(SentenceTransformer(name)), max_size=32)
    vector = await embed("a text")

Texts of very different lengths in one batch are padded to the longest, which costs more than it
saves: `Batcher(encode(model), cost=len, max_cost=16_000)` limits a batch to 16,000 characters,
padding included. Needs the extra: pip install 'turnwise[embeddings]'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from turnwise.errors import ConfigurationError


class Encoder(Protocol):
    """A SentenceTransformer, or an object that encodes lists of texts in the same way."""

    def encode(self, sentences: list[str], **options: Any) -> Any: ...


def encode(model: Encoder, *, normalize: bool = True) -> Callable[[Sequence[str]], list[Any]]:
    """A batch function over `model.encode`: one text in, its vector out (a separate array).

    `normalize` scales vectors to length 1, for which the dot product is the cosine.
    """
    if not hasattr(model, "encode"):
        raise ConfigurationError(f"{type(model).__name__} has no method encode.")

    def call(texts: Sequence[str]) -> list[Any]:
        found = model.encode(
            list(texts),
            batch_size=len(texts),
            normalize_embeddings=normalize,
            show_progress_bar=False,
        )
        # A copy each: a reference to one vector must not keep the whole batch in memory.
        return [vector.copy() for vector in found]

    return call
