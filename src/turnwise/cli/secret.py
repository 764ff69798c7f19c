"""Commands for the secret that signs session tokens: `turnwise secret ...`."""

from __future__ import annotations

import asyncio
import secrets

import typer

from turnwise.cli.flags import StoreUrl, out
from turnwise.cli.sessions import opened_store
from turnwise.errors import TurnwiseError
from turnwise.tokens import SIGNING, SPREAD, active, encoded_secrets

app = typer.Typer(no_args_is_help=True, help="Rotate the secret that signs session tokens.")


@app.command()
def rotate(store: StoreUrl = None) -> None:
    """Sign with a new secret; tokens that were signed with the one before stay valid."""

    async def go() -> int:
        async with opened_store(store) as opened:
            known = active(await opened.secret(), await opened.published(SIGNING))
            if len(known) > 1:
                raise TurnwiseError("Two secrets are active already: retire the old one first.")
            fresh = [secrets.token_bytes(32), *known]
            await opened.publish(SIGNING, encoded_secrets(fresh))
            return len(fresh)

    asyncio.run(go())
    out.print(f"All processes sign with the new secret within {SPREAD + 5:g} seconds.")
    out.print("Tokens of before are valid until you run: turnwise secret retire")


@app.command()
def retire(store: StoreUrl = None) -> None:
    """Accept only what the newest secret has signed: all older tokens end."""

    async def go() -> None:
        async with opened_store(store) as opened:
            newest, *others = active(await opened.secret(), await opened.published(SIGNING))
            if not others:
                raise TurnwiseError("One secret is active: there is none to retire.")
            await opened.publish(SIGNING, encoded_secrets([newest]))

    asyncio.run(go())
    out.print("Tokens that the old secret has signed are refused within 5 seconds.")
