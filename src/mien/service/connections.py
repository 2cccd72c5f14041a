"""Connections of the service: limits that hold before a request exists, and how the server starts and stops."""

import asyncio
import logging
import time
from typing import Any, ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_BYTES = 16_384
"""The header of a request, at most. h11 counts while it reads; httptools, uvicorn's default, never does."""

HEADER_SECONDS = 10.0
"""A connection sends its next header within this time after the first byte, or after it was opened."""

READ_SECONDS = 30.0
"""A client takes in what waits to be sent within this time, down to 16 kB."""

STOP_SECONDS = 2.0
"""Time for an upload to complete once the service stops."""

_CONNECTIONS = 512
_BACKLOG = 64  # connections that asyncio accepts before any of them is counted


def most_connections() -> int:
    """Returns the number of connections at once: below half of the files that the process may open."""
    try:
        import resource

        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except ImportError:  # Windows
        return _CONNECTIONS
    return _CONNECTIONS if files == resource.RLIM_INFINITY else max(8, min(_CONNECTIONS, files // 2))


class Connection(H11Protocol):
    """A connection whose header must arrive in time; if there are too many, the one that waited longest is closed."""

    most: ClassVar[int] = _CONNECTIONS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._idle_since = time.monotonic()
        self._header_timer: asyncio.TimerHandle | None = None
        self._reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Makes room for the connection, or closes it if every other one has a request."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            idle = [one for one in self.connections if isinstance(one, Connection) and one.is_idle()]
            oldest = min(idle, key=lambda one: one._idle_since)
            self.connections.discard(oldest)
            oldest.transport.abort()
        if not self.transport.is_closing():
            self._await_header()

    def is_idle(self) -> bool:
        """Returns whether no request is being received or answered."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Reads the data, and limits the time for the rest of a header."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._stop_timer()
        elif self._header_timer is None:
            self._await_header()

    def on_response_complete(self) -> None:
        """Counts the time without a request from here."""
        self._idle_since = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Waits for a client that does not read, but not for ever."""
        self._reading_timer = self.loop.call_later(READ_SECONDS, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """Goes on."""
        self._stop_reading_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._stop_timer()
        self._stop_reading_timer()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Finishes a request whose body is there; an upload that does not end soon is dropped."""
        super().shutdown()
        if not self.is_idle() and self.cycle.more_body:
            self.loop.call_later(STOP_SECONDS, self._drop_upload)

    def _drop_upload(self) -> None:
        if not self.is_idle() and self.cycle.more_body:
            self.transport.abort()

    def _await_header(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_reading_timer(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


class FewMessages(logging.Filter):
    """Lets `most` messages of a logger pass in `seconds`, so that no client can fill a disk with them."""

    def __init__(self, most: int = 10, seconds: float = 60.0) -> None:
        super().__init__()
        self._most, self._seconds = most, seconds
        self._begin, self._count = float("-inf"), 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether the message is written; the first one of the next period tells how many were not."""
        now = time.monotonic()
        if now - self._begin > self._seconds:
            left_out = self._count - self._most
            self._begin, self._count = now, 0
            if left_out > 0:
                record.msg = f"{record.getMessage()} ({left_out:,} messages before this one were left out)"
                record.args = ()
        self._count += 1
        return self._count <= self._most


def server_settings() -> dict[str, Any]:
    """Returns uvicorn's settings of connections."""
    kind = type("LimitedConnection", (Connection,), {"most": most_connections()})
    return {"http": kind, "ws": "none", "backlog": _BACKLOG, "h11_max_incomplete_event_size": HEADER_BYTES}


class AnnouncingServer(uvicorn.Server):
    """A server that calls `announce` once it accepts connections."""

    def __init__(self, config: uvicorn.Config, announce: Any) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: Any = None) -> None:
        """Starts to listen, then says so."""
        await super().startup(sockets)
        if self.started:
            self._announce()
