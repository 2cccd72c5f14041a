"""Callbacks of training: the log and its display, random seeds, checkpoints, and the limit of unreadable images."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from rich.progress import Progress

from mien.base.atomic import atomic_path
from mien.base.console import progress_bar
from mien.base.errors import MienError
from mien.base.messages import note, progress_line
from mien.base.table import write_table
from mien.data.images import check_there
from mien.training.data import mixed_seed


class StepSeeds(pl.Callback):
    """Seeds the random numbers of each step (dropout) from the seed, the step and the rank of the process.

    A resumed run therefore continues exactly as an uninterrupted one.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Sets the seed."""
        parts = (self._seed, trainer.global_step, trainer.global_rank)
        torch.manual_seed(mixed_seed(*parts))


class Resume(pl.Callback):
    """Saves the checkpoint that an interrupted run resumes from, every `every` steps and after each epoch.

    It must come after all other callbacks except `EpochCallback`: the checkpoint then contains the state that they have
    at the end of an epoch.
    """

    def __init__(self, file: Path, every: int) -> None:
        self._file = file
        self._every = every

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Saves in the middle of an epoch, but not after its last step: the validation of the epoch would be lost."""
        if trainer.global_step % self._every == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self._file)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves after validation; not if training stops early, because Lightning does not store that decision."""
        if not trainer.should_stop:
            trainer.save_checkpoint(self._file)


class Log(pl.Callback):
    """Writes one row per epoch to a CSV file, and shows progress.

    The rows and the running sums of the current epoch are part of the checkpoint: the log of a resumed run has each
    epoch once, with the same losses.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rows: list[dict[str, float]] = []
        self._epoch = {"loss": 0.0, "images": 0.0, "seconds": 0.0, "waited": 0.0}
        self._bar: Progress | None = None
        self._stack = contextlib.ExitStack()
        self._left = self._shown = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Returns the rows so far, and the sums of the current epoch."""
        return {"rows": self._rows, "epoch": dict(self._epoch)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the rows and the sums."""
        self._rows, self._epoch = state_dict["rows"], state_dict["epoch"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the progress bar."""
        self._left = time.monotonic()
        self._bar = self._stack.enter_context(progress_bar()) if trainer.is_global_zero else None
        if self._bar is not None:
            self._task = self._bar.add_task("training", total=int(trainer.estimated_stepping_batches))

    def on_train_epoch_start(self, *_: Any) -> None:
        """Resets the sums; Lightning does not call this when a run resumes in the middle of an epoch."""
        self._epoch = dict.fromkeys(self._epoch, 0.0)
        self._left = time.monotonic()

    def on_train_batch_start(self, *_: Any) -> None:
        """Counts the time since the last batch ended as waiting for data."""
        self._epoch["waited"] += time.monotonic() - self._left

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the sums and the display."""
        now = time.monotonic()
        count = outputs["images"] if outputs else 0
        self._epoch["images"] += count
        self._epoch["loss"] += float(outputs["loss"]) * count if count else 0.0
        self._epoch["seconds"] += now - self._left
        self._left = now
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, description=self._state(trainer))
        elif now - self._shown >= 15 and trainer.is_global_zero:
            self._shown = now
            progress_line(f"{self._state(trainer)}, step {trainer.global_step}")

    def _means(self) -> dict[str, float]:
        images, seconds = max(self._epoch["images"], 1), max(self._epoch["seconds"], 1e-9)
        return {
            "train_loss": self._epoch["loss"] / images,
            "images_per_second": images / seconds,
            "waiting_for_data": self._epoch["waited"] / seconds,
        }

    def _state(self, trainer: pl.Trainer) -> str:
        means = self._means()
        return (
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: loss {means['train_loss']:.3f}, "
            f"{means['images_per_second']:.0f} images/s, {means['waiting_for_data']:.0%} waiting for data"
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the row of the epoch; validation has already ended."""
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            **{
                name: float(value)
                for name, value in trainer.callback_metrics.items()
                if name.startswith(("val_", "weight_"))
            },
            **self._means(),
            "images": self._epoch["images"],
            "seconds": self._epoch["seconds"],
        }
        self._rows = [*self._rows, row]
        if trainer.is_global_zero:
            write_table(pd.DataFrame(self._rows), self._file)
            scores = ", ".join(f"{name} {row[name]:.4g}" for name in row if name.startswith(("train_", "val_")))
            note(f"epoch {row['epoch']:g}/{trainer.max_epochs}: {scores}, {row['images_per_second']:.0f} images/s")

    @property
    def row(self) -> dict[str, float]:
        """The row of the last finished epoch."""
        return self._rows[-1]

    def on_train_end(self, *_: Any) -> None:
        """Removes the progress bar."""
        self._stack.close()

    def on_exception(self, *_: Any) -> None:
        """Removes the progress bar, so that the error message has its own line."""
        self.on_train_end()


class EpochCallback(pl.Callback):
    """Calls a function with the row of the log after each epoch; an exception stops the run.

    It must come after `Resume`: the checkpoint of the epoch has been saved when the function is called.
    """

    def __init__(self, log: Log, on_epoch: Callable[[dict[str, float]], object]) -> None:
        self._log = log
        self._on_epoch = on_epoch

    def on_train_epoch_end(self, *_: Any) -> None:
        """Calls the function; validation has already ended."""
        self._on_epoch(dict(self._log.row))


class UnreadableLimit(pl.Callback):
    """Stops training when too many images cannot be read, or their folder is gone.

    It must come before `Resume`, so that no checkpoint of the incomplete epoch is saved.
    """

    def __init__(self, limit: int, folders: list[Path]) -> None:
        self._limit = limit
        self._folders = folders

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Raises if the folder is gone."""
        self._check_there(batch)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Raises if the folder is gone or the limit is exceeded."""
        self._check_there(batch)
        self._check(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Raises if all processes together exceed the limit."""
        self._check(pl_module)

    def _check_there(self, batch: Any) -> None:
        if batch["unreadable"]:
            check_there(self._folders)

    def _check(self, pl_module: Any) -> None:
        if len(pl_module.unreadable) > self._limit:
            index, reason = next(iter(pl_module.unreadable.items()))
            raise MienError(
                f"{len(pl_module.unreadable)} images could not be read, more than data.max_unreadable allows "
                f"({self._limit}); for example {reason} (row {index} of the run's faces table)"
            )


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints atomically."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes to a temporary file first."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            torch.save(checkpoint, part)
