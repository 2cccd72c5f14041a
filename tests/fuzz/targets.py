"""What is fuzzed: bytes in, nothing out, and no error but mien's own. Used by `fuzz.py` and by `test_fuzz.py`."""

import asyncio
import functools
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mien.base.errors import MienError
from mien.base.strict_yaml import read_yaml
from mien.base.table import check_faces, read_table
from mien.data import images
from mien.data.sources import read_faces
from mien.experiments.space import read_space
from mien.experiments.study import load_study
from mien.prediction.input_files import image_files
from mien.prediction.predict import Predictor
from mien.recipe.load import load_recipe
from mien.recipe.settings import Recipe

SIZE = 32


def image(content: bytes) -> None:
    """An image file's bytes, as a photograph and as a crop, with a box taken from the bytes too."""
    edges = np.frombuffer(content[-8:].rjust(8, b"\0"), dtype="<i2").astype(float) / 64
    box = None if content[-1:] < b"\x80" else (edges[0], edges[1], abs(edges[2]) + 1, abs(edges[3]) + 1)
    try:
        whole = images.load(content)
        assert whole.dtype == np.uint8 and whole.ndim == 3 and whole.shape[2] == 3
        images.load(content, min_size=16)
        face, side = images.load_face_and_side(content, SIZE, box, 0.4)
        assert face.shape == (SIZE, SIZE, 3) and face.dtype == np.uint8 and side > 0
    except MienError as error:
        assert isinstance(error, images.ImageError) and error.reason


def table(content: bytes) -> None:
    """A table's file: Parquet where it begins so, else CSV; as faces, as a source, and as a list of images."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        file = Path(folder) / ("t.parquet" if content[:4] == b"PAR1" else "t.csv")
        file.write_bytes(content)
        for read in (
            lambda: check_faces(read_table(file)),
            lambda: read_faces("csv", file),
            lambda: read_faces("csv", file, map={"a": "path", "b": "age"}),
            lambda: image_files([str(file)]),
        ):
            try:
                read()
            except MienError as error:
                assert str(error)


def recipe(content: bytes) -> None:
    """A recipe's file, a change, a study and a search space."""
    text = content.decode("utf-8", "replace")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        file = Path(folder) / "r.yaml"
        file.write_bytes(content)
        for read in (
            lambda: load_recipe(file).to_yaml(),
            lambda: load_study(file),
            lambda: read_space(file, _PLAIN),
            lambda: load_recipe(_PLAIN, [text]),
            lambda: load_recipe(_PLAIN, [f"optim.lr={text}"]),
            lambda: read_yaml(text, "text"),
        ):
            try:
                read()
            except MienError as error:
                assert str(error)


def upload(content: bytes) -> None:
    """A request of the service: the first line is its Content-Type, the rest the body, in two parts."""
    from starlette.requests import Request

    from mien.service.limits import ServiceLimits
    from mien.service.uploads import Holding, Memory, Refusal, read_uploads

    kind, _, body = content.partition(b"\n")
    parts = [body[: len(body) // 2], body[len(body) // 2 :]]

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    request = Request({"type": "http", "headers": [(b"content-type", kind)]}, receive)
    memory = Memory(Holding(1_000_000), 0)
    try:
        uploads = asyncio.run(read_uploads(request, ServiceLimits(), memory))
        assert uploads and all(isinstance(one.content, bytes) and one.name for one in uploads)
    except Refusal as refusal:
        assert 400 <= refusal.status < 500 and refusal.reason


def model(content: bytes) -> None:
    """A model's file: opened, and given one image where it is accepted."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        file = Path(folder) / "m.onnx"
        file.write_bytes(content)
        try:
            predictor = Predictor(file, threads=1)
            columns = predictor.predict_pixels(np.zeros((1, predictor.size, predictor.size, 3), np.uint8))
            assert all(len(values) == 1 for values in columns.values())
        except MienError as error:
            assert str(error)


def request(content: bytes) -> None:
    """A connection's bytes: parsed by h11 as `mien serve` does, and answered by the application."""
    import h11

    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16_384)
    connection.receive_data(content)
    head, body = None, []
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            else:
                break
    except h11.RemoteProtocolError:
        return
    if head is None:
        return
    app, loop = _service()
    statuses = loop.run_until_complete(_answer(app, head, b"".join(body)))
    assert len(statuses) == 1 and (statuses[0] < 500 or statuses[0] == 503), statuses


@functools.cache
def _service() -> tuple[Any, asyncio.AbstractEventLoop]:
    """The application with its worker started, and the loop that it runs in."""
    from mien.service.app import make_app

    app, loop = make_app(Predictor(threads=1), api_key="key"), asyncio.new_event_loop()
    loop.run_until_complete(app.router.lifespan_context(app).__aenter__())
    return app, loop


async def _answer(app: Any, head: Any, body: bytes) -> list[int]:
    """The statuses of the application's responses to one request: there must be one."""
    path, _, query = head.target.partition(b"?")
    scope = {
        "type": "http",
        "method": head.method.decode("ascii"),
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "headers": [(name.lower(), value) for name, value in head.headers],
        "http_version": head.http_version.decode("ascii"),
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 9),
    }
    parts = [{"type": "http.request", "body": body, "more_body": False}]
    statuses = []

    async def receive() -> dict[str, Any]:
        if not parts:
            await asyncio.sleep(3600)  # the client stays
        return parts.pop(0)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return statuses


_PLAIN = Recipe(name="plain")

TARGETS = {"image": image, "table": table, "recipe": recipe, "upload": upload, "model": model, "request": request}


