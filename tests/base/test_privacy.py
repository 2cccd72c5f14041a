"""No library that mien uses sends anything about its use, or keeps notes about it in the user's folders."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mien
from mien.base.privacy import NO_TELEMETRY

HOME = Path(mien.__file__).parent

# Python's resolver is replaced, too: where there is no strace, it is all that can be watched.
PREDICTS = """
import socket, sys, time
def no_network(*arguments, **options):
    raise SystemExit(f"asked for {arguments}")
socket.getaddrinfo = socket.gethostbyname = no_network
import mien
rows = mien.predict(sys.argv[1], sys.argv[2], crops=True, threads=1)
assert list(rows["status"]) == ["ok"]
time.sleep(2)  # a library may send later
"""


def _environment(home):
    own = {"HOME": str(home), "MIEN_CACHE": str(home / "mien"), "TMPDIR": str(home / "tmp"), "OMP_NUM_THREADS": "1"}
    silenced = {*NO_TELEMETRY, "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"}
    return {name: value for name, value in os.environ.items() if name not in silenced} | own


def _strace_works():
    return shutil.which("strace") and subprocess.run(["strace", "-o", os.devnull, "true"]).returncode == 0


def test_a_process_that_predicts_asks_for_no_host_and_writes_only_its_table(tmp_path):
    home, trace = tmp_path / "home", tmp_path / "trace"
    (home / "tmp").mkdir(parents=True)
    Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(tmp_path / "a.png")
    command = [sys.executable, "-c", PREDICTS, str(tmp_path / "a.png"), str(home / "out.csv")]
    if watched := _strace_works():
        command = ["strace", "-f", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace), *command]
    subprocess.run(command, env=_environment(home), check=True)
    written = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert {name for name in written if not name.startswith("mien/")} == {"out.csv"}
    if watched:
        assert not [line for line in trace.read_text().splitlines() if "AF_INET" in line]


@pytest.mark.parametrize("module", ["mien", "mien.prediction.onnx_session", "mien.training.export", "mien.cli"])
def test_the_variables_are_set_before_any_import_of_such_a_library(module):
    given = {name: "1" if value == "0" else "0" for name, value in NO_TELEMETRY.items()}
    code = (
        "import sys, importlib.abc\n"
        "class Watch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        import os\n"
        "        if name in ('onnxruntime', 'huggingface_hub', 'ray'):\n"
        f"            assert all(os.environ.get(key) == value for key, value in {NO_TELEMETRY!r}.items()), name\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"import os, {module}\n"
        f"assert all(os.environ.get(key) == value for key, value in {NO_TELEMETRY!r}.items())\n"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | given, check=True)


def test_openvino_is_used_without_its_tools_which_report_their_use():
    for path in HOME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute | ast.Name | ast.ImportFrom | ast.alias):
                words = ast.unparse(node) if not isinstance(node, ast.alias) else node.name
                assert "openvino.tools" not in words and "openvino_telemetry" not in words
                assert not words.startswith(("openvino.convert_model", "openvino.save_model"))
