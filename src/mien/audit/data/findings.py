"""The checks of a data audit; each function returns checks and the tables behind them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mien.audit.data import image_quality
from mien.audit.data.checks import Check, CheckLevel, count_check, not_checked, share_check
from mien.base.table import OLDEST, SPLITS, age_ranges, age_to_group
from mien.data.duplicates import RECALL
from mien.data.image_files import Images
from mien.data.leaks import spanning_parts
from mien.metrics.intervals import wilson

MAX_UNUSABLE = 0.01
"""Share of unreadable or almost uniform images above which this is a problem (as data.max_unreadable)."""

MAX_CONFLICTS = 0.05
"""Share of groups of near-duplicates with conflicting genders above which this is a problem.

If one of two labels is wrong in 5% of the pairs, 2.5% of the labels are wrong, and no score above 97.5% is meaningful.
"""

MAX_CONTRADICTIONS = 0.01
"""Share of subjects with both genders above which this is a problem."""

MAX_AGE_MISMATCH = 0.01
"""Share of faces whose age group does not match their age above which this is a problem."""

RARE_AGE = 110.0
"""Ages in years above this are rare."""

MAX_YEARS_APART = 30.0
"""A larger range of ages in years within one subject is a notice; age groups count by their youngest or oldest age."""

MAX_WHIPPLE = 125.0
"""Whipple's index above which ages count as rounded (United Nations: 125 to 175 is rough)."""

MAX_CRAMERS_V = 0.1
"""Cramer's V of a label and the fold above which the folds differ."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one group of checks: the checks, and tables by file name."""

    checks: list[Check]
    tables: dict[str, pd.DataFrame]


