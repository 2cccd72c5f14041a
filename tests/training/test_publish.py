"""Published models: what they hold, what they must not, and that they do for a run."""

import errno
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mien.base.errors import DiskFull, MienError
from mien.base.table import write_table
from mien.cli import main
from mien.data.sources import SOURCES, read_faces
from mien.demo.dataset import draw_faces
from mien.evaluation.evaluate import evaluate, evaluate_on
from mien.prediction.predict import Predictor
from mien.recipe.load import load_recipe
from mien.recipe.settings import without_paths
from mien.reports.compare import compare_runs
from mien.runs.hub import FILES
from mien.runs.run import Run, open_run
from mien.training import publish as publishing
from mien.training.fit import train
from mien.training.publish import model_card, notices, public_facts, publish

SMALL = {
    "data": {"source": "adience", "labels": "masked"},
    "split": {"method": "folds", "near_duplicates": False},
    "model": {"backbone": "test_resnet", "image_size": 32},
    "init": {"weights": "none"},
    "tasks": ["gender", "age_group"],
    "trainer": {"epochs": 1, "batch_size": 32, "workers": 0},
}


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn-celeba") / "celeba"
    draw_faces(root, "celeba", subjects=20)
    return root


@pytest.fixture(scope="module")
def run(drawn, celeba, tmp_path_factory):
    """Two stages on drawn faces: CelebA's layout, then Adience's, split at random so that it leaks."""
    changes = [
        f"data.root={drawn}",
        f"init.data.root={celeba}",
        "init.data.source=celeba",
        "init.split.method=partition",
        "init.split.near_duplicates=false",
        "init.tasks=[gender]",
        "split.method=random",
        "split.allow_leaks=true",
    ]
    return train(SMALL, changes, tmp_path_factory.mktemp("runs") / "two-stages")


