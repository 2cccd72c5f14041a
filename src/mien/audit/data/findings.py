"""The questions that an audit asks of a data set; each function gives checks, and the tables behind them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mien.audit.data import pictures
from mien.audit.data.checks import Check, any_is, not_checked, share
from mien.base.table import OLDEST, SPLITS, age_to_group
from mien.data.inspect import Images
from mien.data.leaks import spanning_parts
from mien.metrics.intervals import wilson

UNUSABLE = 0.01
"""Share of pictures that cannot be read or are almost uniform, above which it is a problem (as data.max_unreadable)."""

CONFLICTS = 0.05
"""Share of groups of near-duplicates that disagree about gender, above which it is a problem.

Where one of two labels of the same picture is wrong in 5% of the pairs, 2.5% of the labels are, and a score above 97.5%
means nothing.
"""

CONTRADICTIONS = 0.01
"""Share of subjects with both genders above which it is a problem."""

AGE_MISMATCH = 0.01
"""Share of faces whose age group is not that of their age, above which it is a problem."""

RARELY = 110.0
"""Nearly nobody is older."""

APART = 30.0
"""Years between the ages of one subject that are worth a look; groups count as their youngest or oldest age."""

HEAPED = 125.0
"""Whipple's index above which ages are said to be rounded (United Nations: 125 to 175 is rough)."""

UNEQUAL = 0.1
"""Cramer's V of a label and a fold from which the folds are said to differ in it."""

