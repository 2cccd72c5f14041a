"""Reads predictions of mien or of other programs, converts them to mien's columns and matches them with faces.

A prediction is matched by the face id (column `face`) or by the file name (column `file`). Ambiguous matches are
errors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from mien import metrics
from mien.base.errors import MienError, choices, columns_of, shortened
from mien.base.messages import note
from mien.base.table import TEXT_COLUMNS, check_faces, read_table
from mien.data.sources.csv import GENDER_WORDS, split_map

COLUMNS = ("face", "file", "status", *metrics.PREDICTION_COLUMNS)
"""The columns that columns of other programs can be mapped to."""


_MAX_UNREAD = 0.2
"""Largest share of genders that may be unreadable: a larger one would change what the predictions say."""


@dataclass(frozen=True)
class Preset:
    """The column names and values of another program.

    Attributes:
        map: Its column names, mapped to mien's; absent columns are skipped.
        gender: Its values of gender, in lower case, in addition to those that mien reads.
        percent: Its columns with probabilities in percent.
    """

    map: Mapping[str, str]
    gender: Mapping[str, str]
    percent: tuple[str, ...] = ()


PRESETS: dict[str, Preset] = {
    # DeepFace.analyze of 0.0.x, as pandas.json_normalize makes columns of its dictionaries; shares are in percent.
    "deepface": Preset(
        {"dominant_gender": "gender", "gender.Woman": "p_female", "age": "age", "file": "file", "img_path": "file"},
        {"man": "male", "woman": "female"},
        ("gender.Woman",),
    ),
    # insightface.app.common.Face: `sex` is M or F, `gender` 1 (male) or 0 (female), `age` whole years.
    "insightface": Preset(
        {"sex": "gender", "gender": "gender", "age": "age", "file": "file"},
        {"0": "female", "1": "male", "0.0": "female", "1.0": "male"},
    ),
}
"""Presets of other programs by name."""


@dataclass(frozen=True)
class Matched:
    """Faces with their predictions, as joined by `mien.metrics.join`, and counts of what did not match.

    Attributes:
        joined: One row per face.
        key: How rows were matched: "face id", "path" or "file name".
        extra: Predictions that belong to no face of the table.
        missing: Faces without a usable prediction.
    """

    joined: pd.DataFrame
    key: str
    unmatched: int
    missing: int


PredictionsInput = pd.DataFrame | str | Path | Sequence[str | Path]


def read_predictions(
    given: PredictionsInput, map: Mapping[str, str] | None = None, preset: str | None = None
) -> pd.DataFrame:
    """Reads predictions from a table, a file, or several files of one table, and converts them to mien's columns.

    Raises:
        MienError: A file cannot be read, the map or the preset is not valid, or a gender is unknown.
    """
    if isinstance(given, pd.DataFrame):
        table = given
    else:
        paths = [given] if isinstance(given, str | Path) else list(given)
        # A map that names no text column does no harm: it is checked below.
        text = [theirs for theirs, ours in (map or {}).items() if ours in TEXT_COLUMNS]
        table = pd.concat([read_table(path, text) for path in paths], ignore_index=True)
    renamed, stated = split_map(map or {}, table.columns)
    names, genders, percent = _names(table, renamed, preset)
    genders = {**genders, **_stated_genders(stated)}
    columns = {}
    for theirs, ours in names.items():
        values = table[theirs]
        columns[ours] = _shares(table, theirs) if theirs in percent else values
    out = pd.DataFrame(columns).reset_index(drop=True)
    if "gender" in out.columns:
        out["gender"] = _read_genders(out["gender"], genders)
    return out


def _stated_genders(values: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The genders that a map states of values, by value in lower case."""
    for column, stated in values.items():
        for value, label in stated.items():
            if column != "gender" or label.lower() not in GENDER_WORDS:
                words = f"genders, as gender.0=female; valid: {', '.join(GENDER_WORDS)}"
                raise MienError(f"--map {column}.{value}={label}: of predictions, values can be stated of {words}")
    return {value.lower(): GENDER_WORDS[label.lower()] for value, label in values.get("gender", {}).items()}


def _check_map(table: pd.DataFrame, map: dict[str, str]) -> None:
    """Raises an error for a column that is not in the table, or a name that mien does not have."""
    for theirs, ours in map.items():
        if theirs not in table.columns:
            raise MienError(f"--map {theirs}={ours}: " + choices("column of the predictions", theirs, table.columns))
        if ours not in COLUMNS:
            raise MienError(f"--map {theirs}={ours}: " + choices("column", ours, COLUMNS))


def _names(
    table: pd.DataFrame, map: dict[str, str], preset: str | None
) -> tuple[dict[str, str], Mapping[str, str], tuple[str, ...]]:
    """The mapping of columns to mien's names, further values of gender, and the columns in percent."""
    if preset is not None and preset not in PRESETS:
        raise MienError(choices("preset", preset, PRESETS))
    chosen = Preset({}, {}) if preset is None else PRESETS[preset]
    _check_map(table, map)
    names = dict(map)
    defaults = chosen.map if preset else {column: column for column in COLUMNS}
    for theirs, ours in defaults.items():
        if theirs in table.columns and theirs not in names and ours not in names.values():
            names[theirs] = ours
    taken = list(names.values())
    twice = [name for name in taken if taken.count(name) > 1]
    if twice:
        both = [theirs for theirs, name in names.items() if name == twice[0]]
        raise MienError(
            f"--map: {' and '.join(map_name for map_name in both)} are both mapped to {twice[0]!r}; keep one"
        )
    if not set(taken) & {"face", "file"}:
        raise MienError(
            "predictions: neither 'face' nor 'file' identifies the face of a row; "
            f"--map theirs=file names the column; the columns are: {columns_of(table)}"
        )
    if preset is None and "age" not in map.values() and not set(taken) & {"gender", "p_female"}:
        _refuse_unread_gender(table)
    return names, chosen.gender, chosen.percent