def seeds(target: str) -> list[bytes]:
    """Small valid inputs to begin with."""
    makers = {
        "image": _images,
        "table": _tables,
        "recipe": _recipes,
        "upload": _uploads,
        "model": _models,
        "request": _requests,
    }
    return makers[target]()


def _images() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    plain = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    wanted = [
        ("JPEG", "RGB", {"exif": exif}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "L", {}),
        ("JPEG", "RGB", {"progressive": True}),
    ]
    wanted += [("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    wanted += [
        ("PNG", "RGB", {"exif": exif}),
        ("GIF", "P", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
    ]
    wanted += [("BMP", "RGB", {}), ("BMP", "L", {}), ("PPM", "RGB", {}), ("PPM", "L", {})]
    wanted += [("TIFF", mode, {}) for mode in ("RGB", "L", "F", "I;16", "CMYK", "RGBA")]
    wanted += [
        ("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    ]
    found = []
    for kind, mode, options in wanted:
        buffer = io.BytesIO()
        (Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else plain.convert(mode)).save(
            buffer, kind, **options
        )
        found.append(buffer.getvalue())
    for kind in ("GIF", "PNG", "WEBP"):
        buffer = io.BytesIO()
        plain.save(buffer, kind, save_all=True, append_images=[plain.rotate(90)])
        found.append(buffer.getvalue())
    return found


def _tables() -> list[bytes]:
    faces = pd.DataFrame(
        {"face": ["1", "2"], "path": ["a.jpg", "b/c.jpg"], "gender": ["female", None], "age": [3.5, None], "x": [1, 2]}
    )
    buffer = io.BytesIO()
    faces.to_parquet(buffer)
    text = faces.to_csv(index=False)
    return [
        buffer.getvalue(),
        text.encode(),
        text.replace(",", ";").encode(),
        text.replace(",", "\t").encode("utf-16"),
        b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        b'a,b\n"x, y",3\n"un""quoted",4\n',
        b"a,b,c\n1\n1,2,3,4\n",
    ]


def _recipes() -> list[bytes]:
    return [
        load_recipe("demo-gender-age").to_yaml().encode(),
        b"tasks: [gender, age]\noptim: {lr: 1e-3}\n",
        b"base: demo-gender\ntrainer:\n  epochs: 3\n",
        b"base: demo-gender\naxes:\n  a: {one: {}, two: {set: [optim.lr=0.1]}}\nseeds: [0, 1]\ncompare: [a]\n",
        b"optim.lr: {low: 1e-4, high: 1e-2, log: true}\naugment.flip: {choices: [0.0, 0.5]}\n",
        json.dumps({"tasks": {"gender": {}}}).encode(),
        b"optim.lr=0.1",
        b"a: &a [x, x]\nb: [*a, *a]\n",
    ]


def _uploads() -> list[bytes]:
    form = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n\x89PNG\r\n'
    named = b"--b\r\nContent-Disposition: form-data; name=images; filename*=utf-8''%41.png\r\n\r\ny\r\n"
    return [
        b'multipart/form-data; boundary="b"; charset=utf-8\n' + form + named + b"--b--\r\n",
        b"multipart/form-data; boundary=b\n" + form + b"--b--\r\n",
        b"multipart/form-data; boundary=b; charset=undefined\n" + form + b"--b--\r\n",
        b"image/png\n\x89PNG",
        b"text/plain\nno image",
    ]


def _models() -> list[bytes]:
    """Two small networks that mien accepts, one of them with weights; none where the package onnx is absent."""
    try:
        import onnx
        from onnx import helper
    except ImportError:
        return [b""]
    about = {"format": 2, "resize": images.RESIZE, "image_size": 8, "margin": 0.1, "tasks": ["gender"]}
    found = []
    for weighted in (False, True):
        nodes = [
            helper.make_node("Cast", ["images"], ["f"], to=1),
            helper.make_node("ReduceMean", ["f"], ["m"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["m", "w"], ["z"]) if weighted else helper.make_node("Neg", ["m"], ["z"]),
            helper.make_node("Sigmoid", ["z"], ["p_female"]),
        ]
        weights = [helper.make_tensor("w", 1, [1], [0.01])] if weighted else []
        ends = ("images", 2, ["n", 8, 8, 3]), ("p_female", 1, ["n"])
        taken, given = ([helper.make_tensor_value_info(*end)] for end in ends)
        graph = helper.make_graph(nodes, "g", taken, given, weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.helper.set_model_props(made, {"mien": json.dumps(about)})
        found.append(made.SerializeToString())
    return found


def _requests() -> list[bytes]:
    """Requests of each route, as bytes of a connection."""
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24), "grey").save(buffer, "PNG")
    image = buffer.getvalue()
    form = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n' + image + b"\r\n--b--\r\n"

    def one(line: bytes, kind: bytes = b"", body: bytes = b"") -> bytes:
        head = [line + b" HTTP/1.1", b"Host: localhost:8000", b"Authorization: Bearer key"]
        head += [b"Content-Type: " + kind, b"Content-Length: %d" % len(body)] if kind else []
        return b"\r\n".join([*head, b"", body])

    return [
        one(b"POST /v1/predict?crops=true", b"image/png", image),
        one(b"POST /v1/predict", b"multipart/form-data; boundary=b", form),
        one(b"POST /v1/explain?crops=false&face=0", b"image/png", image),
        *(one(b"GET " + path) for path in (b"/", b"/healthz", b"/readyz", b"/metrics", b"/v1/model", b"/openapi.json")),
        b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ]
