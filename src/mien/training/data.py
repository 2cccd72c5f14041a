"""Batches of faces: deterministic whatever the number of workers, and resumable in the middle of an epoch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from mien.data.face_pixels import Pixels
from mien.data.images import ImageError
from mien.recipe.settings import Augment, Recipe
from mien.training.augment import make_augmentation, mix

Key = tuple[int, int]
"""Epoch and index of a face: all that the augmentation of a sample depends on, besides the seed."""

Batch = dict[str, Any]


class FaceSamples(Dataset[dict[str, Any]]):
    """Faces as uint8 tensors (3, size, size) with their targets; an unreadable face gives a sample with the error."""

    def __init__(
        self,
        pixels: Pixels,
        targets: dict[str, Tensor],
        augmentation: v2.Transform | None,
        seed: int,
        mixing: Augment | None = None,
        soft_targets: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._pixels = pixels
        self._targets = targets
        self._augmentation = augmentation
        self._seed = seed
        self._mixing = mixing
        self._soft_targets = soft_targets or {}

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index = key
        try:
            image = torch.from_numpy(np.array(self._pixels[index])).permute(2, 0, 1)
        except ImageError as error:
            return {"index": index, "unreadable": str(error), "error": error}
        if self._augmentation is not None:
            with seeded(self._seed, epoch, index):
                image = self._augmentation(image)
        return {"index": index, "image": image, "epoch": epoch}

    def collate(self, samples: list[dict[str, Any]]) -> Batch:
        """Collates the readable samples to a batch, and lists the others.

        Where images are mixed, `partner` (n,) is the position of the other image in the batch, and `share` the share of
        the own image.
        """
        good = [sample for sample in samples if "image" in sample]
        index = torch.tensor([sample["index"] for sample in good], dtype=torch.long)
        images = torch.stack([sample["image"] for sample in good]) if good else torch.empty(0)
        mixed = {}
        if self._mixing is not None and good:
            with seeded(self._seed, good[0]["epoch"], good[0]["index"], len(self)):
                images, mixed["partner"], mixed["share"] = mix(images, self._mixing)
        batch: Batch = mixed | {
            "images": images,
            "targets": {task: target[index] for task, target in self._targets.items()},
            "index": index,
            "unreadable": [(s["index"], s["unreadable"]) for s in samples if "unreadable" in s],
        }
        if self._soft_targets:
            batch["soft_targets"] = {task: targets[index] for task, targets in self._soft_targets.items()}
        return batch


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Seeds torch's generator from these parts, and restores its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would take a tenth of a millisecond to look for accelerators.
        torch.default_generator.manual_seed(mixed_seed(*parts))
        yield


def mixed_seed(*parts: int) -> int:
    """Returns one seed computed from several numbers."""
    return int(np.random.SeedSequence([part % 2**32 for part in parts]).generate_state(1)[0])


class Augmented:
    """Augmented pixels, for recipes that augment validation and test images."""

    def __init__(self, pixels: Pixels, augmentation: v2.Transform, seed: int) -> None:
        self.size = pixels.size
        self._samples = FaceSamples(pixels, {}, augmentation, seed)
        self._lock = Lock()  # torch's generator is one for all threads

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> np.ndarray:
        with self._lock:
            sample = self._samples[0, index]
        if "image" not in sample:
            raise sample["error"]
        return sample["image"].permute(1, 2, 0).numpy()


class WeightedOrder:
    """Orders of the training faces in which each data set occurs as often as its weight says.

    An epoch has as many faces as there are. Set s has a share of n_s w_s / sum(n w) of them; its faces are drawn
    in passes that go on from epoch to epoch, so none is drawn again before all of its set have been.

    Args:
        members: Indices of the faces of each data set, (n_s,).
        weights: Of the data sets, not negative; some must be above 0.
        seed: Of the orders.
    """

    def __init__(self, members: Sequence[np.ndarray], weights: Sequence[float], seed: int) -> None:
        self._members = members
        self._seed = seed % 2**32
        sizes = np.array([len(own) for own in members])
        exact = sizes.sum() * sizes * weights / np.dot(sizes, weights)
        self.counts = np.floor(exact).astype(int)
        most = np.argsort(self.counts - exact, kind="stable")[: sizes.sum() - self.counts.sum()]
        self.counts[most] += 1

    def __call__(self, epoch: int) -> np.ndarray:
        """Returns the faces of an epoch in their order."""
        drawn = [self._draw(int(number), epoch) for number in np.flatnonzero(self.counts)]
        return np.random.default_rng([self._seed, epoch]).permutation(np.concatenate(drawn))

    def _draw(self, number: int, epoch: int) -> np.ndarray:
        own, count = self._members[number], int(self.counts[number])
        first, skipped = divmod(epoch * count, len(own))
        passes = range(first, first + -(-(skipped + count) // len(own)))
        orders = [np.random.default_rng([self._seed, number, one]).permutation(own) for one in passes]
        return np.concatenate(orders)[skipped : skipped + count]


class EpochSampler(Sampler[Key]):
    """The keys of one epoch, in an order that depends on seed and epoch alone; `start` leaves out the first ones.

    With k processes, each takes every k-th key, so that batches of the n-th part hold together what one
    process would have in its batch.

    Args:
        indices: Of the faces.
        shuffle: Another order in each epoch.
        seed: Of the order.
        rank: Rank of this process.
        world: Number of processes; all get the same number of keys, the last ones by repeating the first.
        whole: Batch size over all processes: an incomplete last batch is left out.
        weighted: The order of each epoch, in place of that of `shuffle`.
    """

    def __init__(
        self,
        indices: np.ndarray,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world: int = 1,
        whole: int = 1,
        weighted: WeightedOrder | None = None,
    ) -> None:
        self._count = len(indices) if len(indices) < whole else len(indices) // whole * whole
        self._indices = indices
        self._shuffle = shuffle
        self._weighted = weighted
        self._seed = seed
        self._rank, self._world = rank, world
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self._count // self._world)

    def __iter__(self) -> Iterator[Key]:
        order = self._indices
        if self._weighted is not None:
            order = self._weighted(self.epoch)
        elif self._shuffle:
            order = np.random.default_rng([self._seed % 2**32, self.epoch]).permutation(order)
        order = np.resize(order[: self._count], len(self) * self._world)
        mine = order[self._rank :: self._world][self.start :]
        return ((self.epoch, int(index)) for index in mine)


class ResumableLoader(DataLoader[Batch]):
    """A loader whose state is the number of batches returned in this epoch."""

    _given = 0
    _skip = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        sampler = self.sampler
        assert isinstance(sampler, EpochSampler) and self.batch_size is not None
        self._given, self._skip = self._skip, 0
        sampler.start = self._given * self.batch_size
        for batch in super().__iter__():
            self._given += 1
            yield batch
        sampler.start = 0
        self._given = 0

    def state_dict(self) -> dict[str, int]:
        """For Lightning's checkpoint."""
        return {"batches": self._given % max(1, len(self))}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """From Lightning's checkpoint."""
        self._skip = state["batches"]


