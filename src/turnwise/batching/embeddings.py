"""Sentence embeddings for a Batcher.

    embed = Batcher(encode(SentenceTransformer(name)), max_size=32)
    vector = await embed("a text")

Texts of very different lengths in one batch are padded to the longest, which costs more than it
saves: `Batcher(encode(model), cost=len, max_cost=16_000)` keeps batches within so many characters,
padding counted. Needs the extra: pip install 'turnwise[embeddings]'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from turnwise.errors import ConfigurationError


class Encoder(Protocol):
    """A SentenceTransformer, or what encodes lists of texts as it does."""

    def encode(self, sentences: list[str], **options: Any) -> Any: ...


def encode(model: Encoder, *, normalize: bool = True) -> Callable[[Sequence[str]], list[Any]]:
    """A batch function over `model.encode`: one text in, its vector out (an array of its own).

    `normalize` makes vectors of length 1, for which the dot product is the cosine.
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
        # A copy each: a vector that is kept must not keep the whole batch.
        return [vector.copy() for vector in found]

    return call
