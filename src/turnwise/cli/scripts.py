"""The command line of scripts: check, draw, test, schema."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape

from turnwise.bot import Bot
from turnwise.cli.flags import out
from turnwise.cli.loading import load
from turnwise.cli.sessions import every_id, opened_store
from turnwise.conversation import Asked, Reply
from turnwise.errors import ConfigurationError, NotFound, TurnwiseError
from turnwise.script import Script, diagram, dialog_tests
from turnwise.script.context import Label
from turnwise.script.schema import schema
from turnwise.script.slots import fitting
from turnwise.settings import Settings
from turnwise.stores.open import open_store

app = typer.Typer(no_args_is_help=True, help="Check, draw and test dialogs.")
Target = Annotated[str, typer.Argument(help="A YAML file, or module:script.")]


class Named(dict[str, Callable[..., Any]]):
    """The functions that a file names and its program registers; any name is accepted."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Callable[..., Any]:
        def registered(*_: object) -> None:
            raise TurnwiseError(f"The function {name!r} is registered by the script's program.")

        self[name] = registered
        return registered


def _script(target: str, named: Named | None = None) -> Script:
    """The script. With `named`, the functions that its file names need not exist."""
    if named is not None and target.endswith((".yaml", ".yml")):
        return Script.load(target, functions=named)
    found = load(target)
    if not isinstance(found, Script):
        raise ConfigurationError(f"{target} is not a script.")
    return found


@app.command()
def check(
    target: Target,
    store: Annotated[
        str | None, typer.Option(help="Say what the script would mean to this store's sessions.")
    ] = None,
) -> None:
    """Report errors in a script, and what is probably a mistake."""
    named = Named()
    script = _script(target, named)
    for warning in script.warnings:
        out.print(f"[yellow]warning[/] {escape(warning)}", highlight=False)
    flows = len(script.dialog.order)
    nodes = len(script.dialog.nodes)
    out.print(f"[green]{escape(target)} works:[/] {flows} flows, {nodes} nodes.", highlight=False)
    if named:
        names = escape(", ".join(sorted(named)))
        out.print(f"The program that loads it must register: {names}.", highlight=False)
    if store is not None:
        for line in asyncio.run(_meets(script, store)):
            out.print(line, markup=False, highlight=False, soft_wrap=True)


async def _meets(script: Script, url: str) -> list[str]:
    """What would happen to the sessions that exist: at nodes that are gone, with slots of another
    shape."""
    gone: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    count = 0
    async with opened_store(url) as store:
        async for id in every_id(store):
            kept = orjson.loads(await store.state(id)).get("script")
            if not isinstance(kept, dict):
                continue
            count += 1
            at = Label(*kept["past"][-1])
            if at not in script.dialog.nodes:
                gone[str(at)] += 1
            slots = kept.get("slots", {})
            lost.update(set(slots) - set(fitting(slots, script.slots)))
    found = [f"{count} sessions have begun this dialog."]
    found += [
        f"{n} of them are at {at}, which is gone: they go on from GLOBAL or the fallback."
        for at, n in gone.most_common()
    ]
    return found + [
        f"{n} of them have a slot {name} of another shape: it counts as not filled."
        for name, n in lost.most_common()
    ]


@app.command()
def draw(
    target: Target,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file: .svg, otherwise Mermaid.")
    ] = None,
    session: Annotated[str | None, typer.Option(help="Mark the path of this session.")] = None,
    store: Annotated[str | None, typer.Option(help="The store of that session.")] = None,
) -> None:
    """Draw a dialog as Mermaid on standard output, or as Mermaid or SVG in a file."""
    dialog = _script(target, Named()).dialog
    path = asyncio.run(_path(session, store or Settings().store)) if session else []
    if output is not None and output.suffix in (".png", ".jpg", ".pdf"):
        raise ConfigurationError(f"{output.suffix} is not supported: write .svg or .mmd (Mermaid).")
    if output is not None and output.suffix == ".svg":
        output.write_text(diagram.svg(dialog, path), encoding="utf-8")
    elif output is not None:
        output.write_text(diagram.mermaid(dialog, path), encoding="utf-8")
    else:
        print(diagram.mermaid(dialog, path), end="")


async def _path(session: str, url: str) -> list[Label]:
    """The nodes that a session has visited."""
    store = open_store(url)
    await store.open()
    try:
        state = orjson.loads(await store.state(session))
    except NotFound:
        raise NotFound(f"The session {session!r} does not exist.") from None
    finally:
        await store.close()
    return [Label(*label) for label in state.get("script", {}).get("past", ())]


@app.command("test")
def rehearse(
    target: Target,
    dialog: Annotated[
        Path | None, typer.Argument(help="Expected exchanges; default: the .dialog file beside it.")
    ] = None,
) -> None:
    """Play a dialog file of expected exchanges and print the differences."""
    script = _script(target)
    path = dialog or Path(target).with_suffix(".dialog")
    conversations = dialog_tests.read(path)

    async def go() -> list[str]:
        from turnwise.testing import talk  # imports pytest, where it is installed

        open_asks: dict[str, list[Asked]] = {}
        async with talk(Bot(script)) as say:

            async def one(session: str, text: str, metadata: Mapping[str, str]) -> Reply:
                answers = {}
                for ask in open_asks.get(session, ()):  # a typed choice answers, as on messengers
                    if (choice := ask.typed(text)) is not None:
                        answers[ask.id] = choice
                reply = await say(text, session=session, metadata=metadata, answers=answers or None)
                open_asks[session] = reply.asks
                return reply

            return await dialog_tests.play(path, conversations, one)

    differences = asyncio.run(go())
    for difference in differences:
        out.print(difference, markup=False, highlight=False)
    if differences:
        raise TurnwiseError(f"{len(differences)} of {len(conversations)} conversations differ.")
    exchanges = sum(map(len, conversations))
    out.print(f"[green]{exchanges} replies as expected.[/]", highlight=False)


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of script files, for your editor."""
    print(orjson.dumps(schema(), option=orjson.OPT_INDENT_2).decode())
