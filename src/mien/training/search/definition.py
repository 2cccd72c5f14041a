"""The definition of a search: recipe, space, sampler, metric, and where it is stored."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import optuna
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mien.base.errors import MienError, choices
from mien.experiments.brackets import brackets
from mien.experiments.space import Space
from mien.metrics.definitions import METRICS
from mien.metrics.joining import TRUTH_COLUMNS
from mien.metrics.wording import PRIMARY
from mien.recipe.settings import Recipe, SetSplit

Sampler = Literal["random", "tpe"]
SAMPLERS = ("random", "tpe")
Direction = Literal["minimize", "maximize"]


class StorageError(MienError):
    """The storage of a search cannot be reached, or holds another search."""


def metrics_of(recipe: Recipe) -> dict[str, Direction]:
    """Returns the metrics that a search can optimize: column of a run's log -> minimize or maximize."""
    found: dict[str, Direction] = {"val_loss": "minimize"}
    labels = {TRUTH_COLUMNS.get(task) for task in recipe.tasks.predicted()}
    for metric in PRIMARY:
        if METRICS[metric].truth in labels:
            found[f"val_{metric}"] = "maximize" if METRICS[metric].better == "higher" else "minimize"
    return found


_PREPARED = {"map": {}, "crop": "given"}
"""Settings of data that have done their work in the search's faces table."""


@dataclass(frozen=True)
class Search:
    """What is searched, how, and where the search is stored.

    Attributes:
        recipe: The recipe whose settings are varied.
        space: The search space.
        out: Folder of the search.
        sampler: Sampler of the configurations.
        eta: Reduction factor of Hyperband.
        metric: Column of a run's log; see `metrics_of`.
        seed: Seed of the sampler.
        storage: Database URL; None: a journal file in `out`.
    """

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
        """The settings that all calls for one search must share; the storage URL has no password."""
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
        """Name of the storage for display: the URL without its password."""
        if self.storage is None:
            return "search.log"
        with self.storage_errors("is not a database URL"):
            return make_url(self.storage).render_as_string(hide_password=True)

    @contextlib.contextmanager
    def storage_errors(self, problem: str = "cannot be reached") -> Iterator[None]:
        """Turns errors of the storage into messages.

        Raises:
            StorageError: In place of the errors of Optuna, SQLAlchemy and the file system.
        """
        try:
            yield
        except (optuna.exceptions.StorageInternalError, SQLAlchemyError, ImportError, OSError) as error:
            cause = str(error.__cause__ or error).strip().split("\n")[0]
            url = self.storage
            name = (
                "search.log"
                if url is None
                else url.partition("://")[0] + "://" + url.rpartition("@")[2].rpartition("//")[2]
            )
            raise StorageError(
                f"storage {name!r} {problem} ({type(error).__name__}: {cause}); valid: sqlite:///FILE, "
                "postgresql://USER@HOST/NAME or another database supported by SQLAlchemy. Finished trials are kept in "
                f"{str(self.out)!r}; rerun the same command to resume"
            ) from error

    @property
    def study_name(self) -> str:
        """Name of the Optuna study; equal for equal searches, because Optuna assigns brackets by this name."""
        same = {key: value for key, value in self.settings.items() if key != "storage"}
        digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()
        return f"mien-{self.recipe.name}-{digest[:10]}"

    @cached_property
    def direction(self) -> Direction:
        """Direction of the metric: minimize or maximize."""
        return metrics_of(self.recipe)[self.metric]

    @cached_property
    def trial_recipe(self) -> Recipe:
        """The recipe that trials vary: it reads the faces that the search has split and checked once for all trials."""
        recipe = self.recipe
        data = recipe.data.model_copy(update={"faces": str((self.out / "faces.parquet").absolute())} | _PREPARED)
        trained = {name: one for name, one in data.sets.items() if one.weight}
        done = _PREPARED | {"faces": None, "split": SetSplit()}
        data = data.model_copy(update={"sets": {name: one.model_copy(update=done) for name, one in trained.items()}})
        split = recipe.split.model_copy(update={"method": "partition", "near_duplicates": False})
        # A first stage without a split of its own uses that of the second stage, which is replaced here.
        init = recipe.init
        if init.data is not None and init.split is None:
            init = init.model_copy(update={"split": recipe.split})
        return recipe.model_copy(update={"data": data, "split": split, "init": init})

    def check(self, trials: int) -> None:
        """Checks settings that contradict each other.

        Args:
            trials: Total number of trials.

        Raises:
            MienError: The number of trials, the sampler or the metric is not valid, the space changes the metric
                itself, or a trial would need several processes.
        """
        if trials < 1:
            raise MienError(f"trials is {trials}; valid: 1 or more")
        brackets(self.recipe.trainer.epochs, self.eta)
        if self.sampler not in SAMPLERS:
            raise MienError(choices("sampler", self.sampler, SAMPLERS))
        valid = metrics_of(self.recipe)
        if self.metric not in valid:
            raise MienError(choices("metric", self.metric, valid))
        moving = [key for key in self.space if key.startswith("tasks.") and not key.endswith(".hidden")]
        if self.metric == "val_loss" and moving:
            scores = ", ".join(name for name in valid if name != "val_loss")
            raise MienError(
                f"the space varies {', '.join(moving)}, which changes what val_loss measures, so trials cannot be "
                f"compared by it; valid: another metric ({scores}), or a space without it"
            )
        for key in ("devices", "nodes"):
            if getattr(self.recipe.trainer, key) != 1:
                raise MienError(
                    f"trainer.{key} is {getattr(self.recipe.trainer, key)!r}; valid for a search: 1 (run several "
                    "processes on one storage to search in parallel)"
                )
