"""Groups against pandas and fairlearn; the search for the worst against the theory and in simulated data."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fairlearn import metrics as fairlearn

from mien.audit.model import groups
from mien.audit.model.groups import Group, MetricJob, group_samples, groupings, largest_gap, worst_group
from mien.base.errors import MienError
from mien.metrics import intervals
from mien.metrics.definitions import METRICS
from mien.metrics.joining import join
from mien.metrics.scoring import score, sort_by_subject


def coverage_module():
    path = Path(__file__).parents[3] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(n: int = 1500, subjects: int = 400, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    faces = pd.DataFrame(
        {
            "face": [f"f{one}" for one in range(n)],
            "path": "-",
            "subject": [f"s{one}" for one in rng.integers(0, subjects, n)],
            "gender": rng.choice(["female", "male"], n),
            "age": rng.integers(0, 80, n).astype(float),
            "race": rng.choice(["a", "b", "c", None], n),
        }
    )
    p = np.clip(rng.normal(np.where(faces["gender"] == "female", 0.7, 0.3), 0.25), 0, 1)
    answers = pd.DataFrame({"face": faces["face"], "p_female": p, "age": np.abs(faces["age"] + rng.normal(0, 5, n))})
    return join(faces, answers.sample(frac=0.97, random_state=seed))


def estimates(rows, names, by=("gender", "race"), seed=0, n_boot=400):
    rows = sort_by_subject(rows, "subject", n_boot)
    jobs = {name: MetricJob(METRICS[name], rows) for name in names}
    found = group_samples(groupings(rows, by), jobs, n_boot, seed)
    return {group: {name: sample.estimate() for name, sample in own.items()} for group, own in found}


def test_every_group_and_crossing_agrees_with_pandas() -> None:
    rows = table()
    found = estimates(rows, ["gender_accuracy", "age_mae"])
    right = (rows["gender"].astype("object") == rows["true_gender"].astype("object")).astype(float)
    off = (rows["age"] - rows["true_age"]).abs()
    for columns in (["true_gender"], ["race"], ["true_gender", "race"]):
        for values, part in rows.groupby(columns, observed=True):
            labels = tuple((name.replace("true_", ""), str(value)) for name, value in zip(columns, values, strict=True))
            own = found[Group(labels)]
            assert own["gender_accuracy"].value == pytest.approx(right[part.index].mean())
            assert own["gender_accuracy"].n == len(part)
            assert own["age_mae"].value == pytest.approx(off[part.index].mean())
            assert own["age_mae"].subjects == part.loc[off[part.index].notna(), "subject"].nunique()
    assert len(found) == 1 + 2 + 3 + 6


def test_intervals_are_those_of_the_table_of_scores() -> None:
    rows = table()
    found = estimates(rows, ["gender_accuracy", "gender_ece", "age_mae"], n_boot=1000)
    scored = score(rows, by=("race",)).set_index(["group", "metric"])
    for group in (Group(), Group((("race", "b"),))):
        for name, one in found[group].items():
            expected = scored.loc[(group.name, name)]
            assert one.value == pytest.approx(expected["value"])
            low, high = one.interval()
            # Other resamples: those of all subjects, not of the group's.
            assert high - low == pytest.approx(expected["high"] - expected["low"], rel=0.12)
            assert low == pytest.approx(expected["low"], abs=0.15 * (high - low))


@pytest.mark.parametrize("most", [50, 20_000])
def test_resamples_by_pool_and_by_subject_are_the_same_sums(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_MOST", most)
    rows = sort_by_subject(table(), "subject", 20)
    jobs = {"gender_accuracy": MetricJob(METRICS["gender_accuracy"], rows)}
    found = dict(group_samples(groupings(rows, ["race"]), jobs, 20, 3))
    pools, counts = intervals.draws(rows["_cluster"].max(), 20, 3)
    weight = counts[:, pools[rows["_cluster"] - 1]]
    right = (rows["gender"].astype("object") == rows["true_gender"].astype("object")).to_numpy()
    for value in "abc":
        own = (rows["race"] == value).to_numpy()
        expected = (weight[:, own] * right[own]).sum(axis=1) / weight[:, own].sum(axis=1)
        assert found[Group((("race", value),))]["gender_accuracy"].resamples == pytest.approx(expected)


def test_gaps_and_rates_agree_with_fairlearn() -> None:
    rows = table(n=4000, subjects=1000).dropna(subset=["race"])
    names = ["gender_accuracy", "gender_false_male", "gender_false_female"]
    found = estimates(rows, names, by=("race",))
    true, said = (rows[name].astype("object") == "female" for name in ("true_gender", "gender"))
    of = {"sensitive_features": rows["race"]}
    rates = {"gender_false_male": fairlearn.false_negative_rate, "gender_false_female": fairlearn.false_positive_rate}
    for name, rate in rates.items():
        # fairlearn knows no missing answers: it takes them for "not female".
        answered = rows["gender"].notna()
        frame = fairlearn.MetricFrame(
            metrics=rate, y_true=true[answered], y_pred=said[answered], sensitive_features=rows["race"][answered]
        )
        own = estimates(rows[answered], [name], by=("race",))
        gap = largest_gap([{group: one[name] for group, one in own.items()}])
        assert gap.value == pytest.approx(frame.difference())
        assert gap.higher.labels[0][1] == frame.by_group.idxmax()
    right = (rows["gender"].astype("object") == rows["true_gender"].astype("object")).astype(int)
    frame = fairlearn.MetricFrame(metrics=lambda y, p: p.mean(), y_true=right, y_pred=right, **of)
    accuracy = {group: one["gender_accuracy"] for group, one in found.items()}
    assert worst_group(accuracy, "higher").value == pytest.approx(frame.group_min())
    assert largest_gap([accuracy]).value == pytest.approx(frame.difference())


def test_small_groups_are_never_the_worst() -> None:
    rows = table()
    few = rows.index[:20]
    rows.loc[few, "race"] = "tiny"
    rows.loc[few, "gender"] = "unsure"
    accuracy = {group: one["gender_accuracy"] for group, one in estimates(rows, ["gender_accuracy"]).items()}
    tiny = accuracy[Group((("race", "tiny"),))]
    assert tiny.value < 0.05 and tiny.subjects < groups.MIN_SUBJECTS
    assert "tiny" not in worst_group(accuracy, "higher").group.name


def test_more_groups_widen_the_interval_of_the_worst() -> None:
    rows = table(n=6000, subjects=3000)
    rows["many"] = np.random.default_rng(1).integers(0, 40, len(rows)).astype(str)
    found = estimates(rows, ["gender_accuracy"], by=("race", "many"))
    accuracy = {group: one["gender_accuracy"] for group, one in found.items()}
    alone, searched = worst_group(accuracy, "higher", ["race"]), worst_group(accuracy, "higher", ["many"])
    overall = accuracy[Group()].value
    assert searched.value < alone.value  # by luck: all groups are equally good
    assert searched.high >= overall - 0.02 and searched.low <= overall


def test_too_many_groups_are_refused() -> None:
    rows = sort_by_subject(table(), "subject", 10).assign(camera=lambda t: t["face"])
    with pytest.raises(MienError, match="--by camera,race makes more than 2,000 groups"):
        groupings(rows, ["camera", "race"])


def test_intervals_cover_the_truth_in_simulated_data() -> None:
    """A small form of benchmarks/coverage.py, whose full table is in docs/audit.md."""
    found = coverage_module().coverage("all differ", 100, data_sets=60, n_boot=200).set_index("number")["covered"]
    assert found.min() >= 0.85 and found.mean() == pytest.approx(0.955, abs=0.03)
