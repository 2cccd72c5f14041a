"""Tables behind diagnostic figures: confusion matrices and reliability diagrams."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mien.base.errors import MienError, choices
from mien.metrics.definitions import BINS, METRICS, bin_of, gender_confidence, group_confidence
from mien.metrics.intervals import wilson


def confusion(truth: ArrayLike, answer: ArrayLike, labels: Sequence[str]) -> pd.DataFrame:
    """Returns how often each answer (columns) was given for each true label (rows), as counts.

    Columns are the labels, then other answers that occur (as "unsure"), then "no prediction" where some have
    none. Faces without a true label are not counted.
    """
    true, said = pd.Series(np.asarray(truth, dtype=object)), pd.Series(np.asarray(answer, dtype=object))
    said = said.where(said.notna(), "no prediction")
    others = sorted(set(said[true.notna()]) - set(labels), key=lambda name: (name == "no prediction", str(name)))
    counts = pd.crosstab(true, said).reindex(index=list(labels), columns=[*labels, *others], fill_value=0)
    return counts.rename_axis(index="truth", columns="answer")


def confidence(joined: pd.DataFrame, task: str) -> pd.DataFrame:
    """Returns `confidence` and `correct` of the predictions of a task, "gender" or "age_group", for `reliability`.

    Faces without a label or a prediction are left out. Confidence is the probability of the prediction; for
    an unsure gender, that of the more probable one.

    Raises:
        MienError: The task has no probabilities, or their columns are absent.
    """
    makers: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
        "gender": gender_confidence,
        "age_group": group_confidence,
    }
    if task not in makers:
        raise MienError(choices("task with a confidence", task, makers))
    metric = METRICS[f"{task}_ece"]
    lacking = [column for column in (metric.truth, *metric.predictions) if column not in joined.columns]
    if lacking:
        raise MienError(f"confidence of {task!r}: needed column {lacking[0]!r} is absent")
    rows = joined[metric.counted(joined)]
    stated, correct = makers[task](*(rows[column] for column in (metric.truth, *metric.predictions)))
    return pd.DataFrame({"confidence": stated, "correct": correct}, index=rows.index)


def reliability(p: ArrayLike, truth: ArrayLike, bins: int = BINS) -> pd.DataFrame:
    """Returns the reliability diagram of probabilities p (n,) of what did or did not happen, truth (n, bool).

    One row a bin of equal width, its upper edge included: `bin_low`, `bin_high`, the mean `p`, the `observed`
    share with Wilson's 95% interval `low` and `high` (faces taken as independent), `n`; NaN in empty bins.
    """
    stated, happened = np.asarray(p, dtype=float), np.asarray(truth, dtype=float)
    place = bin_of(stated, bins)
    n = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, stated, bins) / n
        observed = np.bincount(place, happened, bins) / n
    low, high = wilson(observed, n)
    edges = np.linspace(0, 1, bins + 1)
    return pd.DataFrame(
        {
            "bin_low": edges[:-1],
            "bin_high": edges[1:],
            "p": mean,
            "observed": observed,
            "low": low,
            "high": high,
            "n": n,
        }
    )
