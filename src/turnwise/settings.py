"""Settings: from `TURNWISE_*` variables, then `.env`, then these defaults.

Command-line flags override all of them. Times are in seconds and sizes in bytes unless noted.
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

PROTOCOLS = ("openai", "ai-sdk", "ag-ui", "langgraph", "pages")


class Settings(BaseSettings):
    """All settings of a server; each field is a `TURNWISE_` variable."""

    model_config = SettingsConfigDict(
        env_prefix="TURNWISE_",
        env_file=".env",
        env_file_encoding="utf-8-sig",  # some editors write a byte order mark
        env_ignore_empty=True,
        allow_inf_nan=False,
        extra="ignore",
    )

    store: str = Field(
        default="sqlite:///turnwise.db",
        repr=False,
        description="The URL of the store that holds the sessions.",
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="The port to listen on.")
    workers: int = Field(default=1, ge=1, le=256, description="Server processes on this machine.")
    concurrency: int = Field(
        default=100,
        ge=1,
        description="Maximum number of turns that one process answers at once.",
    )
    grace: float = Field(
        default=10.0,
        ge=0,
        description="Seconds that running turns may take to finish after SIGTERM.",
    )
    lease: float = Field(
        default=30.0,
        ge=1,
        description="Seconds until the turn of an unresponsive worker is retried.",
    )
    api_keys: str = Field(
        default="", repr=False, description="Keys of trusted backends, separated by commas."
    )
    admin_keys: str = Field(
        default="",
        repr=False,
        description="Keys that open the operator's view at /admin, separated by commas; none: off.",
    )
    jwt_secret: str = Field(
        default="",
        repr=False,
        description="The secret of your login's JWTs (HS256); their `sub` is the owner.",
    )
    jwt_jwks_url: str = Field(
        default="", description="Where your login publishes its keys (RS256, ES256)."
    )
    jwt_issuer: str = Field(default="", description="The `iss` that your login's JWTs have.")
    jwt_audience: str = Field(default="", description="The `aud` that your login's JWTs have.")
    guests: bool = Field(
        default=False, description="Whether sessions are also created without your login."
    )
    when_busy: Literal["queue", "interrupt", "merge", "reject"] | None = Field(
        default=None,
        description="What a message does that finds earlier ones unanswered; else the bot says it.",
    )
    settle: float = Field(
        default=0.0, ge=0, le=5, description="Seconds that a turn waits for messages to merge."
    )
    owner_running: int | None = Field(
        default=None, ge=1, description="Maximum number of turns of one owner that run at once."
    )
    owner_waiting: int | None = Field(
        default=None, ge=1, description="Maximum number of unfinished turns of one owner."
    )
    title: str = Field(default="Turnwise", description="The name on the chat page.")
    greeting: str = Field(default="", description="What the chat page says before a message.")
    accent: str = Field(
        default="", description="The chat page's colour, or two, for light and dark."
    )
    logo: str = Field(default="", description="The file of the chat page's logo.")
    protocols: str = Field(
        default=", ".join(PROTOCOLS),
        description="Doors for other people's clients, separated by commas; none: no door.",
    )
    allowed_origins: str = Field(
        default="", description="Other origins whose pages may use the API, separated by commas."
    )
    session_ttl: float = Field(
        default=30 * 86400.0, ge=1, description="Seconds from the last turn until a session ends."
    )
    token_ttl: float | None = Field(
        default=None,
        ge=1,
        description="Seconds until a token expires; if unset, it is valid as long as its session.",
    )
    retention: float = Field(
        default=3600.0,
        ge=0,
        description="Seconds that events stay in the log so that readers can resume.",
    )
    max_body: int = Field(default=1_000_000, ge=1000, description="Maximum request body, bytes.")
    files: str = Field(
        default="",
        repr=False,
        description="Where uploads are kept: a folder, or s3://bucket/prefix and the like.",
    )
    max_file: int = Field(default=5_000_000, ge=1, description="Maximum bytes of an upload.")
    max_files: int = Field(
        default=100_000_000, ge=1, description="Maximum bytes of a session's uploads."
    )
    max_text: int = Field(default=100_000, ge=1, description="Maximum characters in a message.")
    max_streams: int = Field(default=10_000, ge=1, description="Maximum open streams per process.")
    sessions_per_minute: int = Field(
        default=20_000,
        ge=0,
        description="Sessions that one address may create per minute; 0: no limit.",
    )
    messages_per_minute: int = Field(
        default=60_000, ge=0, description="Messages per minute in one session; 0: no limit."
    )
    body_timeout: float = Field(
        default=20.0,
        gt=0,
        description="Seconds within which a request's body must arrive.",
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
        default=False, description="Log the text of exceptions, which may quote users' messages."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Lines for people, or a line of JSON for each record."
    )

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, given: Any) -> Any:
        """Reject unknown `TURNWISE_` variables: they are misspelt."""
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

    @field_validator("api_keys", "admin_keys")
    @classmethod
    def _real_keys(cls, keys: str) -> str:
        """If keys are configured but none is usable, the server must not start."""
        if keys and not keys.strip(", "):
            raise ValueError("it is set but contains no key")
        if keys.startswith(("'", '"')):
            raise ValueError("the quotes around it would be a part of the keys")
        return keys

    def keys(self) -> frozenset[str]:
        """The API keys as a set."""
        return _listed(self.api_keys)

    def operators(self) -> frozenset[str]:
        """The admin keys as a set."""
        return _listed(self.admin_keys)

    def doors(self) -> list[str]:
        """The protocols whose doors are open. Raises ConfigurationError for a name that is none."""
        named = [one.strip() for one in self.protocols.split(",") if one.strip()]
        if named == ["none"]:
            return []
        for one in named:
            if one not in PROTOCOLS:
                known = ", ".join(PROTOCOLS)
                raise ConfigurationError(f"protocols: {one!r} is none of {known}.")
        return named

    def origins(self) -> frozenset[Origin]:
        """The allowed origins as a set. Raises ConfigurationError if one is not an origin."""
        named = [one.strip() for one in self.allowed_origins.split(",") if one.strip()]
        found = {one: origin(one) for one in named}
        for one, parsed in found.items():
            if parsed is None:
                raise ConfigurationError(
                    f"allowed_origins: {one!r} is not an origin such as https://example.com"
                )
        return frozenset(parsed for parsed in found.values() if parsed is not None)


def _listed(keys: str) -> frozenset[str]:
    return frozenset(key.strip() for key in keys.split(",") if key.strip())


PREFIX = "TURNWISE_"
_OUR_OWN = {"BOT", "WORK", "PARENT"}
"""Variables that `turnwise serve` passes to the processes it starts."""
_OF_KUBERNETES = re.compile(r"SERVICE_|PORT_\d")


def check_variables(names: Iterable[str]) -> None:
    """Raises ConfigurationError for a `TURNWISE_` variable that is not a setting, and suggests the
    setting with the most similar name."""
    known = [name.upper() for name in Settings.model_fields]
    for name in names:
        if not name.upper().startswith(PREFIX):
            continue
        rest = name.upper().removeprefix(PREFIX)
        if rest in known or rest in _OUR_OWN or _OF_KUBERNETES.match(rest):
            continue
        like = get_close_matches(rest, known, 1, 0.5)
        hint = f" Did you mean {PREFIX}{like[0]}?" if like else ""
        raise ConfigurationError(f"The setting {name} does not exist.{hint}")
