"""Calibration of probabilities and age intervals on the validation faces.

One temperature a task (Guo et al. 2017), and for the 80% interval of age the levels of its two ends in each age group,
so that old faces are covered as often as young ones.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from torch import Tensor

from mien.base.labels import AGE_GROUPS
from mien.base.table import age_to_group
from mien.recipe.settings import Tasks
from mien.training.heads import LEVELS, AgeHead, Head, is_known, is_year
from mien.training.model import FaceNet

FEWEST = 200
"""A task with fewer labelled validation faces is not calibrated."""

# How far from 0 the logarithm of a temperature is expected, since few faces err. Added after one run's calibration
# error on its test part had been seen without it (2.2%); not tuned there.
_PRIOR = 0.2
_PULL = 0.1  # of the levels towards those of a perfect network: chosen by halves of two runs' validation part
_TAIL = 0.1  # share of the faces that lie below, and above, an 80% interval


def calibrate(net: FaceNet, logits: dict[str, Tensor], faces: pd.DataFrame, tasks: Tasks) -> dict[str, Any]:
    """Sets what the heads' `decode` needs, from validation faces.

    Args:
        net: A trained network; its heads are changed, its weights are not.
        logits: Of each task (n, units), in inference mode.
        faces: The n faces, with their labels.
        tasks: The tasks of the recipe, which give the share of faces that is `unsure`.

    Returns:
        For each task `n` and what was found: `temperature`, `low` and `high` (a level for each age group),
        `unsure_below` (a certainty); for one with fewer than `FEWEST` labelled faces only `n`. Ages known as ranges
        give a temperature and no levels: whether an age lies in an interval does not follow from its range.
    """
    found: dict[str, Any] = {}
    for task in tasks.predicted():
        head = net.heads[task]
        target = head.target(faces)
        known = _calibrating(head, target)
        n = int(known.sum())
        found[task] = {"n": n}
        if n < FEWEST:
            continue
        answers, truth = logits[task][known].float(), target[known]
        found[task]["temperature"] = _set_temperature(head, answers, truth)
        if isinstance(head, AgeHead) and is_year(truth).all():
            found[task] |= _set_levels(head, answers, truth[:, 0])
        if task == "gender" and tasks.gender is not None and tasks.gender.unsure:
            female = head.decode(answers)["p_female"].numpy()
            certainty = np.maximum(female, 1 - female)
            found[task]["unsure_below"] = round(float(np.quantile(certainty, tasks.gender.unsure)), 4)
    return found


def _calibrating(head: Head, target: Tensor) -> Tensor:
    """The faces (n,) to calibrate a head on: of ages those with a year, if they suffice, else all that have a label."""
    known = is_known(target)
    if isinstance(head, AgeHead):
        year = is_year(target)
        return year if int(year.sum()) >= FEWEST else known
    return known


def _set_temperature(head: Head, logits: Tensor, truth: Tensor) -> float:
    """The temperature with the least score on these faces, between a half and two."""

    def score(logarithm: float) -> float:
        mean = float(head.proper_score(logits / float(np.exp(logarithm)), truth).double().mean())
        return len(truth) * mean + 0.5 * (logarithm / _PRIOR) ** 2

    best = minimize_scalar(score, bounds=(-np.log(2), np.log(2)), method="bounded").x
    temperature = round(float(np.exp(best)), 4)
    head.temperature.fill_(temperature)
    return temperature


def _set_levels(head: AgeHead, logits: Tensor, truth: Tensor) -> dict[str, Any]:
    """Levels of the interval's ends, so that a tenth of the faces is younger, and older, in all and in each group."""
    probability = (logits / head.temperature).softmax(1)
    groups = (probability @ head.group).double().numpy()
    years = truth.round().long()[:, None]
    # The level at which each true age lies: at the middle of its year.
    middle = (probability.cumsum(1) - probability / 2).gather(1, years)[:, 0].double().numpy()
    code = age_to_group(truth.numpy()).codes
    low = _levels(groups, code, lambda levels, width: expit((levels - middle) / width), LEVELS[0], (0.005, 0.45))
    high = _levels(groups, code, lambda levels, width: expit((middle - levels) / width), LEVELS[1], (0.55, 0.995))
    head.low.copy_(torch.tensor(low))
    head.high.copy_(torch.tensor(high))
    return {"low": low.tolist(), "high": high.tolist()}


def _levels(
    groups: np.ndarray,
    code: np.ndarray,
    outside: Callable[[np.ndarray, float], np.ndarray],
    start: float,
    bounds: tuple[float, float],
) -> np.ndarray:
    """A level for each age group (8,); a face's own is their mean by its probabilities `groups` (n, 8)."""
    member = np.eye(len(AGE_GROUPS))[code]
    count = member.sum(0)
    share = count / len(code)

    def score(levels: np.ndarray, width: float) -> float:
        out = outside(groups @ levels, width)
        by_group = out @ member / np.maximum(count, 1)
        pull = _PULL * ((levels - start) ** 2).mean()
        return 20 * (out.mean() - _TAIL) ** 2 + 4 * (share * (by_group - _TAIL) ** 2).sum() + pull

    levels = np.full(len(AGE_GROUPS), start)
    for width in (0.05, 0.02, 0.01):  # being outside is a step, approached by ever steeper slopes
        levels = minimize(score, levels, args=(width,), method="L-BFGS-B", bounds=[bounds] * len(levels)).x
    return levels.round(4)
