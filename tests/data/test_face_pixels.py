import os
import pickle

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage.data import astronaut

from mien.base.errors import DiskFull, MienError
from mien.base.table import check_faces
from mien.data import face_pixels, images
from mien.data.alignment import cut_upright
from mien.data.face_pixels import FilePixels, PixelCache, PixelSubset, cache_folder, check_readable


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    return tmp_path


@pytest.fixture
def faces():
    paths = ["a.png", "broken.png", "b.png", "absent.png", "c.png"]
    return check_faces(pd.DataFrame({"face": paths, "path": paths, "x": [1.0, *[None] * 4], "y": 2, "w": 20, "h": 30}))


def test_cache_holds_what_the_files_give(folder, faces, tmp_path_factory):
    files = FilePixels(faces, folder, 16, margin=0.1)
    cache = PixelCache(files, tmp_path_factory.mktemp("cache"))
    cache.fill()
    assert set(cache.unreadable()) == {1, 3} and len(cache) == len(files) == 5
    for index in (0, 2, 4):
        assert np.array_equal(cache[index], files[index]) and cache[index].shape == (16, 16, 3)
    for index, reason in ((1, "truncated"), (3, "missing")):
        for source in (cache, files):
            with pytest.raises(images.ImageError) as error:
                source[index]
            assert error.value.reason == reason


