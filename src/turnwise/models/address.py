"""Address: where a model's server is, and the key for it."""

from __future__ import annotations

import os
from typing import Any

from turnwise.errors import ConfigurationError, MissingExtra
from turnwise.urls import masked


def openai_package() -> Any:
    try:
        import openai
    except ImportError:
        raise MissingExtra("OpenAIChat", "openai") from None
    return openai


def proxies() -> str:
    """The environment's variables that name proxies, without passwords."""
    found = {name: value for name, value in os.environ.items() if name.upper().endswith("_PROXY")}
    return ", ".join(f"{name}={masked(value)}" for name, value in sorted(found.items()) if value)


def check_address(url: str | None, key: str | None) -> None:
    """Raises ConfigurationError for an address that is not one, and for OpenAI's without a key."""
    url = url or os.environ.get("OPENAI_BASE_URL")
    if url and not url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"base_url must begin with http:// or https://, not {masked(url)!r}."
        )
    if not url and not (key or os.environ.get("OPENAI_API_KEY", "").strip()):
        raise ConfigurationError(
            "OpenAI needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for another server."
        )


def checked_key(key: str | None) -> str | None:
    """A key that is valid as a header's value. The ConfigurationError omits the key."""
    found = key if key is not None else os.environ.get("OPENAI_API_KEY")
    if found is not None and not found.strip().isascii():
        raise ConfigurationError("The language model's key contains characters that no key has.")
    return found.strip() if found and found != found.strip() else key
