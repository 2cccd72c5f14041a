"""Reads images from request bodies; they stay in memory and are never files, paths or URLs."""

import asyncio
import codecs
from collections.abc import AsyncGenerator
from typing import NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from mien.service.limits import ServiceLimits

FIELD = "images"
RAW = ("image/", "application/octet-stream")

CHARSETS = ("utf-8", "ascii", "iso8859-1")
"""The charsets of a form, by the names of `codecs`; others are refused: Python has some that decode nothing."""

SLOWEST = 5_000
"""Bytes per second of an upload, at least."""

PATIENCE = 5.0
"""Seconds over which the rate of an upload is measured."""


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


class Holding:
    """The bytes of all requests that are in memory."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0


class Memory:
    """The bytes of one request that have arrived; a size that is only stated takes no room from others.

    Args:
        holding: The bytes of all requests.
        stated: The size that the request states, for which there must be room when it starts.

    Raises:
        Refusal: There is no room.
    """

    def __init__(self, holding: Holding, stated: int) -> None:
        self._holding = holding
        self._bytes = 0
        self._check(stated)

    def _check(self, more: int) -> None:
        if self._holding.bytes + more > self._holding.most:
            raise Refusal(503, "busy", "too many requests; retry later", retry_after=1)

    def add(self, received: int) -> None:
        """Counts bytes that have arrived; refuses the request if there is no room for them."""
        self._check(received)
        self._holding.bytes += received
        self._bytes += received

    def release(self) -> None:
        """Gives the room back."""
        self._holding.bytes -= self._bytes
        self._bytes = 0


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


async def read_uploads(request: Request, limits: ServiceLimits, memory: Memory) -> list[Upload]:
    """Reads the images of a request: the multipart field `images`, repeatable, or one image as the whole body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        uploads = await _read_form(request, limits, memory)
    elif kind.startswith(RAW):
        uploads = [Upload("image", b"".join([chunk async for chunk in _body(request, limits, memory)]))]
    else:
        raise Refusal(
            415,
            "unsupported media type",
            f"Content-Type is {kind!r}; valid: multipart/form-data with the field {FIELD!r}, or an image as the body",
        )
    if not uploads:
        raise Refusal(400, "no image", f"the form has no file in the field {FIELD!r}")
    return uploads


async def _read_form(request: Request, limits: ServiceLimits, memory: Memory) -> list[Upload]:
    _check_charset(request)
    parser = _InMemory(request.headers, _body(request, limits, memory), max_files=limits.images, max_fields=0)
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


def _check_charset(request: Request) -> None:
    _, parameters = parse_options_header(request.headers["content-type"])
    given = parameters.get(b"charset", b"utf-8").decode("latin-1")
    try:
        known = codecs.lookup(given).name in CHARSETS
    except (LookupError, ValueError):  # a NUL in a name is a ValueError
        known = False
    if not known:
        raise Refusal(400, "unknown charset", f"charset is {given[:40]!r}; valid: {', '.join(CHARSETS)}")


async def _body(request: Request, limits: ServiceLimits, memory: Memory) -> AsyncGenerator[bytes, None]:
    """Yields the body; refuses one that is too large, for which there is no room, or that comes too slowly."""
    size = 0
    stream = request.stream()
    loop = asyncio.get_running_loop()
    period, recent = loop.time(), 0
    try:
        while True:
            async with asyncio.timeout_at(period + PATIENCE):
                chunk = await anext(stream, None)
            if chunk is None:
                return
            size += len(chunk)
            if size > limits.request_bytes:
                raise _too_large(limits)
            memory.add(len(chunk))
            recent += len(chunk)
            yield chunk
            if recent >= SLOWEST * PATIENCE:
                period, recent = loop.time(), 0
    except ClientDisconnect:
        raise Refusal(400, "gone", "the client disconnected") from None
    except TimeoutError:
        words = f"the request came at less than {SLOWEST:,} bytes per second for {PATIENCE:g} seconds"
        raise Refusal(408, "slow request", words) from None


def _too_large(limits: ServiceLimits) -> Refusal:
    return Refusal(413, "too large", f"the request has more than {limits.request_bytes:,} bytes")
