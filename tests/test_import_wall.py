"""Each room imports only rooms of lower layers, torch stays in training, and the light parts import nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import mien

HOME = Path(mien.__file__).parent
TORCH = {"torch", "torchvision", "timm", "pytorch_lightning", "safetensors", "onnx", "onnxscript"}

LAYERS = (
    {"base", "weights"},
    {"recipe", "metrics", "demo"},
    {"data", "runs"},
    {"prediction"},
    {"evaluation"},
    {"experiments", "audit"},
    {"reports", "service"},
    {"training"},
    {"api"},
    {"cli"},
)
"""Every room, from the lowest layer up: a room imports itself, and rooms of lower layers."""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_room_has_a_layer():
    files = [path.relative_to(HOME).parts for path in HOME.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    rooms = {parts[0] for parts in files if len(parts) > 1}
    assert rooms == set.union(*LAYERS)
    assert sum(map(len, LAYERS)) == len(set.union(*LAYERS)), "a room stands in two layers"
    assert {path.name for path in HOME.glob("*.py")} == {"__init__.py", "__main__.py"}, "a module outside every room"


def test_a_room_imports_lower_layers_alone():
    below = set()
    for layer in LAYERS:
        for room in layer:
            for path in (HOME / room).rglob("*.py"):
                rooms = {name.split(".")[1] for name in imports(path) if name.startswith("mien.")}
                assert rooms <= below | {room}, f"{path.relative_to(HOME)} imports {rooms - below - {room}}"
        below |= layer


def test_modules_make_no_circle():
    # The package itself names its public functions, and imports them when they are used.
    files = [path for path in HOME.rglob("*.py") if path != HOME / "__init__.py"]
    names = {".".join(path.relative_to(HOME.parent).with_suffix("").parts): path for path in files}
    wanted = {name: {found for found in imports(path) if found in names} for name, path in names.items()}
    while free := [name for name, needs in wanted.items() if not needs]:
        for name in free:
            del wanted[name]
        for needs in wanted.values():
            needs.difference_update(free)
    assert not wanted


def test_torch_stays_in_training():
    for path in HOME.rglob("*.py"):
        if "training" not in path.parts:
            assert not {name.split(".")[0] for name in imports(path)} & TORCH, path


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
    assert not loaded_by("import mien.prediction.predict, mien.metrics, mien.data.sources, mien.demo.dataset") & (
        TORCH | {"matplotlib", "scipy"}
    )
