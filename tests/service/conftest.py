"""A service in a process of its own, as `mien serve` starts it."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest


class Served:
    """A running `mien serve`, its address and its process."""

    def __init__(self, *arguments, command=(sys.executable, "-m", "mien"), **environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        command = [*command, "serve", "--port", str(port), "--threads", "1", *arguments]
        self.process = subprocess.Popen(
            command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(300):
            try:
                if httpx.get(f"{self.address}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, self.process.stdout.read()
            time.sleep(0.1)
        raise AssertionError("the service did not start")

    def stop(self):
        """Ends it as a machine that shuts down does; gives what it printed."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=60)[0]


@pytest.fixture(scope="session")
def served():
    service = Served()
    yield service
    service.stop()
