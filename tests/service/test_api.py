"""The API: what it answers, what it refuses, and that it survives its clients."""

import io
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

from mien import MienError, Predictor
from mien.service.limits import ServiceLimits

from .conftest import Served


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def astronaut():
    return encoded(data.astronaut())


@pytest.fixture(scope="module")
def coffee():
    return encoded(data.coffee()[:200, :200])


@pytest.fixture(scope="module")
def face():
    return encoded(data.astronaut()[70:180, 175:285])


def post(served, *files, path="/v1/predict", **parameters):
    form = [("images", file) for file in files]
    return httpx.post(served.address + path, files=form, params=parameters, timeout=60)


def test_rows_are_those_of_the_predictor(served, astronaut, coffee):
    answer = post(served, ("a.png", astronaut), ("b.png", b"no image"), ("c.png", coffee))
    assert answer.status_code == 200
    rows = answer.json()["rows"]
    assert [(row["file"], row["status"]) for row in rows] == [
        ("a.png", "ok"),
        ("b.png", "not an image"),
        ("c.png", "no face"),
    ]
    mine = Predictor(threads=1).predict(astronaut).iloc[0]
    for name, value in rows[0].items():
        if name not in ("file", "status"):
            assert value == mine[name], name


def test_one_image_as_the_whole_body(served, face):
    kind = {"content-type": "image/png"}
    answer = httpx.post(f"{served.address}/v1/predict?crops=true", content=face, headers=kind).json()
    assert [row["status"] for row in answer["rows"]] == ["ok"] and "x" not in answer["rows"][0]


@pytest.mark.parametrize(
    ("files", "status", "reason"),
    [
        ([("a.png", b"")], 422, "empty"),
        ([("a.png", b"text"), ("b.png", b"")], 422, "no image could be read"),
        ([("a.png", encoded(np.zeros((4, 4, 3), np.uint8)))], 422, "too small"),
        ([("a.png", b"x")] * 65, 413, "too many images"),
        ([("a.png", b"x" * 33_000_000)], 413, "too large"),
    ],
)
def test_a_request_without_an_image_that_can_be_read(served, files, status, reason):
    answer = post(served, *files)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)


def test_other_bodies_are_refused_with_what_is_valid(served, astronaut):
    address = f"{served.address}/v1/predict"
    assert httpx.post(address, json={"url": "file:///etc/passwd"}).status_code == 415
    assert httpx.post(address, files={"photo": astronaut}).json()["reason"] == "unknown field"
    assert httpx.post(address, data={"images": "/etc/passwd"}, files={}).status_code in (400, 415)
    broken = {"content-type": "multipart/form-data"}
    assert httpx.post(address, content=b"--x", headers=broken).json()["reason"] == "malformed form"
    assert httpx.post(f"{address}?crops=perhaps", content=astronaut).status_code == 422
    assert httpx.get(f"{served.address}/../../etc/passwd").status_code == 404


def test_a_header_that_promises_many_pixels_is_not_decoded(served):
    wide = encoded(np.zeros((100, 100, 3), np.uint8), "BMP")
    huge = wide[:18] + (9000).to_bytes(4, "little") + (9000).to_bytes(4, "little") + wide[26:]
    assert post(served, ("a.bmp", huge)).json()["reason"] == "too large"


def test_a_chunked_body_is_cut_at_the_limit(served):
    def chunks():
        for _ in range(40):
            yield b"x" * 1_000_000

    kind = {"content-type": "image/png"}
    with suppress(httpx.WriteError):  # it may be refused while the client still writes
        assert httpx.post(f"{served.address}/v1/predict", content=chunks(), headers=kind).status_code == 413
    assert httpx.get(f"{served.address}/healthz").status_code == 200


def test_explanations(served, astronaut, coffee, face):
    kind = {"content-type": "application/octet-stream"}
    answer = httpx.post(f"{served.address}/v1/explain", content=astronaut, headers=kind, timeout=60).json()
    assert {name: np.shape(grid) for name, grid in answer["maps"].items()} == {"gender": (16, 16), "age": (16, 16)}
    assert 165 < answer["crop"]["x"] < 195 and 80 < answer["crop"]["side"] < 110
    crop = httpx.post(f"{served.address}/v1/explain?crops=1", content=face, headers=kind, timeout=60).json()["crop"]
    assert crop == {"x": 0, "y": 0, "side": 110}
    none = httpx.post(f"{served.address}/v1/explain", content=coffee, headers=kind, timeout=60)
    assert (none.status_code, none.json()["reason"]) == (422, "no face")
    second = httpx.post(f"{served.address}/v1/explain?face=1", content=astronaut, headers=kind, timeout=60)
    assert (second.status_code, second.json()["reason"]) == (422, "no such face")