_GROUP_AGES = {
    "0-2": (0, 2), "4-6": (4, 6), "8-13": (8, 13), "15-20": (15, 20),
    "25-32": (25, 32), "38-43": (38, 43), "48-53": (48, 53), "60+": (60, 130),
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What part of the audit found: checks, and tables by the name of their file."""

    checks: list[Check]
    tables: dict[str, pd.DataFrame]


def take_out_impossible_ages(faces: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table with ages outside of 0 to `OLDEST` missing, and the rows where they were; both in the order of the ids.

    `table.check_faces` refuses such a table, of which an audit should still say what else is wrong.
    """
    faces = faces.copy()
    faces["face"] = faces["face"].astype("str") if "face" in faces else None
    faces = faces.sort_values("face", kind="stable", ignore_index=True)
    if "age" not in faces or not pd.api.types.is_numeric_dtype(faces["age"]):
        return faces, faces.head(0)
    impossible = (faces["age"] < 0) | (faces["age"] > OLDEST)
    rows = faces[impossible]
    return faces.assign(age=faces["age"].astype("float64").mask(impossible)), rows


def duplicates(faces: pd.DataFrame, images: Images | None) -> Found:
    """Groups of near-duplicate pictures, and whether their labels agree."""
    if images is None:
        return Found([not_checked("duplicates", "Near-duplicates were not looked for: no --root.")], {})
    pairs = images.pairs
    exact = int(pairs["exact"].sum())
    several = pd.Series(images.groups).groupby(images.groups).transform("size").to_numpy() > 1
    checks = [
        any_is(
            "notice",
            "duplicates",
            f"{len(pairs):,} pairs of near-duplicate pictures ({exact:,} with equal hashes), among "
            f"{int(several.sum()):,} of {len(faces):,} faces.",
            int(several.sum()),
            len(faces),
            _example(faces, several),
        )
    ]
    alone = ~faces["path"].duplicated(keep=False).to_numpy()  # of several faces in a file it is not known whose it is
    for column, words in (("gender", "gender"), ("age_group", "the age group")):
        rows = several & alone & faces[column].notna().to_numpy()
        labels = faces.loc[rows, column].astype("object")
        by = labels.groupby(images.groups[rows])
        groups = int((by.size() > 1).sum())
        conflict = np.zeros(len(faces), dtype=bool)
        conflict[rows] = by.transform("nunique").to_numpy() > 1
        count = len(np.unique(images.groups[conflict]))
        says = f"{count:,} of {groups:,} groups of near-duplicates disagree about {words}."
        name, example = f"duplicates.{column}", _example(faces, conflict)
        if column == "gender":
            checks.append(share(name, says, count, groups, CONFLICTS, example))
        else:  # two people may well put the same picture into neighbouring groups
            checks.append(any_is("notice", name, says, count, groups, example))
    return Found(checks, {"duplicates": pairs})


def leaks(faces: pd.DataFrame, groups: np.ndarray | None) -> Found:
    """Subjects, photographs and near-duplicates in several folds, or in several parts of a split."""
    checks = []
    for column, where in (("fold", "folds"), ("split", "parts of the split")):
        if faces[column].isna().all():
            checks.append(not_checked(f"leaks.{column}", f"The table has no {where}."))
            continue
        for kind, rows in spanning_parts(faces, column, groups).items():
            if kind == "subject" and faces["subject"].isna().all():
                continue
            says = f"{int(rows.sum()):,} faces have their {kind} in several {where}."
            count = int(faces[column].notna().sum())
            checks.append(
                any_is("problem", f"leaks.{column}.{kind}", says, int(rows.sum()), count, _example(faces, rows))
            )
    return Found(checks, {})


def subjects(faces: pd.DataFrame) -> Found:
    """Subjects whose labels contradict each other."""
    known = faces[faces["subject"].notna()]
    if known.empty:
        return Found([not_checked("subjects", "The table names no subjects.")], {})
    keys = ["dataset", "subject"]
    gendered = known[known["gender"].notna()].groupby(keys)["gender"]
    several = gendered.size() > 1
    both = (gendered.agg("nunique") > 1)[several]
    group = known["age_group"].astype("object")
    low = known["age"].fillna(group.map({name: ages[0] for name, ages in _GROUP_AGES.items()}).astype("float64"))
    high = known["age"].fillna(group.map({name: ages[1] for name, ages in _GROUP_AGES.items()}).astype("float64"))
    # At least so many years lie between the youngest and the oldest picture, wherever in their groups they are.
    gap = low.groupby([known[key] for key in keys]).max() - high.groupby([known[key] for key in keys]).min()
    far = gap > APART
    table = pd.concat([both.rename("genders_differ"), gap.clip(lower=0).rename("years_apart")], axis=1).reset_index()
    table = table[table["genders_differ"].eq(True) | (table["years_apart"] > APART)]
    counts = known.groupby(keys).size().rename("faces").reset_index()
    table = table.merge(counts, on=keys).sort_values(keys, ignore_index=True)
    says = f"{int(both.sum()):,} of {len(both):,} subjects with several gendered faces have both genders."
    far_says = f"{int(far.sum()):,} subjects have pictures that are more than {APART:g} years apart by their labels."
    return Found(
        [
            share("subjects.gender", says, int(both.sum()), len(both), CONTRADICTIONS, _first(both)),
            any_is("notice", "subjects.age", far_says, int(far.sum()), len(far), _first(far)),
        ],
        {"subjects": table},
    )


def ages(faces: pd.DataFrame, impossible: pd.DataFrame) -> Found:
    """Ages that cannot be, are rare, are rounded, or contradict the age group."""
    checks = [
        any_is(
            "problem",
            "ages.impossible",
            f"{len(impossible):,} ages are below 0 or above {OLDEST:g} years; every other verb refuses the table.",
            len(impossible),
            len(faces),
            str(impossible["face"].iloc[0]) if len(impossible) else None,
        )
    ]
    known = faces[faces["age"].notna()]
    if known.empty:
        return Found([*checks, not_checked("ages", "No age in years is known.")], {})
    old = (faces["age"] > RARELY).to_numpy()
    odd = (known["age"] % 1 != 0).to_numpy()
    differs = (faces["age"].notna() & (faces["age_group"].astype("object") != age_to_group(faces["age"]))).to_numpy()
    index, ending, counted = whipple(known["age"])
    heaped = f"Whipple's index of ages that end in 0 or 5 is {index:.0f} (100: none are rounded), ages 23 to 62."
    checks += [
        any_is("notice", "ages.rare", f"{int(old.sum())} ages are above {RARELY:g} years.", int(old.sum()), len(known),
               _example(faces, old)),
        any_is("notice", "ages.fractions", f"{int(odd.sum()):,} ages are not whole years.", int(odd.sum()), len(known),
               _example(known, odd)),
        share("ages.group", f"{int(differs.sum()):,} age groups are not those of the ages.", int(differs.sum()),
              len(known), AGE_MISMATCH, _example(faces, differs)),
        any_is("notice" if index > HEAPED else "sound", "ages.heaps", heaped, ending, counted)
        if counted else not_checked("ages.heaps", "No age is between 23 and 62 years."),
    ]  # fmt: skip
    return Found(checks, {})


def whipple(age: pd.Series) -> tuple[float, int, int]:
    """Whipple's index of age heaping: 100 where ages end in 0 or 5 as often as others, 500 where all do.

    Returns:
        The index, over whole years from 23 to 62; how many ages in that range end in 0 or 5; how many are in it.
    """
    years = np.floor(age[(age >= 23) & (age < 63)])
    ending = int((years % 5 == 0).sum())
    return (500 * ending / len(years) if len(years) else float("nan")), ending, len(years)


def pictures_of(faces: pd.DataFrame, measured: pd.DataFrame | None, apart: pd.Series | None) -> Found:
    """Pictures that cannot be read, are too small, blurred or almost uniform, or unlike all others."""
    if measured is None or apart is None:
        return Found([not_checked("pictures", "The pictures were not looked at: no --root.")], {})
    noted = pictures.notes(measured)
    unusable = (noted["unreadable"] | noted["uniform"]).to_numpy()
    says = (
        f"{int(noted['unreadable'].sum()):,} pictures cannot be read and {int(noted['uniform'].sum()):,} are almost "
        f"uniform, of {len(faces):,}."
    )
    checks = [share("pictures.unusable", says, int(unusable.sum()), len(faces), UNUSABLE, _example(faces, unusable))]
    words = {"small": "show a face of fewer than 40 pixels a side", "blurred": "are blurred"}
    for name, rows in noted[["small", "blurred"]].items():
        says = f"{int(rows.sum()):,} pictures {words[str(name)]}."
        example = _example(faces, rows.to_numpy())
        checks.append(any_is("notice", f"pictures.{name}", says, int(rows.sum()), len(faces), example))
    far = (apart > pictures.FAR).to_numpy()
    if apart.isna().all():
        checks.append(not_checked("pictures.outliers", "Too few pictures to tell which are unlike the others."))
    else:
        says = f"{int(far.sum()):,} pictures are unlike the others (more than {pictures.FAR:g} robust deviations)."
        checks.append(any_is("notice", "pictures.outliers", says, int(far.sum()), len(faces), _example(faces, far)))
    table = pd.concat([faces[["face", "path"]], measured, noted, apart.rename("apart")], axis=1)
    return Found(checks, {"pictures": table[noted.any(axis=1) | far].reset_index(drop=True)})


def balance(faces: pd.DataFrame) -> Found:
    """Whether folds and parts hold every class, and the same shares of them."""
    checks, tables = [], []
    for column in ("fold", "split"):
        part = faces[column].astype("object")
        if part.isna().all():
            continue
        for label in ("gender", "age_group"):
            known = part.notna() & faces[label].notna()
            if not known.any():
                continue
            counts = pd.crosstab(part[known], faces.loc[known, label].astype("str"))
            if column == "split":
                counts = counts.loc[[name for name in SPLITS if name in counts.index]]
            table = counts.reset_index(names="part").melt("part", var_name="value", value_name="faces")
            table["of"] = table["part"].map(counts.sum(axis=1))
            table["share"] = table["faces"] / table["of"]
            table["low"], table["high"] = wilson(table["share"].to_numpy(), table["of"].to_numpy())
            tables.append(table.assign(part=table["part"].astype("str")).pipe(_led, column, label))
            checks += _balanced(counts, column, label)
    if not checks:
        return Found([not_checked("balance", "The table has no folds and no parts of a split.")], {})
    return Found(checks, {"balance": pd.concat(tables, ignore_index=True)})


def _led(table: pd.DataFrame, column: str, label: str) -> pd.DataFrame:
    table.insert(0, "label", label)
    table.insert(0, "by", column)
    return table


def _balanced(counts: pd.DataFrame, column: str, label: str) -> list[Check]:
    from scipy.stats import chi2_contingency

    total = int(counts.to_numpy().sum())
    lacking = int((counts == 0).to_numpy().sum())
    name = f"balance.{column}.{label}"
    classes = f"{lacking} of {counts.size} combinations of {column} and {label} have no face."
    checks = [any_is("problem", f"{name}.classes", classes, lacking, counts.size)]
    if min(counts.shape) < 2:
        return checks
    statistic, p = chi2_contingency(counts.to_numpy(), correction=False)[:2]
    v = float(np.sqrt(statistic / total / (min(counts.shape) - 1)))
    says = (
        f"{label} and {column}: Cramer's V {v:.3f} (0: the same shares in each), p {p:.2g} if faces were independent, "
        f"n {total:,}."
    )
    return [*checks, any_is("notice", name, says, total if v > UNEQUAL and p < 0.01 else 0, total)]


def _example(faces: pd.DataFrame, rows: np.ndarray) -> str | None:
    return str(faces["face"].to_numpy()[rows][0]) if rows.any() else None


def _first(rows: pd.Series) -> str | None:
    """The data set and subject of the first row that holds."""
    return " ".join(map(str, rows.index[rows.to_numpy(dtype=bool)][0])) if rows.any() else None