class FaceData(pl.LightningDataModule):
    """Loaders of the training and the validation part."""

    def __init__(
        self,
        faces: pd.DataFrame,
        pixels: Pixels,
        targets: dict[str, Tensor],
        recipe: Recipe,
        soft_targets: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self._split = faces["split"].to_numpy()
        self._dataset = faces["dataset"].to_numpy(dtype=object)
        self._recipe = recipe
        augmentation = make_augmentation(recipe.augment, recipe.model.image_size)
        mixing = recipe.augment if recipe.augment.mixup or recipe.augment.cutmix else None
        self._train = FaceSamples(pixels, targets, augmentation, recipe.trainer.seed, mixing, soft_targets)
        evaluated = augmentation if recipe.augment.evaluation else None
        self._val = FaceSamples(pixels, targets, evaluated, recipe.trainer.seed)

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled and augmented; a last incomplete batch is left out."""
        return self._loader(self._train, "train", self._recipe.trainer.batch_size)

    def val_dataloader(self) -> ResumableLoader:
        """Not shuffled, as the predictor sees faces."""
        return self._loader(self._val, "val", self._recipe.trainer.batch_size)

    def _loader(self, samples: FaceSamples, split: str, batch_size: int) -> ResumableLoader:
        indices = np.flatnonzero(self._split == split)
        training = split == "train"
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        workers = self._recipe.trainer.workers
        whole = batch_size if training else 1
        return ResumableLoader(
            samples,
            batch_size // world,
            sampler=EpochSampler(
                indices,
                training,
                self._recipe.trainer.seed,
                rank,
                world,
                whole,
                self._weighted(indices) if training else None,
            ),
            num_workers=workers,
            collate_fn=samples.collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            # Of its own, so that starting workers does not move torch's generator, which a resumed run restores.
            generator=torch.Generator(),
        )

    def _weighted(self, indices: np.ndarray) -> WeightedOrder | None:
        """The order of training faces whose data sets differ in weight."""
        weights = {name: one.weight for name, one in self._recipe.data.sets.items() if one.weight}
        if len(set(weights.values())) < 2:
            return None
        members = [indices[self._dataset[indices] == name] for name in weights]
        return WeightedOrder(members, list(weights.values()), self._recipe.trainer.seed)
