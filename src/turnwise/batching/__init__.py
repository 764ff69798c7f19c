"""Batching: combines many single calls into few batched calls, for models and databases."""

from turnwise.batching.batcher import Batcher
from turnwise.batching.decorator import BatchedMethod, batched
from turnwise.batching.errors import (
    BatcherClosed,
    BatcherFull,
    BatchFailed,
    BatchTimeout,
    DeadlinePassed,
    ProcessDied,
    TooCostly,
)
from turnwise.batching.stats import Batch

__all__ = [
    "Batch",
    "BatchFailed",
    "BatchTimeout",
    "BatchedMethod",
    "Batcher",
    "BatcherClosed",
    "BatcherFull",
    "DeadlinePassed",
    "ProcessDied",
    "TooCostly",
    "batched",
]
