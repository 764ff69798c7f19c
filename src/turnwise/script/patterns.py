"""Patterns: regular expressions whose search takes a bounded time, whatever a stranger writes."""

from __future__ import annotations

import re
from typing import Any

import regex

from turnwise.errors import ConfigurationError

TIME = 0.05
"""Seconds of computing that a search may take; a pattern that backtracks more does not match."""


_BRACE = re.compile(r"(\\[NpP]\{[^}]*\}|\\.)|\{(?!\d+\}|\d*,\d*\})", re.DOTALL)
"""An escape, or a brace that is not a repetition, which `regex` would take for a fuzzy match."""


class Pattern:
    """A regular expression, in the syntax of Python's `re`. Raises ConfigurationError."""

    def __init__(self, text: str, *, ignore_case: bool = False) -> None:
        plain = _BRACE.sub(lambda found: found.group(1) or r"\{", text)
        try:
            self._compiled = regex.compile(plain, regex.IGNORECASE if ignore_case else 0)
        except regex.error as error:
            raise ConfigurationError(f"{text!r} is not a regular expression: {error}") from None
        self.text = text
        self.groups: int = self._compiled.groups

    def search(self, text: str) -> Any:
        """The first match, or None. Raises PatternTooSlow."""
        try:
            return self._compiled.search(text, timeout=TIME)
        except TimeoutError:
            raise PatternTooSlow(f"the pattern {self.text!r} takes too long") from None


class PatternTooSlow(LookupError):
    """A search took too long. Its text names the pattern, which is the developer's own."""
