"""Settings: from `TURNWISE_*` variables, then `.env`, then these defaults.

The command line's flags come before all of them. Times are seconds, sizes bytes unless said.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything a server can be told; each field is a `TURNWISE_` variable."""

    model_config = SettingsConfigDict(env_prefix="TURNWISE_", env_file=".env", extra="ignore")

    store: str = Field("sqlite:///turnwise.db", description="Where sessions are kept: a store URL.")
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on.")
    workers: int = Field(1, ge=1, le=256, description="Server processes on this machine.")
    concurrency: int = Field(100, ge=1, description="Turns that one process answers at once.")
    grace: float = Field(10.0, ge=0, description="Seconds that running turns get on SIGTERM.")
    lease: float = Field(30.0, ge=1, description="Seconds until a dead worker's turn is retried.")
    api_keys: str = Field("", description="Keys of trusted backends, separated by commas.")
    allowed_origins: str = Field(
        "", description="Other origins whose pages may open WebSockets, separated by commas."
    )
    session_ttl: float = Field(
        30 * 86400.0, ge=1, description="Seconds that a session lives after its last turn."
    )
    token_ttl: float = Field(7 * 86400.0, ge=1, description="Seconds that a token is good for.")
    retention: float = Field(
        3600.0, ge=0, description="Seconds that events stay in the log for readers to resume."
    )
    max_body: int = Field(1_000_000, ge=1000, description="Bytes of a request's body.")
    max_text: int = Field(100_000, ge=1, description="Characters of a message's text.")
    max_streams: int = Field(10_000, ge=1, description="Open event streams of one process.")
    sessions_per_minute: int = Field(
        20_000, ge=0, description="Sessions that one address may make a minute; 0: any number."
    )
    messages_per_minute: int = Field(
        60_000, ge=0, description="Messages that one session takes a minute; 0: any number."
    )
    body_timeout: float = Field(20.0, gt=0, description="Seconds to receive a request's body.")
    send_timeout: float = Field(20.0, gt=0, description="Seconds a reader may refuse to read.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error."
    )

    def keys(self) -> frozenset[str]:
        """The API keys as a set."""
        return frozenset(key.strip() for key in self.api_keys.split(",") if key.strip())

    def origins(self) -> frozenset[str]:
        """The allowed origins as a set."""
        return frozenset(one.strip() for one in self.allowed_origins.split(",") if one.strip())
