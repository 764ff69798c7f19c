"""Settings: from `TURNWISE_*` variables, then `.env`, then these defaults.

The command line's flags come before all of them. Times are seconds, sizes bytes unless said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from turnwise.errors import ConfigurationError
from turnwise.urls import Origin, origin


class Settings(BaseSettings):
    """Everything a server can be told; each field is a `TURNWISE_` variable."""

    model_config = SettingsConfigDict(
        env_prefix="TURNWISE_",
        env_file=".env",
        env_file_encoding="utf-8-sig",  # some editors begin a file with a mark
        env_ignore_empty=True,
        extra="ignore",
    )

    store: str = Field(
        default="sqlite:///turnwise.db",
        description="Where sessions are kept: a store URL.",
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="The port to listen on.")
    workers: int = Field(default=1, ge=1, le=256, description="Server processes on this machine.")
    concurrency: int = Field(
        default=100,
        ge=1,
        description="Turns that one process answers at once.",
    )
    grace: float = Field(
        default=10.0,
        ge=0,
        description="Seconds that running turns get on SIGTERM.",
    )
    lease: float = Field(
        default=30.0,
        ge=1,
        description="Seconds until the turn of an unresponsive worker is retried.",
    )
    api_keys: str = Field(default="", description="Keys of trusted backends, separated by commas.")
    allowed_origins: str = Field(
        default="", description="Other origins whose pages may use every door, separated by commas."
    )
    session_ttl: float = Field(
        default=30 * 86400.0, ge=1, description="Seconds that a session lives after its last turn."
    )
    token_ttl: float | None = Field(
        default=None,
        ge=1,
        description="Seconds after which a token ends; without it, it lives as its session does.",
    )
    retention: float = Field(
        default=3600.0,
        ge=0,
        description="Seconds that events stay in the log for readers to resume.",
    )
    max_body: int = Field(default=1_000_000, ge=1000, description="Bytes of a request's body.")
    max_text: int = Field(default=100_000, ge=1, description="Characters of a message's text.")
    max_streams: int = Field(default=10_000, ge=1, description="Open event streams of one process.")
    sessions_per_minute: int = Field(
        default=20_000,
        ge=0,
        description="Sessions that one address may make a minute; 0: any number.",
    )
    messages_per_minute: int = Field(
        default=60_000, ge=0, description="Messages that one session takes a minute; 0: any number."
    )
    body_timeout: float = Field(
        default=20.0,
        gt=0,
        description="Seconds to receive a request's body.",
    )
    send_timeout: float = Field(
        default=20.0,
        gt=0,
        description="Seconds a client may accept no data before it is disconnected.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="The port on which `turnwise work` serves its metrics.",
    )
    debug: bool = Field(
        default=False, description="Log the words of exceptions, which may quote what people said."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error."
    )

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, given: Any) -> Any:
        """Refuse variables that nobody reads: they are misspelt."""
        check_variables(os.environ)
        if isinstance(given, dict):
            given = {k: v.strip() if isinstance(v, str) else v for k, v in given.items()}
            # Kubernetes sets TURNWISE_PORT to tcp://... beside a service called "turnwise".
            return {
                name: value
                for name, value in given.items()
                if name != "port" or not str(value).startswith(("tcp://", "udp://"))
            }
        return given

    @field_validator("api_keys")
    @classmethod
    def _real_keys(cls, keys: str) -> str:
        """A server that was meant to ask for keys must not start without one."""
        if keys and not keys.strip(", "):
            raise ValueError("it is set and holds no key")
        if keys.startswith(("'", '"')):
            raise ValueError("the quotes around it would be a part of the keys")
        return keys

    def keys(self) -> frozenset[str]:
        """The API keys as a set."""
        return frozenset(key.strip() for key in self.api_keys.split(",") if key.strip())

    def origins(self) -> frozenset[Origin]:
        """The allowed origins as a set. Raises ConfigurationError for what is no origin."""
        named = [one.strip() for one in self.allowed_origins.split(",") if one.strip()]
        found = {one: origin(one) for one in named}
        for one, parsed in found.items():
            if parsed is None:
                raise ConfigurationError(
                    f"allowed_origins: {one!r} is not an origin such as https://example.com"
                )
        return frozenset(parsed for parsed in found.values() if parsed is not None)


PREFIX = "TURNWISE_"
_OUR_OWN = {"BOT", "WORK", "PARENT"}
"""What `turnwise serve` tells the processes that it starts."""
_OF_KUBERNETES = re.compile(r"SERVICE_|PORT_\d")


def check_variables(names: Iterable[str]) -> None:
    """Raises ConfigurationError for a `TURNWISE_` variable that is not a setting, and says which
    setting it is like."""
    known = [name.upper() for name in Settings.model_fields]
    for name in names:
        if not name.upper().startswith(PREFIX):
            continue
        rest = name.upper().removeprefix(PREFIX)
        if rest in known or rest in _OUR_OWN or _OF_KUBERNETES.match(rest):
            continue
        like = get_close_matches(rest, known, 1, 0.5)
        hint = f" Did you mean {PREFIX}{like[0]}?" if like else ""
        raise ConfigurationError(f"There is no setting {name}.{hint}")
