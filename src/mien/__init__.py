"""mien: classifiers of perceived gender and age from photographs of faces, with numbers that can be trusted.

The public names below are imported when they are first used, so that `import mien` costs nothing and needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mien.base.errors import MienError as MienError
    from mien.base.table import read_faces_table as read_faces_table
    from mien.data.sources import read_faces as read_faces
    from mien.demo.draw import draw_faces as draw_faces
    from mien.evaluation.evaluate import evaluate as evaluate
    from mien.evaluation.evaluate import evaluate_on as evaluate_on
    from mien.prediction.predict import Predictor as Predictor
    from mien.recipe.load import load_recipe as load_recipe
    from mien.recipe.load import recipe_names as recipe_names
    from mien.reports.compare import compare_runs as compare_runs
    from mien.reports.eda import explore as explore
    from mien.runs.run import open_run as open_run
    from mien.training.cells import run_study as run_study
    from mien.training.fit import train as train
    from mien.training.publish import publish as publish
    from mien.training.tune import tune as tune
    from mien.verbs.audit import audit_model as audit_model
    from mien.weights import model_card as model_card

__version__ = "0.2.0"

_HOMES = {
    "MienError": "mien.base.errors",
    "Predictor": "mien.prediction.predict",
    "audit_model": "mien.verbs.audit",
    "compare_runs": "mien.reports.run",
    "draw_faces": "mien.demo.draw",
    "evaluate": "mien.evaluation.evaluate",
    "evaluate_on": "mien.evaluation.evaluate",
    "explore": "mien.reports.eda",
    "load_recipe": "mien.recipe.load",
    "model_card": "mien.weights",
    "open_run": "mien.runs.run",
    "publish": "mien.training.publish",
    "read_faces": "mien.data.sources",
    "read_faces_table": "mien.base.table",
    "recipe_names": "mien.recipe.load",
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
