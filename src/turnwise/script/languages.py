"""Languages: what a script says and hears in several of them.

A language is a tag as in BCP 47: "de", "pt-BR". Case and `_` for `-` do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from turnwise.errors import ConfigurationError
from turnwise.script.conditions import Condition
from turnwise.script.context import Context


def best(wanted: Iterable[str], there_are: Sequence[str]) -> str | None:
    """The tag that suits the first of the `wanted` that any suits: itself, else with fewer parts
    ("pt" for "pt-BR"), else of another region ("pt-BR" for "pt"). None if none does."""
    tags = {_plain(tag): tag for tag in there_are}
    for language in map(_plain, wanted):
        parts = language.split("-")
        for length in range(len(parts), 0, -1):
            if (tag := "-".join(parts[:length])) in tags:
                return tags[tag]
        for plain, tag in tags.items():
            if plain.partition("-")[0] == parts[0]:
                return tag
    return None


def _plain(tag: str) -> str:
    return tag.strip().casefold().replace("_", "-")


class Localized:
    """A response in several languages, by their tags: `Localized({"en": "Hello", "de": "Hallo"})`.

    The conversation's languages choose (`context.languages`); if none suits, the first one is
    taken. Each may be any other response. Raises ConfigurationError if there is none.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        if not options or not all(isinstance(tag, str) and tag.strip() for tag in options):
            raise ConfigurationError("A response in several languages is a mapping of their tags.")
        self.options = dict(options)

    def option(self, wanted: Iterable[str]) -> Any:
        """The response in the language that suits."""
        tags = list(self.options)
        return self.options[best(wanted, tags) or tags[0]]


class Speaks(Condition):
    """The conversation's first language is one of these."""

    def __init__(self, *tags: str) -> None:
        if not tags:
            raise ConfigurationError("Speaks must name languages.")
        self.tags = tags

    def check(self, context: Context) -> bool:
        return best(context.languages[:1], self.tags) is not None


def missing(responses: Mapping[Any, Any]) -> list[str]:
    """Warnings of the nodes whose response lacks a language that another one has."""
    every: dict[str, None] = {}
    for response in responses.values():
        if isinstance(response, Localized):
            every |= dict.fromkeys(map(_plain, response.options))
    return [
        f"{label}: it says nothing in {tag!r}."
        for label, response in responses.items()
        if isinstance(response, Localized)
        for tag in every
        if tag not in set(map(_plain, response.options))
    ]
