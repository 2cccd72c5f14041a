"""Which faces teach (train), choose (val) and judge (test), and the check that no part leaks into another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mien.base.errors import choices
from mien.base.labels import AGE_GROUPS
from mien.base.table import FACES_COLUMNS, SPLITS
from mien.data.units import SplitError, checked_groups, connected, unit_keys

TRAIN, VAL, TEST = range(len(SPLITS))


@dataclass(frozen=True)
class _Asked:
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

            - `folds`: the official fold `test_fold` judges; the validation part is taken from the other folds
              by whole subjects, as in `subjects`.
            - `partition`: the official partition, which is in `split` already.
            - `subjects`: by whole subjects, stratified by gender and age group. Faces that share a subject,
              a photograph or a group of near-duplicates stay together, and so does what these chain together.
            - `random`: single images at random. Subjects that have several images then leak.
            - `subject_folds`, `random_folds`: as `subjects` and `random`, but the faces are dealt into `folds`
              equal folds, of which `test_fold` judges; every face is in the test part of one of them.
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
            raise SplitError(f"{name}={share!r} is no valid share; valid: above 0 and below 1")
    if faces.empty:
        raise SplitError("a faces table without rows cannot be split")
    order = np.argsort(faces["face"].to_numpy(dtype=object), kind="stable")
    labels = None if groups is None else checked_groups(groups, len(faces))[order]
    parts = np.empty(len(faces), dtype=np.int64)
    parts[order] = METHODS[method].parts(faces.iloc[order], _Asked(test_fold, val, test, seed, folds, labels))
    counts = np.bincount(parts, minlength=len(SPLITS))
    if (counts == 0).any():
        listed = ", ".join(f"{name} {count}" for name, count in zip(SPLITS, counts, strict=True))
        raise SplitError(f"split method {method!r} leaves a part of the {len(faces)} faces empty: {listed}")
    out = faces.copy()
    out["split"] = pd.Categorical.from_codes(parts, dtype=FACES_COLUMNS["split"])
    return out


def check_classes(faces: pd.DataFrame, column: str) -> None:
    """Checks that the training part can teach a column: it has labels, and of every class that the table has.

    Raises:
        SplitError: Names the column and the classes that the training part lacks.
    """
    train = faces.loc[faces["split"] == "train", column].dropna()
    if train.empty:
        raise SplitError(f"column {column!r}: no face of the training part has a label")
    if pd.api.types.is_numeric_dtype(faces[column]):
        return
    counts = faces[column].dropna().value_counts()
    absent = {str(name): int(count) for name, count in counts.items() if count and name not in set(train)}
    if absent:
        listed = ", ".join(f"{name!r} ({count} faces in other parts)" for name, count in absent.items())
        raise SplitError(f"column {column!r}: the training part lacks the class {listed}")


def _folds(faces: pd.DataFrame, asked: _Asked) -> np.ndarray:
    fold = faces["fold"]
    known = sorted(int(value) for value in fold.dropna().unique())
    if not known:
        raise SplitError("split method 'folds': the faces table has no folds; split by 'subjects' instead")
    if fold.isna().any():
        raise SplitError(f"split method 'folds': {int(fold.isna().sum())} of {len(faces)} faces have no fold")
    if asked.test_fold not in known:
        raise SplitError(f"split method 'folds': {choices('fold', asked.test_fold, known)}")
    return _leaving_out(faces, (fold == asked.test_fold).to_numpy(dtype=bool), asked)


def _leaving_out(faces: pd.DataFrame, judges: np.ndarray, asked: _Asked) -> np.ndarray:
    """Parts where `judges` (n,) are the test part, and whole subjects of the others the validation part."""
    parts = np.full(len(faces), TEST)
    rest = faces.loc[~judges]
    groups = None if asked.groups is None else asked.groups[~judges]
    if len(rest):
        parts[~judges] = _by_units(rest, groups, {TRAIN: 1 - asked.val, VAL: asked.val}, asked.seed)
    return parts


def _subject_folds(faces: pd.DataFrame, asked: _Asked) -> np.ndarray:
    _check_folds(asked, "subject_folds")
    fold = _by_units(faces, asked.groups, dict.fromkeys(range(asked.folds), 1 / asked.folds), asked.seed)
    return _leaving_out(faces, fold == asked.test_fold, asked)


def _random_folds(faces: pd.DataFrame, asked: _Asked) -> np.ndarray:
    _check_folds(asked, "random_folds")
    order = np.random.default_rng(asked.seed).permutation(len(faces))
    fold = np.empty(len(faces), dtype=np.int64)
    fold[order] = np.arange(len(faces)) % asked.folds
    rest = order[fold[order] != asked.test_fold]
    parts = np.full(len(faces), TEST)
    parts[rest] = TRAIN
    parts[rest[: round(len(rest) * asked.val)]] = VAL
    return parts


def _check_folds(asked: _Asked, method: str) -> None:
    if asked.folds < 2:
        raise SplitError(f"split method {method!r}: {asked.folds} folds; valid: at least 2")
    if not 0 <= asked.test_fold < asked.folds:
        raise SplitError(f"split method {method!r}: {choices('fold', asked.test_fold, range(asked.folds))}")


def _partition(faces: pd.DataFrame, asked: _Asked) -> np.ndarray:
    missing = int(faces["split"].isna().sum())
    if missing:
        raise SplitError(f"split method 'partition': {missing} of {len(faces)} faces are in no part of a partition")
    return faces["split"].cat.codes.to_numpy(dtype=np.int64)


def _subjects(faces: pd.DataFrame, asked: _Asked) -> np.ndarray:
    val = (1 - asked.test) * asked.val
    shares = {TRAIN: 1 - asked.test - val, VAL: val, TEST: asked.test}
    return _by_units(faces, asked.groups, shares, asked.seed)


def _random(faces: pd.DataFrame, asked: _Asked) -> np.ndarray:
    test = round(len(faces) * asked.test)
    val = round((len(faces) - test) * asked.val)
    parts = np.repeat([TEST, VAL, TRAIN], [test, val, len(faces) - test - val])
    return np.random.default_rng(asked.seed).permutation(parts)


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

    parts: Callable[[pd.DataFrame, _Asked], np.ndarray]
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
    """Deals whole units (faces that must stay together) to parts, each stratum in about the given shares."""
    keys = unit_keys(faces)
    linked = [keys["subject"], keys["photo"]] + ([] if groups is None else [pd.factorize(groups)[0]])
    unit = connected(linked)
    gender, age_group = (faces[column].cat.codes.to_numpy(dtype=np.int64) for column in ("gender", "age_group"))
    strata = pd.factorize(gender * len(AGE_GROUPS) * 2 + age_group)[0]
    counts = np.zeros((unit.max() + 1, strata.max() + 1), dtype=np.int64)
    np.add.at(counts, (unit, strata), 1)
    dealt = _deal(counts, np.array(list(shares.values())), np.random.default_rng(seed))
    return np.array(list(shares))[dealt][unit]


def _deal(counts: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deals units to parts so that every part gets its share of every stratum; greedy, large units first.

    Each step takes the part that brings the images dealt, of each stratum and of all together, nearest in the
    chi-square distance to those that the parts should have in the end. Units with equal counts are dealt in
    batches, so that a million single images take about as many steps as a few hundred.

    Args:
        counts: (units, strata), images.
        shares: (parts,), which sum to 1.
        rng: Says which of two alike units goes where, and which unit of about the same size goes first.

    Returns:
        (units,), the index of the part.
    """
    counts = np.column_stack([counts, counts.sum(axis=1)])
    profile = np.zeros(len(counts), dtype=np.int64)
    for column in counts.T:  # np.unique(axis=0) does the same and takes ten times as long
        profile = pd.factorize(profile * (column.max() + 1) + column)[0]
    profiles = counts[np.unique(profile, return_index=True)[1]]
    shuffled = rng.permutation(len(counts))
    members = np.split(shuffled[np.argsort(profile[shuffled], kind="stable")], np.cumsum(np.bincount(profile))[:-1])
    # Among units of about the same size (within a factor of two) chance decides: other seeds, other splits.
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
    """Moves units into parts that got none, in place: of few faces, no stratum alone may ask for one in a small part.

    The unit comes from the part that is most above its target and can spare one, and is the one nearest in size to what
    the empty part should have.
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
