"""Sessions as a channel sees them: created, listed, owned, changed, forked, emptied, deleted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from turnwise import telemetry
from turnwise.conversation import (
    Message,
    Policy,
    Session,
    checked_owner,
    checked_session_id,
    keyed_session_id,
    new_session_id,
)
from turnwise.errors import NotFound, Unauthorized
from turnwise.gateway.checks import (
    checked_feedback,
    checked_history,
    checked_key,
    checked_metadata,
    checked_name,
    checked_ttl,
)
from turnwise.gateway.files import Files
from turnwise.gateway.listing import SessionPage, listing
from turnwise.stores.base import Store
from turnwise.tokens import Grant, Signer


class Sessions:
    """All that concerns whole sessions; they expire `session_ttl` seconds after their last turn."""

    def __init__(self, store: Store, signer: Signer, files: Files, session_ttl: float) -> None:
        self._store = store
        self._signer = signer
        self.files = files
        self.session_ttl = session_ttl

    # Tokens

    def token(self, session: Session) -> str:
        """A token that opens `session` until it expires or a refresh replaces it."""
        return self._signer.issue(session.id, session.generation, time.time())

    def grant(self, token: str) -> Grant:
        """What a token grants; its generation is not checked here. Raises Unauthorized."""
        return self._signer.open(token, time.time())

    async def refresh(
        self, session_id: str, generation: int | None = None, *, owner: str | None = None
    ) -> str:
        """Create a new token; all older tokens become invalid."""
        await self.session(session_id, generation, owner=owner)
        fresh = await self._store.rotate(session_id)
        return self._signer.issue(session_id, fresh, time.time())

    # Sessions

    async def create(
        self,
        *,
        session_id: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        owner: str | None = None,
        private: Mapping[str, Any] | None = None,
        messages: Sequence[Message] = (),
        policy: Policy | None = None,
        key: str | None = None,
        scope: str = "",
        unlisted: bool = False,
    ) -> Session:
        """Create a session; if the host gives no id, it gets a random one.

        With an idempotency `key` the same caller, the owner or else `scope`, gets the same session.
        `messages` are its history at the beginning. Raises NotFound if the id is another owner's.
        """
        if session_id is not None:
            chosen = checked_session_id(session_id)
        elif key is not None:
            scope = scope if owner is None else f"owner {owner}"
            chosen = keyed_session_id(scope, checked_key(key))
        else:
            chosen = new_session_id()
        return await self._store.create(
            chosen,
            name=checked_name(name),
            metadata=checked_metadata(metadata or {}),
            ttl=checked_ttl(ttl or self.session_ttl),
            owner=owner if owner is None else checked_owner(owner),
            private=checked_metadata(private or {}, "What is private"),
            messages=checked_history(messages),
            policy=policy,
            unlisted=unlisted,
        )

    async def session(
        self, session_id: str, generation: int | None = None, *, owner: str | None = None
    ) -> Session:
        """The session. Raises NotFound, also if it is not `owner`'s, or Unauthorized if
        `generation` is not its current one."""
        found = await self._store.session(session_id)
        if found is None or (owner is not None and found.owner != owner):
            raise NotFound("This session does not exist.")
        if generation is not None and generation != found.generation:
            raise Unauthorized()
        return found

    async def sessions(
        self, owner: str | None, *, limit: int = 50, before: str | None = None, q: str = ""
    ) -> SessionPage:
        """An owner's sessions, the last used first; of None all that there are, by their ids.

        `before` is the `next` of another page. `q` is a part of the name. Raises Invalid.
        """
        return await listing(self._store, owner, limit, before, q)

    async def adopt(self, session_id: str, owner: str) -> Session:
        """Give a guest's session to `owner`. Raises NotFound, OwnerSet."""
        return await self._store.own(session_id, checked_owner(owner))

    async def update(self, session_id: str, changes: Mapping[str, Any]) -> Session:
        """Change `name`, `metadata`, `private`, `ttl` or `policy`; omitted fields keep their
        values."""
        checked: dict[str, Any] = {}
        if "name" in changes:
            checked["name"] = checked_name(changes["name"])
        if "metadata" in changes:
            checked["metadata"] = checked_metadata(changes["metadata"] or {})
        if "private" in changes:
            checked["private"] = checked_metadata(changes["private"] or {}, "What is private")
        if "ttl" in changes:
            checked["ttl"] = checked_ttl(changes["ttl"] or self.session_ttl)
        if "policy" in changes:
            checked["policy"] = changes["policy"]
        return await self._store.update(session_id, checked)

    async def fork(
        self,
        session_id: str,
        at: int | None = None,
        *,
        name: str | None = None,
        key: str | None = None,
    ) -> Session:
        """A new session of the same owner that is this one up to turn `at`, or its last one.

        Raises NotFound, Superseded, TooFarBack.
        """
        fresh = new_session_id()
        if key is not None:
            fresh = keyed_session_id(f"fork {session_id}", checked_key(key))
        made = await self._store.fork(session_id, at, fresh, checked_name(name))
        await self.files.copy(session_id, fresh)
        return made

    async def reset(self, session_id: str) -> Session:
        """Delete messages, state, mailbox and log, and stop the running turn."""
        known = await self._store.files(session_id)
        emptied = await self._store.reset(session_id)
        await self.files.remove(session_id, known or ())
        return emptied

    async def delete(self, session_id: str) -> bool:
        """Delete the session and all its data; returns whether it existed."""
        existed = await self._store.delete(session_id)
        await self.files.drop(session_id)
        return existed

    async def judge(
        self, session_id: str, message: str, value: str, comment: str | None = None
    ) -> None:
        """Keep a person's feedback on a message: "up" or "down". Raises NotFound, Invalid."""
        feedback = checked_feedback(value, comment)
        await self._store.judge(session_id, message, feedback)
        telemetry.FEEDBACK.labels(value).inc()
