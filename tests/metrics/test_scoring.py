"""Metrics against scikit-learn, torchmetrics, scipy and tables worked out by hand."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from mien import metrics
from mien.base.errors import MienError
from mien.base.labels import AGE_GROUPS
from mien.metrics import intervals, wording
from mien.metrics.definitions import CONSTANT_PROBABILITY, MAJORITY_CLASS, MEDIAN_AGE, METRICS, PERCENT
from mien.metrics.joining import join
from mien.metrics.scoring import paired_difference, score

PROBABILITIES = [f"p_{group}" for group in AGE_GROUPS]


def tables(n: int = 400, subjects: int = 60, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Faces and predictions with every column; subjects differ in difficulty; some labels are missing."""
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, subjects, n)
    female = (rng.random(subjects) < 0.55)[subject]
    age = rng.uniform(0, 80, n).round(1)
    margin = np.where(female, 1.5, -1.5) + rng.normal(0, 0.7, subjects)[subject] + rng.normal(0, 1, n)
    p_female = 1 / (1 + np.exp(-margin))
    predicted = np.clip(age + rng.normal(0, 5, n), 0, 120)
    faces = pd.DataFrame(
        {
            "face": [f"face{i}" for i in range(n)],
            "path": "a.jpg",
            "subject": [f"subject{i}" for i in subject],
            "gender": np.where(rng.random(n) < 0.05, None, np.where(female, "female", "male")),
            "age": np.where(rng.random(n) < 0.05, np.nan, age),
            "race": rng.choice(["asian", "black", "white"], n),
        }
    )
    faces["age_from"] = np.where(faces["age"].isna() & (age < 60), age // 3 * 3, np.nan)
    faces["age_to"] = faces["age_from"] + 2
    predictions = pd.DataFrame(
        {
            "face": faces["face"],
            "status": np.where(rng.random(n) < 0.03, "no face found", "ok"),
            "p_female": p_female,
            "gender": np.select([p_female > 0.6, p_female < 0.4], ["female", "male"], "unsure"),
            "age": predicted,
            "age_low": np.clip(predicted - 6, 0, None),
            "age_high": predicted + 6,
            **dict(zip(PROBABILITIES, rng.dirichlet(np.ones(8), n).T, strict=True)),
        }
    )
    return faces, predictions


def joined(**changes: int) -> pd.DataFrame:
    return join(*tables(**changes))


def simple(truth: list[str | None], answer: list[str | None], subject: list[str] | None = None) -> pd.DataFrame:
    """A joined table of genders alone; an answer of None is a failed prediction."""
    ids = [f"f{i}" for i in range(len(truth))]
    faces = pd.DataFrame({"face": ids, "path": "a", "gender": truth, "subject": subject or ids})
    status = ["ok" if one else "no face found" for one in answer]
    return join(faces, pd.DataFrame({"face": ids, "status": status, "gender": answer}))


def row(table: pd.DataFrame, metric: str, group: str = "all") -> pd.Series:
    found = table[(table["metric"] == metric) & (table["group"] == group)]
    assert len(found) == 1
    return found.iloc[0]


# The join


def test_join_renames_labels_and_keeps_every_face() -> None:
    faces = pd.DataFrame({"face": ["a", "b", "c"], "path": "x", "age": [3.0, 7.5, None], "race": ["r", "s", "t"]})
    predictions = pd.DataFrame(
        {"face": ["b", "a", None], "status": ["ok", "too small", "ok"], "age": [60.0, 1.0, 5.0], "x": 1.0}
    )
    table = join(faces, predictions)
    assert table["face"].tolist() == ["a", "b", "c"]
    assert table["status"].tolist() == ["too small", "ok", "no prediction"]
    assert table["true_age_group"].tolist()[:2] == ["0-2", "8-13"]
    assert table["age"].isna().tolist() == [True, False, True]
    assert table["age_group"].tolist()[1] == "60+"
    assert table["race"].tolist() == ["r", "s", "t"]
    assert "x" not in table.columns


def test_join_derives_gender_from_its_probability() -> None:
    faces = pd.DataFrame({"face": [1, 2, 3], "path": "x", "gender": "female"})
    table = join(faces, pd.DataFrame({"face": [1.0, 2.0, 3.0], "p_female": [0.5, 0.49, np.nan]}))
    assert table["gender"].astype("object").where(table["gender"].notna(), None).tolist() == [
        "female",
        "male",
        None,
    ]


def test_implausible_ages_are_reported_and_do_not_refuse_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    ages = [-0.8, 1e308, np.inf, "old", 140.0, 31.0, None]
    faces = pd.DataFrame({"face": list("abcdefg"), "path": "x", "gender": "female", "age": 30.0})
    joined = metrics.join(faces, pd.DataFrame({"face": list("abcdefg"), "age": ages}))
    assert joined["age"].tolist()[:1] == [-0.8] and joined["age"].tolist()[4:6] == [140.0, 31.0]
    assert joined["age"].isna().tolist() == [False, True, True, True, False, False, True]
    told = capsys.readouterr().out
    assert "column 'age': 3 values are no number of years and count as missing, for example 1e+308" in told
    assert "column 'age': 2 values are outside of 0 to 130 years and count as they are, for example -0.8" in told
    found = metrics.score(joined, n_boot=10).set_index(["group", "metric"])
    assert np.isfinite(found.loc[("all", "age_mae"), "value"]) and found.loc[("all", "age_mae"), "n"] == 3


def test_rounding_errors_of_probabilities_are_removed() -> None:
    faces = pd.DataFrame({"face": ["a", "b"], "path": "x"})
    joined = metrics.join(faces, pd.DataFrame({"face": ["a", "b"], "p_female": [1.0005, -0.0005]}))
    assert joined["p_female"].tolist() == [1.0, 0.0]


def test_messages_hold_plain_numbers() -> None:
    faces = pd.DataFrame({"face": ["a"], "path": "x"})
    with pytest.raises(MienError, match=r"'p_female': 1.5 is not a probability"):
        metrics.join(faces, pd.DataFrame({"face": ["a"], "p_female": [1.5]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"face": ["a", "a"]}, "unique"),
        ({"face": ["a", "z"]}, "'z'"),
        ({"gender": ["female", "femal"]}, "did you mean 'female'"),
        ({"p_female": [0.2, 1.2]}, "1.2"),
        ({"age": ["young", "old"]}, "'age' holds no number of years, for example young"),
        ({"age": pd.to_datetime(["2020-01-01", "2021-01-01"])}, "'age' holds no number of years"),
        ({"age_group": ["0-2", "3-9"]}, "3-9"),
    ],
)
def test_join_names_what_is_wrong(change: dict[str, list[object]], message: str) -> None:
    faces = pd.DataFrame({"face": ["a", "b"], "path": "x"})
    predictions = pd.DataFrame({"face": ["a", "b"], "gender": ["female", "male"]}).assign(**change)
    with pytest.raises(MienError, match=message):
        join(faces, predictions)


