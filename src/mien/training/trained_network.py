"""The network of a finished run, from its recipe and weights."""

import torch
from safetensors.torch import load_file

from mien.recipe.settings import Init, Recipe
from mien.runs.run import Run
from mien.training.model import FaceNet


def load_network(run: Run, device: str | torch.device = "cpu") -> FaceNet:
    """Returns the network of a run with its trained weights, in inference mode.

    The heads of auxiliary columns, which never predict, are left out.

    Args:
        run: A run or a published model with weights.
        device: Where the network is placed.
    """
    net = FaceNet(_without_initial_weights(run.recipe))
    stored = load_file(run.weights_file)
    net.load_state_dict({name: stored[name] for name in net.state_dict()})
    return net.to(device).eval()


def _without_initial_weights(recipe: Recipe) -> Recipe:
    """Returns a recipe of the same network that needs no initial weights and freezes nothing."""
    return recipe.model_copy(
        update={
            "init": Init(weights="none"),
            "model": recipe.model.model_copy(update={"freeze": "none"}),
            "tasks": recipe.tasks.model_copy(update={"columns": {}}),
        }
    )
