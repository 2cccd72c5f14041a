"""Names of models: folders, files and repositories of the Hub, which here is a fake without network."""

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mien.base.errors import MienError, MissingExtra
from mien.prediction.predict import Predictor
from mien.runs.hub import FILES, PICKLES, library, local_folder, model_file, one_file, repository
from mien.runs.run import Run, open_run


def http(kind, status):
    return kind("no", response=SimpleNamespace(headers={}, status_code=status, request=None))


@pytest.fixture
def asked(hub, monkeypatch):
    """The files that were asked for in each download."""
    calls = []
    real = huggingface_hub.snapshot_download

    def note(name, **options):
        calls.append(sorted(options["allow_patterns"]))
        return real(name, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", note)
    return calls


def test_names_of_the_hub_have_a_prefix_and_all_else_is_a_path():
    assert repository("hub:me/faces-1.0") == ("me/faces-1.0", None)
    assert repository("hub:me/faces@v2") == ("me/faces", "v2")
    assert repository(Path("hub:me/faces")) == ("me/faces", None)
    assert repository("me/faces") is None and repository("runs/first") is None


@pytest.mark.parametrize("name", ["hub:", "hub:faces", "hub:a/b/c", "hub:../b", "hub:a/b@", "hub:a/-b", "hub:a /b"])
def test_what_is_no_name_of_the_hub_is_refused(name):
    with pytest.raises(
        MienError, match=r"is not a valid name on the Hub .*valid: hub:OWNER/NAME or hub:OWNER/NAME@REVISION"
    ):
        repository(name)


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mien\[hub\]'"):
        library("hub:me/faces")
    assert repository("runs/first") is None


def test_only_files_of_a_published_model_are_downloaded(hub, asked):
    hub.put("me/faces", dict.fromkeys((*FILES, "extra.bin", "code.py"), b"x"))
    folder = local_folder("hub:me/faces")
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert model_file("hub:me/faces", ".safetensors").name == "model.safetensors"
    assert asked == [sorted(FILES), ["model.safetensors"]]


def test_a_revision_is_what_is_downloaded(hub):
    hub.put("me/faces", {"recipe.yaml": b"new"})
    hub.put("me/faces", {"recipe.yaml": b"old"}, revision="v1")
    assert (local_folder("hub:me/faces@v1") / "recipe.yaml").read_bytes() == b"old"
    with pytest.raises(MienError, match="'hub:me/faces@v9': the repository has no such branch, tag or commit"):
        local_folder("hub:me/faces@v9")


@pytest.mark.parametrize("ending", PICKLES)
def test_a_pickle_is_refused_by_name_wherever_it_is(hub, tmp_path, ending):
    name = f"model{ending}"
    hub.put("me/pickled", {name: b"x", "README.md": b"x"})
    (tmp_path / name).write_bytes(b"x")
    for source in ("hub:me/pickled", tmp_path, tmp_path / name):
        for kind in (".safetensors", ".onnx"):
            with pytest.raises(MienError, match=f"pickled file '{name}'.* refused"):
                model_file(source, kind)
    for source in ("hub:me/pickled", tmp_path):
        with pytest.raises(MienError, match=f"pickled file '{name}'.* refused"):
            open_run(source)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (lambda: LocalEntryNotFoundError("no"), r"cannot be reached .*valid without network: the folder of a run"),
        (lambda: OSError("no route"), "cannot be reached"),
        (lambda: http(RepositoryNotFoundError, 404), "no such repository, or it is private and HF_TOKEN"),
        (lambda: http(GatedRepoError, 403), "gated: ask its owner"),
        (lambda: http(RevisionNotFoundError, 404), "no such branch"),
        (lambda: http(HfHubHTTPError, 403), "refuses access"),
        (lambda: http(HfHubHTTPError, 503), "cannot be reached"),
    ],
)
def test_what_went_wrong_on_the_way_is_said(monkeypatch, error, words):
    def fail(*args, **options):
        raise error()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(MienError, match=f"'hub:me/faces': .*{words}"):
        Predictor("hub:me/faces")


def test_folders_and_files_that_hold_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for source, words in (
        (tmp_path, "holds no model.onnx; it holds: notes.txt"),
        (tmp_path / "absent.onnx", r"does not exist; valid: the folder .* or hub:OWNER/NAME"),
        (tmp_path / "notes.txt", "has another suffix; valid: .* a .onnx file"),
        ("me/faces", "'me/faces' does not exist; valid: .*hub:OWNER/NAME"),
    ):
        with pytest.raises(MienError, match=words):
            Predictor(source)
    with pytest.raises(MienError, match=r"'me/faces' is not a mien run: .*hub:OWNER/NAME"):
        open_run("me/faces")


def test_a_run_that_is_not_finished_is_called_so_and_not_a_pickle(tmp_path):
    for name in ("recipe.yaml", "run.json", "resume.ckpt"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(MienError, match="holds no model.onnx: a run has it when it is finished"):
        Predictor(tmp_path)


def test_a_name_from_elsewhere_is_no_path(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"published": {"name": "../../etc/name"}}))
    assert Run(tmp_path).name == "name"


def test_one_file_of_a_repository_is_taken_and_nothing_else_is_asked_for(hub, asked):
    hub.put("opencv/faces", {"yunet.onnx": b"network", "huge.data": b"others"})
    assert one_file("hub:opencv/faces/yunet.onnx", ".onnx").read_bytes() == b"network"
    assert asked == [["yunet.onnx"]]
    with pytest.raises(MienError, match=r"'hub:opencv/faces' holds no other\.onnx"):
        one_file("hub:opencv/faces/other.onnx", ".onnx")


@pytest.mark.parametrize("name", ["hub:a/b", "hub:a/b/c.bin", "hub:a/b/*.onnx", "hub:a/b/../c.onnx", "hub:x.onnx"])
def test_names_of_no_file_on_the_hub_are_refused(name):
    with pytest.raises(MienError, match=r"names no \.onnx file; valid: hub:OWNER/NAME/FILE\.onnx"):
        one_file(name, ".onnx")


def test_one_file_may_lie_on_this_machine(tmp_path):
    file = tmp_path / "yunet.onnx"
    file.write_bytes(b"network")
    assert one_file(str(file), ".onnx") == file
    with pytest.raises(MienError, match="there is no such file"):
        one_file(str(tmp_path / "gone.onnx"), ".onnx")
