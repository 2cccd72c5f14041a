"""What SECURITY.md claims: nothing from outside is run, read from elsewhere, or shown as anything but text."""

import ast
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

import mien
from mien.base.errors import MienError
from mien.base.table import read_table
from mien.cli import main
from mien.data.images import RESIZE
from mien.prediction.face_network import FaceNetwork
from mien.prediction.onnx_session import FORMAT
from mien.prediction.predict import Predictor
from mien.reports.page import ContactSheet, Section, Table, write_report
from mien.runs.hub import model_file

HOME = Path(mien.__file__).parent
SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def run(*arguments):
    try:
        return main([str(argument) for argument in arguments]) or 0
    except SystemExit as stop:
        return stop.code or 0


def calls():
    """Each call in the package: file, dotted name, its keyword arguments."""
    for path in HOME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield path, ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}, node


def test_nothing_is_unpickled_and_no_text_becomes_code():
    for path in HOME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {
                "pickle",
                "joblib",
                "dill",
                "cloudpickle",
                "marshal",
            }, path
            assert not {name.split(".")[0] for name in names} & {"zipfile", "tarfile"}, f"{path}: archives stay packed"
    for path, name, words, node in calls():
        assert name not in ("eval", "exec", "os.system", "pd.read_pickle", "torch.hub.load"), path
        assert "allow_pickle" not in words and words.get("shell") != "True", path
        if name == "torch.load" or "ckpt_path" in words:
            assert words.get("weights_only") == "True", f"{path}:{node.lineno}"
        if name == "yaml.load":
            assert ast.unparse(node.args[1]) == "_Loader", path
        assert name not in ("yaml.unsafe_load", "yaml.full_load"), path


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_malicious_pickle_is_never_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    mark = tmp_path / "owned"
    bomb = pickle.dumps(Bomb(mark))
    for name in ("model.onnx", "model.pkl", "model.safetensors", "model.pt", "faces.parquet", "faces.csv", "r.yaml"):
        (tmp_path / name).write_bytes(bomb)
    folder = tmp_path / "published"
    folder.mkdir()
    for name in ("recipe.yaml", "run.json", "model.onnx", "metrics.csv"):
        (folder / name).write_bytes(bomb)
    Image.fromarray(data.astronaut()).save(tmp_path / "a.png")
    for command in (
        *(["predict", tmp_path / "a.png", "--model", tmp_path / name] for name in ("model.onnx", "model.pkl")),
        ["predict", tmp_path / "a.png", "--model", folder],
        ["evaluate", folder],
        ["report", folder],
        ["eda", tmp_path / "faces.parquet"],
        ["eda", tmp_path / "faces.csv"],
        ["train", tmp_path / "r.yaml"],
    ):
        assert run(*command) == 1, command
    with pytest.raises(MienError, match="pickled file"):
        model_file(tmp_path / "model.pt", ".safetensors")
    assert not mark.exists()
    pickle.loads(bomb)
    mark.rmdir()  # it would have worked


