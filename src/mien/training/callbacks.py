"""What happens beside the training steps: the log, progress, random states and safe checkpoints."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mien.base.atomic import atomic_path
from mien.base.console import console
from mien.base.errors import MienError
from mien.base.table import write_table
from mien.data.images import check_there
from mien.training.data import mixed_seed


class StepSeeds(pl.Callback):
    """Lets the random numbers of a step (dropout) follow from the seed, the step and the process alone.

    So a run that is taken up goes on as it would have, also with another number of processes, whose dropout differs.
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
        """Saves in mid-epoch; not at the last step, after which the validation of this epoch would be lost."""
        if trainer.global_step % self._every == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self._file)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves what validation chose too; not a decision to stop, which Lightning forgets: it is taken again."""
        if not trainer.should_stop:
            trainer.save_checkpoint(self._file)


class Log(pl.Callback):
    """Writes one row an epoch to a CSV file, and shows progress.

    The rows, and what is known of the current epoch, are part of the checkpoint: a resumed run's log has each epoch
    once, with the same losses.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rows: list[dict[str, float]] = []
        self._epoch = {"loss": 0.0, "images": 0.0, "seconds": 0.0, "waited": 0.0}
        self._bar: Progress | None = None
        self._left = self._shown = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, and the sums of this epoch."""
        return {"rows": self._rows, "epoch": dict(self._epoch)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them up."""
        self._rows, self._epoch = state_dict["rows"], state_dict["epoch"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the bar."""
        self._left = time.monotonic()
        if sys.stdout.isatty() and trainer.is_global_zero:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("training", total=int(trainer.estimated_stepping_batches))
            self._bar.start()

    def on_train_epoch_start(self, *_: Any) -> None:
        """Starts the sums; Lightning does not call this where a run goes on in mid-epoch."""
        self._epoch = dict.fromkeys(self._epoch, 0.0)
        self._left = time.monotonic()

    def on_train_batch_start(self, *_: Any) -> None:
        """What passed since the last batch ended was spent waiting for this one."""
        self._epoch["waited"] += time.monotonic() - self._left

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts and shows."""
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
            print(f"{self._state(trainer)}, step {trainer.global_step}", flush=True)

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
        """Adds the row of this epoch; validation is over by now."""
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
            line = f"epoch {row['epoch']:g}/{trainer.max_epochs}: {scores}, {row['images_per_second']:.0f} images/s"
            console.print(line, highlight=False, soft_wrap=True)

    @property
    def row(self) -> dict[str, float]:
        """Of the epoch that ended last."""
        return self._rows[-1]

    def on_train_end(self, *_: Any) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.stop()

    def on_exception(self, *_: Any) -> None:
        """Ends the bar, so that the message stands on a line of its own."""
        self.on_train_end()


class EpochCallback(pl.Callback):
    """Hands each epoch's row of the log to a function, which may stop the run by an exception.

    It comes after `Resume`: what is told has been saved.
    """

    def __init__(self, log: Log, on_epoch: Callable[[dict[str, float]], object]) -> None:
        self._log = log
        self._on_epoch = on_epoch

    def on_train_epoch_end(self, *_: Any) -> None:
        """Validation is over by now."""
        self._on_epoch(dict(self._log.row))


class UnreadableLimit(pl.Callback):
    """Stops training when too many images turn out to be unreadable, or their folder is gone.

    It must come before `Resume`: what was learnt without them is not to be saved.
    """

    def __init__(self, bound: int, root: Path) -> None:
        self._bound = bound
        self._root = root

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Raises where the folder is gone."""
        self._check_there(batch)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Raises where the folder is gone, or once the bound is passed."""
        self._check_there(batch)
        self._check(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Raises here for what several processes found together."""
        self._check(pl_module)

    def _check_there(self, batch: Any) -> None:
        if batch["unreadable"]:
            check_there([self._root])

    def _check(self, pl_module: Any) -> None:
        if len(pl_module.unreadable) > self._bound:
            index, reason = next(iter(pl_module.unreadable.items()))
            raise MienError(
                f"{len(pl_module.unreadable)} images could not be read, more than data.max_unreadable allows "
                f"({self._bound}); for instance {reason} (row {index} of the run's faces table)"
            )


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes beside the name first."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            torch.save(checkpoint, part)
