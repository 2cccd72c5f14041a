"""Reads images from request bodies; they stay in memory and are never files, paths or URLs."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from mien.service.limits import ServiceLimits

FIELD = "images"
RAW = ("image/", "application/octet-stream")


class Upload(NamedTuple):
    """An uploaded image: the file name given by the client, and its bytes."""

    name: str
    content: bytes


class Refusal(Exception):
    """A rejected request: the HTTP status, a short machine-readable reason and a message."""

    def __init__(self, status: int, reason: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after


def stated_bytes(request: Request, limits: ServiceLimits) -> int:
    """Returns the size of the request body: the stated size, or the allowed maximum.

    Raises:
        Refusal: The stated size is above the limit.
    """
    text = request.headers.get("content-length", "")
    stated = int(text) if text.isdecimal() else limits.request_bytes
    if stated > limits.request_bytes:
        raise _too_large(limits)
    return stated


async def read_uploads(request: Request, limits: ServiceLimits) -> list[Upload]:
    """Reads the images of a request: the multipart field `images`, repeatable, or one image as the whole body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        uploads = await _read_form(request, limits)
    elif kind.startswith(RAW):
        uploads = [Upload("image", b"".join([chunk async for chunk in _body(request, limits)]))]
    else:
        raise Refusal(
            415,
            "unsupported media type",
            f"Content-Type is {kind!r}; valid: multipart/form-data with the field {FIELD!r}, or an image as the body",
        )
    if not uploads:
        raise Refusal(400, "no image", f"the form has no file in the field {FIELD!r}")
    return uploads


async def _read_form(request: Request, limits: ServiceLimits) -> list[Upload]:
    parser = _InMemory(request.headers, _body(request, limits), max_files=limits.images, max_fields=0)
    parser.spool_max_size = limits.request_bytes + 1
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            words = f"more than {limits.images} images in a request"
            raise Refusal(413, "too many images", words) from None
        raise Refusal(400, "malformed form", error.message) from None
    try:
        uploads = []
        for name, value in form.multi_items():
            if name != FIELD or not isinstance(value, UploadFile):
                raise Refusal(400, "unknown field", f"the form has the field {name!r}; valid: files in {FIELD!r}")
            uploads.append(Upload(value.filename or "image", await value.read()))
    finally:
        await form.close()
    return uploads


class _InMemory(MultiPartParser):
    """Starlette's parser, which writes files to disk only above `spool_max_size`: above the largest request."""


async def _body(request: Request, limits: ServiceLimits) -> AsyncGenerator[bytes, None]:
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limits.request_bytes:
                raise _too_large(limits)
            yield chunk
    except ClientDisconnect:
        raise Refusal(400, "gone", "the client disconnected") from None


def _too_large(limits: ServiceLimits) -> Refusal:
    return Refusal(413, "too large", f"the request has more than {limits.request_bytes:,} bytes")
