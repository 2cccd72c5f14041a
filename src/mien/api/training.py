"""Training: train, tune, study, preview, evaluate, compare, export and publish runs.

The functions that train import torch when they are called; the others do not need it.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.api.arguments import PathLike, Settings, as_changes, as_faces, as_list
from mien.base.errors import MienError, MissingExtra

if TYPE_CHECKING:
    import pandas as pd

    from mien.experiments.results import Results
    from mien.recipe.settings import Recipe
    from mien.runs.run import Run
    from mien.training.plan import Plan


@contextmanager
def needs_training(what: str) -> Iterator[None]:
    """Names the extra `train`, which includes what its parts need, if an import fails inside."""
    try:
        yield
    except MissingExtra as error:
        raise MissingExtra(what, "train") from error
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mien"):
            raise
        raise MissingExtra(what, "train") from error


def recipes() -> dict[str, str]:
    """The recipes that ship with mien: name -> description.

    Examples:
        >>> import mien
        >>> "demo-gender" in mien.recipes()
        True
    """
    from mien.recipe.load import recipe_names

    return recipe_names()


def studies() -> dict[str, str]:
    """The studies that ship with mien: name -> description.

    Examples:
        >>> import mien
        >>> "transfer" in mien.studies()
        True
    """
    from mien.experiments.study import study_names

    return study_names()


def train(
    recipe: "PathLike | Recipe | Mapping[str, Any]", set: Settings | None = None, out: PathLike | None = None
) -> "Run":
    """Trains, exports and evaluates one model; rerunning the same call resumes an interrupted run.

    Args:
        recipe: Name of a recipe that ships (see `mien.recipes`), a YAML file, a mapping or a `Recipe`.
        set: Changed settings, as `{"optim.lr": 3e-4}` or `["optim.lr=3e-4"]`.
        out: Folder of the run; None: `runs/<recipe>`.

    Returns:
        The finished run.

    Raises:
        MissingExtra: mien[train] is not installed.
        MienError: Settings are not valid, the data cannot be used, or parts of it leak into each other.
    """
    with needs_training("training"):
        from mien.training.fit import train as fit
    return fit(_recipe(recipe), as_changes(set), out)


def tune(
    recipe: "PathLike | Recipe | Mapping[str, Any]",
    space: PathLike | Mapping[str, Any],
    *,
    trials: int | None = None,
    out: PathLike | None = None,
    storage: str | None = None,
    sampler: str = "random",
    eta: int = 3,
    metric: str = "val_loss",
    seed: int = 0,
    set: Settings | None = None,
) -> "Run":
    """Searches settings with Hyperband, then trains the best recipe and scores it on the test part, once.

    Rerunning the same call resumes an interrupted search; several processes may work on one search at the same time.

    Args:
        recipe: As for `train`; `trainer.epochs` is the length of a trial that is never stopped.
        space: YAML file or mapping: dotted key -> `{low, high, log, step}` or `{choices: [...]}`, and `when`.
        trials: Number of trials in all; None: one round of Hyperband as published.
        out: Folder of the search; None: `runs/tune-<recipe>`.
        storage: Database URL; None: a journal file in `out`.
        sampler: "random" (Hyperband) or "tpe" (similar to BOHB).
        eta: Reduction factor: one trial in `eta` continues past each rung.
        metric: Score of the validation part: "val_loss", or a metric of a task.
        seed: Seed of the sampler.
        set: Changed settings of the recipe, as for `train`.

    Returns:
        The run of the best recipe.

    Raises:
        MissingExtra: mien[train] is not installed.
        MienError: Settings are not valid, `out` holds another search, or no trial finished.
    """
    with needs_training("a search"):
        from mien.training.search import tune as search
    if out is None:
        out = Path("runs") / f"tune-{Path(recipe).stem if isinstance(recipe, str | Path) else 'recipe'}"
    options: dict[str, Any] = {"trials": trials, "storage": storage, "sampler": sampler}
    return search(_recipe(recipe), space, out, changes=as_changes(set), eta=eta, metric=metric, seed=seed, **options)


def study(
    study: PathLike | Mapping[str, Any],
    set: Settings | None = None,
    out: PathLike | None = None,
    jobs: int = 1,
    quick: bool = False,
) -> "Results":
    """Trains every run of a study and compares them; rerunning the same call trains what is not finished.

    Args:
        study: Name of a study that ships (see `mien.studies`), a YAML file or a mapping.
        set: Changed settings of every run, as for `train`.
        out: Folder of the study; None: `studies/<study>`.
        jobs: Number of runs to train at the same time.
        quick: Use the variant on drawn faces, which takes minutes and checks that everything works.

    Returns:
        The runs, their scores and the comparisons. A run that fails is recorded and does not stop the others.

    Raises:
        MissingExtra: mien[train] is not installed.
        MienError: The study or a recipe is not valid, data are missing, or `out` holds another study.
    """
    with needs_training("training"):
        from mien.training.study_cells import run_study
    return run_study(study, as_changes(set), out, jobs, quick)


def plan_study(
    study: PathLike | Mapping[str, Any],
    set: Settings | None = None,
    out: PathLike | None = None,
    jobs: int = 1,
    quick: bool = False,
) -> "Plan":
    """Lists the runs of a study, what is missing, and about how long training takes; the arguments are `study`'s."""
    with needs_training("training"):
        from mien.training.plan import make_plan
    return make_plan(study, as_changes(set), out, jobs, quick)