def test_what_it_says_of_itself(served):
    model = httpx.get(f"{served.address}/v1/model").json()
    assert model["name"] == "mien-2" and "non-commercial" in model["notice"] and "perceived" in model["labels"]
    assert model["limits"]["images"] == 64
    api = httpx.get(f"{served.address}/openapi.json").json()
    assert {"/v1/predict", "/v1/explain", "/v1/model", "/healthz", "/readyz", "/metrics"} == set(api["paths"])
    assert api["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"]["application/json"]["example"]["rows"]
    assert 'mien_requests_total{path="/v1/model",status="200"}' in httpx.get(f"{served.address}/metrics").text
    assert httpx.get(f"{served.address}/docs").status_code == 404  # it would ask another host for scripts
    assert "default-src 'none'" in httpx.get(served.address).headers["content-security-policy"]


def test_requests_at_once_have_their_own_answers(served, face):
    crops = [encoded(np.roll(data.astronaut(), step, axis=1)[70:180, 175:285]) for step in range(0, 64, 4)]
    alone = [Predictor(threads=1).predict(crop, crops=True).iloc[0] for crop in crops]

    def ask(index):
        bad = index % 10 == 9
        answer = post(served, ("x", b"bad" if bad else crops[index % len(crops)]), crops=True)
        return answer.status_code, None if bad else answer.json()["rows"][0]

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(160)))
    for index, (status, row) in enumerate(answers):
        if index % 10 == 9:
            assert status == 422
        else:
            assert status == 200
            # Batches of other sizes may round the network's last bits otherwise.
            expected = alone[index % len(crops)]
            assert row["p_female"] == pytest.approx(expected["p_female"], abs=2e-3)
            assert row["age"] == pytest.approx(expected["age"], abs=0.1)


def test_an_api_key(astronaut):
    service = Served(MIEN_API_KEY="secret")
    try:
        assert httpx.get(f"{service.address}/v1/model").status_code == 401
        assert httpx.get(f"{service.address}/metrics").status_code == 401
        wrong = httpx.get(f"{service.address}/v1/model", headers={"authorization": "Bearer other"})
        assert wrong.status_code == 401 and "secret" not in wrong.text
        right = httpx.get(f"{service.address}/v1/model", headers={"authorization": "Bearer secret"})
        assert right.status_code == 200
        assert httpx.get(f"{service.address}/healthz").status_code == 200
    finally:
        service.stop()


def test_slow_and_vanishing_clients_and_a_full_house(astronaut):
    service = Served("--max-seconds", "3", "--max-bytes", "1000000", "--max-waiting", "1500000")
    host, port = service.address.removeprefix("http://").split(":")
    head = f"POST /v1/predict HTTP/1.1\r\nhost: {host}\r\ncontent-type: image/png\r\ncontent-length: 900000\r\n\r\n"
    try:
        slow = socket.create_connection((host, int(port)))
        slow.sendall(head.encode() + bytes(800_000))
        time.sleep(0.5)
        # The slow one's bytes are in memory, so a second large body must be retried later; a small one is served.
        kind = {"content-type": "image/png"}
        full = httpx.post(f"{service.address}/v1/predict", content=bytes(900_000), headers=kind)
        assert full.status_code == 503 and full.headers["retry-after"] == "1"
        served = httpx.post(f"{service.address}/v1/predict", content=astronaut, headers=kind)
        assert served.status_code == 200
        for _ in range(2):
            slow.sendall(b"x")
            time.sleep(1)
        slow.settimeout(10)
        assert b" 408 " in slow.recv(1000)
        slow.close()
        gone = socket.create_connection((host, int(port)))
        gone.sendall(head.replace("900000", str(len(astronaut))).encode() + astronaut)
        gone.close()
        time.sleep(1)
        assert "mien_held_bytes 0.0" in httpx.get(f"{service.address}/metrics").text
    finally:
        printed = service.stop()
    assert "Traceback" not in printed


def test_a_stop_finishes_what_was_taken(astronaut):
    service = Served()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(post(service, *[("a.png", astronaut)] * 8)))
    asking.start()
    time.sleep(0.5)
    printed = service.stop()
    asking.join()
    assert answers[0].status_code == 200 and len(answers[0].json()["rows"]) == 8
    assert service.process.returncode in (0, -15) and "a.png" not in printed


