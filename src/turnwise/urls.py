"""URLs: compared part by part, and shown without their passwords."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SECRETS = re.compile(r"(?i)([?&](?:password|passwd|pwd|token|secret|key)=)[^&#]*")

Origin = tuple[str, str, int]


def masked(url: str) -> str:
    """`url` with `***` instead of any password, even if the URL is invalid."""
    scheme, separator, rest = url.partition("://")
    if separator:
        # A password may contain any character, even `/` and `@`: mask all up to the last `@`.
        userinfo, at, where = rest.rpartition("@")
        if at and ":" in userinfo:
            url = f"{scheme}://{userinfo.split(':', 1)[0]}:***@{where}"
    return _SECRETS.sub(r"\1***", url)


def origin(url: str) -> Origin | None:
    """Scheme, host and port of a URL, as browsers compare them (RFC 6454); None if it has none."""
    try:
        parts = urlsplit(url.strip())
        return _origin(parts)
    except ValueError:
        return None


def same_host(url: str, host: str) -> bool:
    """Whether `url` (an Origin) belongs to the server that a Host header names.

    A proxy may have ended TLS, so the scheme is the Origin's, and so is the port that it implies.
    """
    own = origin(url)
    return own is not None and own == origin(f"{own[0]}://{host}")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(parts: SplitResult) -> Origin | None:
    scheme, host = parts.scheme.lower(), (parts.hostname or "").rstrip(".")
    port = parts.port or _PORTS.get(scheme)
    if not (scheme and host and port):
        return None
    return scheme, host, port


def as_text(found: Origin) -> str:
    """An origin as browsers write it."""
    scheme, host, port = found
    named = f"[{host}]" if ":" in host else host
    return f"{scheme}://{named}" if _PORTS.get(scheme) == port else f"{scheme}://{named}:{port}"
