"""Splits of a data set into training, validation and test parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mien.base.errors import choices
from mien.base.labels import AGE_GROUPS
from mien.base.table import FACES_COLUMNS, SPLITS, known_labels
from mien.data.split_units import SplitError, checked_groups, connected, unit_keys

TRAIN, VAL, TEST = range(len(SPLITS))


@dataclass(frozen=True)
class _SplitOptions:
    test_fold: int
    val: float
    test: float
    seed: int
    folds: int
    groups: np.ndarray | None


def assign(
    faces: pd.DataFrame,
    method: str,
    *,
    test_fold: int = 0,
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    folds: int = 5,
    groups: Sequence[int] | np.ndarray | None = None,
) -> pd.DataFrame:
    """Fills the column `split` of a faces table.

    The result depends on the faces and the seed, not on the order of the rows.

    Args:
        faces: A checked faces table of n rows.
        method: One of `METHODS`:

            - `folds`: the official fold `test_fold` is the test part; the validation part is taken from the other folds
              by whole subjects, as in `subjects`.
            - `partition`: the official partition, which is in `split` already.
            - `subjects`: by whole subjects, stratified by gender and age group. Faces that share a subject,
              a photograph or a group of near-duplicates stay together, and so does what these chain together.
            - `random`: single images at random. Subjects that have several images then leak.
            - `subject_folds`, `random_folds`: as `subjects` and `random`, but the faces are assigned to
              `folds` equal folds, of which `test_fold` is the test part; every face is in the test part of one of them.
        test_fold: For the three kinds of folds.
        val: Share of the faces outside of the test part, above 0 and below 1 (not for `partition`).
        test: Share of all faces, above 0 and below 1 (for `subjects` and `random`).
        seed: Seed of all but `partition`.
        folds: How many folds to make (for `subject_folds` and `random_folds`), at least 2.
        groups: (n,) labels of near-duplicate groups, as `mien.data.duplicates.groups` (for `folds`, `subjects` and
            `subject_folds`).

    Returns:
        A copy of `faces` with every row in a part.

    Raises:
        SplitError: The method or a share is not valid, the table lacks what the method needs, or a part
            is empty.
    """
    if method not in METHODS:
        raise SplitError(choices("split method", method, METHODS))
    for name, share in (("val", val), ("test", test)):
        if not 0 < share < 1:
            raise SplitError(f"{name}={share!r} is not a valid share; valid: above 0 and below 1")
    if faces.empty:
        raise SplitError("a faces table without rows cannot be split")
    order = np.argsort(faces["face"].to_numpy(dtype=object), kind="stable")
    labels = None if groups is None else checked_groups(groups, len(faces))[order]
    parts = np.empty(len(faces), dtype=np.int64)
    parts[order] = METHODS[method].parts(faces.iloc[order], _SplitOptions(test_fold, val, test, seed, folds, labels))
    counts = np.bincount(parts, minlength=len(SPLITS))
    if (counts == 0).any():
        listed = ", ".join(f"{name} {count}" for name, count in zip(SPLITS, counts, strict=True))
        raise SplitError(
            f"split method {method!r} leaves a part of the {len(faces)} faces empty: {listed}. Faces of one subject, "
            "photograph or group of near-duplicates stay in one part: at least 3 of these are needed"
        )
    out = faces.copy()
    out["split"] = pd.Categorical.from_codes(parts, dtype=FACES_COLUMNS["split"])
    return out


def check_classes(faces: pd.DataFrame, column: str) -> None:
    """Checks that the training part has labels of a column, and of every class in the table.

    Raises:
        SplitError: Names the column and the classes that the training part lacks.
    """
    learning = faces["split"] == "train"
    if not known_labels(faces[learning], column).any():
        raise SplitError(f"column {column!r}: no face of the training part has a label")
    if pd.api.types.is_numeric_dtype(faces[column]):
        return
    counts = faces[column].dropna().value_counts()
    train = set(faces.loc[learning, column].dropna())
    absent = {str(name): int(count) for name, count in counts.items() if count and name not in train}
    if absent:
        listed = ", ".join(f"{name!r} ({count} faces in other parts)" for name, count in absent.items())
        raise SplitError(f"column {column!r}: the training part lacks the class {listed}")


def _folds(faces: pd.DataFrame, options: _SplitOptions) -> np.ndarray:
    fold = faces["fold"]
    known = sorted(int(value) for value in fold.dropna().unique())
    if not known:
        raise SplitError("split method 'folds': the faces table has no folds; split by 'subjects' instead")
    if fold.isna().any():
        raise SplitError(f"split method 'folds': {int(fold.isna().sum())} of {len(faces)} faces have no fold")
    if options.test_fold not in known:
        raise SplitError(f"split method 'folds': {choices('fold', options.test_fold, known)}")
    return _leaving_out(faces, (fold == options.test_fold).to_numpy(dtype=bool), options)


def _leaving_out(faces: pd.DataFrame, is_test: np.ndarray, options: _SplitOptions) -> np.ndarray:
    """Returns parts: the rows of the mask `is_test` (n,) are the test part, whole subjects of the others validation."""
    parts = np.full(len(faces), TEST)
    rest = faces.loc[~is_test]
    groups = None if options.groups is None else options.groups[~is_test]
    if len(rest):
        parts[~is_test] = _by_units(rest, groups, {TRAIN: 1 - options.val, VAL: options.val}, options.seed)
    return parts


def _subject_folds(faces: pd.DataFrame, options: _SplitOptions) -> np.ndarray:
    _check_folds(options, "subject_folds")
    fold = _by_units(faces, options.groups, dict.fromkeys(range(options.folds), 1 / options.folds), options.seed)
    return _leaving_out(faces, fold == options.test_fold, options)


def _random_folds(faces: pd.DataFrame, options: _SplitOptions) -> np.ndarray:
    _check_folds(options, "random_folds")
    order = np.random.default_rng(options.seed).permutation(len(faces))
    fold = np.empty(len(faces), dtype=np.int64)
    fold[order] = np.arange(len(faces)) % options.folds
    rest = order[fold[order] != options.test_fold]
    parts = np.full(len(faces), TEST)
    parts[rest] = TRAIN
    parts[rest[: round(len(rest) * options.val)]] = VAL
    return parts


def _check_folds(options: _SplitOptions, method: str) -> None:
    if options.folds < 2:
        raise SplitError(f"split method {method!r}: {options.folds} folds; valid: at least 2")
    if not 0 <= options.test_fold < options.folds:
        raise SplitError(f"split method {method!r}: {choices('fold', options.test_fold, range(options.folds))}")


def _partition(faces: pd.DataFrame, options: _SplitOptions) -> np.ndarray:
    missing = int(faces["split"].isna().sum())
    if missing:
        raise SplitError(f"split method 'partition': {missing} of {len(faces)} faces are in no part of a partition")
    return faces["split"].cat.codes.to_numpy(dtype=np.int64)


def _subjects(faces: pd.DataFrame, options: _SplitOptions) -> np.ndarray:
    val = (1 - options.test) * options.val
    shares = {TRAIN: 1 - options.test - val, VAL: val, TEST: options.test}
    return _by_units(faces, options.groups, shares, options.seed)


def _random(faces: pd.DataFrame, options: _SplitOptions) -> np.ndarray:
    test = round(len(faces) * options.test)
    val = round((len(faces) - test) * options.val)
    parts = np.repeat([TEST, VAL, TRAIN], [test, val, len(faces) - test - val])
    return np.random.default_rng(options.seed).permutation(parts)


@dataclass(frozen=True)
class SplitMethod:
    """A way to split, and how reports describe it.

    The texts may contain `{test_fold}`, `{folds}` and `{seed}`, settings of `recipe.Split`.

    Attributes:
        parts: Takes the faces in the order of their ids, and gives each row's index in `SPLITS`, (n,).
        protocol: In a few words, for one run.
        sentence: In full, for one run; may also contain `{together}`, which says what stays in one part.
        study: In a few words, for the runs of a study.
        has_folds: Whether the faces form folds, one of which is the test part.
    """

    parts: Callable[[pd.DataFrame, _SplitOptions], np.ndarray]
    protocol: str
    sentence: str
    study: str
    has_folds: bool = False


METHODS = {
    "folds": SplitMethod(
        _folds,
        "official fold {test_fold}",
        "fold {test_fold} of the data set is the test part; the validation part is taken from the other folds so that "
        "{together}",
        "official folds of the data set",
        has_folds=True,
    ),
    "partition": SplitMethod(
        _partition,
        "official partition",
        "the official parts of the data set are used",
        "official partition of the data set",
    ),
    "subjects": SplitMethod(
        _subjects,
        "by subject, seed {seed}",
        "the parts are balanced in gender and age group, {together} (seed {seed})",
        "parts by subject",
    ),
    "random": SplitMethod(
        _random,
        "random images, seed {seed}",
        "single images at random, so that a subject may be in several parts (seed {seed})",
        "random images, which LEAK where a subject has several",
    ),
    "subject_folds": SplitMethod(
        _subject_folds,
        "fold {test_fold} of {folds} made by subject, seed {seed}",
        "the faces were assigned to {folds} folds, balanced in gender and age group, so that {together} (seed {seed}); "
        "fold {test_fold} is the test part, validation comes from the others",
        "folds made by subject",
        has_folds=True,
    ),
    "random_folds": SplitMethod(
        _random_folds,
        "fold {test_fold} of {folds} made of random images, seed {seed}",
        "single images were assigned to {folds} folds at random, so that a subject may be in several parts "
        "(seed {seed}); fold {test_fold} is the test part",
        "folds made of random images, which LEAK where a subject has several",
        has_folds=True,
    ),
}
"""The ways to split by the name that `recipe.Split` gives them."""


def _by_units(faces: pd.DataFrame, groups: np.ndarray | None, shares: dict[int, float], seed: int) -> np.ndarray:
    """Assigns whole units (faces that must stay together) to parts, with about the given shares of each stratum."""
    keys = unit_keys(faces)
    linked = [keys["subject"], keys["photo"]] + ([] if groups is None else [pd.factorize(groups)[0]])
    unit = connected(linked)
    gender, age_group = (faces[column].cat.codes.to_numpy(dtype=np.int64) for column in ("gender", "age_group"))
    strata = pd.factorize(gender * len(AGE_GROUPS) * 2 + age_group)[0]
    counts = np.zeros((unit.max() + 1, strata.max() + 1), dtype=np.int64)
    np.add.at(counts, (unit, strata), 1)
    assigned = _assign_units(counts, np.array(list(shares.values())), np.random.default_rng(seed))
    return np.array(list(shares))[assigned][unit]


def _assign_units(counts: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Assigns units to parts so that each part gets its share of each stratum: greedy, large units first.

    Each step chooses the part for which the counts of images, per stratum and in total, come closest in chi-square
    distance to the target counts of the parts. Units with equal counts are assigned in
    batches, so that a million single images take about as many steps as a few hundred.

    Args:
        counts: (units, strata), images.
        shares: (parts,), which sum to 1.
        rng: Breaks ties between equal units, and between units of about the same size.

    Returns:
        (units,) index of the part of each unit.
    """
    counts = np.column_stack([counts, counts.sum(axis=1)])
    profile = np.zeros(len(counts), dtype=np.int64)
    for column in counts.T:  # np.unique(axis=0) does the same and takes ten times as long
        profile = pd.factorize(profile * (column.max() + 1) + column)[0]
    profiles = counts[np.unique(profile, return_index=True)[1]]
    shuffled = rng.permutation(len(counts))
    members = np.split(shuffled[np.argsort(profile[shuffled], kind="stable")], np.cumsum(np.bincount(profile))[:-1])
    # The order of units of about the same size (within a factor of two) is random, so splits depend on the seed.
    magnitude = np.floor(np.log2(profiles[:, -1]))
    target = shares[:, None] * counts.sum(axis=0)
    have = np.zeros_like(target)
    part = np.empty(len(counts), dtype=np.int64)
    for index in np.lexsort((rng.random(len(profiles)), -magnitude)):
        left = members[index]
        while len(left):
            batch = max(1, len(left) // 16)
            added = profiles[index] * batch
            best = int(np.argmin(((2 * (have - target) + added) * added / target).sum(axis=1)))
            have[best] += added
            part[left[:batch]] = best
            left = left[batch:]
    _fill(part, counts[:, -1], target[:, -1])
    return part


def _fill(part: np.ndarray, sizes: np.ndarray, target: np.ndarray) -> None:
    """Moves units into empty parts, in place: with few faces, a small part can get none of any stratum.

    The unit comes from the part that exceeds its target most and has more than one unit; its size is the closest to
    the target of the empty part.
    """
    for empty in range(len(target)):
        if (part == empty).any():
            continue
        units = np.bincount(part, minlength=len(target))
        surplus = np.bincount(part, weights=sizes, minlength=len(target)) - target
        surplus[units < 2] = -np.inf
        if np.isneginf(surplus).all():
            return
        spare = np.flatnonzero(part == surplus.argmax())
        part[spare[np.abs(sizes[spare] - target[empty]).argmin()]] = empty