def take_out_impossible_ages(faces: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the table with impossible ages (outside 0 to `OLDEST`) removed, and the rows that had them, sorted by id.

    `table.check_faces` rejects impossible ages; an audit should report them and continue.
    """
    faces = faces.copy()
    faces["face"] = faces["face"].astype("str") if "face" in faces else None
    faces = faces.sort_values("face", kind="stable", ignore_index=True)
    if "age" not in faces or not pd.api.types.is_numeric_dtype(faces["age"]):
        return faces, faces.head(0)
    impossible = (faces["age"] < 0) | (faces["age"] > OLDEST)
    rows = faces[impossible]
    return faces.assign(age=faces["age"].astype("float64").mask(impossible)), rows


def duplicates(faces: pd.DataFrame, images: Images | None) -> CheckResult:
    """Checks for near-duplicate images and whether their labels agree."""
    if images is None:
        return CheckResult([not_checked("duplicates", "Near-duplicates need the images: no --root was given.")], {})
    pairs = images.pairs
    exact = int(pairs["exact"].sum())
    several = pd.Series(images.groups).groupby(images.groups).transform("size").to_numpy() > 1
    checks = [
        count_check(
            "notice",
            "duplicates",
            f"{len(pairs):,} pairs of near-duplicate images ({exact:,} with equal hashes), among "
            f"{int(several.sum()):,} of {len(faces):,} faces." + ("" if several.any() else f" {RECALL}"),
            int(several.sum()),
            len(faces),
            _example(faces, several),
        )
    ]
    alone = ~faces["path"].duplicated(keep=False).to_numpy()  # with several faces in a file, the match is ambiguous
    for column, words in (("gender", "gender"), ("age_group", "the age group")):
        rows = several & alone & faces[column].notna().to_numpy()
        labels = faces.loc[rows, column].astype("object")
        by = labels.groupby(images.groups[rows])
        groups = int((by.size() > 1).sum())
        conflict = np.zeros(len(faces), dtype=bool)
        conflict[rows] = by.transform("nunique").to_numpy() > 1
        count = len(np.unique(images.groups[conflict]))
        message = f"{count:,} of {groups:,} groups of near-duplicates disagree about {words}."
        name, example = f"duplicates.{column}", _example(faces, conflict)
        if column == "gender":
            checks.append(share_check(name, message, count, groups, MAX_CONFLICTS, example))
        else:  # annotators may well choose neighbouring groups
            checks.append(count_check("notice", name, message, count, groups, example))
    return CheckResult(checks, {"duplicates": pairs})


def leaks(faces: pd.DataFrame, groups: np.ndarray | None) -> CheckResult:
    """Checks whether subjects, photographs or near-duplicates are in several folds or parts of a split."""
    checks = []
    for column, where in (("fold", "folds"), ("split", "parts of the split")):
        if faces[column].isna().all():
            checks.append(not_checked(f"leaks.{column}", f"The table has no {where}."))
            continue
        for kind, rows in spanning_parts(faces, column, groups).items():
            if kind == "subject" and faces["subject"].isna().all():
                continue
            message = f"{int(rows.sum()):,} faces have their {kind} in several {where}."
            if kind == "near-duplicate" and not rows.any():
                message += f" {RECALL}"
            count = int(faces[column].notna().sum())
            checks.append(
                count_check("problem", f"leaks.{column}.{kind}", message, int(rows.sum()), count, _example(faces, rows))
            )
    return CheckResult(checks, {})


def subjects(faces: pd.DataFrame) -> CheckResult:
    """Checks for subjects with contradictory labels."""
    known = faces[faces["subject"].notna()]
    if known.empty:
        return CheckResult([not_checked("subjects", "The table has no subjects.")], {})
    keys = ["dataset", "subject"]
    gendered = known[known["gender"].notna()].groupby(keys)["gender"]
    several = gendered.size() > 1
    both = (gendered.agg("nunique") > 1)[several]
    low, high = (pd.Series(years, index=known.index) for years in age_ranges(known).T)
    # A lower bound of the years between the youngest and the oldest image, wherever in their groups they are.
    gap = low.groupby([known[key] for key in keys]).max() - high.groupby([known[key] for key in keys]).min()
    far = gap > MAX_YEARS_APART
    table = pd.concat([both.rename("genders_differ"), gap.clip(lower=0).rename("years_apart")], axis=1).reset_index()
    table = table[table["genders_differ"].eq(True) | (table["years_apart"] > MAX_YEARS_APART)]
    counts = known.groupby(keys).size().rename("faces").reset_index()
    table = table.merge(counts, on=keys).sort_values(keys, ignore_index=True)
    message = f"{int(both.sum()):,} of {len(both):,} subjects with several gendered faces have both genders."
    far_message = f"{int(far.sum()):,} subjects have images labelled more than {MAX_YEARS_APART:g} years apart."
    return CheckResult(
        [
            share_check("subjects.gender", message, int(both.sum()), len(both), MAX_CONTRADICTIONS, _first(both)),
            count_check("notice", "subjects.age", far_message, int(far.sum()), len(far), _first(far)),
        ],
        {"subjects": table},
    )


def ages(faces: pd.DataFrame, impossible: pd.DataFrame) -> CheckResult:
    """Checks for impossible, rare and rounded ages, and ages that contradict the age group."""
    checks = [
        count_check(
            "problem",
            "ages.impossible",
            f"{len(impossible):,} ages are below 0 or above {OLDEST:g} years; all other commands reject this table.",
            len(impossible),
            len(faces),
            str(impossible["face"].iloc[0]) if len(impossible) else None,
        )
    ]
    known = faces[faces["age"].notna()]
    if known.empty:
        return CheckResult([*checks, not_checked("ages", "No age in years is known.")], {})
    old = (faces["age"] > RARE_AGE).to_numpy()
    odd = (known["age"] % 1 != 0).to_numpy()
    differs = (faces["age"].notna() & (faces["age_group"].astype("object") != age_to_group(faces["age"]))).to_numpy()
    index, ending, counted = whipple(known["age"])
    heaped = f"Whipple's index of ages that end in 0 or 5 is {index:.0f} (100: none are rounded), ages 23 to 62."
    n_old, n_odd, n_different = int(old.sum()), int(odd.sum()), int(differs.sum())
    rare = f"{n_old} ages are above {RARE_AGE:g} years."
    fractions, mismatch = f"{n_odd:,} ages are not whole years.", f"{n_different:,} age groups do not match the age."
    level: CheckLevel = "notice" if index > MAX_WHIPPLE else "ok"
    checks += [
        count_check("notice", "ages.rare", rare, n_old, len(known), _example(faces, old)),
        count_check("notice", "ages.fractions", fractions, n_odd, len(known), _example(known, odd)),
        share_check("ages.group", mismatch, n_different, len(known), MAX_AGE_MISMATCH, _example(faces, differs)),
        count_check(level, "ages.heaps", heaped, ending, counted)
        if counted
        else not_checked("ages.heaps", "No age is between 23 and 62 years."),
    ]
    return CheckResult(checks, {})


def whipple(age: pd.Series) -> tuple[float, int, int]:
    """Whipple's index of age heaping: 100 if ages end in 0 or 5 as often as expected, 500 if all do.

    Returns:
        The index, over whole years from 23 to 62; how many ages in that range end in 0 or 5; how many are in it.
    """
    years = np.floor(age[(age >= 23) & (age < 63)])
    ending = int((years % 5 == 0).sum())
    return (500 * ending / len(years) if len(years) else float("nan")), ending, len(years)


def image_checks(faces: pd.DataFrame, measured: pd.DataFrame | None, scores: pd.Series | None) -> CheckResult:
    """Checks for images that are unreadable, small, blurred, almost uniform, or outliers."""
    if measured is None or scores is None:
        return CheckResult([not_checked("images", "The images were not checked: no --root was given.")], {})
    flags = image_quality.quality_flags(measured)
    unusable = (flags["unreadable"] | flags["uniform"]).to_numpy()
    message = (
        f"{int(flags['unreadable'].sum()):,} images cannot be read and {int(flags['uniform'].sum()):,} are almost "
        f"uniform, of {len(faces):,}."
    )
    checks = [
        share_check(
            "images.unusable", message, int(unusable.sum()), len(faces), MAX_UNUSABLE, _example(faces, unusable)
        )
    ]
    words = {"small": "show a face of fewer than 40 pixels a side", "blurred": "are blurred"}
    for name, rows in flags[["small", "blurred"]].items():
        message = f"{int(rows.sum()):,} images {words[str(name)]}."
        example = _example(faces, rows.to_numpy())
        checks.append(count_check("notice", f"images.{name}", message, int(rows.sum()), len(faces), example))
    far = (scores > image_quality.OUTLIER_SCORE).to_numpy()
    if scores.isna().all():
        checks.append(not_checked("images.outliers", "Too few images to detect outliers."))
    else:
        limit = f"more than {image_quality.OUTLIER_SCORE:g} robust standard deviations"
        message = f"{int(far.sum()):,} images are outliers ({limit})."
        checks.append(
            count_check("notice", "images.outliers", message, int(far.sum()), len(faces), _example(faces, far))
        )
    table = pd.concat([faces[["face", "path"]], measured, flags, scores.rename("outlier_score")], axis=1)
    return CheckResult(checks, {"image_quality": table[flags.any(axis=1) | far].reset_index(drop=True)})


def balance(faces: pd.DataFrame) -> CheckResult:
    """Checks whether folds and parts contain every class, in the same proportions."""
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
            tables.append(table.assign(part=table["part"].astype("str")).pipe(_with_columns, column, label))
            checks += _balanced(counts, column, label)
    if not checks:
        return CheckResult([not_checked("balance", "The table has neither folds nor a split.")], {})
    return CheckResult(checks, {"balance": pd.concat(tables, ignore_index=True)})


def _with_columns(table: pd.DataFrame, column: str, label: str) -> pd.DataFrame:
    table.insert(0, "label", label)
    table.insert(0, "by", column)
    return table


def _balanced(counts: pd.DataFrame, column: str, label: str) -> list[Check]:
    from scipy.stats import chi2_contingency

    total = int(counts.to_numpy().sum())
    lacking = int((counts == 0).to_numpy().sum())
    name = f"balance.{column}.{label}"
    classes = f"{lacking} of {counts.size} combinations of {column} and {label} have no faces."
    checks = [count_check("problem", f"{name}.classes", classes, lacking, counts.size)]
    if min(counts.shape) < 2:
        return checks
    statistic, p = chi2_contingency(counts.to_numpy(), correction=False)[:2]
    v = float(np.sqrt(statistic / total / (min(counts.shape) - 1)))
    message = (
        f"{label} and {column}: Cramer's V {v:.3f} (0: equal proportions), p {p:.2g} assuming independent faces, "
        f"n {total:,}."
    )
    return [*checks, count_check("notice", name, message, total if v > MAX_CRAMERS_V and p < 0.01 else 0, total)]


def _example(faces: pd.DataFrame, rows: np.ndarray) -> str | None:
    return str(faces["face"].to_numpy()[rows][0]) if rows.any() else None


def _first(rows: pd.Series) -> str | None:
    """The data set and subject of the first true row."""
    return " ".join(map(str, rows.index[rows.to_numpy(dtype=bool)][0])) if rows.any() else None
