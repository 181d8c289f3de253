"""A request -> the image files in its body: multipart, raw bytes or base64 in JSON."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from residua.serving.limits import Limits, Refused

ACCEPTED = "multipart/form-data, image/*, application/octet-stream or application/json"


async def files_of(request: Request, limits: Limits) -> list[tuple[str, bytes]]:
    """(name, content) of each image. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        files = await _form_files(request, limits)
    elif kind == "application/json":
        files = _json_files(json_of(await request.body(), "the body"))
    elif kind.startswith("image/") or kind == "application/octet-stream":
        files = [("image1", await request.body())]
    else:
        raise Refused(415, f"content type {kind or 'missing'}: expected {ACCEPTED}")
    if not files:
        raise Refused(422, "the request contains no image")
    return files


def json_of(content: bytes, where: str) -> Any:
    """A JSON value. Raises Refused."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(422, f"{where} is not JSON: {error}") from error


def from_base64(text: object, where: str) -> bytes:
    """The bytes of a base64 string, also of a data: URL. Raises Refused."""
    if not isinstance(text, str):
        raise Refused(422, f"{where}: expected a base64 string")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(422, f"{where}: is not base64: {error}") from error


async def _form_files(request: Request, limits: Limits) -> list[tuple[str, bytes]]:
    try:
        form = await request.form(max_files=limits.images, max_fields=limits.images)
    except HTTPException as error:
        status = 413 if "Too many" in str(error.detail) else 422
        raise Refused(status, f"the form cannot be read: {error.detail}") from error
    except UnicodeError as error:  # of the charset that the client states
        raise Refused(422, f"the form cannot be read: {error}") from error
    files: list[tuple[str, bytes]] = []
    for _, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.append((value.filename or f"image{len(files) + 1}", await value.read()))
    await form.close()
    return files


def _json_files(value: Any) -> list[tuple[str, bytes]]:
    """Of {"images": [base64, ...]} or {"image": base64}."""
    images = value.get("images", value.get("image")) if isinstance(value, dict) else None
    if isinstance(images, str):
        images = [images]
    if not isinstance(images, list):
        raise Refused(422, 'expected {"images": [base64, ...]} or {"image": base64}')
    return [
        (f"image{number}", from_base64(text, f"image {number}"))
        for number, text in enumerate(images, start=1)
    ]
