"""Kinds of files, by what is in them: what a client says is compared with the first bytes."""

from __future__ import annotations

from turnwise.errors import Rejected

_MARKS: tuple[tuple[bytes, int, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF87a", 0, "image/gif"),
    (b"GIF89a", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"ftypavif", 4, "image/avif"),
    (b"%PDF-", 0, "application/pdf"),
    (b"PK\x03\x04", 0, "application/zip"),
    (b"OggS", 0, "audio/ogg"),
    (b"ID3", 0, "audio/mpeg"),
    (b"fLaC", 0, "audio/flac"),
    (b"WAVE", 8, "audio/wav"),
    (b"ftyp", 4, "video/mp4"),
    (b"\x1aE\xdf\xa3", 0, "video/webm"),
)
SHOWN = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "application/pdf"}
)
"""What a browser may show; everything else is only downloaded, because it could run there."""
_KNOWN = frozenset(kind for *_, kind in _MARKS)
_CONTAINERS = {
    "application/zip": ("application/", "text/"),  # documents of office programs, among others
    "audio/ogg": ("audio/", "video/", "application/ogg"),
    "video/mp4": ("video/", "audio/"),
    "video/webm": ("video/", "audio/"),
    "audio/wav": ("audio/",),
}


class WrongKind(Rejected):
    """The content of this file is not of the type that it is said to be."""

    code = "wrong_file_type"
    status = 415


def kind_of(content: bytes) -> str:
    """The media type of some content: text, or what its first bytes say."""
    for mark, place, kind in _MARKS:
        if content[place : place + len(mark)] == mark:
            return kind
    if b"\0" not in content[:4096]:
        try:
            content.decode()
            return "text/plain"
        except UnicodeDecodeError:
            pass
    return "application/octet-stream"


def checked_kind(content: bytes, said: str | None) -> str:
    """The media type under which a file is kept. Raises WrongKind if it is another than `said`."""
    found = kind_of(content)
    said = (said or "").partition(";")[0].strip().lower()
    if not said or said == "application/octet-stream":
        return found
    if said == found or said.startswith(_CONTAINERS.get(found, ())):
        return said
    if found in _KNOWN or said in _KNOWN or (said.startswith("image/") and said != "image/svg+xml"):
        raise WrongKind()
    if said.startswith("text/") and found != "text/plain":
        raise WrongKind()
    return said
