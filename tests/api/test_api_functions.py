"""The verb is the function: the same names and options on the command line and in Python."""

import inspect

import numpy as np
import pandas as pd
import pytest
import typer.main
from skimage.data import astronaut

import mien
from mien.base.errors import MienError
from mien.cli.program import app

ONLY_ON_THE_COMMAND_LINE = {
    "faces": {"as_json"},
    "predict": {
        "engine",
        "image_column",
    },  # predict_cluster writes a folder of tables
    "study": {"plan"},  # mien.api.training.plan_study, which returns another thing
}
ONLY_IN_PYTHON = {"draw": {"subjects"}, "evaluate": {"name"}}


def commands():
    for name, command in typer.main.get_command(app).commands.items():
        for inner, below in getattr(command, "commands", {"": command}).items():
            yield f"{name}_{inner}" if inner else name, below


@pytest.mark.parametrize(("name", "command"), [pytest.param(*pair, id=pair[0]) for pair in commands()])
def test_the_verb_is_the_function(name, command):
    function = getattr(mien, name)
    options = {parameter.name for parameter in command.params} - {"help"}
    parameters = inspect.signature(function).parameters
    assert options - ONLY_ON_THE_COMMAND_LINE.get(name, set()) == set(parameters) - ONLY_IN_PYTHON.get(name, set())
    assert function.__doc__ and all(f"{one}:" in function.__doc__ for one in parameters), "an argument is not described"
    assert all(one.annotation is not inspect.Parameter.empty for one in parameters.values())


def test_defaults_are_the_same():
    for name, command in commands():
        parameters = inspect.signature(getattr(mien, name)).parameters
        for parameter in command.params:
            if parameter.name not in parameters or parameter.required:
                continue
            if (name, parameter.name) in (("audit_model", "out"), ("faces", "out")):
                continue  # from Python these write nothing unless they are asked to
            ours, theirs = parameters[parameter.name].default, parameter.default
            same = {str(ours), ",".join(ours) if isinstance(ours, tuple) else None}
            assert theirs in (None, ()) or str(theirs) in same, f"{name} {parameter.name}: {ours!r} and {theirs!r}"


def test_settings_as_a_mapping_or_as_text(tmp_path, drawn):
    one = mien.preview("demo-gender", {"data.root": drawn, "augment.flip": 0.0}, tmp_path / "one.html")
    two = mien.preview("demo-gender", [f"data.root={drawn}", "augment.flip=0"], tmp_path / "two.html")
    assert one == two
    assert (tmp_path / "one.html").read_text() == (tmp_path / "two.html").read_text()


def test_predict_takes_files_and_images_in_memory(tmp_path):
    from PIL import Image

    Image.fromarray(astronaut()).save(tmp_path / "photo.png")
    named, array = mien.predict(tmp_path / "photo.png"), mien.predict(astronaut())
    pd.testing.assert_frame_equal(named.drop(columns="file"), array.drop(columns="file"))
    both = mien.predict([astronaut(), np.zeros((64, 64, 3), np.uint8)])
    assert both["status"].tolist() == ["ok", "no face"]
    table = mien.predict([str(tmp_path)], out=tmp_path / "table.csv")
    assert table["gender"].tolist() == named["gender"].tolist()
    with pytest.raises(MienError, match="in memory"):
        mien.predict(astronaut(), out=tmp_path / "other.csv")


def test_tables_are_taken_as_tables_or_files(tmp_path, drawn):
    table = mien.faces("adience", drawn, "masked", out=tmp_path / "faces.csv")
    with pytest.raises(MienError, match="exists"):
        mien.faces("adience", drawn, "masked", out=tmp_path / "faces.csv")
    predictions = pd.DataFrame({"face": table["face"], "gender": "female"})
    predictions.to_csv(tmp_path / "predictions.csv", index=False)
    one = mien.audit_model(predictions, table, by="gender")
    two = mien.audit_model(tmp_path / "predictions.csv", tmp_path / "faces.csv", by=["gender"], out=tmp_path / "audit")
    assert one.groups == two.groups
    assert (tmp_path / "audit" / "report.html").exists()


def test_a_run_describes_itself(tmp_path):
    assert repr(mien.Run(tmp_path / "none")) == f"Run({str(tmp_path / 'none')!r}, empty)"
