"""Predictions of scikit-learn, Keras and PyTorch models, for a Batcher.

    classify = Batcher(predict(model), max_size=64)          # one row of features in, its label out
    classify = Batcher(predict(model, "predict_proba"))
    score = Batcher(forward(module, device="cuda"))          # one tensor in, its output out

Both are plain functions, which a Batcher runs in a thread; the libraries release the interpreter
lock while they compute. Rows of one batch must have one shape: pass `key=numpy.shape` to the
Batcher if callers send several shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from turnwise.errors import ConfigurationError, MissingExtra


def predict(model: Any, method: str = "predict") -> Callable[[Sequence[Any]], list[Any]]:
    """A batch function over `model.predict` (or another method) of scikit-learn or Keras.

    An item is one row: features, an image as an array, or for a text pipeline a text. If a model
    has several outputs, each item gets a list of its outputs. Raises ConfigurationError.
    """
    if not callable(getattr(model, method, None)):
        raise ConfigurationError(f"{type(model).__name__} has no method {method}.")

    def call(items: Sequence[Any]) -> list[Any]:
        found = getattr(model, method)(_rows(items))
        if isinstance(found, list | tuple):
            rows = [getattr(one, "shape", ())[:1] for one in found]
            if rows and all(count == (len(items),) for count in rows):  # several outputs
                return [list(row) for row in zip(*found, strict=True)]
        return list(found)

    return call


def _rows(items: Sequence[Any]) -> Any:
    """The items as one array; texts and dicts as the list that pipelines take."""
    if isinstance(items[0], str | dict):
        return list(items)
    try:
        import numpy
    except ImportError:
        raise MissingExtra("Predictions", "sklearn") from None
    return numpy.stack([numpy.asarray(item) for item in items])


def forward(module: Any, *, device: str = "cpu") -> Callable[[Sequence[Any]], list[Any]]:
    """A batch function over a PyTorch module: evaluation mode, no gradients, results on the CPU.

    An item is one tensor, or a value that converts to one. Raises MissingExtra.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtra("PyTorch modules", "torch") from None
    module = module.to(device).eval()

    def call(items: Sequence[Any]) -> list[Any]:
        with torch.inference_mode():
            rows = torch.stack([torch.as_tensor(item) for item in items]).to(device)
            # A copy each: a reference to one row must not keep the whole batch in memory.
            return [row.clone() for row in module(rows).cpu()]

    return call