@pytest.fixture(scope="module")
def published(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared") / "model"
    publish(run, str(folder), "cc-by-nc-4.0")
    return folder


def front_matter(card):
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def test_it_holds_the_promised_files_and_no_others(published, run):
    assert sorted(path.name for path in published.iterdir()) == sorted(FILES)
    pd.testing.assert_frame_equal(open_run(published).metrics, run.metrics)
    assert (published / "model.safetensors").read_bytes() == run.weights_file.read_bytes()
    assert [path.name for path in published.parent.iterdir()] == [published.name]


def test_nothing_in_it_names_a_folder_a_file_or_a_person(published, run, drawn, celeba):
    faces = run.faces
    names = {str(drawn), str(celeba), str(run.folder), str(Path.cwd()), "site-packages", *faces["face"], *faces["path"]}
    for path in published.iterdir():
        content = path.read_bytes()
        found = [name for name in names if name.encode() in content]
        assert not found, (path.name, found[:3])
    leaks = json.loads((published / "run.json").read_text())["leaks"]
    assert leaks and len(leaks) == len(run.info["leaks"]) and not any("for instance" in leak for leak in leaks)


def test_a_new_export_names_no_source_files_either(run):
    assert b"site-packages" not in run.model_file.read_bytes() and b".py" not in run.model_file.read_bytes()


def test_recipes_without_paths_keep_all_else():
    changes = ["data.root=/a/b", "data.faces=/c/d.csv", "init.data.root=/e", "init.data.source=celeba"]
    recipe = load_recipe(SMALL, [*changes, "init.weights=/some/where/first"])
    bare = without_paths(recipe)
    assert (bare.data.root, bare.data.faces, bare.init.data.root) == (None, None, None)
    assert without_paths(load_recipe(SMALL, ["init.weights=hub:a/b"])).init.weights == "hub:a/b"
    expected = recipe.model_dump()
    expected["data"] |= {"root": None, "faces": None}
    expected["init"]["data"] |= {"root": None, "faces": None}
    expected["init"]["weights"] = "first"
    assert bare.model_dump() == expected


def test_the_network_answers_as_before_and_knows_its_lineage(published, run):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    ours, theirs = Predictor(run.folder), Predictor(published)
    first, second = ours.predict_pixels(images), theirs.predict_pixels(images)
    assert list(first) == list(second) and all(np.array_equal(first[name], second[name]) for name in first)
    lineage = theirs.metadata["lineage"]
    assert lineage["dataset"] == "adience" and lineage["init"]["dataset"] == "celeba"
    assert lineage["init"]["from"] == {"weights": "none"}
    onnx.checker.check_model(onnx.load(published / "model.onnx"))


def test_the_card_says_what_it_must(published, run):
    card = (published / "README.md").read_text()
    front = front_matter(card)
    assert (
        front["license"] == "cc-by-nc-4.0" and front["metrics"] == ["accuracy"] and "perceived-gender" in front["tags"]
    )
    body = card.split("---\n", 2)[2].strip().splitlines()
    assert body[0] == "# two-stages" and body[2].startswith("> **Warning.** Leak") and "subject" in body[2]
    row = run.metrics.query("split == 'test' and group == 'all' and metric == 'gender_accuracy'").iloc[0]
    value, low, high = (f"{100 * row[name]:.1f}" for name in ("value", "low", "high"))
    assert f"| gender accuracy, % | {value} [{low}, {high}] | {row['n']} |" in card
    counts = run.faces["split"].value_counts()
    assert f"| train | {counts['train']} |" in card and f"| test | {counts['test']} |" in card
    words = " ".join(card.split())
    for part in (
        "does not identify people",
        "Treat a `p_female` near 0.5 as unsure",
        "random images, seed 0, WITH LEAKS",
        "label policy 'masked'",
        "gender is not known: the files say 'u'",
        "Trained on: celeba (drawn), then adience (drawn)",
        "Scores on them test the software and do not apply to people",
        "of celeba",
        "random weights",
        "| gender: female |",
        "| age group: 0-2 |",
        "gender calibration error",
        "seconds of training",
        'mien.Predictor("model")',
        "--set init.data.root=FOLDER",
    ):
        assert part in words, part


def test_a_card_without_leaks_and_licence(drawn, tmp_path, run):
    plain = Run(shutil.copytree(run.folder, tmp_path / "plain"))
    plain.note(leaks=[], lineage={"weights": "imagenet"})
    card = model_card(plain, "hub:me/plain", None)
    assert "Warning" not in card and "No leak between the parts was found." in card
    assert front_matter(card)["license"] == "other" and "Licence of the publisher: not stated" in card
    assert "pretrained on ImageNet" in card and "pip install 'mien[hub]'" in card


def test_labels_cannot_become_markup(tmp_path, run):
    hostile = Run(shutil.copytree(run.folder, tmp_path / "hostile"))
    metrics = hostile.metrics.replace("gender=female", "race=a|b <script> [x](y) `z`\n# title")
    write_table(metrics, hostile.metrics_file)
    card = model_card(hostile, "x", None)
    assert "<script>" not in card and "[x](y)" not in card and "\n# title" not in card
    (line,) = [line for line in card.splitlines() if "&lt;script>" in line]
    header = next(line for line in card.splitlines() if line.startswith("| group |"))
    assert line.count("|") == header.count("|")


def test_the_terms_are_those_of_every_data_set_seen(run, tmp_path):
    assert set(notices(run)) == {"adience (drawn)", "celeba (drawn)"}
    real = Run(shutil.copytree(run.folder, tmp_path / "real"))
    tree = yaml.safe_load(real.recipe_file.read_text())
    tree["data"]["root"] = tree["init"]["data"]["root"] = None
    real.recipe_file.write_text(yaml.safe_dump(tree))
    real.note(
        lineage={"run": "first", "dataset": "celeba", "from": {"run": "zero", "dataset": "utkface", "from": None}}
    )
    names = ("adience", "celeba", "utkface")
    assert notices(real) == {name: SOURCES[name].NOTICE for name in names}
    write_table(real.faces.assign(dataset="my-clients"), real.faces_file)
    assert "my-clients" not in model_card(real, "x", None) and SOURCES["csv"].NOTICE in notices(real).values()


def test_examples_go_and_reasons_stay(run, tmp_path):
    noted = Run(shutil.copytree(run.folder, tmp_path / "noted"))
    ledger = {
        "source": "adience",
        "read": 2,
        "kept": 1,
        "entries": [
            {"kind": "dropped", "reason": "no image", "rows": 1, "example": "ann.jpg"},
            {
                "kind": "warning",
                "reason": "no images are there; looked for 'ann.jpg' and others",
                "rows": 0,
                "example": "",
            },
        ],
    }
    noted.note(ledger=ledger, secret="/home/ann")
    facts = public_facts(noted)
    assert "ann" not in json.dumps(facts["ledger"]) and "secret" not in facts
    assert [entry["reason"] for entry in facts["ledger"]["entries"]] == ["no image", "no images are there"]


def test_evaluation_on_other_data_asks_about_leaks_and_leaves_the_model_alone(published, drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, faces = open_run(published), read_faces("adience", drawn, "exact").head(40)
    with pytest.raises(MienError, match=r"leak check needs the images .*published model.* 40 faces .*--allow-leaks"):
        evaluate_on(model, faces, drawn, "other")
    table = evaluate_on(model, faces, drawn, "other", allow_leaks=True)
    assert table["leaks"].str.startswith("not checked").all() and table["n"].max() == 40
    assert (tmp_path / "two-stages-on-other" / "predictions.parquet").exists()
    assert sorted(path.name for path in published.iterdir()) == sorted(FILES)


def test_what_needs_faces_or_predictions_says_so(published, run, tmp_path):
    with pytest.raises(MienError, match="'two-stages' is a published model, which holds no faces"):
        evaluate(open_run(published))
    with pytest.raises(MienError, match="is a published model, which holds no .*valid: the folder of the run"):
        compare_runs([run, open_run(published)], tmp_path / "report.html")


def test_weights_start_another_run(published, drawn, hub, tmp_path):
    hub.put("me/faces", {path.name: path.read_bytes() for path in published.iterdir()})
    changes = [f"data.root={drawn}", "init.weights=hub:me/faces", "model.freeze=backbone"]
    second = train(SMALL, changes, tmp_path / "second")
    before, after = load_file(published / "model.safetensors"), load_file(second.weights_file)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone."))
    assert Predictor(second.folder).metadata["recipe"]["init"]["weights"] == "hub:me/faces"
    publish(second, str(tmp_path / "second-published"))
    card = " ".join((tmp_path / "second-published" / "README.md").read_text().split())
    assert "Whether training faces of 'two-stages' are in the test part could not be checked." in card
    assert "celeba, then adience, then adience (drawn)" in card  # what a published model saw is stated with care


def test_the_hub_gets_the_same_files_and_gives_them_back(published, hub, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["publish", str(published), "hub:me/faces"])
    assert not stop.value.code and "published: hub:me/faces" in capsys.readouterr().out
    there = {path.name: path.read_bytes() for path in hub.folder("me/faces").iterdir()}
    assert there.pop(".gitattributes") == b""
    assert there == {path.name: path.read_bytes() for path in published.iterdir()}
    assert hub.messages[0].startswith("two-stages, published by mien ")
    assert open_run("hub:me/faces").name == "two-stages"
    with pytest.raises(SystemExit) as stop:
        main(["export", "hub:me/faces", "--out", str(tmp_path / "again.onnx")])
    assert not stop.value.code and (tmp_path / "again.onnx").read_bytes() == there["model.onnx"]


def test_a_run_goes_to_the_hub_with_its_name_there_in_the_card(run, hub, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["publish", str(run.folder), "hub:me/direct", "--license", "mit"])
    out = " ".join(capsys.readouterr().out.split())
    assert not stop.value.code and "Leak, allowed by the recipe" in out and "Drawn faces, which show nobody" in out
    card = (hub.folder("me/direct") / "README.md").read_text()
    assert 'mien.Predictor("hub:me/direct")' in card and front_matter(card)["license"] == "mit"


def test_an_earlier_publication_is_replaced_and_anything_else_kept(published, run, tmp_path, hub):
    folder = tmp_path / "again"
    publish(published, str(folder))
    publish(run, str(folder), "mit")
    assert front_matter((folder / "README.md").read_text())["license"] == "mit"
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(MienError, match=r"holds other files, for instance 'notes\.txt'; valid: a new folder"):
        publish(run, str(folder))
    with pytest.raises(MienError, match="holds other files"):
        publish(run, str(run.folder))
    (tmp_path / "only-readme").mkdir()
    (tmp_path / "only-readme" / "README.md").write_text("mine")
    with pytest.raises(MienError, match=r"holds other files, for instance 'README\.md'"):
        publish(run, str(tmp_path / "only-readme"))
    with pytest.raises(MienError, match="is a file"):
        publish(run, str(folder / "notes.txt"))
    hub.put("me/other", {"pytorch_model.bin": b"x"})
    with pytest.raises(MienError, match=r"holds other files, for instance 'pytorch_model\.bin'"):
        publish(run, "hub:me/other")
    assert not hub.messages and (folder / "notes.txt").read_text() == "mine"


def test_nothing_is_left_of_a_publication_that_failed(run, tmp_path, monkeypatch):
    def fail(*rest):
        raise OSError("disk full")

    monkeypatch.setattr(publishing, "model_card", fail)
    with pytest.raises(OSError, match="disk full"):
        publish(run, str(tmp_path / "new" / "model"))
    assert not list((tmp_path / "new").iterdir())


def test_wrong_runs_names_and_licences(published, run, tmp_path, hub):
    begun = Run(tmp_path / "begun")
    begun.begin(load_recipe(SMALL))
    with pytest.raises(MienError, match="not finished"):
        publish(begun.folder, str(tmp_path / "x"))
    for name in ("hub:faces", "hub:me/../faces", "hub:"):
        with pytest.raises(MienError, match="is not a valid name on the Hub"):
            publish(run, name)
    with pytest.raises(MienError, match=r"a revision is for reading; publish to hub:me/faces"):
        publish(run, "hub:me/faces@v2")
    with pytest.raises(MienError, match="'All rights reserved' is not a license identifier; valid: .*cc-by-nc-4.0"):
        publish(run, str(tmp_path / "x"), "All rights reserved")
    with pytest.raises(MienError, match="card of the published model 'two-stages' is written already"):
        publish(published, str(tmp_path / "x"), "mit")
    unscored = Run(shutil.copytree(run.folder, tmp_path / "unscored"))
    unscored.metrics_file.unlink()
    with pytest.raises(MienError, match=r"holds no metrics\.csv"):
        publish(unscored, str(tmp_path / "x"))
    broken = shutil.copytree(published, tmp_path / "broken")
    (broken / "model.onnx").unlink()
    with pytest.raises(MienError, match=r"an incomplete published model: 'model\.onnx' is missing"):
        publish(broken, str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_weights_of_another_shape_do_not_load(drawn, tmp_path):
    save_file({"backbone.conv1.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(MienError, match="does not fit"):
        train(SMALL, [f"data.root={drawn}", f"init.weights={tmp_path}"], tmp_path / "run")


_PUBLISH = "import sys; from mien.training.publish import publish; publish(sys.argv[1], sys.argv[2])"


def test_concurrent_publications_to_one_place_are_whole(run, tmp_path):
    done = tmp_path / "first"
    publish(run, str(done))
    place = tmp_path / "place"
    commands = [subprocess.Popen([sys.executable, "-c", _PUBLISH, done, place], stderr=subprocess.PIPE) for _ in "abcd"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: publish(done, str(place)), range(20)))
    assert [command.communicate()[1] for command in commands] == [b""] * 4
    assert {path.name for path in place.iterdir()} == set(FILES) and Run(place).finished
    assert {path.name for path in tmp_path.iterdir()} == {"first", "place"}


@pytest.mark.parametrize("name", FILES)
def test_a_full_disk_names_the_file_and_the_destination(run, tmp_path, monkeypatch, name):
    done = tmp_path / "first"
    publish(run, str(done))

    def copy(source, target):
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))
        return real(source, target)

    real = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises(DiskFull, match=f"the disk of '{tmp_path / 'place'}' is full: '{name}' was not written"):
        publish(done, str(tmp_path / "place"))
    assert {path.name for path in tmp_path.iterdir()} == {"first"}
