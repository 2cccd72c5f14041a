"""`tune`: searches settings of a recipe, and trains the best recipe."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna

from mien.base.errors import MienError
from mien.base.lock import Lock
from mien.base.messages import note
from mien.experiments.brackets import best_trial, brackets
from mien.experiments.space import Scalar, read_space
from mien.experiments.space import changes as as_changes
from mien.recipe.load import load_recipe
from mien.recipe.settings import Recipe
from mien.reports.search import write_search_report
from mien.runs.run import Run
from mien.training import fit
from mien.training.search.definition import Sampler, Search
from mien.training.search.display import show_ledger
from mien.training.search.storage import open_search
from mien.training.search.tables import write_best_recipe, write_tables
from mien.training.search.trials import run_trials


def tune(
    recipe: str | Path | Recipe | dict[str, Any],
    space: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    changes: Iterable[str] = (),
    trials: int | None = None,
    storage: str | None = None,
    sampler: Sampler = "random",
    eta: int = 3,
    metric: str = "val_loss",
    seed: int = 0,
) -> Run:
    """Searches settings by asynchronous Hyperband, then trains the best recipe and scores it once on the test part.

    Call it again with the same arguments to resume an interrupted search. Several processes can work on one search at
    the same time; all of them need the same `out`.

    Args:
        recipe: As for `train`; `trainer.epochs` is the length of a trial that is never pruned.
        space: The settings to vary: see `mien.experiments.space.read_space`.
        out: Folder of the search.
        changes: As for `train`.
        trials: Total number of trials; None: as many as one round of Hyperband as published (Li et al. 2018).
        storage: A database URL; None: a journal file in `out`.
        sampler: `random` for Hyperband; `tpe` for Optuna's tree-structured Parzen estimator fitted to the trials of
            the same bracket, similar to BOHB (Falkner et al. 2018).
        eta: Reduction factor: one in `eta` trials of a rung continues.
        metric: Metric of the validation part: `val_loss`, or a score of a task.
        seed: Seed of the sampler.

    Returns:
        The run of the best recipe, `out/best`.

    Raises:
        MienError: Settings are not valid, `out` holds another search, the storage cannot be reached, or no trial
            finished.
    """
    settings, _ = fit.settled(load_recipe(recipe, changes))
    search = Search(settings, read_space(space, settings), Path(out), sampler, eta, metric, seed, storage)
    total = (
        sum(bracket.configurations for bracket in brackets(settings.trainer.epochs, eta)) if trials is None else trials
    )
    search.check(total)
    study = open_search(search)
    _check_test_part_unused(search, study, total)
    run_trials(search, study, total)
    return _finish(search, study, total)


def _check_test_part_unused(search: Search, study: optuna.Study, total: int) -> None:
    """Raises if more trials are requested after the chosen recipe has been scored on the test part."""
    with search.storage_errors():
        count = len(study.get_trials(deepcopy=False))
    if Run(search.out / "best").finished and total > count:
        raise MienError(
            f"search {str(search.out)!r} ended with {count} trials, and its best recipe was scored on the test part; "
            f"{total} trials would select again: give another --out"
        )


def _finish(search: Search, study: optuna.Study, total: int) -> Run:
    """Trains the best recipe once, scores it on the test part, and writes the report."""
    ledger, trials = write_tables(search, study)
    running = int((trials["state"] == "running").sum())
    run = Run(search.out / "best")
    if running:
        show_ledger(ledger)
        raise MienError(
            f"{running} trials are still running in other processes; the last process trains the best recipe, or "
            "rerun the same command later"
        )
    best = best_trial(trials, search.direction)
    if best is None:
        failed = trials[trials["error"] != ""]
        example = f"; trial {failed['trial'].iloc[0]}: {failed['error'].iloc[0]}" if len(failed) else ""
        raise MienError(f"none of {len(trials)} trials finished training{example}")
    recipe = load_recipe(search.recipe, as_changes(search.space, _parameters(search, study, int(best["trial"]))))
    with Lock(search.out / "best.lock"):
        if not run.finished:
            write_best_recipe(search, recipe, trials, best, None)
            fit.train(recipe, out=run.folder, stages=search.out / "first")
        # Also needed if an earlier process was killed before it wrote the scores.
        write_best_recipe(search, recipe, trials, best, run)
    show_ledger(ledger)
    chosen = as_changes(search.space, _parameters(search, study, int(best["trial"])))
    note(f"chosen: {', '.join(chosen)}")
    note(f"used again by: mien train {search.out / 'best.yaml'} --out runs/NAME")
    note(f"report: {write_search_report(search.out)}")
    return run


def _parameters(search: Search, study: optuna.Study, number: int) -> dict[str, Scalar]:
    with search.storage_errors():
        return study.get_trials(deepcopy=False)[number].params
