"""The brackets of Hyperband, and the ledger of the cost of a search."""

import math
from dataclasses import dataclass

import pandas as pd

from mien.base.errors import MienError

STATES = ("finished", "stopped early", "failed", "running")
"""States of a trial."""


@dataclass(frozen=True)
class Bracket:
    """One of Hyperband's brackets; `s` as in Li et al. 2018: the number of rungs before the end."""

    s: int
    rungs: tuple[int, ...]
    """Epochs after which a trial can be pruned."""
    configurations: int
    """Trials per round of Hyperband as published; Optuna assigns trials in this proportion."""


def brackets(epochs: int, eta: int = 3) -> list[Bracket]:
    """Returns the brackets of Hyperband for trials of at most `epochs` epochs, the one that prunes earliest first.

    As in Algorithm 1 of Li et al. 2018 (R = `epochs`), with budgets in whole epochs: the smallest is R // eta^s_max.

    Raises:
        MienError: `eta` is below 2, or `epochs` below `eta`, so that no trial could be pruned.
    """
    if eta < 2:
        raise MienError(f"eta is {eta}; valid: a whole number from 2")
    if epochs < eta:
        raise MienError(
            f"trainer.epochs is {epochs} and eta {eta}: no trial could be stopped early; valid: {eta} or more"
        )
    most = 0
    while eta ** (most + 1) <= epochs:
        most += 1
    first = epochs // eta**most
    return [
        Bracket(
            s,
            tuple(first * eta**rung for rung in range(most - s, most)),
            math.ceil((most + 1) * eta**s / (s + 1)),
        )
        for s in range(most, -1, -1)
    ]


def best_trial(trials: pd.DataFrame, direction: str) -> "pd.Series | None":
    """Returns the best of the finished trials."""
    over = trials[trials["state"] == "finished"]
    if over.empty:
        return None
    values = over["value"].to_numpy()
    return over.iloc[int(values.argmin() if direction == "minimize" else values.argmax())]


def make_ledger(trials: pd.DataFrame, epochs: int, eta: int, direction: str) -> pd.DataFrame:
    """Returns the cost of each bracket, and its cost without early stopping; the last row is the sum.

    `epochs_full` and `seconds_full` are those of the same trials at full length, failed and running ones unchanged;
    `full_trials` is the number of full-length trials that the spent epochs would allow.
    """
    pruned = trials["state"] == "stopped early"
    full = trials["epochs"].where(~pruned, epochs)
    pace = trials["seconds"] / trials["epochs"].clip(lower=1)
    table = trials.assign(epochs_full=full, seconds_full=trials["seconds"].where(~pruned, pace * epochs))
    rows = []
    for bracket in [*brackets(epochs, eta), None]:
        own = table if bracket is None else table[table["bracket"] == bracket.s]
        best = best_trial(own, direction)
        rows.append(
            {
                "bracket": "all" if bracket is None else str(bracket.s),
                "rungs": "" if bracket is None else ", ".join(map(str, bracket.rungs)) or "never",
                "trials": len(own),
                **{state.replace(" ", "_"): int((own["state"] == state).sum()) for state in STATES},
                "epochs": int(own["epochs"].sum()),
                "epochs_full": int(own["epochs_full"].sum()),
                "seconds": round(float(own["seconds"].sum()), 1),
                "seconds_full": round(float(own["seconds_full"].sum()), 1),
                "full_trials": round(float(own["epochs"].sum()) / epochs, 1),
                "best": math.nan if best is None else best["value"],
            }
        )
    return pd.DataFrame(rows)
