"""The result files of a search: ledger, trials, learning curves, and the recipe that was chosen."""

import math

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from mien.base.atomic import atomic_path
from mien.base.table import read_faces_table, write_table
from mien.experiments.brackets import STATES, make_ledger
from mien.metrics.wording import HEADLINES, named, scores, with_interval
from mien.recipe.settings import Recipe
from mien.runs.run import Run
from mien.training.search.definition import Search
from mien.training.search.hyperband import bracket_of

_STATES = dict(zip((TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING), STATES, strict=True))


def write_tables(search: Search, study: optuna.Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Writes ledger.csv, trials.csv and curves.csv.

    Returns:
        The ledger and the trials table.
    """
    with search.storage_errors():
        known = study.get_trials(deepcopy=False)
    trials, curves = _trials_and_curves(search, study, known)
    ledger = make_ledger(trials, search.recipe.trainer.epochs, search.eta, search.direction)
    for name, table in (("ledger", ledger), ("trials", trials), ("curves", curves)):
        write_table(table, search.out / f"{name}.csv")
    return ledger, trials


def _trials_and_curves(
    search: Search, study: optuna.Study, known: list[FrozenTrial]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, curves = [], [pd.DataFrame(columns=["trial", "bracket", "epoch", "val_loss", "seconds"])]
    for trial in known:
        file = Run(search.out / "trials" / str(trial.number)).log_file
        log = pd.read_csv(file) if file.exists() else pd.DataFrame({"epoch": [], "seconds": []})
        bracket = bracket_of(study, trial.number)
        last = trial.last_step
        rows.append(
            {
                "trial": trial.number,
                "bracket": bracket,
                "state": _STATES[trial.state],
                "epochs": len(log),
                "seconds": round(float(log["seconds"].sum()), 2),
                "value": math.nan if last is None else trial.intermediate_values[last],
                "error": trial.user_attrs.get("error", ""),
                **{key: trial.params.get(key) for key in search.space},
            }
        )
        if len(log):
            curves.append(log.assign(trial=trial.number, bracket=bracket))
    filled = [table for table in curves if len(table)] or curves
    columns = ["trial", "bracket", "epoch"]
    joined = pd.concat(filled, ignore_index=True)
    return pd.DataFrame(rows), joined[[*columns, *(name for name in joined.columns if name not in columns)]]


def write_best_recipe(search: Search, recipe: Recipe, trials: pd.DataFrame, best: pd.Series, run: Run | None) -> None:
    """Writes the chosen recipe to best.yaml, with the header of recipe files.

    Args:
        search: The search.
        recipe: The chosen recipe.
        trials: The trials table.
        best: The row of the chosen trial.
        run: The run of the chosen recipe; None before it is trained.
    """
    file = search.out / "best.yaml"
    faces = read_faces_table(search.out / "faces.parquet")
    validation = int((faces["split"] == "val").sum())
    time = "not measured" if run is None else f"{run.info['seconds_training']:.0f} seconds on {run.info['device']}"
    header = (
        f"# {recipe.name}, tuned: trial {best['trial']} of {len(trials)}, {search.metric} {best['value']:.4g} on "
        f"the {validation} validation faces used for selection\n"
        f"# command: mien train {file}\n# time:    {time}\n# score:   {_score(run)}\n"
    )
    tree = {"name": recipe.name, **recipe.model_dump(mode="json", exclude_defaults=True)}
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    with atomic_path(file) as part:
        part.write_text(header + text, "utf-8")


def _score(run: Run | None) -> str:
    if run is None:
        return "not measured"
    table = run.metrics
    rows = scores(table[(table["split"] == "test") & (table["group"] == "all") & table["metric"].isin(HEADLINES)])
    shown = []
    for row in rows:
        value = with_interval(row.metric, row.value, row.low, row.high, unit=True)
        shown.append(f"{named(row.metric, unit=False)} {value} (n {row.n})")
    return f"{'; '.join(shown)}: test part, one run"
