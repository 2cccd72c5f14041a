"""A run: a self-contained folder, from which every report can be rebuilt without training."""

import html
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from mien.base.atomic import atomic_path
from mien.base.errors import MienError, columns_of
from mien.base.table import read_faces_table, read_table
from mien.base.version import __version__
from mien.metrics.wording import metrics_table, scores
from mien.recipe.load import load_recipe
from mien.recipe.settings import Recipe, flat_settings
from mien.runs.hub import absent, local_folder

_PROCESSES = {f"{stage}trainer.{key}" for stage in ("", "init.") for key in ("devices", "nodes")}
"""Settings that may change when a run is resumed."""

VERSIONED = (
    "torch",
    "torchvision",
    "timm",
    "pytorch-lightning",
    "onnx",
    "onnxruntime",
    "numpy",
    "pandas",
    "pillow",
)


class Run:
    """The files of one run.

    | file | what |
    |---|---|
    | recipe.yaml | every setting, defaults included |
    | faces.parquet | the faces, with their split |
    | unreadable.csv | faces whose image could not be read, with the reason |
    | log.csv, tensorboard/ | the training log |
    | model.safetensors, model.onnx | the weights; the network for prediction |
    | predictions.parquet, metrics.csv | of the validation and test part |
    | report.html | the report |
    | run.json | status, cost, leaks, versions |
    | resume.ckpt, best.ckpt, teachers.safetensors | only while training is not finished |

    A published model (`mien publish`) is read as a run, and has neither faces nor predictions nor a log.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.recipe_file = self.folder / "recipe.yaml"
        self.faces_file = self.folder / "faces.parquet"
        self.unreadable_file = self.folder / "unreadable.csv"
        self.log_file = self.folder / "log.csv"
        self.weights_file = self.folder / "model.safetensors"
        self.model_file = self.folder / "model.onnx"
        self.predictions_file = self.folder / "predictions.parquet"
        self.metrics_file = self.folder / "metrics.csv"
        self.report_file = self.folder / "report.html"
        self.info_file = self.folder / "run.json"
        self.resume_file = self.folder / "resume.ckpt"
        self.best_file = self.folder / "best.ckpt"
        self.teachers_file = self.folder / "teachers.safetensors"

    def __repr__(self) -> str:
        """The folder, the status and the tasks."""
        if not self.recipe_file.is_file():
            return f"Run({str(self.folder)!r}, empty)"
        tasks = ", ".join(self.recipe.tasks.named())
        return f"Run({str(self.folder)!r}, {self.info.get('status', 'status unknown')}, tasks: {tasks})"

    def _repr_html_(self) -> str:
        """In a notebook: the scores of the test part with their intervals."""
        title = f"<p><b>{html.escape(repr(self))}</b></p>"
        if not self.metrics_file.is_file():
            return title
        table = self.metrics
        rows = scores(table[(table["split"] == "test") & (table["group"] == "all")])
        return title + metrics_table(rows).to_html(index=False, border=0)

    @property
    def name(self) -> str:
        """The folder's name; of a published model, that of the run."""
        # A name from elsewhere goes into the names of files here.
        return Path(str(self.info["published"].get("name"))).name if self.published else self.folder.resolve().name

    @property
    def published(self) -> bool:
        """Whether this is a published model."""
        return "published" in self.info

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return load_recipe(self.recipe_file)

    @property
    def faces(self) -> pd.DataFrame:
        """The faces table with the run's split.

        Raises:
            MienError: This is a published model, which has none.
        """
        self._need("faces")
        return read_faces_table(self.faces_file)

    @property
    def predictions(self) -> pd.DataFrame:
        """Predictions of the validation and test part.

        Raises:
            MienError: This is a published model, which has none.
        """
        self._need("predictions")
        return _read(self.predictions_file, "face", "status")

    @property
    def metrics(self) -> pd.DataFrame:
        """The metrics table."""
        return _read(self.metrics_file, "split", "group", "metric", "value", "low", "high", "n")

    @property
    def log(self) -> pd.DataFrame:
        """One row an epoch."""
        return _read(self.log_file, "epoch")

    @property
    def info(self) -> dict[str, Any]:
        """Status, cost, leaks and versions; empty before anything is known.

        Raises:
            MienError: run.json is damaged.
        """
        if not self.info_file.exists():
            return {}
        try:
            info = json.loads(self.info_file.read_text("utf-8"))
            if not isinstance(info, dict) or not isinstance(info.get("published", {}), dict):
                raise ValueError("it is not a mapping")
        except (ValueError, RecursionError) as error:
            raise MienError(f"{str(self.info_file)!r} is damaged: {error}") from None
        return info

    @property
    def finished(self) -> bool:
        """Whether training has ended."""
        return self.info.get("status") == "finished"

    def _need(self, what: str) -> None:
        if self.published:
            raise MienError(
                f"{self.name!r} is a published model, which holds no {what} (they name files and people); "
                "valid: the folder of the run itself"
            )

    def note(self, **facts: Any) -> None:
        """Adds facts to run.json."""
        with atomic_path(self.info_file) as part:
            part.write_text(json.dumps(self.info | facts, indent=2, default=str) + "\n", "utf-8")

    def begin(self, recipe: Recipe) -> bool:
        """Creates the folder, or resumes an interrupted run of the same recipe.

        Returns:
            Whether an interrupted run is resumed.

        Raises:
            MienError: The folder holds a finished run, a run of another recipe, or something else.
        """
        if self.faces_file.exists():
            self._check_same(recipe)
            if self.finished:
                raise MienError(f"run {str(self.folder)!r} is finished; give another --out, or remove the folder")
            return True
        # A recipe without faces is left by an attempt that failed early, or in its first stage, which has its own
        # folder; files whose names start with a dot are incomplete writes. Both can be replaced.
        names = {file.name for file in self.folder.iterdir()} if self.folder.exists() else set()
        if {name for name in names if not name.startswith(".")} - {"recipe.yaml", "run.json", "first"}:
            raise MienError(f"folder {str(self.folder)!r} holds other files and is not a run; give another --out")
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.recipe_file) as part:
            part.write_text(recipe.to_yaml(), "utf-8")
        self.note(status="training", versions=versions())
        return False

    def _check_same(self, recipe: Recipe) -> None:
        before, now = flat_settings(self.recipe), flat_settings(recipe)
        changed = [key for key in now | before if now.get(key) != before.get(key) and key not in _PROCESSES]
        if changed:
            key = changed[0]
            raise MienError(
                f"run {str(self.folder)!r} was started with another recipe: {key} was {before.get(key)!r} and is "
                f"{now.get(key)!r} ({len(changed)} settings differ); give another --out"
            )


def _read(path: Path, *columns: str) -> pd.DataFrame:
    """Reads a table of a run and checks its columns."""
    table = read_table(path)
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise MienError(f"{str(path)!r} has no column {absent[0]!r}; its columns are: {columns_of(table)}")
    return table


def open_run(source: "str | Path | Run") -> Run:
    """Opens a finished run.

    Args:
        source: The folder of a run or of a published model, or `hub:OWNER/NAME`, which is downloaded.

    Raises:
        MienError: It is not a run, training has not finished, or the Hub has no such model.
    """
    run = source if isinstance(source, Run) else Run(local_folder(source))
    if not run.recipe_file.is_file():
        if not run.folder.is_dir():
            raise MienError(
                f"{str(source)!r} is not a mien run: the folder does not exist; valid: a folder, or hub:OWNER/NAME"
            )
        raise absent(
            run.folder, run.recipe_file.name, (file.name for file in run.folder.iterdir()), "is not a mien run: it"
        )
    if not run.finished:
        raise MienError(f"run {str(run.folder)!r} is not finished; rerun the same `mien train` command to resume it")
    return run


def versions() -> dict[str, str]:
    """Returns the versions of Python, the platform and the packages that determine results."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "mien": __version__}
    for package in VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
