"""Pending: what was said and is not in the log yet, and the events that it becomes."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

import orjson

from turnwise.conversation import Message, events
from turnwise.conversation.events import (
    Draft,
    attempt_draft,
    delta_draft,
    message_ended_draft,
    message_started_draft,
)

# Full-width marks end sentences in Chinese and Japanese, where no space follows.
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*\s+|[。！？\n]+\s*")  # noqa: RUF001


def split_sentences(text: str) -> tuple[list[str], str]:
    """The complete sentences at the start of `text`, and the rest that may still grow."""
    sentences, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        sentences.append(text[start : end.end()])
        start = end.end()
    return sentences, text[start:]


class _Start(NamedTuple):
    place: int
    message: Message


class _End(NamedTuple):
    place: int


class _StepText(NamedTuple):
    step: str
    text: str


_Item = str | _Start | _End | _StepText | Draft


class Pending:
    """Texts, the starts and ends of their messages, and finished drafts, in order; adjacent texts
    become one event. With `sentences` a text waits until its sentence is complete."""

    def __init__(self, turn: int, attempt: int, *, sentences: bool) -> None:
        self._turn = turn
        self._attempt = attempt
        self._sentences = sentences
        self._items: list[_Item] = []
        self._place = 0
        """The place of the message that the next text belongs to."""
        self.size = 0
        """How many characters wait."""
        self._told = False
        """Whether a message's start has been taken."""

    def __bool__(self) -> bool:
        return bool(self._items)

    def text(self, piece: str) -> None:
        """More text of the message that was started last."""
        self._items.append(piece)
        self.size += len(piece)

    def start(self, place: int, message: Message) -> None:
        """The reply's message number `place` begins."""
        self._items.append(_Start(place, message))

    def end(self, place: int) -> None:
        """Nothing more is added to it."""
        self._items.append(_End(place))

    def step_text(self, step: str, text: str) -> None:
        """More text of a step."""
        self._items.append(_StepText(step, text))
        self.size += len(text)

    def draft(self, made: Draft) -> None:
        """An event that is complete."""
        self._items.append(made)
        self.size += len(made.tail)

    @property
    def is_the_reply(self) -> bool:
        """Whether this is the only message, with a text, and nothing besides."""
        first, *rest = self._items or [""]
        if self._told or not (isinstance(first, _Start) and rest):
            return False
        *texts, last = rest
        whole = isinstance(last, str) or (bool(texts) and isinstance(last, _End))
        return whole and all(isinstance(item, str) for item in texts)

    def clear(self) -> None:
        """Nothing waits."""
        self._items, self.size = [], 0

    def take(self, *, everything: bool) -> list[Draft]:
        """The drafts of all that waits; without `everything`, an incomplete sentence goes on
        waiting."""
        now, drafts, text = time.time(), [], ""
        items, self._items, self.size = self._items, [], 0
        thought: _StepText | None = None
        for item in items:
            if isinstance(item, str):
                text += item
                continue
            if text:
                drafts += self._deltas(text, now, everything=True)
                text = ""
            if isinstance(item, _StepText) and thought is not None and thought.step == item.step:
                thought = _StepText(item.step, thought.text + item.text)
                continue
            if thought is not None:
                drafts.append(self._thought(thought, now))
            thought = item if isinstance(item, _StepText) else None
            if thought is None:
                drafts.append(self._drafted(item, now))
        if thought is not None:
            drafts.append(self._thought(thought, now))
        return drafts + self._deltas(text, now, everything=everything)

    def _drafted(self, item: _Item, now: float) -> Draft:
        mine = self._turn, now, self._attempt
        match item:
            case _Start(place, message):
                self._place, self._told = place, True
                return message_started_draft(*mine, place, message)
            case _End(place):
                return message_ended_draft(*mine, place)
            case Draft():
                return item
        raise TypeError(item)

    def _thought(self, item: _StepText, now: float) -> Draft:
        more = b',"step":%b,"text":%b' % (orjson.dumps(item.step), events.dumps(item.text))
        return attempt_draft(events.STEP_DELTA, self._turn, now, self._attempt, more)

    def _deltas(self, text: str, now: float, *, everything: bool) -> list[Draft]:
        if not text:
            return []
        pieces = [text]
        if self._sentences:
            pieces, rest = split_sentences(text)
            if everything:
                pieces.append(rest)
            elif rest:
                self._items.insert(0, rest)
                self.size += len(rest)
        place = self._turn, now, self._attempt, self._place
        return [delta_draft(*place, piece) for piece in pieces if piece]