def test_a_failure_shows_and_logs_nothing_of_the_request(monkeypatch, caplog, astronaut):
    from fastapi.testclient import TestClient

    from mien.service.app import make_app

    predictor = Predictor(threads=1)

    def fail(*_):
        raise RuntimeError("private name of a file")

    monkeypatch.setattr(predictor, "predict_pixels", fail)
    with TestClient(make_app(predictor), base_url="http://localhost", raise_server_exceptions=False) as client:
        answer = client.post("/v1/predict", files={"images": ("private.png", astronaut)})
        assert answer.status_code == 500 and answer.json()["reason"] == "failed"
        assert client.get("/healthz").status_code == 200
    assert "private" not in answer.text and "private" not in caplog.text


class DarkIsNothing:
    """A session whose answers about black faces are no numbers."""

    def __init__(self, session):
        self._session = session

    def run(self, names, inputs):
        dark = inputs["images"].reshape(len(inputs["images"]), -1).max(axis=1) == 0
        return [np.where(dark, np.nan, values).astype("f4") for values in self._session.run(names, inputs)]


def test_a_model_that_gives_no_numbers_is_one_clear_answer_and_concerns_no_other_request(monkeypatch, face):
    from fastapi.testclient import TestClient

    from mien.service.app import make_app
    from mien.service.batches import Batches

    predictor = Predictor(threads=1)
    monkeypatch.setattr(predictor, "_session", DarkIsNothing(predictor._session))
    black = encoded(np.zeros((60, 60, 3), np.uint8))
    with TestClient(make_app(predictor), base_url="http://localhost") as client:
        for path in ("predict", "explain"):
            answer = client.post(f"/v1/{path}?crops=true", files={"images": ("private.png", black)})
            told = answer.json()
            assert (answer.status_code, told["reason"]) == (500, "model failed"), answer.text
            assert f"{predictor.name!r}: its output 'p_female' has the value nan; valid: 0 to 1" in told["detail"]
        assert client.post("/v1/predict?crops=true", files={"images": ("a.png", face)}).status_code == 200
    both = [list(predictor.crop_faces(content, "a.png", True)) for content in (black, face)]
    bad, good = Batches(predictor, ServiceLimits())._predict_batch(both)
    assert "nan" in str(bad) and [row["status"] for row in good] == ["ok"]


def test_a_model_that_gives_no_numbers_is_not_served(monkeypatch):
    from mien.service import run

    predictor = Predictor(threads=1)
    monkeypatch.setattr(predictor, "_session", DarkIsNothing(predictor._session))
    with pytest.raises(MienError, match="'p_female' has the value nan"):
        run(predictor, "127.0.0.1", 0, ServiceLimits())


def test_uploads_never_touch_the_disk(monkeypatch, astronaut):
    from fastapi.testclient import TestClient

    from mien.service.app import make_app

    written = []
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", lambda file: written.append(file))
    with TestClient(make_app(Predictor(threads=1)), base_url="http://localhost") as client:
        big = astronaut + bytes(5_000_000)
        assert client.post("/v1/predict", files={"images": ("a.png", big)}).status_code == 200
    assert not written


def test_faces_beyond_the_limit_are_counted(astronaut):
    from fastapi.testclient import TestClient

    from mien.service.app import make_app

    two = encoded(np.concatenate([data.astronaut(), data.astronaut()[:, ::-1]], axis=1))
    with TestClient(make_app(Predictor(threads=1), ServiceLimits(faces=1)), base_url="http://localhost") as client:
        answer = client.post("/v1/predict", files={"images": ("a.png", two)}).json()
    assert len(answer["rows"]) == 1 and answer["faces_left_out"] == 1


def test_limits_that_make_no_sense():
    with pytest.raises(MienError, match="images=0"):
        ServiceLimits(images=0)
    with pytest.raises(MienError, match="could never be accepted"):
        ServiceLimits(waiting_bytes=10)


def test_the_columns_stand_in_the_download(served, astronaut):
    columns = httpx.get(f"{served.address}/v1/model").json()["columns"]
    row = post(served, ("a.png", astronaut)).json()["rows"][0]
    assert set(row) <= set(columns)
    assert list(pd.DataFrame(columns=columns)) == Predictor(threads=1).columns


def test_the_page_can_be_asked_for_its_head_only(served):
    answer = httpx.head(f"{served.address}/")
    assert answer.status_code == 200 and answer.content == b"" and int(answer.headers["content-length"]) > 1000
