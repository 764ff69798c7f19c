"""Loads what a command names as `module:name`: a bot, a script, a handler or a model client."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from turnwise.bot import Bot
from turnwise.cli.demo import demo_bot
from turnwise.errors import ConfigurationError
from turnwise.script import Script


def load_bot(target: str | None) -> Bot:
    """The bot that `module:name` or a script's file names; the demo bot for None.

    `name` may also be a reply handler or a model client. Raises ConfigurationError.
    """
    if not target:
        return demo_bot()
    found = load(target)
    bot = found if isinstance(found, Bot) else _made_of(found, target)
    bot.check()
    return bot


def _made_of(found: Any, target: str) -> Bot:
    from starlette.applications import Starlette  # imported here: a worker does not need it

    if isinstance(found, Starlette):
        raise ConfigurationError(f"{target} is an application: serve it with uvicorn.")
    if isinstance(found, type):
        raise ConfigurationError(f"{target} is a class: name an object made of it.")
    return Bot(found)


def load(target: str) -> Any:
    """What `module:name` names, or the script in a YAML file. Raises ConfigurationError."""
    if target.endswith((".yaml", ".yml")):
        return Script.load(target)
    module_name, _, name = target.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        file = Path(module_name.removesuffix(".py"))
        where = f"in {file.parent}, " if file.is_absolute() else ""
        guess = file.name if file.is_absolute() else ".".join(p for p in file.parts if p != ".")
        raise ConfigurationError(
            f"Name a module, not a file: {where}turnwise serve {guess}:{name or 'bot'}"
        )
    sys.path.insert(0, os.getcwd())
    try:
        found = _named(importlib.import_module(module_name), name or "bot")
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigurationError(_where(error)) from error
        raise ConfigurationError(
            f"The module {module_name!r} does not exist here. A target is written module:name."
        ) from None
    except SyntaxError as error:
        raise ConfigurationError(f"{error.filename}:{error.lineno}: {error.msg}") from None
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(_where(error)) from error
    return found


def _named(module: Any, name: str) -> Any:
    """The module's attribute. Raises ConfigurationError with the names that could be meant."""
    try:
        return getattr(module, name)
    except AttributeError:
        bots = [key for key, value in vars(module).items() if isinstance(value, Bot | Script)]
        instead = f" There is: {', '.join(f'{module.__name__}:{key}' for key in bots)}"
        raise ConfigurationError(
            f"{module.__name__} has no {name!r}.{instead if bots else ''}"
        ) from None


def _where(error: Exception) -> str:
    """An exception of the bot's own module, with the last line of it that was running."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename]
    inside = [f for f in own if Path(f.filename).is_relative_to(Path.cwd())] or frames
    return f"{inside[-1].filename}:{inside[-1].lineno}: {type(error).__name__}: {error}"
