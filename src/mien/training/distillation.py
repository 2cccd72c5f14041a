"""Knowledge distillation: the probabilities of teachers, finished runs, for the training faces."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from safetensors.torch import save as as_bytes
from torch import Tensor

from mien.base.atomic import atomic_path
from mien.base.console import progress
from mien.base.errors import MienError
from mien.data.face_pixels import FilePixels
from mien.data.images import ImageError, check_there
from mien.data.roots import Root
from mien.recipe.settings import Recipe
from mien.runs.run import Run, open_run
from mien.training.memory import keep_freed_memory
from mien.training.trained_network import load_network

_BATCH = 64


def open_teachers(recipe: Recipe) -> list[Run]:
    """Returns the teachers of a recipe.

    Raises:
        MienError: A teacher is not a finished run, or does not predict the tasks of the recipe.
    """
    if recipe.distillation is None:
        return []
    runs = [open_run(source) for source in recipe.distillation.teachers]
    wanted = recipe.tasks.predicted()
    for run in runs:
        tasks = run.recipe.tasks
        absent = [task for task in wanted if task not in tasks.predicted()]
        if absent:
            raise MienError(
                f"distillation.teachers: {str(run.folder)!r} predicts {', '.join(tasks.predicted())}; "
                f"valid: a run that predicts all of {', '.join(wanted)}"
            )
        if recipe.tasks.age and tasks.age and recipe.tasks.age.oldest != tasks.age.oldest:
            raise MienError(
                f"distillation.teachers: {str(run.folder)!r} has tasks.age.oldest {tasks.age.oldest}; "
                f"valid: {recipe.tasks.age.oldest}, the value of this recipe"
            )
    return runs


def teacher_probabilities(run: Run, recipe: Recipe, faces: pd.DataFrame, root: Root) -> dict[str, Tensor]:
    """Returns the mean probabilities of the teachers for the training faces.

    They are stored in the run's folder while it trains, so that a resumed run uses the same ones.

    Args:
        run: The run that is trained.
        recipe: Its recipe.
        faces: Its n faces, with their split.
        root: The root of the images.

    Returns:
        Probabilities (n, units) of each task; NaN for other faces and unreadable images. Empty without teachers.
    """
    teachers = open_teachers(recipe)
    if not teachers:
        return {}
    if not run.teachers_file.exists():
        keep_freed_memory()
        rows = np.flatnonzero(faces["split"] == "train")
        each = [_predict(teacher, recipe, faces.iloc[rows], root) for teacher in teachers]
        probabilities = {}
        for task in recipe.tasks.predicted():
            mean = torch.stack([one[task] for one in each]).mean(0)
            probabilities[task] = torch.full((len(faces), mean.shape[1]), torch.nan)
            probabilities[task][rows] = mean
        with atomic_path(run.teachers_file) as part:
            part.write_bytes(as_bytes(probabilities))
    return load_file(run.teachers_file)


@torch.inference_mode()
def _predict(teacher: Run, recipe: Recipe, faces: pd.DataFrame, root: Root) -> dict[str, Tensor]:
    """Returns the probabilities of one teacher, averaged over each face and its mirror image."""
    net = load_network(teacher, "cuda" if torch.cuda.is_available() else "cpu")
    files = FilePixels(faces, root, teacher.recipe.model.image_size, teacher.recipe.model.margin)
    tasks = list(recipe.tasks.predicted())
    probabilities = {task: torch.full((len(faces), net.heads[task].units), torch.nan) for task in tasks}
    with progress(f"predicting with teacher {teacher.name}") as update:
        for rows, images in _batches(files):
            images = images.to(net.mean.device)
            both = [net(side) for side in (images, images.flip(3))]
            for task in tasks:
                head = net.heads[task]
                probabilities[task][rows] = sum(head.probability(logits[task].float()).cpu() for logits in both) / 2
            update(rows[-1] + 1, len(files))
    return probabilities


def _batches(files: FilePixels) -> Iterator[tuple[list[int], Tensor]]:
    """Yields row numbers and uint8 images (n, 3, size, size) of the faces that can be read."""
    for start in range(0, len(files), _BATCH):
        read = {}
        for row in range(start, min(start + _BATCH, len(files))):
            try:
                read[row] = files[row]
            except ImageError:
                check_there(files.folders)
                continue  # training will count and report it
        if read:
            yield list(read), torch.from_numpy(np.stack(list(read.values()))).permute(0, 3, 1, 2)
