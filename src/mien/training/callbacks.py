"""What happens beside the training steps: the log, progress, random states and safe checkpoints."""

import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mien.console import console
from mien.errors import MienError
from mien.table import atomic_path, write_table


class RandomState(pl.Callback):
    """Saves torch's random state with each checkpoint and restores it at the step that follows.

    Lightning saves none, so dropout would differ after a resume.
    """

    def __init__(self) -> None:
        self._saved: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors only, so that the checkpoint can be read with `weights_only`."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the state until the first step."""
        self._saved = state_dict

    def on_train_batch_start(self, *_: Any) -> None:
        """Restores it: what ran in between may have drawn numbers."""
        if self._saved is not None:
            torch.set_rng_state(self._saved["cpu"])
            if self._saved["cuda"] and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(self._saved["cuda"])
            self._saved = None


class Resume(pl.Callback):
    """Saves, every so many steps and after each epoch, the checkpoint that an interrupted run goes on from.

    It must be the last callback, so that what the others did at the end of an epoch is in the checkpoint.
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

    The rows are part of the checkpoint, so that a resumed run's log has each epoch once.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rows: list[dict[str, float]] = []
        self._bar: Progress | None = None
        self._restart()

    def _restart(self) -> None:
        self._images = 0
        self._waited = 0.0
        self._begin = self._left = self._shown = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the rows."""
        self._rows = state_dict["rows"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the bar."""
        if sys.stdout.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("training", total=int(trainer.estimated_stepping_batches))
            self._bar.start()

    def on_train_epoch_start(self, *_: Any) -> None:
        """Starts the clocks."""
        self._restart()

    def on_train_batch_start(self, *_: Any) -> None:
        """What passed since the last batch ended was spent waiting for this one."""
        self._waited += time.monotonic() - self._left

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts and shows."""
        self._images += len(batch["index"]) * trainer.world_size
        self._left = now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, description=self._state(trainer, outputs))
        elif now - self._shown >= 15:
            self._shown = now
            share = f"step {trainer.global_step} of {int(trainer.estimated_stepping_batches)}"
            print(f"{self._state(trainer, outputs)}, {share}", flush=True)

    def _state(self, trainer: pl.Trainer, outputs: Any) -> str:
        passed = max(self._left - self._begin, 1e-9)
        loss = f"loss {float(outputs['loss']):.3f}, " if outputs else ""
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        return f"{epoch}: {loss}{self._images / passed:.0f} images/s, {self._waited / passed:.0%} waiting for data"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the row of this epoch; validation is over by now."""
        seconds = self._left - self._begin
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            **{name: float(value) for name, value in trainer.callback_metrics.items()},
            "images": self._images,
            "seconds": seconds,
            "images_per_second": self._images / max(seconds, 1e-9),
            "waiting_for_data": self._waited / max(seconds, 1e-9),
        }
        self._rows = [*self._rows, row]
        if trainer.is_global_zero:
            write_table(pd.DataFrame(self._rows), self._file)
            scores = ", ".join(f"{name} {row[name]:.4g}" for name in row if name.startswith(("train_", "val_")))
            line = f"epoch {row['epoch']:g}/{trainer.max_epochs}: {scores}, {row['images_per_second']:.0f} images/s"
            console.print(line, highlight=False, soft_wrap=True)

    def on_train_end(self, *_: Any) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.stop()

    def on_exception(self, *_: Any) -> None:
        """Ends the bar, so that the message stands on a line of its own."""
        self.on_train_end()


class UnreadableBound(pl.Callback):
    """Stops training when too many images turn out to be unreadable."""

    def __init__(self, bound: int) -> None:
        self._bound = bound

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Raises once the bound is passed."""
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