def test_join_needs_ids_and_answers_and_free_names() -> None:
    faces = pd.DataFrame({"face": ["a"], "path": "x"})
    with pytest.raises(MienError, match="'face' is absent"):
        join(faces, pd.DataFrame({"gender": ["male"]}))
    with pytest.raises(MienError, match="no column with an answer"):
        join(faces, pd.DataFrame({"face": ["a"]}))
    with pytest.raises(MienError, match="'status' has the name of a prediction"):
        join(faces.assign(status=1), pd.DataFrame({"face": ["a"], "gender": ["male"]}))


# The metrics, against references


def value_of(name: str, *columns: object, weight: np.ndarray | None = None) -> float:
    """A metric of truth and predictions, with a weight a face, from the sums of its parts."""
    parts = METRICS[name].parts(*(pd.Series(column) for column in columns))
    return METRICS[name].finish(parts.sum(axis=0) if weight is None else weight @ parts)


@pytest.mark.parametrize("weighted", [False, True])
def test_gender_metrics_agree_with_scikit_learn(weighted: bool) -> None:
    rng = np.random.default_rng(1)
    truth = rng.choice(["female", "male"], 500, p=[0.7, 0.3])
    p = np.clip(0.5 + np.where(truth == "female", 0.1, -0.1) + rng.normal(0, 0.2, 500), 0, 1).round(1)  # ties
    predicted = np.where(p >= 0.5, "female", "male")
    weight = rng.random(500) if weighted else None
    for name, reference in (
        ("gender_accuracy", sklearn.metrics.accuracy_score),
        ("gender_balanced_accuracy", sklearn.metrics.balanced_accuracy_score),
    ):
        expected = reference(truth, predicted, sample_weight=weight)
        assert value_of(name, truth, predicted, weight=weight) == pytest.approx(expected)
    # With weights the AUC is right to first order: see the test of resamples below.
    assert value_of("gender_auc", truth, p) == pytest.approx(sklearn.metrics.roc_auc_score(truth == "female", p))
    for name, share in (("gender_false_male", "female"), ("gender_false_female", "male")):
        recall = sklearn.metrics.recall_score(truth, predicted, pos_label=share, sample_weight=weight)
        of = truth == share
        own = value_of(name, truth[of], predicted[of], weight=None if weight is None else weight[of])
        assert own == pytest.approx(1 - recall)


@pytest.mark.parametrize("weighted", [False, True])
def test_ages_agree_with_scikit_learn(weighted: bool) -> None:
    rng = np.random.default_rng(2)
    truth, age = rng.uniform(0, 90, 200), rng.uniform(0, 90, 200)
    weight = rng.random(200) if weighted else None
    squared = sklearn.metrics.mean_squared_error(truth, age, sample_weight=weight)
    assert value_of("age_rmse", truth, age, weight=weight) == pytest.approx(np.sqrt(squared))
    absolute = sklearn.metrics.mean_absolute_error(truth, age, sample_weight=weight)
    assert value_of("age_mae", truth, age, weight=weight) == pytest.approx(absolute)
    assert value_of("age_bias", truth, age, weight=weight) == pytest.approx(np.average(age - truth, weights=weight))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("agreement", [0.0, 0.5, 1.0])
