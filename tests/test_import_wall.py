"""torch is imported in training/ only, and the light parts import nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import mien

HOME = Path(mien.__file__).parent
TORCH = {"torch", "torchvision", "timm", "pytorch_lightning", "safetensors", "onnx", "onnxscript"}
OWN = {
    "errors": set(),
    "ledger": set(),
    "labels": set(),
    "table": {"atomic", "errors", "labels"},
    "recipe": {"errors"},
    "images": {"errors"},
    "intervals": set(),
    "metrics": {"errors", "intervals", "labels", "table"},
    "splits": {"errors", "labels", "table"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_torch_stays_in_training():
    for path in HOME.rglob("*.py"):
        if "training" not in path.parts:
            assert not {name.split(".")[0] for name in imports(path)} & TORCH, path


def test_only_the_command_line_imports_training():
    for path in HOME.rglob("*.py"):
        if "training" not in path.parts and path.name not in ("cli.py", "__init__.py"):
            assert not any(name.startswith("mien.training") for name in imports(path)), path


def test_imports_go_one_way():
    for name, allowed in OWN.items():
        found = {module.split(".")[1] for module in imports(HOME / f"{name}.py") if module.startswith("mien.")}
        assert found <= allowed, name


def loaded_by(code):
    script = f"import sys; {code}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_help_and_import_are_light():
    assert not loaded_by("import mien") & {"numpy", "pandas", "torch"}
    code = "from mien.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    assert not loaded_by(f"exec({code!r})") & {"numpy", "pandas", "torch", "PIL", "onnxruntime", "matplotlib"}


def test_prediction_needs_no_torch():
    assert not loaded_by("import mien.prediction.predict, mien.metrics, mien.datasets, mien.draw") & (
        TORCH | {"matplotlib", "scipy"}
    )
