"""Clients that send too much, too little or nothing, and what the service says of itself when it starts and stops."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

import mien
from mien import MienError, Predictor
from mien.service import connections, hosts, uploads
from mien.service.app import make_app
from mien.service.batches import Batches
from mien.service.limits import ServiceLimits
from mien.service.uploads import Upload

from .conftest import Served
from .test_api import face, post  # noqa: F401

RAW = {"content-type": "image/png"}


def connect(service):
    host, port = service.address.removeprefix("http://").split(":")
    return closing(socket.create_connection((host, int(port)), timeout=30))


def memory(process):
    (line,) = [one for one in Path(f"/proc/{process.pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) / 1e3


def head(length):
    return (
        f"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: {length}\r\n\r\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_endless_header_is_refused(served):
    before, block = memory(served.process), b"x" * 1_000_000
    with connect(served) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ")
        sent = 0
        with suppress(ConnectionError):
            for _ in range(200):
                client.sendall(block)
                sent += 1
        assert sent < 200, "the service read 200 MB of a header"
    assert memory(served.process) - before < 50


def test_connections_without_a_request_do_not_keep_others_out(face):  # noqa: F811
    limited = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (512, 512)); from mien.cli import main; main()"
    service = Served(command=[sys.executable, "-c", limited])
    try:
        with ExitStack() as stack:
            for _ in range(700):
                with suppress(OSError):
                    stack.enter_context(connect(service))
            assert post(service, ("a.png", face), crops=True).status_code == 200
        for _ in range(40):
            with connect(service) as client:
                client.sendall(b"no http\r\n\r\n")
                assert b" 400 " in client.recv(1000)
        form = {"content-type": "multipart/form-data; boundary=b"}
        assert httpx.post(f"{service.address}/v1/predict", content=b"--c\r\n", headers=form).status_code == 400
    finally:
        printed = service.stop()
    assert "boundary" not in printed
    assert len(printed) < 10_000 and printed.count("Invalid HTTP") <= 10


def test_a_header_must_arrive_in_time(served):
    with connect(served) as silent, connect(served) as slow:
        begin = time.monotonic()
        slow.sendall(b"GET / HTTP/1.1\r\n")
        with suppress(ConnectionError):
            assert silent.recv(100) == b"" and slow.recv(100) == b""
        assert time.monotonic() - begin < connections.HEADER_SECONDS + 10


def test_a_client_that_does_not_read_is_left():
    patched = "import mien.service.connections as c; c.READ_SECONDS = 1; from mien.cli import main; main()"
    service = Served(command=[sys.executable, "-c", patched])
    try:
        with connect(service) as client:
            client.setblocking(False)
            asked = client.send(b"GET /page.js HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2000)
            assert asked > 10_000
            time.sleep(4)
            client.settimeout(20)
            received = b""
            with suppress(ConnectionError):
                while part := client.recv(1_000_000):
                    received += part
            assert 0 < received.count(b"HTTP/1.1 200") < asked // 44
    finally:
        service.stop()


def test_messages_are_limited():
    few = connections.FewMessages(most=2, seconds=0.2)

    def record():
        return logging.LogRecord("x", 30, "", 1, "a %s", ("b",), None)

    assert [few.filter(record()) for _ in range(5)] == [True, True, False, False, False]
    time.sleep(0.3)
    last = record()
    assert few.filter(last) and last.getMessage() == "a b (3 messages before this one were left out)"


def test_uploads_that_only_state_a_size_take_no_room(face):  # noqa: F811
    service = Served("--max-seconds", "60")
    try:
        with ExitStack() as stack:
            silent = [stack.enter_context(connect(service)) for _ in range(20)]
            for one in silent:
                one.sendall(head(32_000_000).encode())
            time.sleep(0.5)
            large = httpx.post(f"{service.address}/v1/predict?crops=1", content=face, headers=RAW, timeout=20)
            assert large.status_code == 200
            assert "mien_held_bytes 0.0" in httpx.get(f"{service.address}/metrics").text
            begin = time.monotonic()
            assert b" 408 " in silent[0].recv(1000)
            assert time.monotonic() - begin < uploads.PATIENCE + 10  # and not the 60 s of a request
    finally:
        service.stop()


def test_a_stalled_upload_does_not_delay_a_stop():
    service = Served()
    with connect(service) as stalled:
        stalled.sendall(head(1_000_000).encode() + b"x")
        time.sleep(0.5)
        begin = time.monotonic()
        service.stop()
        assert time.monotonic() - begin < connections.STOP_SECONDS + 10


def test_an_upload_that_goes_on_slowly_does_not_delay_a_stop():
    service = Served()
    with connect(service) as slow:
        slow.sendall(head(10_000_000).encode())
        time.sleep(0.5)
        service.process.terminate()
        begin = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - begin < 30:
                slow.sendall(b"x" * 2_000)
                time.sleep(0.1)
        assert time.monotonic() - begin < connections.STOP_SECONDS + 10
        service.stop()


@pytest.mark.parametrize("key", ["", "  ", "a b", "né", "a\n"])
def test_a_key_that_protects_nothing_is_an_error(monkeypatch, key):
    with pytest.raises(MienError, match="API key"):
        mien.serve(api_key=key)
    monkeypatch.setenv("MIEN_API_KEY", key)
    with pytest.raises(MienError, match="API key"):
        mien.serve()


def test_the_command_refuses_an_empty_key():
    command = [sys.executable, "-m", "mien", "serve", "--port", "1"]
    done = subprocess.run(command, env=os.environ | {"MIEN_API_KEY": ""}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "MIEN_API_KEY" in done.stderr and "serves" not in done.stdout


def test_serving_other_machines_without_a_key_is_said():
    service = Served("--host", "0.0.0.0")
    assert "no API key is set" in service.stop()
    service = Served("--host", "0.0.0.0", MIEN_API_KEY="secret")
    assert "no API key" not in service.stop()


def test_a_port_that_is_taken_is_one_message_and_serves_is_not_said(served):
    port = served.address.rpartition(":")[2]
    command = [sys.executable, "-m", "mien", "serve", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "serves" not in done.stdout
    assert done.stderr.startswith(f"mien: cannot listen on --host '127.0.0.1' --port {port}: ")
    with pytest.raises(MienError, match="cannot listen on --host 'no.such.host.invalid'"):
        hosts.listening("no.such.host.invalid", 8000)


def test_addresses_are_written_as_in_a_url():
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        assert hosts.address("::1", [one]) == f"[::1]:{port}"
        assert hosts.address("127.0.0.1", [one]) == f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("localhost:8000", True),
        ("LOCALHOST", True),
        ("127.0.0.1:1", True),
        ("[::1]:8000", True),
        ("[::1]", True),
        ("192.168.1.5:8000", True),
        ("mine.example", True),
        ("Mine.Example.:80", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("[evil]", False),
        ("localhost.evil.example", False),
        ("mine.example@evil.example", False),
    ],
)
def test_a_page_of_another_site_reaches_nothing_by_its_own_name(predictor, header, allowed):
    with TestClient(make_app(predictor, hosts=["mine.EXAMPLE"]), base_url="http://localhost") as client:
        for path in ("/", "/v1/model", "/healthz"):
            answer = client.get(path, headers={"host": header})
            assert answer.status_code == (200 if allowed else 421)


@pytest.fixture(scope="module")
def predictor():
    return Predictor(threads=1)


@pytest.mark.parametrize(
    "charset", ["undefined", "idna", "punycode", "zlib", "utf-16", "no such", "a\0b", "unicode_escape"]
)
def test_a_charset_that_no_form_has(predictor, charset, face):  # noqa: F811
    kind = f'multipart/form-data; boundary=b; charset="{charset}"'
    body = (
        b'--b\r\ncontent-disposition: form-data; name="images"; filename="\xff.png"\r\n\r\n' + face + b"\r\n--b--\r\n"
    )
    with TestClient(make_app(predictor), base_url="http://localhost") as client:
        answer = client.post("/v1/predict?crops=1", content=body, headers={"content-type": kind})
        assert (answer.status_code, answer.json()["reason"]) == (400, "unknown charset")
        good = client.post(
            "/v1/predict?crops=1", content=body, headers={"content-type": kind.replace(charset, "UTF-8")}
        )
        assert good.status_code == 200


def test_a_small_request_does_not_wait_for_all_images_of_a_large_one(predictor, face, monkeypatch):  # noqa: F811
    order = []

    def find(content, name="", crops=False):
        order.append(name)
        time.sleep(0.02)
        return []

    monkeypatch.setattr(predictor, "crop_faces", find)

    async def both():
        batches = Batches(predictor, ServiceLimits())
        await batches.start()
        large = asyncio.ensure_future(batches.predict([Upload(f"large {n}", face) for n in range(64)], True))
        await asyncio.sleep(0.1)
        before = len(order)
        await batches.predict([Upload("small", face)], True)
        assert order.index("small") <= before + 3
        gone = asyncio.ensure_future(batches.predict([Upload(f"gone {n}", face) for n in range(64)], True))
        await asyncio.sleep(0.1)
        gone.cancel()
        begun = len(order)
        assert len(await large) == 64
        assert not [name for name in order[begun + 3 :] if name.startswith("gone")]
        await batches.stop()

    asyncio.run(both())


def test_a_prediction_does_not_wait_for_all_explanations(predictor, face):  # noqa: F811
    order = []

    def explain(number):
        time.sleep(0.05)
        order.append(number)

    async def both():
        batches = Batches(predictor, ServiceLimits())
        await batches.start()
        explanations = [asyncio.ensure_future(batches.run(explain, number)) for number in range(60)]
        await asyncio.sleep(0)
        (result,) = await batches.predict([Upload("a.png", face)], True)
        assert result.rows[0]["status"] == "ok" and len(order) < 60
        await asyncio.gather(*explanations)
        await batches.stop()

    asyncio.run(both())
    assert order == list(range(60))