def test_kappa_agrees_with_scikit_learn(weighted: bool, agreement: float) -> None:
    rng = np.random.default_rng(20)
    truth = rng.integers(0, 8, 400)
    predicted = np.where(rng.random(400) < agreement, truth, rng.integers(0, 8, 400))
    weight = rng.random(400) if weighted else None
    groups = np.array(AGE_GROUPS, dtype=object)
    expected = sklearn.metrics.cohen_kappa_score(truth, predicted, weights="quadratic", sample_weight=weight)
    assert value_of("age_group_qwk", groups[truth], groups[predicted], weight=weight) == pytest.approx(expected)


def test_kappa_of_a_constant_is_zero_and_of_one_true_group_undefined() -> None:
    assert value_of("age_group_qwk", ["0-2", "4-6", "60+"], ["25-32"] * 3) == pytest.approx(0, abs=1e-12)
    assert np.isnan(value_of("age_group_qwk", ["0-2"] * 3, ["0-2", "4-6", "60+"]))


def test_metrics_agree_with_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional")
    rng = np.random.default_rng(3)
    p = rng.random(1000)
    female = rng.random(1000) < p**1.5
    target, scores = torch.tensor(female, dtype=torch.long), torch.tensor(p)
    truth, predicted = np.where(female, "female", "male"), np.where(p >= 0.5, "female", "male")
    assert value_of("gender_accuracy", truth, predicted) == pytest.approx(
        float(functional.classification.binary_accuracy(scores, target)), abs=1e-6
    )
    assert value_of("gender_auc", truth, p) == pytest.approx(
        float(functional.classification.binary_auroc(scores, target)), abs=1e-6
    )
    expected = functional.classification.multiclass_calibration_error(
        torch.column_stack([1 - scores, scores]), target, num_classes=2, n_bins=15, norm="l1"
    )
    assert value_of("gender_ece", truth, predicted, p) == pytest.approx(float(expected), abs=1e-6)
    true, group = (torch.tensor(rng.integers(0, 8, 500)) for _ in range(2))
    kappa = functional.classification.multiclass_cohen_kappa(group, true, num_classes=8, weights="quadratic")
    groups = np.array(AGE_GROUPS, dtype=object)
    assert value_of("age_group_qwk", groups[true], groups[group]) == pytest.approx(float(kappa), abs=1e-5)
    years, ages = (torch.tensor(rng.uniform(0, 90, 300)) for _ in range(2))
    rmse = functional.mean_squared_error(ages, years, squared=False)
    assert value_of("age_rmse", years.numpy(), ages.numpy()) == pytest.approx(float(rmse))


@pytest.mark.parametrize("name", METRICS)
def test_several_weightings_at_once(name: str) -> None:
    table, metric = joined(n=80), METRICS[name]
    parts = metric.parts_of(table, metric.counted(table))
    weights = np.random.default_rng(4).random((3, len(table)))
    assert metric.finish(weights @ parts) == pytest.approx(np.array([metric.finish(one @ parts) for one in weights]))


def test_balanced_accuracy_passes_over_classes_without_faces_and_auc_needs_both() -> None:
    truth, predicted = ["male"] * 4, ["male", "male", "male", "female"]
    assert value_of("gender_balanced_accuracy", truth, predicted) == 0.75
    assert np.isnan(value_of("gender_auc", ["female", "female"], [0.1, 0.9]))


def test_age_groups_by_hand() -> None:
    #          right, younger,  older, two off, missing, right (ends)
    truth = ["25-32", "25-32", "25-32", "25-32", "25-32", "60+"]
    predicted = ["25-32", "15-20", "38-43", "8-13", None, "60+"]
    assert value_of("age_group_exact", truth, predicted) == pytest.approx(2 / 6)
    assert value_of("age_group_one_off", truth, predicted) == pytest.approx(4 / 6)
    # The youngest group has one neighbour: a missing prediction (code -1) must not pass for it.
    assert value_of("age_group_one_off", ["0-2", "0-2"], [None, "4-6"]) == 0.5


def test_age_groups_follow_from_unrounded_ages() -> None:
    # 3 lies between 0-2 and 4-6: a tie goes to the younger; 3.01 does not.
    faces = pd.DataFrame({"face": list("abcd"), "path": "x", "age": [3.0, 3.0, 22.5, 56.6]})
    table = join(faces, pd.DataFrame({"face": list("abcd"), "age": [3.0, 3.01, 22.6, 70.0]}))
    assert table["true_age_group"].tolist() == ["0-2", "0-2", "15-20", "60+"]
    result = score(table, by=())
    assert row(result, "age_group_exact")["value"] == 0.5
    assert row(result, "age_group_one_off")["value"] == 1.0


def test_years_by_hand() -> None:
    truth, age = [10.0, 20.0, 30.0, 40.0], [15.0, 14.9, 30.0, np.nan]
    assert value_of("age_cs5", truth, age) == 0.5  # 5 years off still counts, a missing prediction does not
    assert value_of("age_mae", truth[:3], age[:3]) == pytest.approx((5 + 5.1) / 3)
    assert value_of("age_rmse", truth[:3], age[:3]) == pytest.approx(np.sqrt((25 + 5.1**2) / 3))
    assert value_of("age_bias", truth[:3], age[:3]) == pytest.approx((5 - 5.1) / 3)
    assert value_of("age_interval_coverage", truth, [10, 0, 31, 0], [12, 19, 40, 40]) == 0.5  # ends belong to it


