"""Brackets against the published table, the ledger by hand, and locks that end with their process."""

import math
import subprocess
import sys

import pandas as pd
import pytest

from mien.base.errors import MienError
from mien.base.lock import Lock
from mien.experiments.brackets import best_trial, brackets, make_ledger


def test_brackets_are_those_of_the_paper():
    # Li et al. 2018, Table 1 (R = 81, eta = 3): the budgets r_i of each bracket; the last, 81, is the end of a trial.
    budgets = {4: [1, 3, 9, 27, 81], 3: [3, 9, 27, 81], 2: [9, 27, 81], 1: [27, 81], 0: [81]}
    found = brackets(81, 3)
    assert {bracket.s: [*bracket.rungs, 81] for bracket in found} == budgets
    # Algorithm 1: n = ceil(B / R * eta^s / (s + 1)), B = (s_max + 1) R.
    assert [bracket.configurations for bracket in found] == [81, 34, 15, 8, 5]


@pytest.mark.parametrize(("epochs", "eta"), [(10, 3), (20, 3), (27, 3), (50, 4), (243, 3), (1000, 10), (2, 2)])
def test_brackets_of_other_lengths_follow_algorithm_1(epochs, eta):
    most = max(s for s in range(20) if eta**s <= epochs)
    found = brackets(epochs, eta)
    assert [bracket.s for bracket in found] == list(range(most, -1, -1))
    for bracket in found:
        exact = [epochs * eta ** -(bracket.s - rung) for rung in range(bracket.s)]
        assert len(bracket.rungs) == len(exact)
        # Whole epochs: the smallest budget is rounded down, the others follow from it.
        assert all(r / 2 < found_r <= r for found_r, r in zip(bracket.rungs, exact, strict=True))


def test_searches_that_could_stop_nothing_are_refused():
    with pytest.raises(MienError, match=r"trainer\.epochs is 2 and eta 3"):
        brackets(2, 3)
    with pytest.raises(MienError, match="eta is 1"):
        brackets(9, 1)


def trials():
    return pd.DataFrame(
        {
            "trial": [0, 1, 2, 3],
            "bracket": [2, 2, 1, 0],
            "state": ["finished", "stopped early", "failed", "running"],
            "epochs": [9, 1, 2, 4],
            "seconds": [18.0, 3.0, 4.0, 8.0],
            "value": [0.5, 0.1, math.nan, 0.3],
        }
    )


def test_the_ledger_counts_epochs_seconds_and_what_full_length_would_cost():
    ledger = make_ledger(trials(), 9, 3, "minimize").set_index("bracket")
    assert list(ledger.index) == ["2", "1", "0", "all"]
    assert ledger.loc["2", ["trials", "epochs", "epochs_full", "seconds", "seconds_full"]].tolist() == [
        2,
        10,
        18,
        21,
        45,
    ]
    assert ledger.loc["all", ["finished", "stopped_early", "failed", "running"]].tolist() == [1, 1, 1, 1]
    assert ledger.loc["all", "epochs"] == 16 and ledger.loc["all", "epochs_full"] == 24
    assert ledger.loc["all", "full_trials"] == pytest.approx(16 / 9, abs=0.05)
    assert ledger.loc["2", "rungs"] == "1, 3" and ledger.loc["0", "rungs"] == "never"


def test_the_best_trial_trained_to_the_end():
    assert best_trial(trials(), "minimize")["trial"] == 0
    assert best_trial(trials()[1:], "minimize") is None
    two = pd.DataFrame({"trial": [0, 1], "state": ["finished"] * 2, "value": [0.2, 0.3]})
    assert best_trial(two, "minimize")["trial"] == 0 and best_trial(two, "maximize")["trial"] == 1


def test_a_lock_ends_with_its_process(tmp_path):
    file = tmp_path / "one.lock"
    code = (
        "from pathlib import Path; from mien.base.lock import Lock; "
        f"Lock(Path({str(file)!r})).take(); print('held', flush=True); input()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    lock = Lock(file)
    assert not lock.take()
    holder.kill()
    holder.communicate()
    assert lock.take() and lock.take()
    lock.release()
