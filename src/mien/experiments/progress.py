"""The progress of a study: bars in a terminal, one line per event otherwise."""

import contextlib
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Protocol

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from mien.base.console import progress_bar
from mien.base.messages import note
from mien.recipe.settings import Recipe


class Named(Protocol):
    """A training job with a name."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def recipe(self) -> Recipe: ...  # noqa: D102


class StudyProgress:
    """Shows finished cells, the epochs of running jobs, and the estimated remaining time.

    Args:
        jobs: All jobs to train, first stages included.
        cells: The number of cells of the study.
        done: How many of them are already finished.
        at_once: How many jobs run at the same time.
    """

    def __init__(self, jobs: Iterable[Named], cells: int, done: int, at_once: int) -> None:
        self._recipes = {job.name: job.recipe for job in jobs}
        self._cells, self._done, self._at_once = cells, done, at_once
        self._epochs = dict.fromkeys(self._recipes, 0.0)
        self._spent: dict[str, list[float]] = {}
        self._since: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bar: Progress | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "StudyProgress":
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
        self._bar = self._stack.enter_context(progress_bar(*columns))
        if self._bar is not None:
            self._all = self._bar.add_task("cells", total=self._cells, completed=self._done, text="")
        note(f"{self._cells} cells, {self._done} of them already finished")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def job_started(self, name: str) -> None:
        """A job has been assigned to a process."""
        self._since[name] = time.monotonic()
        if self._bar is not None:
            epochs = self._recipes[name].trainer.epochs
            self._tasks[name] = self._bar.add_task(f"  {name}", total=epochs, text="starting")
        else:
            note(f"{name}: started")

    def epoch_ended(self, name: str, row: Mapping[str, float]) -> None:
        """An epoch has ended; `row` is its row of the log."""
        now = time.monotonic()
        self._spent.setdefault(self._kind(name), []).append(now - self._since[name])
        self._since[name] = now
        self._epochs[name] = row["epoch"]
        epochs = self._recipes[name].trainer.epochs
        scores = [f"{key.removeprefix('val_')} {value:.3f}" for key, value in row.items() if _shown(key)]
        text = f"epoch {row['epoch']:.0f}/{epochs}, {', '.join(scores)}"
        if self._bar is not None:
            self._bar.update(self._tasks[name], completed=row["epoch"], text=text)
            self._bar.update(self._all, text=self._total())
        else:
            note(f"{name}: {text}; {self._total()}")

    def finished(self, name: str) -> None:
        """A job has finished."""
        self._end(name, "finished")

    def failed(self, name: str, reason: str) -> None:
        """A job has failed."""
        self._end(name, f"failed: {reason}")

    def _end(self, name: str, what: str) -> None:
        del self._recipes[name], self._epochs[name]
        self._done += not name.startswith("first-stage-")
        if self._bar is not None:
            if name in self._tasks:
                self._bar.remove_task(self._tasks.pop(name))
            self._bar.update(self._all, completed=self._done, text=self._total())
        note(f"{name}: {what}; {self._total()}")

    def _kind(self, name: str) -> str:
        """Returns what mainly determines the time of an epoch."""
        recipe = self._recipes[name]
        return f"{recipe.data.title} {recipe.model.backbone} {recipe.model.image_size}"

    def _total(self) -> str:
        seconds = self._left()
        rest = "" if seconds is None or not self._recipes else f", about {duration(seconds)} left"
        return f"{self._done} of {self._cells} cells done{rest}"

    def _left(self) -> float | None:
        """Returns the estimated remaining seconds; None before the first epoch has ended."""
        if not self._spent:
            return None
        means = {kind: sum(times) / len(times) for kind, times in self._spent.items()}
        typical = sum(means.values()) / len(means)
        left = [
            (recipe.trainer.epochs - self._epochs[name]) * means.get(self._kind(name), typical)
            for name, recipe in self._recipes.items()
        ]
        return sum(left) / min(self._at_once, max(1, len(left)))


def _shown(key: str) -> bool:
    return key == "val_loss" or (key.startswith("val_") and "loss" not in key)


def duration(seconds: float) -> str:
    """Formats a duration in a fitting unit."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
