"""Searches settings of a recipe by Hyperband, with Optuna.

Optuna's Hyperband is the asynchronous kind: no trial waits for the others of its rung. A trial that has trained for a
rung's epochs goes on at once where it is among the best 1/eta of those that came so far, and is stopped for good
otherwise. Hyperband as published (Li et al. 2018) waits until a rung is full and then continues the best 1/eta.
"""

import contextlib
import hashlib
import json
import math
import os
import sys
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pandas as pd
import yaml
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mien.base.atomic import atomic_path
from mien.base.console import console, show
from mien.base.errors import MienError, MissingExtra, choices
from mien.base.lock import Lock
from mien.base.table import read_faces_table, write_table
from mien.data.sources import data_root
from mien.experiments.hyperband import STATES, best_trial, brackets, make_ledger
from mien.experiments.space import Scalar, Space, is_whole, read_space
from mien.experiments.space import changes as as_changes
from mien.metrics.definitions import METRICS
from mien.metrics.joined import TRUTH_COLUMNS
from mien.metrics.words import HEADLINES, PRIMARY, named, scores, with_interval
from mien.recipe.load import load_recipe
from mien.recipe.settings import Recipe
from mien.reports.search import write_search_report
from mien.runs.run import Run
from mien.training.fit import prepare_faces, train

Sampler = Literal["random", "tpe"]
Direction = Literal["minimize", "maximize"]

_LIVES = 3
"""How often a trial may take its process with it without having come further in between."""

_BEGINNINGS = {"search.lock", "search.log", "journal.lock", "run.json", "faces.parquet"}
"""What a folder may hold whose search failed, or is about, to begin."""

_STATES = dict(zip((TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING), STATES, strict=True))


class StorageError(MienError):
    """The storage of a search cannot be reached, or holds something else."""


class _Stopped(Exception):
    """A trial that is not among the best of its rung."""


