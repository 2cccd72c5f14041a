"""The joined table: one row a face, with its labels and what was predicted for it."""

from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from mien.base.errors import MienError, choices, plain, shortened
from mien.base.labels import GENDERS
from mien.base.messages import note
from mien.base.table import FACES_COLUMNS, OLDEST, age_to_group, check_faces
from mien.metrics.definitions import GROUP_PROBABILITIES, METRICS, UNSURE

_LARGEST_YEARS = 1e6
"""Larger numbers are no ages, and their squares would not be finite."""

_ROUNDING = 1e-3
"""So far beyond 0 and 1 are probabilities in single precision."""

PREDICTION_COLUMNS = tuple(
    dict.fromkeys(
        ["p_female", "gender", "age", "age_low", "age_high", "age_group", *GROUP_PROBABILITIES]
        + [column for metric in METRICS.values() for column in metric.predictions if column != "status"]
    )
)
"""The columns of the predictions table that metrics may use."""


TRUTH_COLUMNS = {"gender": "true_gender", "age": "true_age", "age_group": "true_age_group"}
"""The columns of the joined table that hold the labels."""


def join(faces: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Returns one row a face: the truth, and what was predicted for it.

    Labels become `true_gender`, `true_age`, `true_age_group` (the last from the age where only that is known) and
    `true_age_range` (pandas intervals of `age_from` to `age_to`, missing where the year is known); the other columns of
    faces stay, except the box. Predictions keep their names: `status` and as many of `p_female gender age age_low
    age_high age_group p_<age group>` as there are; where absent, `gender` follows from `p_female` (female from 0.5) and
    `age_group` from `age`. A face without a prediction has the status "no prediction"; answers beside another status
    than "ok" are taken out. Predictions without a face id (further faces in a photograph) concern no row and are
    ignored.

    Ages that are implausible count as they are; values that are no number of years are missing. A note counts both.

    Raises:
        MienError: An id occurs twice or is not a face of the table, nothing is predicted, an answer is unknown,
            a probability lies outside of 0 to 1, or a column of faces has the name of a prediction.
    """
    truth = check_faces(faces).drop(columns=["x", "y", "w", "h"]).rename(columns=TRUTH_COLUMNS)
    first, last = truth.pop("age_from"), truth.pop("age_to")
    truth["true_age_range"] = pd.arrays.IntervalArray.from_arrays(first.to_numpy(), last.to_numpy(), closed="both")
    answers = _check_predictions(predictions)
    clash = [column for column in answers.columns if column != "face" and column in truth.columns]
    if clash:
        raise MienError(f"faces table: column {clash[0]!r} has the name of a prediction; rename it")
    unknown = answers.loc[~answers["face"].isin(truth["face"]), "face"]
    if len(unknown):
        raise MienError(
            f"predictions: {len(unknown)} ids are not in the faces table, for instance {unknown.iloc[0]!r}; "
            "give the faces that were predicted, or only the predictions of these faces"
        )
    joined = truth.merge(answers, on="face", how="left", validate="one_to_one")
    joined["status"] = joined["status"].fillna("no prediction")
    return joined


def true_years(joined: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last year (n,) that the true age of each face of a joined table lies in; NaN if not known."""
    age = joined["true_age"].to_numpy(dtype=float)
    ranges: Any = pd.arrays.IntervalArray(joined["true_age_range"])
    known = ~np.isnan(age)
    return np.where(known, age, ranges.left), np.where(known, age, ranges.right)


def _check_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """The columns `face`, `status` and the answers, checked, with the answers that follow from others."""
    if "face" not in predictions.columns:
        listed = ", ".join(map(str, predictions.columns))
        raise MienError(f"predictions: needed column 'face' is absent; its columns are: {listed}")
    known = [column for column in PREDICTION_COLUMNS if column in predictions.columns]
    if not known:
        raise MienError(f"predictions: no column with an answer; valid: {', '.join(PREDICTION_COLUMNS)}")
    rows = predictions.loc[predictions["face"].notna()]
    # The faces table's own check gives the ids the same form on both sides (7.0 and 7 are one id).
    ids = check_faces(pd.DataFrame({"face": rows["face"], "path": "-"}), "predictions")["face"]
    out = rows[known].reset_index(drop=True)
    status = rows["status"] if "status" in rows.columns else pd.Series("ok", index=rows.index)
    out.insert(0, "status", status.to_numpy())
    out.insert(0, "face", ids)
    out["status"] = out["status"].fillna("no prediction").astype("str")
    for column in known:
        out[column] = _check_answer(out[column].where(out["status"] == "ok"), column)
    if "gender" not in known and "p_female" in known:
        more_probable = pd.Series(np.where(out["p_female"] >= 0.5, "female", "male"))
        out["gender"] = more_probable.where(out["p_female"].notna()).astype(pd.CategoricalDtype([*GENDERS, UNSURE]))
    if "age_group" not in known and "age" in known:
        out["age_group"] = age_to_group(out["age"])
    return out


def _check_answer(values: pd.Series, column: str) -> pd.Series:
    """One column of answers in its dtype."""
    if column in ("gender", "age_group"):
        dtype = pd.CategoricalDtype([*GENDERS, UNSURE]) if column == "gender" else FACES_COLUMNS["age_group"]
        bad = values.notna() & ~values.astype("object").isin(list(dtype.categories))
        if bad.any():
            values = _without(values, bad, column, choices(column, plain(values[bad].iloc[0]), dtype.categories))
        return values.astype("object").where(values.notna(), None).astype(dtype)
    if not column.startswith("p_"):
        return _check_years(values, column)
    numbers = _numbers(values)
    wrong = values.notna() & ~numbers.between(-_ROUNDING, 1 + _ROUNDING)
    if wrong.any():
        example = shortened(str(values[wrong].iloc[0]))
        numbers = _without(numbers, wrong, column, f"column {column!r}: {example} is not a probability from 0 to 1")
    return numbers.clip(0, 1)


_MAX_UNUSABLE = 0.2
"""Largest share of the answers of a column that may be unusable: a larger one means another kind of column."""


def _without(values: pd.Series, wrong: pd.Series, column: str, problem: str) -> pd.Series:
    """The values without unusable ones, which a note counts.

    Raises:
        MienError: More than a fifth are unusable.
    """
    count = int(wrong.sum())
    if count > _MAX_UNUSABLE * int((values.notna() | wrong).sum()):
        raise MienError(f"predictions: {problem} ({count:,} rows)")
    note(f"predictions: column {column!r}: {count:,} values are unusable and count as missing: {problem}", warning=True)
    return values.mask(wrong)


def _numbers(values: pd.Series) -> pd.Series:
    """Numbers, and NaN for what is none, such as a date."""
    if not (pd.api.types.is_numeric_dtype(values) or pd.api.types.is_string_dtype(values) or values.dtype == object):
        return pd.Series(np.nan, index=values.index, dtype="float64")
    if values.dtype == object:
        values = values.where(~values.map(lambda value: isinstance(value, date)))
    return pd.to_numeric(values, errors="coerce").astype("float64")


def _check_years(values: pd.Series, column: str) -> pd.Series:
    """Predicted years: implausible ones count as they are, what is no number is missing, and both are reported."""
    numbers = _numbers(values)
    unusable = values.notna() & ~(numbers.abs() <= _LARGEST_YEARS)
    numbers = numbers.mask(unusable)
    if unusable.any() and numbers.isna().all():
        example = shortened(str(values[unusable].iloc[0]))
        raise MienError(f"predictions: column {column!r} holds no number of years, for example {example}")
    implausible = (numbers < 0) | (numbers > OLDEST)
    for rows, words in (
        (unusable, "are no number of years and count as missing"),
        (implausible, f"are outside of 0 to {OLDEST:g} years and count as they are"),
    ):
        if rows.any():
            example = shortened(str(values[rows].iloc[0]))
            count = f"{int(rows.sum()):,} values"
            note(f"predictions: column {column!r}: {count} {words}, for example {example}", warning=True)
    return numbers
