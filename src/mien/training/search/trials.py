"""Trials: which one a process works on, how it is trained, and when it is pruned."""

import math
from collections.abc import Callable, Sequence

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from mien.base.errors import MienError
from mien.base.lock import Lock
from mien.base.messages import to_file
from mien.experiments.space import changes as as_changes
from mien.recipe.load import load_recipe
from mien.runs.run import Run
from mien.training import fit
from mien.training.search.definition import Search, StorageError
from mien.training.search.display import SearchDisplay, search_display
from mien.training.search.hyperband import (
    bracket_of,
    is_pruned_on_replay,
    is_rung,
    make_sampler,
    replay_sampler,
    reported_epochs,
    running_trial,
    suggest,
)
from mien.training.search.tables import write_tables

_MAX_ATTEMPTS = 3
"""A trial fails when this many processes in a row have died in it without any progress."""


class _Pruned(Exception):
    """A trial is not among the best of its rung."""


def kept_value(rows: list[dict[str, float]], metric: str, keep: str) -> float:
    """Returns the metric of the weights that a run keeps: of the epoch with the lowest validation loss, or the last."""
    row = min(rows, key=lambda row: row["val_loss"]) if keep == "best" else rows[-1]
    return row[metric]


def run_trials(search: Search, study: optuna.Study, total: int) -> None:
    """Runs trials until none is left for this process.

    Args:
        search: The search.
        study: Its study.
        total: Total number of trials, over all processes.
    """
    with search_display(search, total) as display:
        while found := _next_trial(search, study, total):
            trial, lock = found
            with lock:
                try:
                    _run_trial(search, study, trial, display)
                except KeyboardInterrupt:
                    # The user ended the process; this is not a failure of the trial.
                    trial.set_user_attr("attempts", 0)
                    raise
            _, table = write_tables(search, study)
            display.trial_ended(table, trial.number)


def _next_trial(search: Search, study: optuna.Study, total: int) -> tuple[Trial, Lock] | None:
    """Returns the next trial and the lock that this process holds while it works on it; None if none is left.

    A running trial whose lock is free has lost its process, and is resumed.
    """
    folder = search.out / "trials"
    folder.mkdir(exist_ok=True)
    with Lock(search.out / "search.lock"), search.storage_errors():
        known = study.get_trials(deepcopy=False)
        for lost in known:
            lock = Lock(folder / f"{lost.number}.lock")
            if lost.state != TrialState.RUNNING or not lock.take():
                continue
            trial = _resumed(search, study, known, lost)
            if trial is not None:
                return trial, lock
            lock.release()
        if len(known) >= total:
            return None
        study.sampler = make_sampler(search.sampler, search.seed, len(known))
        trial = study.ask()
        lock = Lock(folder / f"{trial.number}.lock")
        lock.take()
        suggest(trial, search.space)
        trial.set_user_attr("attempts", 1)
        return trial, lock


def _resumed(search: Search, study: optuna.Study, known: Sequence[FrozenTrial], lost: FrozenTrial) -> Trial | None:
    """Returns a trial that lost its process, to resume it; None if too many attempts made no progress: it fails."""
    study.sampler = replay_sampler(search, study, known, lost.number)
    trial, attempts = running_trial(study, lost), lost.user_attrs.get("attempts", 0)
    checkpoint = _checkpoint_time(search, lost)
    progressed = checkpoint != lost.user_attrs.get("checkpoint", "")
    if attempts >= _MAX_ATTEMPTS and not progressed:
        trial.set_user_attr("error", f"its process died {_MAX_ATTEMPTS} times")
        study.tell(lost.number, state=TrialState.FAIL)
        return None
    trial.set_user_attr("attempts", 1 if progressed else attempts + 1)
    trial.set_user_attr("checkpoint", checkpoint)
    suggest(trial, search.space)
    return trial


def _checkpoint_time(search: Search, trial: FrozenTrial) -> str:
    """Returns the time of a trial's last checkpoint as text, which changes when the trial makes progress."""
    run = Run(search.out / "trials" / str(trial.number))
    return str(run.resume_file.stat().st_mtime_ns) if run.resume_file.exists() else ""


class _TrialCallback:
    """Reports the epochs of a trial to the storage, and prunes the trial if it is not among the best of its rung."""

    def __init__(self, search: Search, trial: Trial, run: Run, on_epoch: Callable[[int], None]) -> None:
        self._search, self._trial, self._on_epoch = search, trial, on_epoch
        with search.storage_errors():
            self._reported = reported_epochs(trial)
        self.rows: list[dict[str, float]] = []
        for row in run.log.to_dict("records") if run.log_file.exists() else []:
            self._add({str(name): float(value) for name, value in row.items()})
        if self.rows:
            self._prune()
            self._recheck_pruning()

    def __call__(self, row: dict[str, float]) -> None:
        """Called after each epoch, once its checkpoint is saved."""
        self._add(row)
        self._prune()

    def _add(self, row: dict[str, float]) -> None:
        epoch = int(row["epoch"])
        self.rows = [*(known for known in self.rows if known["epoch"] < epoch), row]
        if not math.isfinite(row["val_loss"]):
            raise MienError(f"the validation loss of epoch {epoch} is {row['val_loss']}")
        if epoch not in self._reported:
            with self._search.storage_errors():
                self._trial.report(self.value, epoch)
            self._reported.add(epoch)
        self._on_epoch(epoch)

    def _prune(self) -> None:
        if is_rung(int(self.rows[-1]["epoch"]), self._search.recipe.trainer.epochs, self._search.eta):
            with self._search.storage_errors():
                stop = self._trial.should_prune()
            if stop:
                raise _Pruned

    def _recheck_pruning(self) -> None:
        """Repeats the last decision of a process that died between deciding and marking the trial as pruned."""
        epoch = int(self.rows[-1]["epoch"])
        with self._search.storage_errors():
            stop = is_pruned_on_replay(self._search, self._trial.study, self._trial.number, epoch)
        if stop:
            raise _Pruned

    @property
    def value(self) -> float:
        """The metric of the weights that the run keeps."""
        return kept_value(self.rows, self._search.metric, self._search.recipe.trainer.keep)


def _run_trial(search: Search, study: optuna.Study, trial: Trial, display: SearchDisplay) -> None:
    """Trains or resumes one trial, and records its result."""
    run = Run(search.out / "trials" / str(trial.number))
    state, value, error = TrialState.COMPLETE, None, ""
    display.trial_started(trial.number, bracket_of(study, trial.number))
    try:
        recipe = load_recipe(search.trial_recipe, as_changes(search.space, suggest(trial, search.space)))
        with to_file(search.out / "trials" / f"{trial.number}.txt"):
            callback = _TrialCallback(search, trial, run, display.epoch_ended)
            if not run.finished:
                fit.train(recipe, out=run.folder, stages=search.out / "first", on_epoch=callback, score=False)
        value = callback.value
    except _Pruned:
        state = TrialState.PRUNED
    except StorageError:
        raise
    except Exception as problem:  # a setting can break anything; the other trials continue
        state, error = TrialState.FAIL, f"{type(problem).__name__}: {problem}".split("\n")[0][:300]
    for leftover in (run.resume_file, run.best_file):
        leftover.unlink(missing_ok=True)
    with search.storage_errors():
        if error:
            trial.set_user_attr("error", error)
        study.tell(trial, value, state)