class _JournalLock(BaseJournalFileLock):
    """Between the processes that write to a journal; Optuna's own locks outlive a process that is killed."""

    def __init__(self, journal: Path) -> None:
        self._journal, self._lock = journal, Lock(journal.with_name("journal.lock"))

    def acquire(self) -> bool:
        """Waits for it, and cuts off the line that a full disk left unfinished, which nobody could read."""
        self._lock.take(wait=True)
        if self._journal.stat().st_size:
            with self._journal.open("rb+") as file:
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.truncate(self._journal.read_bytes().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Lets go of it."""
        self._lock.release()


def make_pruner(epochs: int, eta: int = 3) -> optuna.pruners.HyperbandPruner:
    """Optuna's Hyperband with the brackets of `brackets`; it is to be asked where `judged` says so."""
    most = len(brackets(epochs, eta)) - 1
    first = epochs // eta**most
    # Optuna takes the number of brackets from a floating-point logarithm, which loses one of 243 epochs. It uses
    # max_resource for that alone, so one epoch more than the exact power is safe.
    pruner = optuna.pruners.HyperbandPruner(first, first * eta**most + 1, eta)
    # Until its first decision it takes all trials for one bracket's, and samplers would learn from the wrong ones.
    pruner._try_initialization(None)  # type: ignore[arg-type]  # the study is for max_resource "auto"
    return pruner


def judged(epoch: int, epochs: int, eta: int = 3) -> bool:
    """Whether a trial may be stopped after this epoch: Optuna has a rung where the published ones end at `epochs`."""
    return epoch < brackets(epochs, eta)[0].rungs[-1] * eta


def bracket_of(study: optuna.Study, number: int) -> int:
    """The `s` of the bracket to which Optuna deals the trial with this number."""
    pruner = study.pruner
    assert isinstance(pruner, optuna.pruners.HyperbandPruner) and pruner._n_brackets is not None
    trial = optuna.trial.create_trial(value=0.0)
    trial.number = number
    return pruner._n_brackets - 1 - pruner._get_bracket_id(study, trial)


def make_sampler(name: Sampler, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial: a fixed seed alone would suggest the same again after each restart."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if name == "random":
        return optuna.samplers.RandomSampler(own)
    if name == "tpe":
        with warnings.catch_warnings():
            # `group` is what models settings together that are not always there.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(seed=own, multivariate=True, group=True)
    raise MienError(choices("sampler", name, ("random", "tpe")))


def suggest(trial: Trial, space: Space) -> dict[str, Scalar]:
    """A trial's label for each key of the space that is active; what it has got already stays."""
    chosen: dict[str, Scalar] = {}
    for key, parameter in space.items():
        if not parameter.active(chosen):
            continue
        if parameter.choices is not None:
            chosen[key] = trial.suggest_categorical(key, parameter.labels)
            continue
        assert parameter.low is not None and parameter.high is not None
        if is_whole(key):
            step = 1 if parameter.step is None else int(parameter.step)
            chosen[key] = trial.suggest_int(key, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
        else:
            low, high = float(parameter.low), float(parameter.high)
            chosen[key] = trial.suggest_float(key, low, high, step=parameter.step, log=parameter.log)
    return chosen


def metrics_of(recipe: Recipe) -> dict[str, Direction]:
    """What a search can go by: column of a run's log -> minimize or maximize."""
    found: dict[str, Direction] = {"val_loss": "minimize"}
    for metric in PRIMARY:
        if METRICS[metric].truth in {TRUTH_COLUMNS.get(task) for task in recipe.tasks.predicted()}:
            found[f"val_{metric}"] = "maximize" if METRICS[metric].better == "higher" else "minimize"
    return found


def kept_value(rows: list[dict[str, float]], metric: str, keep: str) -> float:
    """The metric of the weights that a run would keep: of the epoch with the lowest validation loss, or the last."""
    row = min(rows, key=lambda row: row["val_loss"]) if keep == "best" else rows[-1]
    return row[metric]


@dataclass(frozen=True)
class Search:
    """What is searched, how, and where it is kept."""

    recipe: Recipe
    space: Space
    out: Path
    sampler: Sampler = "random"
    eta: int = 3
    metric: str = "val_loss"
    seed: int = 0
    storage: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What a later call must share with the first; no password."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "space": {key: parameter.model_dump(mode="json") for key, parameter in self.space.items()},
            "sampler": self.sampler,
            "eta": self.eta,
            "metric": self.metric,
            "direction": self.direction,
            "seed": self.seed,
            "storage": self.storage_name,
        }

    @property
    def storage_name(self) -> str:
        """The storage as it may be shown."""
        if self.storage is None:
            return "search.log"
        with _reaching(self, "is no database URL"):
            return make_url(self.storage).render_as_string(hide_password=True)

    @property
    def study_name(self) -> str:
        """The same for the same search: Optuna deals trials to brackets by it."""
        same = {key: value for key, value in self.settings.items() if key != "storage"}
        digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()
        return f"mien-{self.recipe.name}-{digest[:10]}"

    @cached_property
    def direction(self) -> Direction:
        """minimize or maximize."""
        return metrics_of(self.recipe)[self.metric]

    @cached_property
    def trial_recipe(self) -> Recipe:
        """The recipe of the trials but for what is searched: the faces are split and looked through once for all."""
        recipe = self.recipe
        data = recipe.data.model_copy(update={"faces": str((self.out / "faces.parquet").absolute()), "map": {}})
        split = recipe.split.model_copy(update={"method": "partition", "near_duplicates": False})
        # A first stage whose split is not given has the second's, which is another one now.
        init = recipe.init
        if init.data is not None and init.split is None:
            init = init.model_copy(update={"split": recipe.split})
        return recipe.model_copy(update={"data": data, "split": split, "init": init})


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
    """Searches settings by asynchronous Hyperband, then trains the chosen recipe and scores it on the test part, once.

    The same call goes on with an interrupted search; several processes may work on one at the same time. All of them
    need the same `out`.

    Args:
        recipe: As for `train`; `trainer.epochs` is the length of a trial that is never stopped.
        space: What to vary: see `mien.experiments.space.read_space`.
        out: Folder of the search.
        changes: As for `train`.
        trials: How many in all; None: as many as one round of Hyperband as published.
        storage: A database URL; None: a journal file in `out`.
        sampler: `random`: Hyperband; `tpe`: with Optuna's model of what did well in the same bracket, which is like
            BOHB (Falkner et al. 2018) in spirit.
        eta: Of a rung, one trial in so many goes on.
        metric: Of the validation part: `val_loss`, or a score of a task.
        seed: Of the sampler.

    Returns:
        The run of the chosen recipe, `out/best`.

    Raises:
        MienError: Wrong settings, an `out` that holds another search, a storage that cannot be reached, or no trial
            that finished.
    """
    settings = load_recipe(recipe, changes)
    search = Search(settings, read_space(space, settings), Path(out), sampler, eta, metric, seed, storage)
    total = (
        sum(bracket.configurations for bracket in brackets(settings.trainer.epochs, eta)) if trials is None else trials
    )
    _check(search, total)
    study = _begin(search)
    _check_open(search, study, total)
    _work(search, study, total)
    return _finish(search, study, total)


def _check(search: Search, total: int) -> None:
    """Raises for settings that make no search."""
    if total < 1:
        raise MienError(f"trials is {total}; valid: 1 or more")
    brackets(search.recipe.trainer.epochs, search.eta)
    make_sampler(search.sampler, search.seed, 0)
    valid = metrics_of(search.recipe)
    if search.metric not in valid:
        raise MienError(choices("metric", search.metric, valid))
    moving = [key for key in search.space if key.startswith("tasks.") and not key.endswith(".hidden")]
    if search.metric == "val_loss" and moving:
        scores = ", ".join(name for name in valid if name != "val_loss")
        raise MienError(
            f"the space varies {', '.join(moving)}, which changes what val_loss measures, so that trials could not be "
            f"compared by it; valid: another metric ({scores}), or a space without it"
        )
    for key in ("devices", "nodes"):
        if getattr(search.recipe.trainer, key) != 1:
            raise MienError(
                f"trainer.{key} is {getattr(search.recipe.trainer, key)!r}; valid for a search: 1 (several processes "
                "may work on one storage)"
            )


def _check_open(search: Search, study: optuna.Study, total: int) -> None:
    """Raises where more trials are wanted after the test part has judged the chosen recipe."""
    with _reaching(search):
        count = len(study.get_trials(deepcopy=False))
    if Run(search.out / "best").finished and total > count:
        raise MienError(
            f"search {str(search.out)!r} ended with {count} trials, and the test part has judged its choice; {total} "
            "would choose again: give another --out"
        )


@contextlib.contextmanager
def _reaching(search: Search, what: str = "cannot be reached") -> Iterator[None]:
    """What goes wrong with the storage, in words."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError, ImportError, OSError) as error:
        cause = str(error.__cause__ or error).strip().split("\n")[0]
        url = search.storage
        name = (
            "search.log"
            if url is None
            else url.partition("://")[0] + "://" + url.rpartition("@")[2].rpartition("//")[2]
        )
        raise StorageError(
            f"storage {name!r} {what} ({type(error).__name__}: {cause}); valid: sqlite:///FILE, "
            f"postgresql://USER@HOST/NAME or another database of SQLAlchemy. What is finished stays in "
            f"{str(search.out)!r}, and the same command goes on with it"
        ) from error


def _open_storage(search: Search) -> BaseStorage:
    if search.storage is None:
        file = search.out / "search.log"
        return JournalStorage(JournalFileBackend(str(file), _JournalLock(file)))
    if search.storage.startswith("sqlite"):
        # Several processes write to one file in turn.
        return RDBStorage(search.storage, engine_kwargs={"connect_args": {"timeout": 60}})
    try:
        # Trials are long: a server may have closed a connection, or begun anew, since it was last used.
        return RDBStorage(search.storage, engine_kwargs={"pool_pre_ping": True})
    except ModuleNotFoundError as error:
        if error.name == "psycopg":
            raise MissingExtra("a search in PostgreSQL", "cluster") from None
        raise


def _begin(search: Search) -> optuna.Study:
    """Makes the search's folder, faces and study, or takes them up; one process at a time."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file, settings = search.out / "search.json", search.settings
    if search.out.exists() and not file.exists():
        others = {path.name for path in search.out.iterdir() if not path.name.startswith(".")} - _BEGINNINGS
        if others and not file.exists():
            raise MienError(f"folder {str(search.out)!r} holds other files and no search; give another --out")
    search.out.mkdir(parents=True, exist_ok=True)
    with Lock(search.out / "search.lock"):
        before = json.loads(file.read_text("utf-8")) if file.exists() else {}
        changed = [key for key in settings if before and before.get(key) != settings[key]]
        if changed:
            raise MienError(
                f"search {str(search.out)!r} was begun with another {' and '.join(changed)}; "
                "give another --out, or the same settings"
            )
        with _reaching(search):
            study = _open_study(search, before.get("folder"))
        if not before:
            before = settings | {"folder": uuid.uuid4().hex}
            _prepare(search)
            with atomic_path(file) as part:
                part.write_text(json.dumps(before, indent=2) + "\n", "utf-8")
        with _reaching(search):
            study.set_user_attr("folder", before["folder"])
    return study


def _prepare(search: Search) -> None:
    if search.recipe.data.root is None:
        raise MienError("data.root is not set: which folder holds the data? --set data.root=FOLDER")
    prepare_faces(Run(search.out), search.recipe, data_root(search.recipe.data.root))


def _open_study(search: Search, folder: str | None) -> optuna.Study:
    study = optuna.create_study(
        storage=_open_storage(search),
        study_name=search.study_name,
        direction=search.direction,
        pruner=make_pruner(search.recipe.trainer.epochs, search.eta),
        load_if_exists=True,
    )
    if study.user_attrs.get("folder", folder) != folder:
        raise StorageError(
            f"storage {search.storage_name!r} holds this search of another folder, whose trials are not in "
            f"{str(search.out)!r}; give that --out (on several machines: one folder that all share), another "
            "--storage or another --seed"
        )
    return study


def _claim(search: Search, study: optuna.Study, total: int) -> tuple[Trial, Lock] | None:
    """The next trial to work on, and the lock that says so for as long as this process lives; None: there is none.

    A trial that is running while nobody holds its lock lost its process, and is taken up again.
    """
    folder = search.out / "trials"
    folder.mkdir(exist_ok=True)
    with Lock(search.out / "search.lock"), _reaching(search):
        known = study.get_trials(deepcopy=False)
        for lost in known:
            lock = Lock(folder / f"{lost.number}.lock")
            if lost.state != TrialState.RUNNING or not lock.take():
                continue
            study.sampler = _again(search, study, known, lost.number)
            trial, lives, place = Trial(study, lost._trial_id), lost.user_attrs.get("begun", 0), _place(search, lost)
            if lives < _LIVES or place != lost.user_attrs.get("place", ""):
                trial.set_user_attr("begun", lives + 1 if place == lost.user_attrs.get("place", "") else 1)
                trial.set_user_attr("place", place)
                suggest(trial, search.space)
                return trial, lock
            trial.set_user_attr("error", f"its process was lost {_LIVES} times")
            study.tell(lost.number, state=TrialState.FAIL)
            lock.release()
        if len(known) >= total:
            return None
        study.sampler = make_sampler(search.sampler, search.seed, len(known))
        trial = study.ask()
        lock = Lock(folder / f"{trial.number}.lock")
        lock.take()
        suggest(trial, search.space)
        trial.set_user_attr("begun", 1)
        return trial, lock


def _place(search: Search, trial: FrozenTrial) -> str:
    """How far a trial has come: another word after each checkpoint."""
    run = Run(search.out / "trials" / str(trial.number))
    return str(run.resume_file.stat().st_mtime_ns) if run.resume_file.exists() else ""


def _copy(search: Search, study: optuna.Study, trials: Iterable[FrozenTrial]) -> optuna.Study:
    """The study with these of its trials alone, in memory, to ask it what it would have done."""
    pruner = make_pruner(search.recipe.trainer.epochs, search.eta)
    copy = optuna.create_study(study_name=study.study_name, direction=search.direction, pruner=pruner)
    copy.add_trials(trials)
    return copy


def _again(
    search: Search, study: optuna.Study, known: Sequence[FrozenTrial], number: int
) -> optuna.samplers.BaseSampler:
    """The sampler of a trial whose process may have died while it drew: what it drew, and would have drawn next."""
    copy = _copy(search, study, known[:number])
    copy.sampler = make_sampler(search.sampler, search.seed, number)
    chosen = suggest(copy.ask(), search.space)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.PartialFixedSampler(chosen, optuna.samplers.RandomSampler(number))


class _Watch:
    """Hands a trial's epochs to the storage, and stops the trial where it is not among the best of its rung."""

    def __init__(self, search: Search, trial: Trial, run: Run, tell: Callable[[int], None]) -> None:
        self._search, self._trial, self._tell = search, trial, tell
        with _reaching(search):
            self._reported = set(trial.storage.get_trial(trial._trial_id).intermediate_values)
        self.rows: list[dict[str, float]] = []
        for row in run.log.to_dict("records") if run.log_file.exists() else []:
            self._add({str(name): float(value) for name, value in row.items()})
        if self.rows:
            self._judge()
            self._judge_again()

    def __call__(self, row: dict[str, float]) -> None:
        """Told after each epoch, once it is saved."""
        self._add(row)
        self._judge()

    def _add(self, row: dict[str, float]) -> None:
        epoch = int(row["epoch"])
        self.rows = [*(known for known in self.rows if known["epoch"] < epoch), row]
        if not math.isfinite(row["val_loss"]):
            raise MienError(f"the validation loss of epoch {epoch} is {row['val_loss']}")
        if epoch not in self._reported:
            with _reaching(self._search):
                self._trial.report(self.value, epoch)
            self._reported.add(epoch)
        self._tell(epoch)

    def _judge(self) -> None:
        if judged(int(self.rows[-1]["epoch"]), self._search.recipe.trainer.epochs, self._search.eta):
            with _reaching(self._search):
                stop = self._trial.should_prune()
            if stop:
                raise _Stopped

    def _judge_again(self) -> None:
        """Repeats the judgement of a process that died between judging the trial and saying that it is stopped.

        Optuna notes that a trial was judged, but not how, and does not judge it again: a copy without the note is.
        """
        search, study, number = self._search, self._trial.study, self._trial.number
        rungs = next(
            bracket.rungs
            for bracket in brackets(search.recipe.trainer.epochs, search.eta)
            if bracket.s == bracket_of(study, number)
        )
        epoch = int(self.rows[-1]["epoch"])
        if epoch not in rungs:
            return
        with _reaching(search):
            trials = study.get_trials()
        trials[number].system_attrs.pop(f"completed_rung_{rungs.index(epoch)}", None)
        copy = _copy(search, study, trials)
        if copy.pruner.prune(copy, copy.get_trials()[number]):
            raise _Stopped

    @property
    def value(self) -> float:
        """The metric of the weights that would be kept."""
        return kept_value(self.rows, self._search.metric, self._search.recipe.trainer.keep)


def _work(search: Search, study: optuna.Study, total: int) -> None:
    """Works on trials until there are none left for this process."""
    with _display(search, total) as display:
        while claimed := _claim(search, study, total):
            trial, lock = claimed
            with lock:
                try:
                    _run_trial(search, study, trial, display)
                except KeyboardInterrupt:
                    # It was the user who ended the process, not the trial.
                    trial.set_user_attr("begun", 0)
                    raise
            _, table = write_tables(search, study)
            display.ended(table, trial.number)


def _run_trial(search: Search, study: optuna.Study, trial: Trial, display: "_Display") -> None:
    """Trains one trial, or goes on with it, and tells how it ended."""
    run = Run(search.out / "trials" / str(trial.number))
    state, value, error = TrialState.COMPLETE, None, ""
    display.began(trial.number, bracket_of(study, trial.number))
    try:
        recipe = load_recipe(search.trial_recipe, as_changes(search.space, suggest(trial, search.space)))
        with _quietly(search.out / "trials" / f"{trial.number}.txt"):
            watch = _Watch(search, trial, run, display.epoch)
            if not run.finished:
                train(recipe, out=run.folder, stages=search.out / "first", on_epoch=watch, score=False)
        value = watch.value
    except _Stopped:
        state = TrialState.PRUNED
    except StorageError:
        raise
    except Exception as problem:  # whatever a setting breaks, the other trials go on
        state, error = TrialState.FAIL, f"{type(problem).__name__}: {problem}".split("\n")[0][:300]
    for leftover in (run.resume_file, run.best_file):
        leftover.unlink(missing_ok=True)
    with _reaching(search):
        if error:
            trial.set_user_attr("error", error)
        study.tell(trial, value, state)


@contextlib.contextmanager
def _quietly(log: Path) -> Iterator[None]:
    """What training prints goes to a file: the screen shows the search."""
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield


class _Display:
    """Progress of a search: a bar in a terminal, a line a trial elsewhere."""

    def __init__(self, search: Search, total: int, bar: Progress | None) -> None:
        self._search, self._total, self._bar = search, total, bar
        # Not sys.stdout, which is a file while a trial trains.
        self._console = bar.console if bar else Console(file=sys.stdout, width=140)
        if bar:
            self._trials = bar.add_task("trials", total=total)
            self._epochs = bar.add_task("", total=search.recipe.trainer.epochs)

    def began(self, number: int, bracket: int) -> None:
        """A trial began."""
        if self._bar:
            self._bar.update(self._epochs, description=f"trial {number}, bracket {bracket}: epochs", completed=0)

    def epoch(self, epoch: int) -> None:
        """An epoch ended."""
        if self._bar:
            self._bar.update(self._epochs, completed=epoch)

    def ended(self, trials: pd.DataFrame, number: int) -> None:
        """A trial ended."""
        row = trials.set_index("trial").loc[number]
        over = trials[trials["state"] != "running"]
        best = best_trial(trials, self._search.direction)
        if self._bar:
            self._bar.update(self._trials, completed=len(over))
        told = f"trial {number} (bracket {row['bracket']}): {row['state']} after {row['epochs']} epochs"
        told += f", {row['error']}" if row["state"] == "failed" else f", {self._search.metric} {row['value']:.4g}"
        told += f"; best {best['value']:.4g} (trial {best['trial']})" if best is not None else ""
        self._console.print(f"{told}; {len(over)} of {self._total} trials", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _display(search: Search, total: int) -> Iterator[_Display]:
    if not sys.stdout.isatty():
        yield _Display(search, total, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    screen = Console(file=sys.stdout)
    with Progress(*columns, console=screen, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        yield _Display(search, total, bar)


def write_tables(search: Search, study: optuna.Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Writes ledger.csv, trials.csv and curves.csv; returns the ledger and the trials."""
    with _reaching(search):
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


def _finish(search: Search, study: optuna.Study, total: int) -> Run:
    """Trains the chosen recipe once, with the test part, and reports."""
    ledger, trials = write_tables(search, study)
    running = int((trials["state"] == "running").sum())
    run = Run(search.out / "best")
    if running:
        _show(ledger)
        raise MienError(
            f"{running} trials are still running in other processes; the last of them, or the same command later, "
            "chooses and trains the best recipe"
        )
    best = best_trial(trials, search.direction)
    if best is None:
        failed = trials[trials["error"] != ""]
        example = f"; trial {failed['trial'].iloc[0]}: {failed['error'].iloc[0]}" if len(failed) else ""
        raise MienError(f"none of {len(trials)} trials trained to the end{example}")
    recipe = load_recipe(search.recipe, as_changes(search.space, _chosen(search, study, int(best["trial"]))))
    with Lock(search.out / "best.lock"):
        if not run.finished:
            _write_best(search, recipe, trials, best, None)
            train(recipe, out=run.folder, stages=search.out / "first")
        # Also where an earlier process was killed before it could.
        _write_best(search, recipe, trials, best, run)
    _show(ledger)
    console.print(f"report: {write_search_report(search.out)}", highlight=False)
    return run


def _show(ledger: pd.DataFrame) -> None:
    """Prints the ledger, a column a bracket: a terminal has more room downwards."""
    best = ["" if math.isnan(value) else f"{value:.4g}" for value in ledger["best"]]
    columns = ledger.assign(best=best).astype(str).set_index("bracket").T.rename_axis(None, axis=1)
    show(columns.rename(index=lambda name: name.replace("_", " ")).reset_index(names="bracket"))


def _chosen(search: Search, study: optuna.Study, number: int) -> dict[str, Scalar]:
    with _reaching(search):
        return study.get_trials(deepcopy=False)[number].params


def _write_best(search: Search, recipe: Recipe, trials: pd.DataFrame, best: pd.Series, run: Run | None) -> None:
    """Writes the chosen recipe as a recipe file with the header that recipes have."""
    file = search.out / "best.yaml"
    faces = read_faces_table(search.out / "faces.parquet")
    judges = int((faces["split"] == "val").sum())
    time = "not measured" if run is None else f"{run.info['seconds_training']:.0f} seconds on {run.info['device']}"
    header = (
        f"# {recipe.name}, tuned: trial {best['trial']} of {len(trials)}, {search.metric} {best['value']:.4g} on "
        f"{judges} validation faces, which chose it\n"
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
