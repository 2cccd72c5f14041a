"""Nothing is lost: kills, a disk that fills up, and a data set that goes away in mid-run.

`make torture` does the same to every command with a hundred kills; docs/reliability.md has its record.
"""

import os
import shutil
import subprocess

import pytest
from PIL import Image
from safetensors.numpy import load_file

import torture
from mien.base.errors import DiskFull, MienError
from mien.cli import main
from mien.data.face_pixels import FilePixels, PixelCache
from mien.prediction.outputs import Journal
from mien.recipe.load import load_recipe
from mien.training.callbacks import Log
from mien.training.fit import train


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("torture")


@pytest.mark.parametrize(
    ("name", "kills"),
    [("predict to .csv", 3), ("predict to .parquet", 2), ("decode cache", 3), ("train", 2), ("publish", 2)],
)
def test_a_command_that_is_killed_and_given_again_ends_as_an_uninterrupted_one(home, drawn, name, kills):
    task = torture.make_tasks(home, drawn)[name]
    outcome = torture.torment(task, home, kills)
    assert outcome.kills >= kills and outcome.identical == outcome.rounds and outcome.losses == []
    if name == "decode cache":
        # Decoded twice is at most the chunk that was under way at each kill.
        faces = 10 * len(list(drawn.rglob("*.jpg")))
        for tally in home.glob("decode-cache/round-*/decoded"):
            assert tally.stat().st_size <= faces + 64 * outcome.kills


@pytest.fixture
def small_disk(tmp_path):
    """A file system of few kilobytes, and a function that makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here (that takes root and the right to mount)")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
    subprocess.run(["umount", "-l", str(place)], check=True)


def status(*arguments):
    """Exit status of the command line."""
    try:
        return main([str(argument) for argument in arguments]) or 0
    except SystemExit as stop:
        return stop.code or 0


def test_predict_on_a_full_disk_says_so_and_goes_on_when_there_is_space(small_disk, tmp_path, capsys):
    disk, enlarge = small_disk
    crops = tmp_path / "crops"
    crops.mkdir()
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "grey.png")
    for number in range(700):
        (crops / f"{number:03d}.png").symlink_to(tmp_path / "grey.png")
    command = ("predict", "--crops", crops, "--threads", 1, "--out")
    assert status(*command, tmp_path / "whole.csv") == 0
    assert status(*command, disk / "table.csv") == 1
    told = capsys.readouterr().err
    assert told.startswith(f"mien: the disk of '{disk}' is full: 'table.csv.part' was not written; free some space")
    assert [path.name for path in disk.iterdir()] == ["table.csv.part"]
    enlarge()
    assert status(*command, disk / "table.csv") == 0
    assert "resuming" in capsys.readouterr().out
    assert (disk / "table.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert [path.name for path in disk.iterdir()] == ["table.csv"]


@pytest.fixture
def recipe(drawn, tmp_path):
    """A recipe whose images are read each time, from a folder that can be taken away."""
    (tmp_path / "faces").symlink_to(drawn)
    return load_recipe(torture.RECIPE, ["data.cache=false", f"data.root={tmp_path / 'faces'}", "trainer.epochs=2"])


def test_training_on_a_full_disk_says_so_and_goes_on_when_there_is_space(small_disk, recipe, tmp_path):
    disk, enlarge = small_disk
    whole = train(recipe, out=tmp_path / "whole", score=False)
    with pytest.raises(DiskFull, match=r"the disk of '.*' is full: 'resume.ckpt' was not written"):
        train(recipe, out=disk / "run", score=False)
    assert not [path for path in (disk / "run").iterdir() if path.name.startswith(".") or path.suffix == ".ckpt"]
    enlarge()
    assert same_weights(whole, train(recipe, out=disk / "run", score=False))


def same_weights(one, other):
    return one.weights_file.read_bytes() == other.weights_file.read_bytes() and load_file(one.weights_file)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_whose_images_go_away_says_so_and_goes_on_when_they_are_back(recipe, tmp_path, monkeypatch, workers):
    recipe = load_recipe(recipe, [f"trainer.workers={workers}"])
    whole = train(recipe, out=tmp_path / "whole", score=False)
    real, faces = Log.on_train_batch_start, tmp_path / "faces"

    def take_away(self, trainer, *rest):
        if trainer.global_step == 4 and faces.is_symlink():
            faces.rename(tmp_path / "away")
        real(self, trainer, *rest)

    monkeypatch.setattr(Log, "on_train_batch_start", take_away)
    with pytest.raises(MienError, match=f"folder '{faces}' is gone, and its images with it"):
        train(recipe, out=tmp_path / "broken", score=False)
    monkeypatch.undo()
    (tmp_path / "away").rename(faces)
    broken = train(recipe, out=tmp_path / "broken", score=False)
    assert same_weights(whole, broken)
    assert broken.unreadable_file.read_text().count("\n") == 1, "no image is taken for unreadable"


def test_a_cache_whose_images_go_away_keeps_what_it_has(drawn, tmp_path, monkeypatch):
    from mien.data.sources import read_faces

    root = tmp_path / "faces"
    root.symlink_to(drawn)
    faces = read_faces("adience", root, "masked")
    cache = PixelCache(FilePixels(faces, root, 32), tmp_path / "cache")

    def take_away(done, total):
        if done >= 64 and root.is_symlink():
            root.rename(tmp_path / "away")

    with pytest.raises(MienError, match="is gone"):
        cache.fill(take_away)
    with pytest.raises(MienError, match="is gone"):
        PixelCache(FilePixels(faces, root, 32), tmp_path / "cache").fill()
    (tmp_path / "away").rename(root)
    told = []
    cache = PixelCache(FilePixels(faces, root, 32), tmp_path / "cache")
    cache.fill(lambda done, total: told.append(total))
    assert told[0] == len(faces) - 64 and cache.unreadable() == {}


def test_a_journal_is_whole_whatever_the_disk_took_of_the_last_batch(tmp_path):
    out = tmp_path / "table.csv"
    rows = [{"file": "a.jpg", "status": "ok"}]
    with Journal(out, {"model": "x"}, 8, 4) as journal:
        for _ in range(8):
            journal.add(rows)
    whole = journal.path.read_bytes()
    for size in range(len(whole)):
        journal.path.write_bytes(whole[:size])
        with Journal(out, {"model": "x"}, 8, 4) as again:
            assert list(again.images()) == [rows] * again.done and again.done in (0, 4)
