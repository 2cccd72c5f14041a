"""mien: classifiers of perceived gender and age from photographs of faces, with numbers that can be trusted.

The public names below are imported when they are first used, so that `import mien` costs nothing and needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mien.audit.model import audit_model as audit_model
    from mien.datasets import read_faces as read_faces
    from mien.draw import draw_faces as draw_faces
    from mien.errors import MienError as MienError
    from mien.evaluation import evaluate as evaluate
    from mien.evaluation import evaluate_on as evaluate_on
    from mien.prediction.predict import Predictor as Predictor
    from mien.recipe import load_recipe as load_recipe
    from mien.recipe import recipe_names as recipe_names
    from mien.reports.eda import explore as explore
    from mien.reports.runs import compare_runs as compare_runs
    from mien.run import open_run as open_run
    from mien.table import read_faces_table as read_faces_table
    from mien.training.cells import run_study as run_study
    from mien.training.fit import train as train
    from mien.training.publish import publish as publish
    from mien.training.tune import tune as tune

__version__ = "0.1.0"

_HOMES = {
    "MienError": "mien.errors",
    "Predictor": "mien.prediction.predict",
    "audit_model": "mien.audit.model",
    "compare_runs": "mien.reports.runs",
    "draw_faces": "mien.draw",
    "evaluate": "mien.evaluation",
    "evaluate_on": "mien.evaluation",
    "explore": "mien.reports.eda",
    "load_recipe": "mien.recipe",
    "open_run": "mien.run",
    "publish": "mien.training.publish",
    "read_faces": "mien.datasets",
    "read_faces_table": "mien.table",
    "recipe_names": "mien.recipe",
    "run_study": "mien.training.cells",
    "train": "mien.training.fit",
    "tune": "mien.training.tune",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mien' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
