"""How often the audit's intervals cover the truth, in simulated data whose truth is known.

    python benchmarks/coverage.py --data-sets 1000 --out coverage.csv

Faces of one subject share their luck (a Gaussian copula with correlation 0.3), and subjects have from one to many faces
(1 + geometric, 4 on average). Stated certainties are 0.55, 0.65, ... 0.95; a group's answers are right less often than
stated by its `shift`, which therefore is its calibration error, and its accuracy is the mean certainty less `shift`.
Ages are off by the group's `shift` times 40 years, a subject's part and a face's part (4 years each).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from mien.audit.model.groups import MetricJob, group_samples, groupings, largest_gap, worst_group
from mien.metrics.definitions import METRICS

CERTAIN = np.array([0.55, 0.65, 0.75, 0.85, 0.95])
OFTEN = np.array([0.05, 0.05, 0.1, 0.2, 0.6])
SHIFTS = {
    "equal groups": (0.03, 0.03, 0.03, 0.03),
    "one stands out": (0.02, 0.02, 0.02, 0.12),
    "one a little": (0.02, 0.02, 0.02, 0.05),
    "all differ": (0.01, 0.04, 0.08, 0.12),
    "two groups, equal": (0.03, 0.03),
    "two groups, different": (0.02, 0.08),
}
"""The scenarios: how much less often than stated each group's answers are right."""

SUBJECTS = (20, 50, 100, 200, 1000)
"""Subjects of a group."""

NUMBERS = (
    "gender_accuracy",
    "gender_false_male",
    "gender_false_female",
    "gender_ece",
    "age_mae",
    "age_bias",
    "age_cs5",
)


def data_set(rng: np.random.Generator, subjects: int, shifts: tuple[float, ...]) -> pd.DataFrame:
    """A table as `metrics.join` and `metrics.sort_by_subject` make it, with `subjects` subjects of each group."""
    count = subjects * len(shifts)
    faces = rng.geometric(0.25, count)
    subject = np.repeat(np.arange(count), faces)
    shift = np.array(shifts)[subject % len(shifts)]
    n = len(subject)
    certain = rng.choice(CERTAIN, n, p=OFTEN)
    luck = np.sqrt(0.3) * rng.normal(size=count)[subject] + np.sqrt(0.7) * rng.normal(size=n)
    right = luck < _normal_quantile(certain - shift)
    truth = np.where(rng.random(count) < 0.5, "female", "male")[subject]
    said = np.where(right, truth, np.where(truth == "female", "male", "female"))
    off = 40 * shift + rng.normal(0, 4, count)[subject] + rng.normal(0, 4, n)
    words = pd.CategoricalDtype(["female", "male"])
    return pd.DataFrame(
        {
            "_cluster": subject + 1,
            "true_gender": pd.Categorical(truth, dtype=words),
            "true_age": 40.0,
            "race": subject % len(shifts),
            "gender": pd.Categorical(said, dtype=words),
            "p_female": np.where(said == "female", certain, 1 - certain),
            "age": 40 + off,
        }
    )


def _normal_quantile(p: np.ndarray) -> np.ndarray:
    from statistics import NormalDist

    values, places = np.unique(p, return_inverse=True)
    return np.array([NormalDist().inv_cdf(value) for value in values])[places]


def truths(shift: float) -> dict[str, float]:
    """The true numbers of a group."""
    from math import erf, exp, pi, sqrt

    mean, sd = 40 * shift, sqrt(32)

    def below(x: float) -> float:
        return 0.5 * (1 + erf((x - mean) / sd / sqrt(2)))

    wrong = 1 - float(CERTAIN @ OFTEN) + shift
    folded = sd * sqrt(2 / pi) * exp(-(mean**2) / (2 * sd**2)) + mean * (2 * below(2 * mean) - 1)
    return {
        "gender_accuracy": 1 - wrong,
        "gender_false_male": wrong,
        "gender_false_female": wrong,
        "gender_ece": shift,
        "age_mae": folded,
        "age_bias": mean,
        "age_cs5": below(5) - below(-5),
    }


def one(
    rng: np.random.Generator, subjects: int, shifts: tuple[float, ...], n_boot: int
) -> Iterator[tuple[str, float, float, float]]:
    """What was looked at, the ends of its interval, and the truth, for one data set."""
    rows = data_set(rng, subjects, shifts)
    jobs = {name: MetricJob(METRICS[name], rows) for name in NUMBERS}
    seed = int(rng.integers(2**31))
    found = {
        group: {name: sample.estimate() for name, sample in own.items()}
        for group, own in group_samples(groupings(rows, ["race"]), jobs, n_boot, seed)
    }
    first = next(group for group in found if group.labels == (("race", "0"),))
    for name in NUMBERS:
        yield name, *found[first][name].interval(), truths(shifts[0])[name]
    for name in ("gender_accuracy", "age_mae", "gender_ece"):
        table = {group: own[name] for group, own in found.items()}
        true = [truths(shift)[name] for shift in shifts]
        better = METRICS[name].better
        assert better is not None
        if (bad := worst_group(table, better)) is not None:
            yield f"worst {name}", bad.low, bad.high, min(true) if better == "higher" else max(true)
        if (gap := largest_gap([table])) is not None:
            yield f"largest gap of {name}", gap.low, gap.high, max(true) - min(true)


def coverage(scenario: str, subjects: int, data_sets: int, n_boot: int, seed: int = 0) -> pd.DataFrame:
    """One row a number: the share of intervals that cover, lie too low and too high, and their mean width."""
    lines = []
    for number in range(data_sets):
        rng = np.random.default_rng([seed, subjects, list(SHIFTS).index(scenario), number])
        lines += list(one(rng, subjects, SHIFTS[scenario], n_boot))
    table = pd.DataFrame(lines, columns=["number", "low", "high", "truth"])
    inside = (table["low"] <= table["truth"]) & (table["truth"] <= table["high"])
    table = table.assign(
        covered=inside.where(table["low"].notna()),
        too_low=table["high"] < table["truth"],
        too_high=table["low"] > table["truth"],
        width=table["high"] - table["low"],
    )
    means = table.groupby("number", sort=False)[["covered", "too_low", "too_high", "width"]].mean()
    about = pd.DataFrame({"scenario": scenario, "subjects": subjects, "data_sets": data_sets}, index=means.index)
    return about.join(means).reset_index()


def main(arguments: list[str] | None = None) -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--subjects", type=int, nargs="+", default=list(SUBJECTS))
    parser.add_argument("--scenarios", nargs="+", choices=list(SHIFTS), default=list(SHIFTS))
    parser.add_argument("--out", type=Path, default=Path("coverage.csv"))
    options = parser.parse_args(arguments)
    done = pd.read_csv(options.out) if options.out.exists() else pd.DataFrame(columns=["scenario", "subjects"])
    for subjects in options.subjects:
        for scenario in options.scenarios:
            if ((done["scenario"] == scenario) & (done["subjects"] == subjects)).any():
                continue
            table = coverage(scenario, subjects, options.data_sets, options.resamples)
            done = pd.concat([done, table], ignore_index=True) if len(done) else table
            done.to_csv(options.out, index=False)
            print(table.to_string(index=False, float_format="%.3f"), flush=True)


if __name__ == "__main__":
    main()
