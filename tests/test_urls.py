"""URLs and settings: tables of what people write, and what becomes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from turnwise import Settings
from turnwise.errors import ConfigurationError
from turnwise.stores.open import open_store
from turnwise.stores.sqlite import SQLiteStore
from turnwise.urls import masked, origin, same_host


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("redis://user:secret@host/0", "redis://user:***@host/0"),
        ("rediss://user:p@ss:wo/rd@host:1/0?prefix=a", "rediss://user:***@host:1/0?prefix=a"),
        ("unix:///run/redis?password=secret&db=1", "unix:///run/redis?password=***&db=1"),
        ("postgresql://user:secret@host/db", "postgresql://user:***@host/db"),
        ("socks5://user:secret@proxy:1080", "socks5://user:***@proxy:1080"),
        ("sqlite:////home/a@b/c.db", "sqlite:////home/a@b/c.db"),
        ("no url at all", "no url at all"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    """Wherever a URL is printed, whatever characters its password holds."""
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("given", "host", "same"),
    [
        ("https://example.com", "example.com", True),
        ("https://example.com", "example.com:443", True),
        ("https://example.com:443", "example.com", True),
        ("http://example.com", "example.com:80", True),
        ("https://EXAMPLE.com", "example.COM", True),
        ("https://example.com.", "example.com", True),
        ("http://localhost:8000", "localhost:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("https://example.com", "example.com:80", False),
        ("https://example.com", "example.com:8443", False),
        ("https://example.com", "evil.example", False),
        ("https://example.com.evil.example", "example.com", False),
        ("https://example.com@evil.example", "example.com", False),
        ("null", "example.com", False),
        ("", "example.com", False),
        ("https://", "", False),
        ("file://", "example.com", False),
        ("https://example.com:99999", "example.com", False),
    ],
)
def test_origins_are_compared_as_urls(given: str, host: str, same: bool) -> None:
    """By scheme, host and port; a proxy may have ended TLS, so the scheme is the Origin's."""
    assert same_host(given, host) is same


def test_allowed_origins() -> None:
    """A trailing slash, upper case and a default port name the same origin; nonsense is refused."""
    allowed = Settings(allowed_origins="https://Shop.example/, http://a.example:80").origins()
    assert allowed == {origin("https://shop.example"), origin("http://a.example")}
    with pytest.raises(ConfigurationError, match="not an origin"):
        Settings(allowed_origins="shop.example").origins()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///:memory:", "kept in a file"),
        ("sqlite:///file:x?mode=memory", "kept in a file"),
        ("sqlite://", "three slashes"),
        ("sqlite:///", "no file"),
        ("sqlite:///folder/", "no file"),
        ("sqlite://x.db", "three slashes"),
        ("sqlite:///x.db?mode=ro", "no parameters"),
        ("sqlite:///~/x.db", "home folder"),
        ("sqlite:///tmp/x.db", "four slashes"),
        ("sqlite+aiosqlite:///x.db", "its own driver"),
        ("postgresql+psycopg://u:hunter2@h/d", "its own driver"),
        ("mysql://u:hunter2@h/d", "names no store"),
        ("mongodb://u:hunter2@h", "names no store"),
        ("x.db", "names no store"),
        ("", "names no store"),
    ],
)
def test_urls_that_name_no_store(
    url: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that says what is odd; no file, no folder, no password."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=words) as caught:
        open_store(url)
    assert "hunter2" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:///a.db", "a.db"),
        ("SQLite:///a.db", "a.db"),
        (" sqlite:///a.db\n", "a.db"),
        ("sqlite:///my%20file.db", "my file.db"),
        ("sqlite:///100%.db", "100%.db"),
        ("sqlite:///d\N{LATIN SMALL LETTER E WITH ACUTE}j\N{LATIN SMALL LETTER A WITH GRAVE}.db",
         "d\N{LATIN SMALL LETTER E WITH ACUTE}j\N{LATIN SMALL LETTER A WITH GRAVE}.db"),
        ("sqlite:///new/folder/a.db", "new/folder/a.db"),
    ],
)  # fmt: skip
async def test_files_with_odd_names(
    url: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is the file that is meant, made with its folder if need be."""
    monkeypatch.chdir(tmp_path)
    store = open_store(url)
    assert isinstance(store, SQLiteStore)
    monkeypatch.chdir("/")  # a relative path is meant from where it was written
    await store.open()
    await store.close()
    assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TURNWISE_STOR", "x", "Did you mean TURNWISE_STORE?"),
        ("TURNWISE_API_KEY", "x", "Did you mean TURNWISE_API_KEYS?"),
        ("TURNWISE_RETENTOIN", "x", "Did you mean TURNWISE_RETENTION?"),
        ("TURNWISE_ZZZZZZ", "x", "The setting TURNWISE_ZZZZZZ does not exist."),
    ],
)
def test_misspelt_settings(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    """An error with a suggestion, and not silence."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        Settings(_env_file=None)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("TURNWISE_PORT", "tcp://10.0.0.1:8000", "port", 8000),
        ("TURNWISE_PORT_8000_TCP_ADDR", "10.0.0.1", "port", 8000),
        ("TURNWISE_SERVICE_HOST", "10.0.0.1", "host", "127.0.0.1"),
        ("TURNWISE_PORT", "", "port", 8000),
        ("TURNWISE_WORKERS", "", "workers", 1),
        ("TURNWISE_STORE", "sqlite:///a.db\n", "store", "sqlite:///a.db"),
        ("turnwise_port", "8001", "port", 8001),
    ],
)
def test_variables_that_others_set(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, expected: object
) -> None:
    """What Kubernetes, compose files and files of secrets make of a variable."""
    monkeypatch.setenv(name, value)
    assert getattr(Settings(_env_file=None), field) == expected


@pytest.mark.parametrize("name", ["TURNWISE_LEASE", "TURNWISE_GRACE", "TURNWISE_SESSION_TTL"])
@pytest.mark.parametrize("value", ["inf", "nan", "-1", "soon"])
def test_numbers_that_are_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A time has an end, and is a number."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=name.removeprefix("TURNWISE_").lower()):
        Settings(_env_file=None)


@pytest.mark.parametrize("keys", [",", " , ", "'k1,k2'", '"k1"'])
def test_keys_that_are_none(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    """A server that was meant to ask for keys does not start without a usable one."""
    monkeypatch.setenv("TURNWISE_API_KEYS", keys)
    with pytest.raises(ValueError, match="api_keys"):
        Settings(_env_file=None)


def test_settings_do_not_show_secrets() -> None:
    """Neither keys nor a store's password stand in what is printed of them."""
    shown = repr(Settings(api_keys="hunter1", store="redis://u:hunter2@h"))
    assert "hunter" not in shown


def test_a_settings_file_of_any_editor(tmp_path: Path) -> None:
    """With a mark of byte order, `export` and quotes."""
    (tmp_path / "env").write_text('\ufeffexport TURNWISE_PORT="8001"\n', encoding="utf-8")
    assert Settings(_env_file=tmp_path / "env").port == 8001
    assert "TURNWISE_PORT" not in os.environ