def test_calibration_error_by_hand() -> None:
    # Bins of 1/15: 0.61 and 0.65 share (9/15, 10/15]; 0.95 is alone in the last.
    value = value_of("gender_ece", ["female", "male", "female"], ["female"] * 3, [0.61, 0.65, 0.95])
    assert value == pytest.approx(2 / 3 * abs(0.63 - 0.5) + 1 / 3 * 0.05)
    # An upper edge belongs to its bin, and 0 to the first.
    assert metrics.reliability([0.0, 0.2, 0.2000001], [True, True, True], bins=5)["n"].tolist() == [
        2,
        1,
        0,
        0,
        0,
    ]


def test_confidence_is_that_of_the_prediction() -> None:
    faces = pd.DataFrame({"face": list("abcde"), "path": "x", "gender": ["female", "male", "male", "female", None]})
    answers = {
        "p_female": [0.7, 0.2, 0.55, 0.45, 0.9],
        "gender": ["female", "male", "unsure", "unsure", "female"],
    }
    stated = metrics.confidence(join(faces, pd.DataFrame({"face": list("abcde"), **answers})), "gender")
    assert stated["confidence"].tolist() == pytest.approx([0.7, 0.8, 0.55, 0.55])
    assert stated["correct"].tolist() == [True, True, False, False]
    groups = metrics.confidence(joined(), "age_group")
    assert groups["confidence"].between(0, 1).all()
    with pytest.raises(MienError, match="valid: gender, age_group"):
        metrics.confidence(joined(), "age")


def test_auc_of_a_resample_is_right_to_first_order() -> None:
    table = joined(n=2000, subjects=300).query("status == 'ok' and true_gender.notna()")
    parts = METRICS["gender_auc"].parts(table["true_gender"], table["p_female"])
    weight = np.random.default_rng(5).poisson(1, (200, len(table))).astype(float)
    female = table["true_gender"] == "female"
    exact = [sklearn.metrics.roc_auc_score(female, table["p_female"], sample_weight=one) for one in weight]
    linear = METRICS["gender_auc"].finish(weight @ parts)
    assert np.std(linear - exact) < 0.05 * np.std(exact)


# The table of scores


def test_score_lists_every_metric_overall_and_by_group() -> None:
    faces, predictions = tables()
    result = score(join(faces, predictions), train_faces=faces)
    assert tuple(result.columns) == metrics.METRICS_COLUMNS
    assert result.loc[result["group"] == "all", "metric"].tolist() == list(METRICS)
    groups = ["all", "gender=female", "gender=male", *(f"age_group={group}" for group in AGE_GROUPS)]
    assert list(dict.fromkeys(result["group"])) == [*groups, "race=asian", "race=black", "race=white"]


