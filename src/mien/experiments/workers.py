"""Worker processes for jobs; a worker that is killed does not affect the others."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, NamedTuple

SendUpdate = Callable[[Any], None]
"""Sends a picklable value to the process that started the job."""

_SPAWN = multiprocessing.get_context(
    "spawn"
)  # a fork would copy the state of torch threads that do not run in the child


class Event(NamedTuple):
    """What happened to a job: it sent an update, ended with a value, or its process died for a reason."""

    job: str
    kind: Literal["update", "ended", "died"]
    value: Any


class _Worker:
    def __init__(self, work: Callable[[Any, SendUpdate], Any], environment: Mapping[str, str]) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        # No daemon: a daemon may have no processes of its own, such as those that load images.
        self.process = _SPAWN.Process(target=_serve, args=(theirs, work, dict(environment)), daemon=False)
        self.process.start()
        theirs.close()
        self.job: str | None = None

    def end(self) -> None:
        """Ends the process: kills it during a job, otherwise closes its pipe."""
        if self.job is not None:
            self.process.kill()
        self.pipe.close()
        self.process.join()


class Workers:
    """Up to `count` processes, each started when it is first needed and reused for later jobs.

    Args:
        count: How many.
        work: What they do: takes a job and a function that sends progress updates. A function of a module.
        environment: Variables that are set in each process, where they are not set already.
    """

    def __init__(self, count: int, work: Callable[[Any, SendUpdate], Any], environment: Mapping[str, str]) -> None:
        self._count, self._work, self._environment = count, work, environment
        self._workers: list[_Worker] = []

    @property
    def busy(self) -> list[str]:
        """The names of the running jobs."""
        return [worker.job for worker in self._workers if worker.job is not None]

    @property
    def free(self) -> int:
        """The number of jobs that can be started now."""
        return self._count - len(self.busy)

    def start(self, name: str, job: Any) -> None:
        """Assigns a job to a free process."""
        worker = next((worker for worker in self._workers if worker.job is None), None)
        if worker is None:
            worker = _Worker(self._work, self._environment)
            self._workers.append(worker)
        worker.job = name
        worker.pipe.send(job)

    def wait(self, timeout: float | None = None) -> list[Event]:
        """Returns the next events of running jobs; empty after `timeout` seconds without any."""
        working = {worker.pipe: worker for worker in self._workers if worker.job is not None}
        ready = wait(list(working), timeout)
        return [self._read(working[pipe]) for pipe in ready if isinstance(pipe, Connection)]

    def _read(self, worker: _Worker) -> Event:
        job = worker.job
        assert job is not None
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._workers.remove(worker)
            worker.pipe.close()
            return Event(job, "died", _why(worker.process.exitcode))
        if kind == "ended":
            worker.job = None
        return Event(job, kind, value)

    def close(self) -> None:
        """Ends all processes immediately."""
        while self._workers:
            self._workers.pop().end()


def _why(code: int | None) -> str:
    if code is not None and code < 0:
        hint = "; the system may have run out of memory" if -code == signal.SIGKILL else ""
        return f"its process was ended by signal {signal.Signals(-code).name}{hint}"
    return f"its process ended with status {code}"


def _serve(pipe: Connection, work: Callable[[Any, SendUpdate], Any], environment: dict[str, str]) -> None:
    """Runs jobs in a worker until the pipe closes."""
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    # Ctrl-C reaches all processes of a terminal; the parent handles it and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def send(value: Any) -> None:
        pipe.send(("update", value))

    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(("ended", work(job, send)))


def _end_with_parent() -> None:
    """Ends this process when its parent has ended, for example killed: nothing would receive its results."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