def _refuse_unread_gender(table: pd.DataFrame) -> None:
    """Raises if another program's gender column would be ignored silently."""
    for name, preset in PRESETS.items():
        for theirs, ours in preset.map.items():
            if ours == "gender" and theirs in table.columns:
                raise MienError(
                    f"predictions: no column 'gender' or 'p_female', but {theirs!r}, which --preset {name} or "
                    f"--map {theirs}=gender reads; --map age=age audits the ages alone"
                )


def _shares(table: pd.DataFrame, column: str) -> pd.Series:
    """Converts a column in percent to shares; raises if its values are not in percent."""
    values = pd.to_numeric(table[column], errors="coerce")
    if len(values.dropna()) and values.max() <= 1:
        raise MienError(
            f"predictions: column {column!r} should be in percent, as DeepFace 0.0.x writes it, but its largest value "
            f"is {values.max():g}; leave --preset out and give --map {column}=p_female"
        )
    return values / 100


def _read_genders(values: pd.Series, more: Mapping[str, str]) -> pd.Series:
    words = {**GENDER_WORDS, metrics.UNSURE: metrics.UNSURE, **more}
    texts = values.where(values.notna() & (values.astype("str") != ""))
    read_as = {value: words.get(str(value).strip().lower()) for value in texts.dropna().unique()}
    unread = [value for value, gender in read_as.items() if gender is None]
    rows = texts.isin(unread)
    if rows.sum() > _MAX_UNREAD * texts.notna().sum():
        value = str(unread[0])
        raise MienError(
            f"predictions: gender {value!r} is not understood ({int((texts == unread[0]).sum())} rows); "
            f"valid: {', '.join(words)}, in any case, or empty where there is none; "
            f"--map gender.{value}=male states what it means"
            + (", and --preset insightface reads 0 and 1" if value in ("0", "1", "0.0", "1.0") else "")
        )
    if unread:
        listed = shortened(", ".join(repr(str(value)) for value in unread))
        note(
            f"predictions: {int(rows.sum()):,} genders are not understood and count as missing: {listed}", warning=True
        )
    return texts.map(read_as)


def match(faces: pd.DataFrame, predictions: pd.DataFrame) -> Matched:
    """Matches predictions with faces, by the face id if there is one, otherwise by the file name.

    Raises:
        MienError: No row matches, or a match is ambiguous.
    """
    truth = check_faces(faces)
    own = predictions
    if "face" in predictions.columns and (predictions["face"].notna().any() or "file" not in predictions.columns):
        ids, key = _as_text(predictions["face"]), "face id"
        own = predictions.assign(face=ids)
        matched = ids.isin(truth["face"])
        _refuse_none(matched, "face id", ids, truth["face"])
        _refuse_twice(ids[matched], "face", "predictions")
    else:
        own, key, matched = _by_file(truth, predictions)
    used = own[matched].drop(columns="file", errors="ignore")
    joined = metrics.join(truth, used)
    missing = int((joined["status"] != "ok").sum())
    return Matched(joined, key, int((~matched).sum()), missing)


def _by_file(truth: pd.DataFrame, predictions: pd.DataFrame) -> tuple[pd.DataFrame, str, pd.Series]:
    """Assigns faces to predictions by the whole path or, if no path matches, by the file name."""
    files = _as_text(predictions["file"])
    key, theirs, ours = "path", files, truth["path"]
    matched = theirs.isin(ours) & theirs.notna()
    if not matched.any():
        key, theirs, ours = "file name", files.map(_name, na_action="ignore"), truth["path"].map(_name)
        matched = theirs.isin(ours) & theirs.notna()
        _refuse_none(matched, "file", files, truth["path"])
    wanted = ours[ours.isin(theirs[matched])]
    _refuse_twice(wanted, key, "faces table")
    _refuse_twice(theirs[matched], key, "predictions")
    face_of = pd.Series(truth["face"].to_numpy(), index=ours.to_numpy())
    face_of = face_of[~face_of.index.duplicated()]
    return predictions.assign(face=theirs.map(face_of)), key, matched


def _name(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name


def _as_text(values: pd.Series) -> pd.Series:
    """Ids in the form of the faces table (7.0 and 7 are equal)."""
    filled = pd.DataFrame({"face": range(len(values)), "path": "-", "subject": values.to_numpy()})
    return check_faces(filled, "predictions")["subject"]


def _refuse_none(matched: pd.Series, what: str, theirs: pd.Series, ours: pd.Series) -> None:
    if not matched.any():
        raise MienError(
            f"predictions: no {what} is in the faces table; predictions have for instance "
            f"{shortened(repr(theirs.dropna().iloc[0] if theirs.notna().any() else ''))}, "
            f"faces {shortened(repr(ours.iloc[0]))}"
        )


def _refuse_twice(values: pd.Series, key: str, where: str) -> None:
    again = values[values.duplicated(keep=False)]
    if len(again):
        raise MienError(
            f"{where}: {again.nunique()} {key}s occur more than once, for instance {again.iloc[0]!r} "
            f"({int((again == again.iloc[0]).sum())} times), so that the match is ambiguous; "
            "give both tables the column 'face', and one prediction a face"
        )
