"""`mien predict --engine ray` beside the local path; skips where Ray is not installed."""

import io
import json
import os
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from mien.base.errors import MienError
from mien.prediction.photographs import predict_files
from mien.prediction.predict import Predictor
from mien.prediction.ray_cluster import STATE_FILE, _images, _name, _parts, _Worker, predict_cluster


@pytest.fixture(scope="module")
def ray():
    """Ray on this machine, started once."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'mien[cluster]'")
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "MIEN_TEST_RAY": str(os.getpid())}
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, logging_level="error", log_to_driver=False
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A person who gave her picture for this, a picture without anyone, and some that cannot be read."""
    data = pytest.importorskip("skimage.data")
    home = tmp_path_factory.mktemp("photographs")
    person = Image.fromarray(data.astronaut())
    for number in range(24):
        person.rotate(number, expand=True).save(home / f"{number:02d}.jpg")
    Image.new("RGB", (64, 64), "grey").save(home / "nobody.png")
    (home / "broken.jpg").write_bytes(b"no image")
    (home / "empty.jpg").touch()
    return home


@pytest.fixture(scope="module")
def crops(tmp_path_factory, drawn):
    home = tmp_path_factory.mktemp("crops")
    for number, file in enumerate(sorted(drawn.rglob("*.jpg"))[:60]):
        (home / f"{number:02d}.jpg").write_bytes(file.read_bytes())
    return home


def local(paths, out, **options):
    predict_files(Predictor(threads=1), paths, out, **options)
    return pd.read_parquet(out)


def same(folder, expected):
    got = pd.read_parquet(folder).sort_values(["file", "face_index"], ignore_index=True)
    expected = expected.sort_values(["file", "face_index"], ignore_index=True)
    pd.testing.assert_frame_equal(got, expected, atol=1e-3)


def workers():
    """The processes that hold a model, of this Ray alone."""
    mark = f"MIEN_TEST_RAY={os.getpid()}".encode()
    for folder in Path("/proc").iterdir():
        try:
            named = folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(b"ray::MapWorker")
            if named and mark in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
        except OSError:
            continue


def test_each_row_is_there_once_though_a_worker_is_killed(ray, photographs, tmp_path):
    out, killed = tmp_path / "faces", []

    def kill():
        until = time.monotonic() + 300  # a busy machine takes long to start workers
        while not list(out.glob("part-*")) and time.monotonic() < until:
            time.sleep(0.01)
        for pid in list(workers())[:1]:
            os.kill(pid, signal.SIGKILL)
            killed.append((pid, len(list(out.glob("part-*")))))

    killer = threading.Thread(target=kill)
    killer.start()
    statuses = predict_cluster([str(photographs)], str(out), part=2)
    killer.join()
    assert len(killed) == 1 and killed[0][1] < 14, "the work was over before the worker was killed"
    expected = local([str(photographs)], tmp_path / "local.parquet")
    same(out, expected)
    assert statuses == {"ok": 24, "no face": 1, "not an image": 1, "empty": 1}
    assert {file.name for file in out.iterdir()} == {
        STATE_FILE,
        *(f"part-{number:06d}.parquet" for number in range(14)),
    }


def test_an_interrupted_command_goes_on_with_the_parts_that_are_not_there(ray, crops, tmp_path, capsys):
    out = tmp_path / "faces"
    predict_cluster([str(crops)], str(out), crops=True, part=20)
    head = json.loads((out / STATE_FILE).read_text())
    assert head.pop("statuses") == {"ok": 60} and head["parts"] == 3
    with pytest.raises(MienError, match="is a finished table"):
        predict_cluster([str(crops)], str(out), crops=True, part=20)
    (out / STATE_FILE).write_text(json.dumps(head))
    (out / "part-000001.parquet").unlink()
    (out / ".part-000001.k2j.parquet").write_bytes(b"half")
    kept = (out / "part-000000.parquet").stat()
    with pytest.raises(MienError, match="started with another --crops"):
        predict_cluster([str(crops)], str(out), part=20)
    predict_cluster([str(crops)], str(out), crops=True, part=20)
    assert "2 of 3 parts are done" in capsys.readouterr().out
    assert (out / "part-000000.parquet").stat() == kept and not list(out.glob(".part*"))
    same(out, local([str(crops)], tmp_path / "local.parquet", crops=True))


@pytest.mark.parametrize("kind", ["bytes", "image", "picture"])
def test_tables_with_the_bytes_of_images_and_addresses(crops, tmp_path, kind):
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'mien[cluster]'")
    files = sorted(crops.iterdir())
    content = [file.read_bytes() for file in files]
    columns = {"file": [str(file) for file in files], kind: content}
    if kind == "image":  # as Hugging Face's data sets
        columns = {kind: [{"bytes": one, "path": str(file)} for one, file in zip(content, files, strict=True)]}
    table = tmp_path / "tables" / "faces.parquet"
    table.parent.mkdir()
    pd.DataFrame(columns).to_parquet(table, row_group_size=25)
    column = kind if kind == "picture" else None
    paths = [str(table.parent)] if kind == "bytes" else [f"file://{table}"]
    out = tmp_path / "faces"
    out.mkdir()
    worker = _Worker({"threads": 1}, True, f"file://{out}")
    numbered = [json.dumps(part | {"number": number}) for number, part in enumerate(_parts(paths, column, 1))]
    assert worker({"part": numbered}) == {"number": [0, 1, 2]}
    assert sorted(file.name for file in out.iterdir()) == [_name(number) for number in range(3)]
    same(tmp_path / "faces", local([str(crops)], tmp_path / "local.parquet", crops=True))


def test_an_address_gives_the_same_images_as_the_folder(crops):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'mien[cluster]'")
    system = fsspec.filesystem("memory")
    for file in crops.iterdir():
        system.pipe_file(f"/faces/{file.name}", file.read_bytes())
    (part,) = _parts(["memory://faces"], None, 100)
    found = {Path(name).name: load() for name, load in _images(part)}
    assert found == {file.name: file.read_bytes() for file in crops.iterdir()}
    rows = pd.DataFrame({"image": [b"a", None]})
    buffer = io.BytesIO()
    rows.to_parquet(buffer)
    system.pipe_file("/tables/x.parquet", buffer.getvalue())
    (part,) = _parts(["memory://tables"], None, 100)
    assert [(name.rpartition("/")[2], load()) for name, load in _images(part)] == [
        ("x.parquet#0", b"a"),
        ("x.parquet#1", b""),
    ]


def test_mistakes_are_named(crops, tmp_path):
    pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'mien[cluster]'")
    table = tmp_path / "faces.parquet"
    pd.DataFrame({"name": ["a"], "pixels": [b"x"]}).to_parquet(table)
    with pytest.raises(MienError, match="unknown column of .*'picture'; valid: name, pixels"):
        list(_parts([str(table)], "picture", 10))
    with pytest.raises(MienError, match="column 'name' of .* is .*string; valid: bytes"):
        list(_parts([str(table)], "name", 10))
    with pytest.raises(MienError, match="no column 'bytes' or 'image'"):
        list(_parts([f"file://{table}"], None, 10))
    with pytest.raises(MienError, match="address 'nowhere://x' cannot be used"):
        list(_parts(["nowhere://x"], None, 10))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(MienError, match="holds other files"):
        predict_cluster([str(crops)], str(tmp_path / "mine"), crops=True)
    with pytest.raises(MienError, match="'letter.txt', which is not part of a table"):
        predict_cluster([str(crops)], str(tmp_path / "mine"), crops=True, overwrite=True)