def test_cache_is_not_filled_twice_but_follows_its_source(folder, faces, tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("cache")
    PixelCache(FilePixels(faces, folder, 16), home).fill()
    decoded = []
    real = images.load_face
    monkeypatch.setattr(images, "load_face", lambda path, *rest: decoded.append(path.name) or real(path, *rest))
    PixelCache(FilePixels(faces, folder, 16), home).fill()
    assert decoded == []
    Image.new("RGB", (40, 40), "red").save(folder / "b.png")
    Image.new("RGB", (40, 40), "blue").save(folder / "absent.png")
    cache = PixelCache(FilePixels(faces, folder, 16), home)
    cache.fill()
    assert sorted(decoded) == ["absent.png", "b.png"] and set(cache.unreadable()) == {1}
    assert cache[2][0, 0].tolist() == [255, 0, 0] and cache[3][0, 0].tolist() == [0, 0, 255]


def test_an_interrupted_fill_goes_on(folder, faces, tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("mien.data.face_pixels._CHUNK", 2)

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PixelCache(FilePixels(faces, folder, 16), home).fill(stop)
    told = []
    cache = PixelCache(FilePixels(faces, folder, 16), home)
    cache.fill(lambda done, total: told.append((done, total)))
    assert told == [(2, 3), (3, 3)]
    assert np.array_equal(cache[0], FilePixels(faces, folder, 16)[0])


def test_other_sizes_boxes_and_roots_have_other_caches(folder, faces):
    key = FilePixels(faces, folder, 16).key()
    others = [FilePixels(faces, folder, 17), FilePixels(faces, folder, 16, 0.1), FilePixels(faces, folder / "x", 16)]
    moved = faces.assign(x=2.0, y=2.0, w=20.0, h=30.0)
    assert key == FilePixels(faces.copy(), folder, 16).key()
    assert key not in {files.key() for files in [*others, FilePixels(moved, folder, 16)]}


def test_a_worker_process_maps_the_cache_itself(folder, faces, tmp_path_factory):
    cache = PixelCache(FilePixels(faces, folder, 64), tmp_path_factory.mktemp("cache"))
    cache.fill()
    copy = pickle.dumps(cache)
    assert len(copy) < cache[0].nbytes
    assert np.array_equal(pickle.loads(copy)[0], cache[0])


def test_rows_are_a_view(folder, faces):
    files = FilePixels(faces, folder, 16)
    rows = PixelSubset(files, np.array([4, 0]))
    assert len(rows) == 2 and np.array_equal(rows[0], files[4]) and np.array_equal(rows[1], files[0])


@pytest.mark.parametrize("size", [0, 1, 900, 10**6])
@pytest.mark.parametrize("name", ["pixels.u8", "state.u8", "sums.u32", "stamps.i64"])
def test_a_cache_with_a_file_of_another_size_is_built_anew(folder, faces, tmp_path_factory, name, size):
    home = tmp_path_factory.mktemp("cache")
    files = FilePixels(faces, folder, 16)
    PixelCache(files, home).fill()
    (file,) = home.glob(f"*/{name}")
    os.truncate(file, size)
    cache = PixelCache(files, home)
    for _ in "ab":  # also if it is used as it is
        for index in (0, 2, 4):
            assert np.array_equal(cache[index], files[index])
        cache.fill()
    assert set(cache.unreadable()) == {1, 3}


@pytest.mark.parametrize("name", ["pixels.u8", "state.u8", "sums.u32", "stamps.i64", "unreadable.json"])
def test_a_damaged_cache_gives_no_other_pixels(folder, faces, tmp_path_factory, name):
    home = tmp_path_factory.mktemp("cache")
    files = FilePixels(faces, folder, 16)
    PixelCache(files, home).fill()
    (file,) = home.glob(f"*/{name}")
    for byte in (b"\0", b"\1", b"\2", b"\xff"):
        file.write_bytes(byte * file.stat().st_size)
        for fill in (False, True):
            cache = PixelCache(files, home)
            if fill:
                cache.fill()
                assert set(cache.unreadable()) == {1, 3}
            for index in (0, 2, 4):
                assert np.array_equal(cache[index], files[index])
            for index in (1, 3):
                with pytest.raises(images.ImageError):
                    cache[index]


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """No HOME, and a user without an entry in the list of users."""
    for name in ("MIEN_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    face_pixels._note_fallback.cache_clear()
    return tmp_path / f"mien-{os.geteuid()}"


def test_without_a_home_the_cache_is_in_a_private_temporary_folder(homeless, capsys):
    assert cache_folder() == cache_folder() == homeless
    assert homeless.stat().st_mode & 0o777 == 0o700
    assert capsys.readouterr().out.count("MIEN_CACHE") == 1


def test_a_home_that_cannot_be_made_is_none(homeless, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert cache_folder() == homeless


def test_a_temporary_folder_of_somebody_else_is_not_used(homeless, tmp_path):
    homeless.symlink_to(tmp_path)
    with pytest.raises(MienError, match="set MIEN_CACHE"):
        cache_folder()


def test_a_cache_folder_that_cannot_be_written_is_one_message(monkeypatch):
    monkeypatch.setenv("MIEN_CACHE", "/dev/null/cache")
    with pytest.raises(MienError, match="MIEN_CACHE='/dev/null/cache' cannot be written"):
        cache_folder()


def test_too_many_unreadable_stop_with_counts_and_example(faces):
    unreadable = {1: "truncated: x", 3: "missing: y"}
    check_readable(faces, unreadable, 0.4)
    with pytest.raises(MienError, match=r"2 of 5 .*truncated 1.*missing 1.*0\.1.*'broken\.png'"):
        check_readable(faces, unreadable, 0.1)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_is_an_error_not_a_crash(folder, faces, tmp_path_factory):
    import subprocess

    small = tmp_path_factory.mktemp("small")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("this machine does not let tests mount a disk")
    try:
        with pytest.raises(DiskFull, match="is full: .pixels.u8. was not written"):
            PixelCache(FilePixels(faces, folder, 512), small)
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_face_with_a_roll_is_cut_as_a_prediction_cuts_it(tmp_path):
    Image.fromarray(astronaut()).save(tmp_path / "a.png")
    place = {"x": 160.0, "y": 50.0, "w": 120.0, "h": 120.0}
    rows = [{"face": str(roll), "path": "a.png", **place, "roll": roll} for roll in (0.0, 0.6, None)]
    faces = check_faces(pd.DataFrame(rows))
    files = FilePixels(faces, tmp_path, 48, margin=0.1)
    square = images.square(512, 512, (160.0, 50.0, 120.0, 120.0), 0.1)
    assert np.array_equal(files[1], cut_upright(astronaut(), square, 48, 0.6))
    assert np.array_equal(files[0], images.cut(astronaut(), square, 48)) and np.array_equal(files[0], files[2])
    assert files.key() != FilePixels(faces.drop(columns="roll"), tmp_path, 48, margin=0.1).key()
