"""Threads whose work is shared fairly: a request with many images has one turn after another, like any other."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any


class Line:
    """The pieces of work of one request that wait for a thread."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()


class Turns:
    """Runs the work of several lines in threads, one piece of each line in turn; used in one event loop."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "find")
        self._free = threads
        self._lines: deque[Line] = deque()

    def line(self) -> Line:
        """Returns the line of a new request."""
        return Line()

    async def run(self, line: Line, work: Callable[..., Any], *arguments: Any) -> Any:
        """Runs `work(*arguments)` in a thread when it is the turn of `line`; when cancelled before, it is dropped."""
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not line.waiting:
            self._lines.append(line)
        line.waiting.append((result, partial(work, *arguments)))
        self._begin()
        return await result

    def stop(self) -> None:
        """Drops the work that waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        while self._free and self._lines:
            line = self._lines.popleft()
            result, work = line.waiting.popleft()
            if line.waiting:
                self._lines.append(line)
            if result.done():  # cancelled
                continue
            self._free -= 1
            running = asyncio.get_running_loop().run_in_executor(self._pool, work)
            running.add_done_callback(partial(self._end, result))

    def _end(self, result: "asyncio.Future[Any]", running: "asyncio.Future[Any]") -> None:
        self._free += 1
        error = None if running.cancelled() else running.exception()
        if result.done():
            pass
        elif running.cancelled():
            result.cancel()
        elif error is not None:
            result.set_exception(error)
        else:
            result.set_result(running.result())
        if not running.cancelled():
            self._begin()
