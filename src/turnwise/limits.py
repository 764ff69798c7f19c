"""Checks the numbers that a program passes as limits, where it passes them."""

from __future__ import annotations

import operator
from typing import Any

from turnwise.errors import ConfigurationError


def check_counts(**limits: Any) -> None:
    """Raise ConfigurationError for a limit that is neither a whole number above 0 nor None."""
    for name, value in limits.items():
        try:
            good = value is None or operator.index(value) >= 1
        except TypeError:
            good = False
        if not good or value is True:
            raise ConfigurationError(f"{name} must be a whole number, at least 1, not {value!r}.")


def check_positive(**limits: Any) -> None:
    """Raise ConfigurationError for a limit that is neither a positive number nor None."""
    for name, value in limits.items():
        try:
            good = value is None or value > 0  # a comparison that NaN does not pass
        except TypeError:
            good = False
        if not good or value is True:
            raise ConfigurationError(f"{name} must be a positive number, not {value!r}.")