def preview(
    recipe: "PathLike | Recipe | Mapping[str, Any]", set: Settings | None = None, out: PathLike = "preview.html"
) -> list[str]:
    """Shows a batch of training faces after each augmentation, with labels and pixel ranges, as an HTML page.

    Args:
        recipe: As for `train`; without `data.root` the faces are drawn.
        set: Changed settings, as for `train`.
        out: HTML file to write.

    Returns:
        Warnings about what looks wrong, such as pixel ranges that differ between training and validation.

    Raises:
        MissingExtra: mien[train] is not installed.
        MienError: Settings are not valid, or the data cannot be used.
    """
    with needs_training("a preview"):
        from mien.training.preview import preview as write_preview
    return write_preview(_recipe(recipe), out, as_changes(set))


def evaluate(
    run: "PathLike | Run",
    faces: "pd.DataFrame | PathLike | None" = None,
    root: PathLike | None = None,
    *,
    allow_leaks: bool = False,
    name: str | None = None,
) -> "pd.DataFrame":
    """Scores a run on its own parts, or on other data after a leak check.

    Args:
        run: Folder of a finished run or a published model, or `hub:OWNER/NAME`.
        faces: Other data: a faces table, or its file. None: the run's own parts.
        root: Folder that the paths of `faces` are relative to, or a run for those of its data sets.
        allow_leaks: Continue although faces of the training part, or near-duplicates of them, are in `faces`.
        name: Names the other data in the run's folder; None: the name of the file, or "other".

    Returns:
        The metrics table: one row per split, group and metric with `value`, `low`, `high`, `n`, `baseline`.

    Raises:
        LeakError: Training faces are in the other data.
        MienError: The run is not finished, or only one of `faces` and `root` is given.
    """
    from mien.evaluation.evaluate import evaluate as evaluate_run
    from mien.evaluation.evaluate import evaluate_on
    from mien.reports.run import run_report
    from mien.runs.run import open_run

    if (faces is None) != (root is None):
        raise MienError("--faces and --root go together: a faces table, and the folder that its paths are relative to")
    opened = open_run(run)
    if faces is None:
        table = evaluate_run(opened)
        run_report(opened)
        return table
    assert root is not None
    if name is None:
        name = Path(faces).stem if isinstance(faces, str | Path) else "other"
    return evaluate_on(opened, as_faces(faces), root, name, allow_leaks)


def report(runs: "PathLike | Run | Sequence[PathLike | Run]", out: PathLike = "report.html") -> "pd.DataFrame":
    """Compares runs by their test parts: a table, paired differences on the same faces, and one HTML report.

    Args:
        runs: Folders of finished runs.
        out: HTML file to write.

    Returns:
        One row per run and the baseline, with intervals as text; `attrs["differences"]` describes each difference.

    Raises:
        MienError: There is no run, one is given twice, or one is not finished.
    """
    from mien.reports.compare import compare_runs
    from mien.runs.run import open_run

    return compare_runs([open_run(run) for run in as_list(runs)], out)


def export(
    run: "PathLike | Run",
    out: PathLike,
    *,
    quantize: bool = False,
    root: PathLike | None = None,
    max_loss: float | None = None,
    max_age_loss: float | None = None,
) -> Path:
    """Writes a run as one ONNX file, which predicts without torch.

    Args:
        run: Folder of a finished run or a published model, or `hub:OWNER/NAME`.
        out: The `.onnx` file to write; it must not exist.
        quantize: Convert to 8 bits, and refuse the result if it loses too much on the validation faces.
        root: With `quantize`: folder of the faces, if it has moved.
        max_loss: With `quantize`: accuracy that may be lost, in percentage points; None: 0.5.
        max_age_loss: With `quantize`: age error that may be gained, in years; None: 0.1.

    Returns:
        The file.

    Raises:
        MissingExtra: `quantize` needs mien[train].
        MienError: `out` exists or has another ending, or too much is lost.
    """
    from mien.base.atomic import atomic_path
    from mien.runs.run import open_run

    out = Path(out)
    if out.suffix != ".onnx":
        raise MienError(f"--out {str(out)!r}: must end in .onnx")
    if out.exists():
        raise MienError(f"--out {str(out)!r} exists; give another name, or remove it")
    limits = {
        name: value for name, value in (("max_loss", max_loss), ("max_age_loss", max_age_loss)) if value is not None
    }
    if not quantize and (root is not None or limits):
        raise MienError("--root, --max-loss and --max-age-loss belong to --quantize, which was not given")
    opened = open_run(run)
    out.parent.mkdir(parents=True, exist_ok=True)
    if quantize:
        with needs_training("quantizing"):
            from mien.training.quantize import quantize as write_quantized
            from mien.training.quantize import show_quantized
        show_quantized(write_quantized(opened, out, root, **limits))
    else:
        with atomic_path(out) as part:
            shutil.copyfile(opened.model_file, part)
    return out


def publish(run: "PathLike | Run", dest: PathLike, license: str | None = None) -> list[str]:
    """Shares a run: weights, ONNX file, recipe, metrics and a model card, but neither faces nor predictions.

    Args:
        run: Folder of a finished run, or of a published model.
        dest: A folder, or `hub:OWNER/NAME` on the Hugging Face Hub.
        license: Identifier of the licence that you give, as on the Hub, for instance "cc-by-nc-4.0".

    Returns:
        What to know before sharing it: leaks, and the terms of the data.

    Raises:
        MissingExtra: mien[train] is not installed.
        MienError: The run is not finished, or the destination cannot be used.
    """
    with needs_training("publishing"):
        from mien.training.publish import publish as write_publication
    return write_publication(run, str(dest), license)


def _recipe(given: "PathLike | Recipe | Mapping[str, Any]") -> Any:
    return dict(given) if isinstance(given, Mapping) else given
