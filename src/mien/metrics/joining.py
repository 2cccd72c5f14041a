"""The joined table: one row a face, with its labels and what was predicted for it."""

from datetime import date

import numpy as np
import pandas as pd

from mien.base.errors import MienError, choices, shortened
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

    Labels become `true_gender`, `true_age`, `true_age_group` (the last from the age where only that is
    known); the other columns of faces stay, except the box. Predictions keep their names: `status` and as
    many of `p_female gender age age_low age_high age_group p_<age group>` as there are; where absent,
    `gender` follows from `p_female` (female from 0.5) and `age_group` from `age`. A face without a prediction
    has the status "no prediction"; answers beside another status than "ok" are taken out. Predictions without
    a face id (further faces in a photograph) concern no row and are ignored.

    Ages that are implausible count as they are; values that are no number of years, or no probability, are missing. A
    note counts each.

    Raises:
        MienError: An id occurs twice or is not a face of the table, nothing is predicted, an answer is unknown,
            no value of a column is a probability or a number of years, or a column of faces has the name of a
            prediction.
    """
    truth = check_faces(faces).drop(columns=["x", "y", "w", "h"]).rename(columns=TRUTH_COLUMNS)
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
        bad = values[values.notna() & ~values.astype("object").isin(list(dtype.categories))]
        if len(bad):
            raise MienError("predictions: " + choices(column, bad.iloc[0], dtype.categories))
        return values.astype("object").where(values.notna(), None).astype(dtype)
    return _check_probabilities(values, column) if column.startswith("p_") else _check_years(values, column)


def _check_probabilities(values: pd.Series, column: str) -> pd.Series:
    """Probabilities, rounding errors removed: what is none is missing, and is reported."""
    numbers = _numbers(values)
    unusable = values.notna() & ~numbers.between(-_ROUNDING, 1 + _ROUNDING)
    return _without(values, numbers, column, unusable, "probability from 0 to 1").clip(0, 1)


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
    numbers = _without(values, numbers, column, unusable, "number of years")
    implausible = (numbers < 0) | (numbers > OLDEST)
    _tell(values, column, implausible, f"are outside of 0 to {OLDEST:g} years and count as they are")
    return numbers


def _without(values: pd.Series, numbers: pd.Series, column: str, unusable: pd.Series, kind: str) -> pd.Series:
    """The numbers without the unusable ones, which are reported; an error if no other is there."""
    numbers = numbers.mask(unusable)
    if unusable.any() and numbers.isna().all():
        example = shortened(str(values[unusable].iloc[0]))
        raise MienError(f"predictions: column {column!r} holds no {kind}, for example {example}")
    _tell(values, column, unusable, f"are no {kind} and count as missing")
    return numbers


def _tell(values: pd.Series, column: str, rows: pd.Series, words: str) -> None:
    """Reports how many values are of a kind, with an example."""
    if rows.any():
        example = shortened(str(values[rows].iloc[0]))
        count = f"{int(rows.sum()):,} values"
        note(f"predictions: column {column!r}: {count} {words}, for example {example}", warning=True)