@pytest.fixture(scope="module")
def scored() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A joined table and its scores by group."""
    table = joined(n=300)
    return table, score(table, train_faces=tables(n=300)[0], n_boot=100)


@pytest.mark.parametrize("name", METRICS)
def test_an_entry_says_how_it_is_presented(name: str) -> None:
    metric = METRICS[name]
    assert metric.label and metric.label not in {other.label for key, other in METRICS.items() if key != name}
    assert metric.scale != "share" or metric.unit.factor == 100 or metric.unit.symbol == ""
    assert metric.scale not in ("error", "signed") or metric.unit is not PERCENT
    # What a constant prediction is called follows from what it predicts.
    expected = {"age": MEDIAN_AGE, "p_female": CONSTANT_PROBABILITY}.get(metric.predictions[0], MAJORITY_CLASS)
    assert metric.baseline in (None, expected)
    assert metric.baseline is None or metric.better is not None
    line = wording.Score("all", name, 0.5, 0.4, 0.6, 10, 5, 0.45, "better")
    assert wording.verdict(line) == (f"better than always predicting {metric.baseline}" if metric.baseline else "")
    assert wording.number(name, 0.5, unit=True).endswith(metric.unit.symbol)
    assert (name in wording.HEADLINES) == metric.headline


def test_each_label_has_one_primary_metric() -> None:
    assert [METRICS[name].truth for name in wording.PRIMARY] == [
        "true_gender",
        "true_age_group",
        "true_age",
        "true_age_range",
    ]
    assert set(wording.PRIMARY) <= set(wording.HEADLINES)


@pytest.mark.parametrize("name", METRICS)
def test_contract_of_each_metric(name: str, scored: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    metric, (table, result) = METRICS[name], scored
    lines = result[(result["metric"] == name) & result["value"].notna()]
    assert len(lines) > 5
    for line in lines.itertuples():
        if not np.isnan(line.low):
            assert line.low <= line.value <= line.high
            assert line.low < line.high or line.value == 0
        if metric.scale not in ("signed", "correlation"):
            assert not line.low < 0
        if metric.scale in ("share", "distance", "correlation"):
            assert not line.high > 1
    counted = metric.counted(table)
    parts = metric.parts_of(table, counted)
    assert metric.scale != "share" or parts.shape[1] % 2 == 0, (
        "the parts of a share are pairs of numerator, denominator"
    )
    assert row(result, name)["value"] == pytest.approx(float(metric.finish(parts.sum(axis=0))))
    if metric.needs_classes:
        for label in ("gender", "age_group"):
            of_one_class = result[(result["metric"] == name) & result["group"].str.startswith(f"{label}=")]
            if metric.truth == f"true_{label}" and name != "gender_balanced_accuracy":
                assert of_one_class["value"].isna().all()
    assert row(result, name)["n"] == counted.sum()
    assert row(result, name)["subjects"] == table.loc[counted, "subject"].nunique()
    same = paired_difference(table, table, name, n_boot=50)
    assert same.value == 0
    assert not same.p < 1
    without = table.drop(columns=metric.predictions[0]) if metric.predictions[0] != "status" else None
    if without is not None:
        assert name not in set(score(without, by=(), n_boot=10)["metric"])


def test_scores_agree_with_scikit_learn_by_group() -> None:
    table = joined()
    result = score(table)
    for race, part in table.groupby("race"):
        labelled = part[part["true_gender"].notna()]
        answers = labelled["gender"].astype("object").fillna("missing")
        line = row(result, "gender_accuracy", f"race={race}")
        assert line["value"] == pytest.approx(sklearn.metrics.accuracy_score(labelled["true_gender"], answers))
        known = labelled[labelled["status"] == "ok"]
        line = row(result, "gender_auc", f"race={race}")
        expected = sklearn.metrics.roc_auc_score(known["true_gender"] == "female", known["p_female"])
        assert line["value"] == pytest.approx(expected)
        assert line["n"] == len(known)


def test_missing_predictions_and_unsure_answers_are_wrong() -> None:
    table = simple(["female"] * 4 + [None], ["female", "unsure", None, "male", "male"])
    result = score(table, by=())
    assert row(result, "gender_accuracy")[["value", "n"]].tolist() == [0.25, 4]
    assert row(result, "coverage")[["value", "n"]].tolist() == [0.8, 5]
    assert row(result, "gender_unsure")[["value", "n"]].tolist() == [0.25, 4]
    sure = score(simple(["female", "male"], ["male", "male"]), by=())
    assert "gender_unsure" not in set(sure["metric"])


def test_a_face_without_prediction_lowers_every_share_of_right_ages() -> None:
    faces, predictions = tables(n=100)
    table = join(faces, predictions.iloc[:50])
    result, labelled = score(table, by=()), table["true_age"].notna()
    for name, truth in (("age_group_exact", "group"), ("age_group_one_off", "group"), ("age_cs5", "age")):
        known = labelled if truth == "age" else table["true_age_group"].notna()
        assert row(result, name)["n"] == known.sum()
        assert row(result, name)["value"] <= 50 / known.sum()
    assert row(result, "age_mae")["n"] == (labelled & (table["status"] == "ok")).sum()


def test_baselines_are_the_training_parts_constant_answers() -> None:
    train = pd.DataFrame(
        {
            "face": list("abcde"),
            "path": "x",
            "gender": ["male"] * 3 + ["female"] * 2,
            "age": [1, 25, 30, 31, 70],
        }
    )
    table = joined()
    result = score(table, train_faces=train)
    truth = table.loc[table["true_gender"].notna(), "true_gender"]
    line = row(result, "gender_accuracy")
    assert line["baseline"] == pytest.approx((truth == "male").mean())
    assert line["versus_baseline"] == "better"
    assert row(result, "gender_balanced_accuracy")["baseline"] == 0.5
    assert row(result, "gender_auc")["baseline"] == 0.5
    known = table[table["true_age"].notna() & table["age"].notna()]
    assert row(result, "age_mae")["baseline"] == pytest.approx((known["true_age"] - 30).abs().mean())
    assert row(result, "age_mae")["versus_baseline"] == "better"
    labelled = table[table["true_age_group"].notna()]
    assert row(result, "age_group_exact")["baseline"] == (labelled["true_age_group"] == "25-32").mean()
    # Within one true gender a constant gender is all right or all wrong: a number, but no verdict.
    line = row(result, "gender_accuracy", "gender=male")
    assert line["baseline"] == 1
    assert pd.isna(line["versus_baseline"])
    for name in ("coverage", "gender_ece", "age_bias", "age_interval_coverage"):
        assert np.isnan(row(result, name)["baseline"])


def test_verdicts_follow_the_paired_difference() -> None:
    truth = ["female"] * 60 + ["male"] * 40
    train = pd.DataFrame({"face": ["t"], "path": "x", "gender": ["female"]})
    cases = {
        "better": truth,
        "worse": ["male"] * 60 + ["female"] * 40,
        "unclear": ["female"] * 98 + ["male"] * 2,
    }
    for verdict, answer in cases.items():
        line = row(score(simple(truth, answer), by=(), train_faces=train), "gender_accuracy")
        assert line["baseline"] == 0.6
        assert line["versus_baseline"] == verdict


def test_a_group_without_labels_is_empty_and_a_table_without_labels_has_no_such_metric() -> None:
    table = joined(n=60)
    table.loc[table["race"] == "asian", "true_age"] = np.nan
    line = row(score(table), "age_mae", "race=asian")
    assert np.isnan(line["value"]) and np.isnan(line["low"]) and line["n"] == 0 and line["subjects"] == 0
    table["true_age"] = np.nan
    assert "age_mae" not in set(score(table, by=())["metric"])
    assert score(table.iloc[:0]).empty


def test_score_names_what_is_wrong() -> None:
    table = joined(n=20)
    with pytest.raises(MienError, match="'status' is absent"):
        score(table.drop(columns="status"))
    with pytest.raises(MienError, match="did you mean 'subject'"):
        score(table, subject="subjects")
    with pytest.raises(MienError, match="'face0' occurs twice"):
        score(pd.concat([table, table.iloc[:1]]))
    with pytest.raises(MienError, match="n_boot 1"):
        score(table, n_boot=1)


# Intervals


def test_intervals_at_0_and_1_count_subjects() -> None:
    # Ten subjects of three faces each, all right: Wilson's interval for 10 of 10.
    subject = [f"s{i // 3}" for i in range(30)]
    right = row(score(simple(["male"] * 30, ["male"] * 30, subject), by=()), "gender_accuracy")
    expected = scipy.stats.binomtest(10, 10).proportion_ci(0.95, method="wilson")
    assert (right["low"], right["high"]) == pytest.approx((expected.low, 1.0))
    wrong = row(score(simple(["male"] * 30, ["female"] * 30, subject), by=()), "gender_accuracy")
    assert (wrong["low"], wrong["high"]) == pytest.approx((0.0, 1 - expected.low))


def test_one_subject_tells_hardly_anything() -> None:
    line = row(score(simple(["male"] * 50, ["male"] * 25 + ["female"] * 25, ["one"] * 50), by=()), "gender_accuracy")
    expected = intervals.wilson(0.5, 1)
    assert (line["low"], line["high"]) == pytest.approx(expected)
    table = joined(n=40).assign(subject="one")
    assert np.isnan(row(score(table, by=()), "age_mae")["low"])


def test_independent_faces_get_wilsons_interval() -> None:
    answer = ["male"] * 180 + ["female"] * 20
    line = row(score(simple(["male"] * 200, answer), by=(), n_boot=4000), "gender_accuracy")
    expected = scipy.stats.binomtest(180, 200).proportion_ci(0.95, method="wilson")
    assert (line["low"], line["high"]) == pytest.approx((expected.low, expected.high), abs=0.005)


def test_faces_without_subject_stand_alone() -> None:
    table = simple(["male"] * 40, ["male"] * 30 + ["female"] * 10)
    without = score(table.assign(subject=None), by=())
    pd.testing.assert_frame_equal(without, score(table, by=()))


def test_clustered_faces_get_wider_intervals() -> None:
    answer = ["male"] * 150 + ["female"] * 50
    alone = row(score(simple(["male"] * 200, answer), by=()), "gender_accuracy")
    together = row(score(simple(["male"] * 200, answer, [f"s{i // 10}" for i in range(200)]), by=()), "gender_accuracy")
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])


def test_same_numbers_from_a_part_alone_and_as_a_group() -> None:
    table = joined()
    part = score(table[table["race"] == "black"], by=())
    group = score(table, by=("race",)).query("group == 'race=black'").assign(group="all").reset_index(drop=True)
    pd.testing.assert_frame_equal(part, group)


def test_pooling_subjects_keeps_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    table = joined(n=3000, subjects=2000)
    whole = score(table, by=())
    monkeypatch.setattr(intervals, "_MOST", 700)
    pooled = score(table, by=())
    assert pooled["value"].equals(whole["value"])
    ratio = (pooled["high"] - pooled["low"]) / (whole["high"] - whole["low"])
    assert ratio.between(0.85, 1.15).all()


@settings(max_examples=6, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 1000))
def test_rows_may_come_in_any_order(random: object, seed: int) -> None:
    faces, predictions = tables(n=60, subjects=15, seed=seed)
    table = join(faces, predictions)
    order = list(range(len(table)))
    random.shuffle(order)  # type: ignore[attr-defined]
    options = {"by": ("gender", "race"), "train_faces": faces, "n_boot": 50}
    pd.testing.assert_frame_equal(score(table, **options), score(table.iloc[order], **options), check_exact=True)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000))
def test_rows_that_are_doubled_within_their_subject_add_nothing(seed: int) -> None:
    table = joined(n=60, subjects=15, seed=seed)
    double = pd.concat([table, table.assign(face=table["face"] + "again")])
    once, twice = (score(rows, by=(), n_boot=50) for rows in (table, double))
    assert (twice["n"] == 2 * once["n"]).all()
    columns = ["metric", "value", "low", "high", "subjects"]
    pd.testing.assert_frame_equal(once[columns], twice[columns], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef")), min_size=1, max_size=30))
def test_intervals_hold_their_value_and_are_never_empty(outcomes: list[tuple[bool, str]]) -> None:
    answer: list[str | None] = ["male" if right else "female" for right, _ in outcomes]
    table = simple(["male"] * len(outcomes), answer, [subject for _, subject in outcomes])
    line = row(score(table, by=(), n_boot=20), "gender_accuracy")
    assert 0 <= line["low"] <= line["value"] <= line["high"] <= 1
    assert line["low"] < line["high"]


def test_intervals_cover_the_truth_in_simulated_data() -> None:
    # 80 data sets of 120 subjects; 3 standard errors of a share of 95% are 7.3 points.
    rng = np.random.default_rng(6)
    shares, errors, differences = [], [], []
    for seed in range(80):
        subject = np.repeat(np.arange(120), rng.integers(1, 8, 120))
        hard = rng.beta(0.5, 4.5, 120)[subject]
        error = rng.normal(0, 4, 120)[subject] + rng.normal(0, 4, len(subject))
        one, other = (np.where(rng.random(len(subject)) < hard, "female", "male") for _ in range(2))
        table = pd.DataFrame({"face": range(len(subject)), "subject": subject, "status": "ok", "gender": one})
        table = table.assign(age=30 + error, true_gender="male", true_age=30.0, true_age_group=None)
        result = score(table, by=(), n_boot=100, seed=seed)
        shares.append(tuple(row(result, "gender_accuracy")[["low", "high"]]))
        errors.append(tuple(row(result, "age_bias")[["low", "high"]]))
        found = paired_difference(table, table.assign(gender=other), "gender_accuracy", n_boot=100, seed=seed)
        differences.append((found.low, found.high))
    for truth, found_intervals in ((0.9, shares), (0.0, errors), (0.0, differences)):
        assert np.mean([low <= truth <= high for low, high in found_intervals]) > 0.875
        # Twice the width that is needed would cover everything.
        assert np.mean([abs((low + high) / 2 - truth) <= (high - low) / 4 for low, high in found_intervals]) < 0.85


def test_intervals_of_other_functions_of_sums_cover_the_truth() -> None:
    # A root mean squared error and a kappa are no means; 3 standard errors of a share of 95% are 7.3 points.
    rng = np.random.default_rng(21)
    groups = np.array(AGE_GROUPS, dtype=object)

    def data_set(subjects: int) -> pd.DataFrame:
        subject = np.repeat(np.arange(subjects), rng.integers(1, 8, subjects))
        true = rng.integers(0, 8, len(subject))
        shift = rng.integers(-1, 2, subjects)[subject] + rng.integers(-1, 2, len(subject))
        off = rng.normal(0, 4, subjects)[subject] + rng.normal(0, 4, len(subject))
        table = pd.DataFrame({"face": range(len(subject)), "subject": subject, "status": "ok", "true_gender": None})
        predicted = groups[np.clip(true + shift, 0, 7)]
        return table.assign(true_age=30.0, age=30 + off, true_age_group=groups[true], age_group=predicted)

    names = ("age_rmse", "age_group_qwk")
    many = score(data_set(30_000), by=(), n_boot=2).set_index("metric")["value"]
    truth = {"age_rmse": np.sqrt(32), "age_group_qwk": many["age_group_qwk"]}
    assert many["age_rmse"] == pytest.approx(truth["age_rmse"], rel=0.01)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for seed in range(80):
        result = score(data_set(120), by=(), n_boot=100, seed=seed)
        for name in names:
            found[name].append(tuple(row(result, name)[["low", "high"]]))
    for name in names:
        assert np.mean([low <= truth[name] <= high for low, high in found[name]]) > 0.875, name
        narrow = [abs((low + high) / 2 - truth[name]) <= (high - low) / 4 for low, high in found[name]]
        assert np.mean(narrow) < 0.85, name  # twice the width that is needed would cover everything


def test_the_mean_over_runs_is_the_mean_of_each_runs_value() -> None:
    runs = [joined(n=200, seed=0), joined(n=200, seed=0)]
    runs[1] = runs[1].assign(age=runs[1]["age"] + 3, age_group=runs[1]["age_group"].iloc[::-1].to_numpy())
    for name in ("age_rmse", "age_group_qwk", "age_mae", "age_group_exact"):
        both = np.logical_and.reduce([METRICS[name].counted(table) for table in runs])
        expected = [row(score(table[both], by=(), n_boot=2), name)["value"] for table in runs]
        found = metrics.mean_over_runs(runs, name, n_boot=50)
        assert found.value == pytest.approx(np.mean(expected)) and found.low < found.value < found.high


def test_calibration_error_of_calibrated_answers_may_be_zero() -> None:
    rng = np.random.default_rng(7)
    p = rng.random(1500)
    faces = pd.DataFrame({"face": range(1500), "path": "x", "gender": np.where(rng.random(1500) < p, "female", "male")})
    good = row(score(join(faces, pd.DataFrame({"face": range(1500), "p_female": p})), by=()), "gender_ece")
    assert good["low"] == 0 < good["value"]
    sharper = p**3 / (p**3 + (1 - p) ** 3)
    bad = row(score(join(faces, pd.DataFrame({"face": range(1500), "p_female": sharper})), by=()), "gender_ece")
    assert bad["low"] > good["high"]


# Comparisons


def test_paired_difference_finds_what_separate_intervals_hide() -> None:
    truth = ["male"] * 400
    hard = np.arange(400) < 60
    a = simple(truth, ["female" if one else "male" for one in hard])
    b = simple(truth, ["female" if one else "male" for one in hard | (np.arange(400) >= 385)])
    found = paired_difference(a, b, "gender_accuracy")
    assert found.value == pytest.approx(15 / 400)
    assert found.low > 0 and found.p < 0.05
    assert (found.n, found.subjects) == (400, 400)
    apart = [row(score(table, by=()), "gender_accuracy") for table in (a, b)]
    assert apart[0]["low"] < apart[1]["high"]
    back = paired_difference(b, a, "gender_accuracy")
    assert (back.value, back.low, back.high, back.p) == pytest.approx((-found.value, -found.high, -found.low, found.p))


def test_paired_difference_agrees_with_mcnemars_standard_error() -> None:
    rng = np.random.default_rng(8)
    truth = ["male"] * 1000
    a, b = (np.where(rng.random(1000) < share, "female", "male") for share in (0.1, 0.15))
    found = paired_difference(simple(truth, list(a)), simple(truth, list(b)), "gender_accuracy", n_boot=4000)
    gains = (a == "male").astype(float) - (b == "male")
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * gains.std() / np.sqrt(1000), rel=0.05)


def test_paired_difference_wants_the_same_faces() -> None:
    table = joined(n=30)
    with pytest.raises(MienError, match="same faces"):
        paired_difference(table, table.iloc[1:], "gender_accuracy")
    with pytest.raises(MienError, match="did you mean 'gender_auc'"):
        paired_difference(table, table, "gender_auk")
    with pytest.raises(MienError, match="'p_female'"):
        paired_difference(table, table.drop(columns="p_female"), "gender_auc")


def test_paired_difference_of_ages_is_over_faces_that_both_predict() -> None:
    faces, predictions = tables(n=50)
    some = predictions.assign(status=np.where(np.arange(50) < 10, "too small", "ok"))
    found = paired_difference(join(faces, predictions), join(faces, some), "age_mae")
    assert found.value == 0
    assert found.n < 50 - 9


# Tables for figures


def test_confusion_agrees_with_scikit_learn_and_shows_what_has_no_label() -> None:
    table = joined()
    labels = ["female", "male"]
    counts = metrics.confusion(table["true_gender"], table["gender"], labels)
    assert counts.columns.tolist() == [*labels, "unsure", "no prediction"]
    known = table[table["true_gender"].notna() & table["gender"].isin(labels)]
    expected = sklearn.metrics.confusion_matrix(known["true_gender"], known["gender"], labels=labels)
    assert counts[labels].to_numpy().tolist() == expected.tolist()
    assert counts.to_numpy().sum() == table["true_gender"].notna().sum()
    assert metrics.confusion([], [], labels).to_numpy().tolist() == [[0, 0], [0, 0]]


def test_reliability_agrees_with_scikit_learn() -> None:
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(9)
    p = rng.random(300)
    truth = rng.random(300) < p
    table = metrics.reliability(p, truth, bins=10)
    observed, mean = calibration_curve(truth, p, n_bins=10)
    assert table["observed"].to_numpy() == pytest.approx(observed)
    assert table["p"].to_numpy() == pytest.approx(mean)
    assert ((table["low"] <= table["observed"]) & (table["observed"] <= table["high"])).all()
    empty = metrics.reliability([0.95], [True])
    assert empty["n"].sum() == 1 and empty["observed"].isna().sum() == 14


def ranged(age, first, last):
    """A joined table of true ages, or ranges, and predictions."""
    faces = pd.DataFrame({"face": map(str, range(len(age))), "path": "a", "age_from": first, "age_to": last})
    return join(faces, pd.DataFrame({"face": faces["face"], "age": age}))


def test_ages_against_ranges():
    joined = ranged([25, 32.5, 24, 40, np.nan, 80, 30], [25, 25, 25, 20, 20, 60, 30], [32, 32, 32, 29, 29, None, 30])
    table = score(joined, by=(), n_boot=20).set_index("metric")
    # 24 is half a year below 24.5, 40 is 10.5 years above 29.5; 30 is a year and no range.
    assert table.loc["age_range_error", "value"] == pytest.approx((0 + 0 + 0.5 + 10.5 + 0) / 5)
    assert table.loc["age_in_range", "value"] == pytest.approx(3 / 6)  # a missing prediction is not inside
    assert table.loc[["age_range_error", "age_in_range", "age_mae"], "n"].tolist() == [5, 6, 1]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 30)), min_size=1, max_size=30), st.integers(0, 120))
def test_no_constant_is_nearer_to_the_ranges_than_the_baseline(ranges, other):
    first, last = (np.array(ends, dtype=float) for ends in zip(*((a, a + b) for a, b in ranges), strict=True))
    faces = pd.DataFrame({"face": map(str, range(len(first))), "path": "a", "age_from": first, "age_to": last})
    table = score(ranged([other] * len(first), first, last), by=(), train_faces=faces, n_boot=2).set_index("metric")
    # Ends reach half a year further, so that the median of the whole years may be so much off.
    assert table.loc["age_range_error", "baseline"] <= table.loc["age_range_error", "value"] + 0.5


def test_ranges_of_the_same_faces_are_compared():
    one, other = (ranged(age, [20, 30, 20, 30], [29, 39, 29, 39]) for age in ([25, 25, 25, 25], [35, 35, 35, 35]))
    assert paired_difference(one, other, "age_in_range", n_boot=20).n == 4
    moved = ranged([25] * 4, [20, 30, 20, 30], [29, 39, 29, 38])
    with pytest.raises(MienError, match="same faces"):
        paired_difference(one, moved, "age_in_range", n_boot=20)
