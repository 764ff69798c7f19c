"""Streamed text: a turn's events as the pieces of one text."""

from __future__ import annotations

from turnwise.conversation import events
from turnwise.conversation.events import Event
from turnwise.errors import StreamEnded, TurnError, turn_error


class StreamedText:
    """Converts the events of one turn to text. A second attempt restarts the text: as long as it
    repeats the earlier text, nothing is returned twice; if it differs, StreamEnded is raised,
    because text that was already read cannot be withdrawn."""

    def __init__(self) -> None:
        self._said = ""
        self._again: int | None = None
        """How much of the text a new attempt has repeated; None in the first attempt."""
        self._shown = ""
        """The text of deltas whose messages are not committed yet."""
        self._place = 0
        """The place of the message that the last delta belongs to."""

    def hear(self, event: Event) -> str:
        """The text that this event adds. Raises TurnError if the turn failed or was cancelled."""
        body = event.json()
        if event.type == events.STARTED and (self._said or body["attempt"] > 1):
            self._again, self._shown, self._place = 0, "", 0
        elif event.type == events.DELTA:
            begun, self._shown = bool(self._said), self._shown + body["text"]
            place, self._place = self._place, body.get("index", 0)
            return self._add(f"\n{body['text']}" if begun and place < self._place else body["text"])
        elif event.type == events.MESSAGE:
            return self._committed(body["message"]["text"])
        elif event.type == events.FAILED:
            error = body["error"]
            raise turn_error(error["code"], error["message"], error["retryable"])
        elif event.type == events.CANCELLED:
            raise TurnError("The turn was cancelled.", code="cancelled")
        return ""

    def _committed(self, text: str) -> str:
        """A message whose deltas were returned adds nothing."""
        if text and self._shown.startswith(text):
            self._shown = self._shown[len(text) :]
            return ""
        return self._add(f"\n{text}" if self._said and text else text)

    def _add(self, text: str) -> str:
        if self._again is None or self._again == len(self._said):
            self._again = None
            self._said += text
            return text
        rest = self._said[self._again :]
        if not (rest.startswith(text) or text.startswith(rest)):
            raise StreamEnded("The turn was restarted and its text is different now.")
        self._again += min(len(text), len(rest))
        new = text[len(rest) :]
        self._said += new
        return new
