"""Processes for jobs, with jobs that need nothing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mien.experiments.workers import Workers


def work(job, send):
    """A job is an order."""
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "leave":
        os._exit(3)
    if job == "sleep":
        time.sleep(60)
    send("half")
    return {"pid": os.getpid(), "threads": os.environ.get("MIEN_TEST_THREADS")}.get(job, job)


@pytest.fixture
def workers():
    pool = Workers(2, work, {"MIEN_TEST_THREADS": "5"})
    yield pool
    pool.close()


def until_ended(workers, job):
    events = []
    while not any(event.job == job and event.kind != "update" for event in events):
        events += workers.wait(30)
    return events


def test_what_is_told_comes_before_the_end_and_processes_are_kept(workers):
    workers.start("a", "pid")
    assert workers.busy == ["a"] and workers.free == 1
    update, first = until_ended(workers, "a")
    assert update == ("a", "update", "half") and first.kind == "ended" and first.value != os.getpid()
    workers.start("b", "pid")
    assert until_ended(workers, "b")[-1].value == first.value
    workers.start("c", "threads")
    assert until_ended(workers, "c")[-1].value == "5"


@pytest.mark.parametrize(("order", "words"), [("die", "signal SIGKILL"), ("leave", "status 3")])
def test_a_process_that_dies_says_why_and_harms_no_other(workers, order, words):
    workers.start("well", "sleep")
    workers.start("ill", order)
    (event,) = until_ended(workers, "ill")
    assert event.kind == "died" and words in event.value
    assert workers.busy == ["well"]
    workers.start("next", "x")
    assert until_ended(workers, "next")[-1].value == "x"


def test_closing_ends_what_runs_at_once(workers):
    workers.start("long", "sleep")
    begin = time.monotonic()
    workers.close()
    assert time.monotonic() - begin < 30 and workers.busy == []


SCRIPT = """
import os, time
from mien.experiments.workers import Workers
import test_workers
if __name__ == "__main__":
    workers = Workers(1, test_workers.work, {})
    workers.start("pid", "pid")
    while not (pid := [e.value for e in workers.wait(30) if e.kind == "ended"]): pass
    workers.start("sleep", "sleep")
    print(pid[0], flush=True)
    time.sleep(60)
"""


def test_processes_do_not_outlive_one_that_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"], stdout=subprocess.PIPE, text=True, env=environment
    )
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the worker still runs")
