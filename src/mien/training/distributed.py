"""Distributed training: several processes train one run, started by Lightning, torchrun or Slurm.

Each has the same command line and goes through `fit.train` from its first line; what must happen once is done by the
first one while the others wait. All of them need the run's folder.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from mien.base.errors import MienError
from mien.base.messages import is_quiet, set_quiet
from mien.recipe.settings import Trainer

_LONGEST = timedelta(days=7)
"""Time limit of waiting for the first process, which decodes, evaluates and exports."""

T = TypeVar("T")

for _package in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(_package).setLevel(logging.ERROR)  # their advice is for their own users, not ours


class Processes:
    """The processes of a run; a single process never waits.

    Args:
        settings: Of which `devices` (on each machine) and `nodes` count.
        alone: Nothing else was started beside this run, so that several processes with a run of one are a mistake.

    Raises:
        MienError: They are not as many as torchrun or Slurm started, or cannot share a batch evenly.
    """

    def __init__(self, settings: Trainer, alone: bool = True) -> None:
        self.count = 1
        self.rank = 0
        self._local_rank = 0
        if settings.devices == 1 and settings.nodes == 1:
            started = _started()
            if alone and started > 1:
                raise MienError(
                    f"{started} processes were started for one run, and trainer.devices and trainer.nodes are 1; "
                    "valid: --set trainer.devices=PROCESSES_OF_EACH_MACHINE trainer.nodes=MACHINES"
                )
            return
        try:
            trainer = pl.Trainer(devices=settings.devices, num_nodes=settings.nodes, **_BARE)
            strategy = trainer.strategy
            if not isinstance(strategy, DDPStrategy):
                return
            assert strategy.launcher is not None
            # Lightning would start the others in fit, when the first has done all that comes before. Where the group
            # is there already, it takes that.
            strategy.launcher.launch(strategy.setup_environment)
        except (ValueError, MisconfigurationException) as error:
            raise MienError(
                f"trainer.devices is {settings.devices!r} and trainer.nodes {settings.nodes}, which is not what was "
                f"started or is there: {error}"
            ) from None
        self.count, self.rank, self._local_rank = strategy.world_size, strategy.global_rank, strategy.local_rank
        set_quiet(is_quiet() or self.rank > 0)
        self._waiting: Any = dist.new_group(backend="gloo", timeout=_LONGEST)
        if settings.batch_size % self.count:
            raise MienError(
                f"trainer.batch_size is {settings.batch_size}, which {self.count} processes cannot share evenly; "
                f"valid: a multiple of {self.count}"
            )

    def once(self, work: Callable[[], T]) -> T:
        """Calls `work` in the first process; the others wait and get the same result."""
        result = [work() if self.rank == 0 else None]
        if self.count > 1:
            with _ended():
                dist.broadcast_object_list(result, 0, self._waiting)
        return result[0]  # type: ignore[return-value]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The block in the first process alone, then in the first of each other machine, then in all others."""
        turn = 0 if self.rank == 0 else 1 if self._local_rank == 0 else 2
        self._pass(turn)
        yield
        self._pass(3 - turn)

    def _pass(self, turns: int) -> None:
        for _ in range(turns if self.count > 1 else 0):
            with _ended():
                dist.barrier(self._waiting)


def _started() -> int:
    """How many processes torchrun or Slurm's srun started."""
    if dist.is_torchelastic_launched():
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))


_BARE: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@contextmanager
def _ended() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise MienError(f"another process of this run has ended; see its own message ({error})") from None
