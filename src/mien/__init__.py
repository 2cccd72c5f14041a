"""mien: classifiers of perceived gender and age from photographs of faces, with numbers that can be trusted.

Each verb of the command line is a function of the same name, with the same options. Names are imported when they are
first used, so that `import mien` takes no time and needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mien.base.version import __version__ as __version__

if TYPE_CHECKING:
    from mien.base.errors import MienError as MienError
    from mien.base.table import read_faces_table as read_faces_table
    from mien.prediction.predict import Predictor as Predictor
    from mien.recipe.load import load_recipe as load_recipe
    from mien.runs.run import Run as Run
    from mien.runs.run import open_run as open_run
    from mien.verbs.audit import audit_data as audit_data
    from mien.verbs.audit import audit_model as audit_model
    from mien.verbs.data import draw as draw
    from mien.verbs.data import eda as eda
    from mien.verbs.data import faces as faces
    from mien.verbs.prediction import explain as explain
    from mien.verbs.prediction import predict as predict
    from mien.verbs.prediction import serve as serve
    from mien.verbs.training import evaluate as evaluate
    from mien.verbs.training import export as export
    from mien.verbs.training import preview as preview
    from mien.verbs.training import publish as publish
    from mien.verbs.training import recipes as recipes
    from mien.verbs.training import report as report
    from mien.verbs.training import studies as studies
    from mien.verbs.training import study as study
    from mien.verbs.training import train as train
    from mien.verbs.training import tune as tune
    from mien.weights import model_card as model_card

_PUBLIC = {
    "MienError": "base.errors:MienError",
    "Predictor": "prediction.predict:Predictor",
    "Run": "runs.run:Run",
    "audit_data": "verbs.audit:audit_data",
    "audit_model": "verbs.audit:audit_model",
    "draw": "verbs.data:draw",
    "eda": "verbs.data:eda",
    "evaluate": "verbs.training:evaluate",
    "explain": "verbs.prediction:explain",
    "export": "verbs.training:export",
    "faces": "verbs.data:faces",
    "load_recipe": "recipe.load:load_recipe",
    "model_card": "weights:model_card",
    "open_run": "runs.run:open_run",
    "predict": "verbs.prediction:predict",
    "preview": "verbs.training:preview",
    "publish": "verbs.training:publish",
    "read_faces_table": "base.table:read_faces_table",
    "recipes": "verbs.training:recipes",
    "report": "verbs.training:report",
    "serve": "verbs.prediction:serve",
    "studies": "verbs.training:studies",
    "study": "verbs.training:study",
    "train": "verbs.training:train",
    "tune": "verbs.training:tune",
}
"""The public names, and where each is defined."""

__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mien' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(f"mien.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__
