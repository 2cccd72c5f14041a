"""What arguments stand for."""

import io
import os

import pandas as pd
import pytest

from mien.base.errors import MienError
from mien.prediction.input_files import image_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.jpg", "deep/er/c.webp"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_a_folder_is_taken_recursively_in_order_and_only_its_images(folder):
    assert image_files(["photos"]) == ["photos/a.png", "photos/b.JPG", "photos/deep/er/c.webp"]


def test_files_patterns_and_folders_are_each_taken_once(folder):
    assert image_files(["photos/b.JPG", "photos/*.png", "photos/**/*.webp", "photos"]) == [
        "photos/b.JPG",
        "photos/a.png",
        "photos/deep/er/c.webp",
    ]


def test_a_file_that_does_not_exist_stays_in_the_list(folder):
    assert image_files(["gone.jpg"]) == ["gone.jpg"]


def test_a_file_whose_name_is_a_pattern_is_that_file(folder):
    (folder / "odd[1].jpg").write_bytes(b"x")
    assert image_files(["odd[1].jpg"]) == ["odd[1].jpg"]


@pytest.mark.parametrize("column", ["path", "file"])
def test_a_table_names_files_beside_it(folder, column):
    pd.DataFrame({column: ["a.png", None, "no/such.jpg"], "other": 1}).to_csv(
        folder / "photos" / "list.csv", index=False
    )
    assert image_files(["photos/list.csv"]) == ["photos/a.png", "photos/no/such.jpg"]


def test_a_table_without_the_column_is_refused_with_its_columns(folder):
    pd.DataFrame({"name": ["a"]}).to_csv(folder / "list.csv", index=False)
    with pytest.raises(MienError, match="no column 'path' or 'file'; it has: name"):
        image_files(["list.csv"])


def test_standard_input_is_a_list(folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("photos/a.png\n\nwith space.jpg\r\n"))
    assert image_files(["-"]) == ["photos/a.png", "with space.jpg"]


def test_what_holds_no_image_is_refused(folder):
    (folder / "empty").mkdir()
    with pytest.raises(MienError, match="'empty' holds no images"):
        image_files(["empty"])
    with pytest.raises(MienError, match=r"'photos/\*.gif' matches no file"):
        image_files(["photos/*.gif"])


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MienError, match="'photos' cannot be read: Permission denied"):
        image_files(["photos"])


def test_links_in_a_circle_end(folder):
    (folder / "photos" / "loop").symlink_to(folder / "photos", target_is_directory=True)
    assert len(image_files(["photos"])) == 3


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("https://a.b/c.jpg", "'https://a.b/c.jpg' is an address; mien opens no connections: download"),
        ("rtsp://camera/1", "is an address"),
        ("0", "'0' is not a file; mien does not open cameras: record a clip first"),
        ("/dev/video7", "does not open cameras"),
    ],
)
def test_what_is_no_file_is_refused_with_the_way_out(folder, path, words):
    with pytest.raises(MienError, match=words):
        image_files([path])


def test_a_file_with_the_name_of_a_camera_is_that_file(folder):
    (folder / "0").write_bytes(b"x")
    assert image_files(["0"]) == ["0"]


def test_other_files_of_a_folder_are_counted(folder, capsys):
    image_files(["photos"])
    shown = capsys.readouterr()
    assert "photos: 1 files are not images by their suffix, 'notes.txt' first" in shown.err and not shown.out
