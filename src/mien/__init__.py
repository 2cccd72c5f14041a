"""mien: classifiers of perceived gender and age from photographs of faces, with numbers that can be trusted.

Each verb of the command line is a function of the same name, with the same options. Names are imported when they are
first used, so that `import mien` takes no time and needs no torch. The import sets the variables of
`mien.base.privacy`, so that no library sends usage statistics.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mien.base.privacy import disable_telemetry
from mien.base.version import __version__ as __version__

disable_telemetry()

if TYPE_CHECKING:
    from mien.api.audit import audit_data as audit_data
    from mien.api.audit import audit_model as audit_model
    from mien.api.data import draw as draw
    from mien.api.data import eda as eda
    from mien.api.data import faces as faces
    from mien.api.prediction import explain as explain
    from mien.api.prediction import predict as predict
    from mien.api.prediction import serve as serve
    from mien.api.training import evaluate as evaluate
    from mien.api.training import export as export
    from mien.api.training import preview as preview
    from mien.api.training import publish as publish
    from mien.api.training import recipes as recipes
    from mien.api.training import report as report
    from mien.api.training import studies as studies
    from mien.api.training import study as study
    from mien.api.training import train as train
    from mien.api.training import tune as tune
    from mien.base.errors import MienError as MienError
    from mien.base.table import read_faces_table as read_faces_table
    from mien.prediction.predict import Predictor as Predictor
    from mien.recipe.load import load_recipe as load_recipe
    from mien.runs.run import Run as Run
    from mien.runs.run import open_run as open_run
    from mien.weights import model_card as model_card

_PUBLIC = {
    "MienError": "base.errors:MienError",
    "Predictor": "prediction.predict:Predictor",
    "Run": "runs.run:Run",
    "audit_data": "api.audit:audit_data",
    "audit_model": "api.audit:audit_model",
    "draw": "api.data:draw",
    "eda": "api.data:eda",
    "evaluate": "api.training:evaluate",
    "explain": "api.prediction:explain",
    "export": "api.training:export",
    "faces": "api.data:faces",
    "load_recipe": "recipe.load:load_recipe",
    "model_card": "weights:model_card",
    "open_run": "runs.run:open_run",
    "predict": "api.prediction:predict",
    "preview": "api.training:preview",
    "publish": "api.training:publish",
    "read_faces_table": "base.table:read_faces_table",
    "recipes": "api.training:recipes",
    "report": "api.training:report",
    "serve": "api.prediction:serve",
    "studies": "api.training:studies",
    "study": "api.training:study",
    "train": "api.training:train",
    "tune": "api.training:tune",
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
