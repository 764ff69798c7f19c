"""HTTP: files are taken in, one at a time, and served to who may read their session."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import orjson
from fastapi import Path, Request, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from turnwise.channels.bodies import JSON, WrongType, in_time
from turnwise.channels.parameters import SessionId
from turnwise.channels.routes import Routes, path_of
from turnwise.channels.schemas import FileOut
from turnwise.errors import Invalid, TooLarge
from turnwise.files.kinds import SHOWN

OVERHEAD = 20_000
"""Bytes that a form may have beside its file."""
FileId = Annotated[str, Path(max_length=40, description="The file's id.")]
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


class UploadChannel(Routes):
    """The files of sessions."""

    def add_routes(self) -> None:
        path = "/sessions/{session_id}/files"
        made: dict[str, Any] = {"status_code": 201, "response_model": FileOut}
        bad = (400, 401, 404, 408, 413, 415, 422, 501)
        self.add("POST", path, self.upload, *bad, openapi_extra=_FORM, **made)
        content: dict[int | str, Any] = {200: {"content": {"application/octet-stream": {}}}}
        self.add(
            "GET", path + "/{file_id}", self.file, 401, 404, 422,
            responses=content, response_class=Response,
        )  # fmt: skip

    async def upload(self, request: Request, session_id: SessionId) -> Response:
        """Keep a file; its `url` goes into the attachments of a message, within an hour."""
        principal = await self.enter(request, session_id)
        with self.access.speaking(principal, session_id) as counted:
            name, kind, content = await self._received(request)
            file = await self._gateway().files.upload(session_id, name, kind, content)
            counted.counts = True
        url = f"{path_of(request.scope)}/{file.id}"
        found = {"id": file.id, "url": url, "name": file.name, "type": file.type}
        return JSON(orjson.dumps({**found, "size": file.size}), 201, Location=url)

    async def _received(self, request: Request) -> tuple[str, str | None, bytes]:
        """The one file of a form: its name, its type and its bytes, which are counted as they
        come."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise WrongType("A file is sent as multipart/form-data.")
        gateway = self._gateway()
        most = gateway.files.limits.file + OVERHEAD
        body = bytearray()
        with in_time(gateway.hub.alarms, self.settings.body_timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise TooLarge(f"A file has at most {gateway.files.limits.file:,} bytes.")

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        try:
            form = await Request(request.scope, receive).form(max_files=1, max_fields=10)
        except HTTPException as error:  # it is malformed, or has more files
            raise Invalid(f"The form cannot be read: {error.detail}") from None
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise Invalid("The form must have one file.")
        content = await files[0].read()
        found = files[0].filename or "file", files[0].content_type, content
        await form.close()
        return found

    async def file(self, request: Request, session_id: SessionId, file_id: FileId) -> Response:
        """A file's bytes, for who may read the session."""
        await self.enter(request, session_id)
        file, content = await self._gateway().files.read(session_id, file_id)
        shown = file.type in SHOWN
        how = "inline" if shown else "attachment"
        headers = {
            "Content-Disposition": f"{how}; filename*=UTF-8''{quote(file.name, safe='')}",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        kind = file.type if shown else "application/octet-stream"
        return Response(content, headers=headers, media_type=kind)
