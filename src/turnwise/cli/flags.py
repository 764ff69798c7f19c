"""Shared by the commands: flags derived from the settings, and the output consoles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

import typer
from dotenv import dotenv_values
from pydantic import ValidationError
from rich.console import Console

from turnwise.errors import ConfigurationError
from turnwise.settings import Settings, check_variables

out = Console()
err = Console(stderr=True, soft_wrap=True)

_FIELDS = Settings.model_fields


def option(field: str, *names: str) -> Any:
    """A flag for a setting; help, default and variable come from the settings."""
    info = _FIELDS[field]
    return typer.Option(
        *names,
        envvar=f"TURNWISE_{field.upper()}",
        help=f"{info.description} [dim](default: {info.default or 'none'})[/]",
        show_default=False,
    )


BotTarget = Annotated[
    str | None,
    typer.Argument(help="Your bot as module:name or a script file; default: the demo bot."),
]
StoreUrl = Annotated[str | None, option("store", "--store")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings_with(given: dict[str, Any]) -> Settings:
    """Settings overridden by these flags, for this process and its child processes."""
    for name, value in given.items():
        if value is not None:
            os.environ[f"TURNWISE_{name.upper()}"] = str(value)
    found = _in_file()
    check_variables(found)
    for name, value in found.items():  # the demo bot's model, and that of a bot of one's own
        if name.startswith(("OPENAI_", "AZURE_OPENAI_")) and value:
            os.environ.setdefault(name, value)
    try:
        return Settings()
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0])
        raise ConfigurationError(f"{name} (TURNWISE_{name.upper()}): {wrong['msg']}") from None


def _in_file() -> Mapping[str, str | None]:
    """The variable names in `.env`."""
    with suppress(OSError, UnicodeDecodeError):
        return dotenv_values(".env", encoding="utf-8-sig")
    return {}