def test_a_cache_or_checkpoint_with_a_pickle_is_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    from mien.data.duplicates import _CACHE_FILE, fingerprints

    mark = tmp_path / "owned"
    (tmp_path / "cache").mkdir()
    with (tmp_path / "cache" / _CACHE_FILE).open("wb") as file:
        np.savez(file, keys=np.array([Bomb(mark)], dtype=object), hashes=np.zeros(1), thumbnails=np.zeros(1))
    Image.fromarray(data.astronaut()).save(tmp_path / "a.png")
    assert list(fingerprints([tmp_path / "a.png"], cache=tmp_path / "cache")["status"]) == ["ok"]
    torch.save({"state_dict": Bomb(mark)}, tmp_path / "resume.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "resume.ckpt", weights_only=True)
    assert not mark.exists()


def test_a_parquet_file_cannot_name_code(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    mark = tmp_path / "owned"
    about = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(Bomb(mark))}
    schema = pa.schema([pa.field("path", pa.string(), metadata=about), pa.field("face", pa.string())])
    parquet.write_table(pa.table({"path": ["a.png"], "face": ["1"]}).cast(schema), tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet")["path"]) == ["a.png"]
    assert not mark.exists()


@pytest.fixture
def onnx_file(tmp_path):
    """Writes a model with other metadata, or with weights in another file."""
    onnx = pytest.importorskip("onnx")

    def write(changes=None, size=32, output="p_female", location=None):
        helper = onnx.helper
        weight = onnx.TensorProto(name="w", data_type=1, dims=[1])
        if location is None:
            weight.float_data.append(0.5)
        else:
            weight.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", "0"), ("length", "4")):
                weight.external_data.add(key=key, value=value)
        nodes = [
            helper.make_node("Cast", ["images"], ["f"], to=1),
            helper.make_node("ReduceMean", ["f"], ["m"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["m", "w"], [output]),
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("images", 2, ["n", size, size, 3])],
            [helper.make_tensor_value_info(output, 1, ["n"])],
            [weight],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        about = {"format": FORMAT, "resize": RESIZE, "image_size": 32, "margin": 0.1, "tasks": ["gender"]} | (
            changes or {}
        )
        model.metadata_props.add(key="mien", value=json.dumps(about))
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        return folder / "model.onnx"

    return write


def test_a_model_states_only_what_mien_would_state(onnx_file):
    assert Predictor(onnx_file()).size == 32
    for changes in (
        {"format": None},
        {"format": 1},
        {"format": FORMAT + 1},
        {"resize": "lanczos"},
        {"image_size": 10**9},
        {"image_size": "32"},
        {"image_size": 64},
        {"margin": "0"},
        {"margin": 1e9},
        {"tasks": 3},
        {"unsure_below": [1]},
    ):
        with pytest.raises(MienError, match="model.onnx.*(valid:)"):
            Predictor(onnx_file(changes))
    with pytest.raises(MienError, match="valid: images, uint8"):
        Predictor(onnx_file(size=100_000))
    with pytest.raises(MienError, match="unknown output"):
        Predictor(onnx_file(output="=cmd()"))


@pytest.mark.parametrize("where", ["../secret.bin", "ABSOLUTE", "link.bin", "sub/../../secret.bin"])
def test_the_weights_of_a_model_cannot_lie_outside_of_its_folder(onnx_file, tmp_path, where):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.float32(0.5).tobytes())
    path = onnx_file(location=str(secret) if where == "ABSOLUTE" else where)
    if where == "link.bin":
        (path.parent / where).symlink_to(secret)
    with pytest.raises(MienError, match="not a usable ONNX file"):
        Predictor(path)


def test_a_model_cannot_name_a_library(onnx_file, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(onnx_file()))
    model.opset_import.add(domain="evil", version=1)
    model.graph.node[0].domain, model.graph.node[0].op_type = "evil", "Run"
    settings = {"session_options": {"custom_ops_library": str(tmp_path / "evil.so")}}
    model.metadata_props.add(key="ort_config", value=json.dumps(settings))
    onnx.save(model, str(tmp_path / "evil.onnx"))
    with pytest.raises(MienError, match="not a usable ONNX file"):
        Predictor(tmp_path / "evil.onnx")
    source = "".join(path.read_text("utf-8") for path in HOME.rglob("*.py"))
    assert "register_custom_ops" not in source and "trust_remote_code" not in source


@pytest.mark.parametrize("path", ["/etc/hostname", "../secret.png", "a/../../secret.png", "a\0b"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_paths_of_a_table_stay_in_their_root(tmp_path, monkeypatch, capsys, path, ending):
    (tmp_path / "root").mkdir()
    Image.fromarray(data.astronaut()).save(tmp_path / "secret.png")
    monkeypatch.chdir(tmp_path / "root")
    table = pd.DataFrame({"face": ["1"], "path": [path]})
    table.to_csv("t.csv", index=False) if ending == "csv" else table.to_parquet("t.parquet")
    file = f"t.{ending}"
    train = ["train", "demo-gender", "--out", "new", "--set=split.method=random", "--set=data.source=csv"]
    for command in (
        ["faces", "csv", file, "--out", "out.csv"],
        ["eda", file, "--root", "."],
        ["predict", file],
        ["explain", "--faces", file, "--root", "."],
        ["explain", file],
        [*train, f"--set=data.root={file}", "--set=data.labels=all"],
        [*train, f"--set=data.faces={file}", "--set=data.root=."],
    ):
        assert run(*command) == 1, command
        assert re.search("must be relative|cannot be read", capsys.readouterr().err), command


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Reports over data that is full of scripts."""
    home = tmp_path_factory.mktemp("hostile")
    root = home / "photos"
    root.mkdir()
    # A file's name holds no slash.
    name = "<img src=x onerror=\"document.title='owned'\">.png"
    Image.fromarray(data.astronaut()[70:180, 175:285]).save(root / name)
    (root / f"bad{name}").write_bytes(b"<script>document.title='owned'</script>")
    faces = pd.DataFrame(
        {
            "face": [SCRIPT, "2"],
            "path": [name, f"bad{name}"],
            "dataset": SCRIPT,
            "subject": [SCRIPT, None],
            "gender": "female",
            "age": [30, 31],
            "race": [SCRIPT, f"b{SCRIPT}"],
            SCRIPT: [SCRIPT, "x"],
        }
    )
    faces.to_csv(home / "faces.csv", index=False)
    assert run("eda", home / "faces.csv", "--root", root, "--out", home / "eda") == 0
    assert run("explain", root / name, root / f"bad{name}", "--crops", "--out", home / "explain") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mien.reports.explanations.check_maps", None)  # groups draw no curves
        grouped = ["explain", "--faces", home / "faces.csv", "--root", root, "--by", f"race,{SCRIPT}"]
        assert run(*grouped, "--out", home / "groups") == 0
    frame = pd.DataFrame({SCRIPT: [SCRIPT]})
    section = Section(SCRIPT, [SCRIPT], [SCRIPT], [Table(SCRIPT, frame), Table(SCRIPT, frame, folded=True)])
    sheet = Section(SCRIPT, sheet=ContactSheet([SCRIPT], [(SCRIPT, [[]])]))
    write_report(SCRIPT, SCRIPT, [section, sheet], home / "page.html")
    return [
        home / "eda" / "eda.html",
        home / "explain" / "explain.html",
        home / "groups" / "explain.html",
        home / "page.html",
    ]


class Tags(HTMLParser):
    """The tags of a page, and the names of all attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_no_report_holds_a_tag_of_the_data(hostile):
    for page in hostile:
        text = page.read_text("utf-8")
        found = Tags(text)
        assert "owned" in text and "script" not in found.tags, page
        assert not {name for name in found.attributes if name.startswith("on")}, page
        assert "default-src 'none'" in text, "and the page's own policy would not run one"


def test_in_a_browser_the_data_stays_text(hostile):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = os.environ.get("MIEN_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (or named by MIEN_CHROMIUM)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        # Without the policy of the page, so that escaping alone must hold.
        page = browser.new_context(bypass_csp=True).new_page()
        for report in hostile:
            page.goto(report.as_uri())
            page.wait_for_timeout(200)
            assert "owned" not in page.title() or page.title().count("<script>"), report
            assert page.locator("script").count() == 0 and page.locator("[onerror]").count() == 0, report
            assert "owned" in page.content()
        browser.close()


def test_every_page_is_made_by_the_one_that_escapes():
    """HTML is written in one place; what is not escaped there is our own drawing."""
    writers = {path.name for path in HOME.rglob("*.py") if re.search(r"<html|<!DOCTYPE", path.read_text("utf-8"))}
    assert writers == set()
    marked = [(path.name, node.lineno) for path, name, _, node in calls() if name.endswith("Markup")]
    assert sorted(name for name, _ in marked) == ["label_review.py", "page.py"], "a figure, and review's own script"
    for path in HOME.rglob("*.js"):
        text = path.read_text("utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), path
    for path in HOME.rglob("*.html"):
        assert "|safe" not in path.read_text("utf-8").replace(" ", ""), path


MALICIOUS = {"lightning": {"2.6.2", "2.6.3"}}  # GHSA-w37p-236h-pfx3


def test_no_dependency_is_a_release_known_to_be_malicious():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for names in project["optional-dependencies"].values() for name in names),
    ]
    assert not [line for line in wanted if re.match(r"lightning\b", line)], "pytorch-lightning is the one that we take"
    for name, versions in MALICIOUS.items():
        try:
            assert metadata.version(name) not in versions
        except metadata.PackageNotFoundError:
            continue


@pytest.mark.parametrize(
    ("weight", "output", "tasks", "message"),
    [
        (float("nan"), "p_female", ["gender"], "'p_female' has the value nan; valid: 0 to 1"),
        (float("inf"), "p_female", ["gender"], "'p_female' has the value inf; valid: 0 to 1"),
        (7.5, "p_female", ["gender"], "'p_female' has the value 7.5; valid: 0 to 1"),
        (-0.5, "p_female", ["gender"], "'p_female' has the value -0.5; valid: 0 to 1"),
        (1e30, "age", [], "'age' has the value 1e[+]30; valid: 0 to 150"),
        (-3.0, "age", [], "'age' has the value -3; valid: 0 to 150"),
        (0.5, "p_female", ["gender", "age_group"], "no output 'p_0-2'"),
    ],
)
def test_numbers_that_are_no_predictions_are_refused(onnx_file, weight, output, tasks, message):
    onnx = pytest.importorskip("onnx")
    path = onnx_file({"tasks": tasks}, output=output)
    model = onnx.load(str(path))
    model.graph.initializer[0].float_data[0] = weight
    onnx.save(model, str(path))
    with pytest.raises(MienError, match=f"model.onnx.*{message}"):
        Predictor(path).predict(np.ones((40, 40, 3), np.uint8), crops=True)


def with_loop(onnx, kind):
    """A node of this kind whose own graph is run again and again; `If` has it inside another."""
    helper = onnx.helper
    true = helper.make_node("Constant", [], ["again"], value=helper.make_tensor("t", onnx.TensorProto.BOOL, [], [1]))
    ends = [helper.make_tensor_value_info("again", onnx.TensorProto.BOOL, [])]
    starts = [helper.make_tensor_value_info("n", 7, []), helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, [])]
    if kind == "If":
        inside = helper.make_graph([with_loop(onnx, "Loop")], "inside", [], ends)
        return helper.make_node("If", ["condition"], ["done"], then_branch=inside, else_branch=inside)
    body = helper.make_graph([true], "body", starts if kind == "Loop" else [], ends)
    return helper.make_node(kind, ["", "condition"] if kind == "Loop" else ["m"], [], body=body)


@pytest.mark.parametrize("kind", ["Loop", "Scan", "SequenceMap", "If"])
def test_a_network_that_may_never_end_is_refused(onnx_file, kind):
    onnx = pytest.importorskip("onnx")
    path = onnx_file()
    model = onnx.load(str(path))
    model.graph.node.extend([with_loop(onnx, kind)])
    onnx.save(model, str(path))
    with pytest.raises(MienError, match="operator '(Loop|Scan|SequenceMap)' with a graph of its own: loops may never"):
        Predictor(path)
    with pytest.raises(MienError, match="detector file .*loops may never end"):
        FaceNetwork(path)


def test_a_network_that_expands_when_it_is_opened_is_refused(onnx_file):
    onnx = pytest.importorskip("onnx")
    path = onnx_file()
    model = onnx.load(str(path))
    node = onnx.helper.make_node("Abs", ["x"], ["y"])
    opset = [onnx.helper.make_opsetid("", 17)]
    model.functions.extend([onnx.helper.make_function("own", "f", ["x"], ["y"], [node], opset)])
    onnx.save(model, str(path))
    with pytest.raises(MienError, match="functions of its own"):
        Predictor(path)


@pytest.mark.parametrize("what", ["metadata", "output"])
def test_a_model_whose_names_are_no_text_is_refused(onnx_file, what):
    """Found by fuzzing."""
    path = onnx_file()
    content = path.read_bytes()
    path.write_bytes(
        content.replace(b'"format"', b'"f\xacrmat"')
        if what == "metadata"
        else content.replace(b"p_female", b"p_f\xacmale")
    )
    with pytest.raises(MienError, match="not UTF-8|not a usable ONNX file"):
        Predictor(path)
    with pytest.raises(MienError, match="detector file"):
        FaceNetwork(path)


HUGE = """
import resource, sys
import numpy as np
from mien import MienError, Predictor
resource.setrlimit(resource.RLIMIT_AS, (3_000_000_000, 3_000_000_000))
predictor = Predictor(sys.argv[1], threads=1)
try:
    predictor.predict(np.ones((40, 40, 3), np.uint8), crops=True)
except MienError as error:
    print(error)
"""


def test_an_intermediate_result_larger_than_half_of_the_memory_is_an_error(onnx_file):
    onnx = pytest.importorskip("onnx")
    path = onnx_file()
    model = onnx.load(str(path))
    elements = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8  # half of the memory, and some
    model.graph.initializer.extend([onnx.helper.make_tensor("shape", 7, [1], [elements + 1_000_000])])
    model.graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["shape"], ["huge"]))
    model.graph.node.insert(1, onnx.helper.make_node("ReduceMean", ["huge"], ["small"], axes=[0], keepdims=0))
    model.graph.node[-1].input[1] = "small"
    onnx.save(model, str(path))
    # (Without a limit, the test's own limit of memory ends it with another message, and harms nobody.)
    ended = subprocess.run([sys.executable, "-c", HUGE, str(path)], capture_output=True, text=True, check=True)
    assert "fails on images" in ended.stdout and "Available memory of" in ended.stdout + ended.stderr


@pytest.mark.parametrize(("axes", "keep"), [([1, 2], 0), ([0, 1, 2, 3], 1), ([1, 2, 3], 1)])
def test_outputs_of_another_shape_are_refused(onnx_file, axes, keep):
    onnx = pytest.importorskip("onnx")
    path = onnx_file()
    model = onnx.load(str(path))
    mean = model.graph.node[1]
    del mean.attribute[:]
    mean.attribute.extend([onnx.helper.make_attribute("axes", axes), onnx.helper.make_attribute("keepdims", keep)])
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, str(path))
    with pytest.raises(MienError, match=r"model.onnx.*output 'p_female' is float32 .*valid: float \(2,\)"):
        Predictor(path).predict([np.ones((40, 40, 3), np.uint8)] * 2, crops=True)
