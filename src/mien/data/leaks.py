"""Leaks: subjects, photographs or near-duplicates shared by two parts of a data set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mien.base.errors import MienError
from mien.data.split_units import Kind, checked_groups, unit_keys

_DESCRIPTIONS: dict[Kind, str] = {
    "subject": "show a subject of",
    "photo": "come from a photograph of",
    "near-duplicate": "are near-duplicates of images of",
}


@dataclass(frozen=True)
class Leak:
    """Images of one part (`later`) that share something with another part (`earlier`).

    `images` is their number and `share` their share of the part; `example` has the ids of one of these faces and of a
    face of the earlier part with the same subject, photograph or near-duplicate group.
    """

    kind: Kind
    earlier: str
    later: str
    images: int
    share: float
    example: tuple[str, str]

    def __str__(self) -> str:
        """Describes what leaks, how much, and an example."""
        later, earlier = self.example
        return (
            f"{self.images} {self.later} images ({self.share:.1%}) {_DESCRIPTIONS[self.kind]} the {self.earlier} "
            f"part, for instance {later!r} and {earlier!r}"
        )


class LeakError(MienError):
    """Parts that must be independent share something; see the attribute `leaks`."""

    def __init__(self, leaks: Sequence[Leak]) -> None:
        """Builds the message from all leaks."""
        self.leaks = list(leaks)
        super().__init__("leak: " + "; ".join(map(str, leaks)))

    def __reduce__(self) -> tuple[type["LeakError"], tuple[list[Leak]]]:
        """Keeps the leaks when the error crosses from one process to another."""
        return LeakError, (self.leaks,)


def find_leaks(faces: pd.DataFrame, groups: Sequence[int] | np.ndarray | None = None) -> list[Leak]:
    """Compares the parts of a split table by subject, photograph and near-duplicate.

    Subjects and photographs are those of one data set; where no photograph is given, the file counts as one.

    Args:
        faces: A checked faces table of n rows; rows without a split are left out.
        groups: (n,) labels of near-duplicate groups, as `mien.data.duplicates.groups`; None: not compared.

    Returns:
        One leak for each kind and pair of parts that has one; none: an empty list.
    """
    pairs = [("train", "val"), ("train", "test"), ("val", "test")]
    return _leaks(faces, faces["split"].astype("object").to_numpy(), pairs, groups)


def check_leaks(
    faces: pd.DataFrame, groups: Sequence[int] | np.ndarray | None = None, allow: bool = False
) -> list[Leak]:
    """Returns what `find_leaks` finds, if it finds nothing or leaks are allowed.

    Raises:
        LeakError: There is a leak and `allow` is false; the message has the number of images and an example.
    """
    leaks = find_leaks(faces, groups)
    if leaks and not allow:
        raise LeakError(leaks)
    return leaks


def leaks_between(
    train: pd.DataFrame, other: pd.DataFrame, groups: Sequence[int] | np.ndarray | None = None
) -> list[Leak]:
    """Compares faces for evaluation with the faces that a run was trained on.

    Args:
        train: The run's training faces.
        other: The other faces; their column `split` is ignored.
        groups: (len(train) + len(other),) labels of near-duplicate groups over both tables, `train` first.

    Returns:
        As `find_leaks`, with `earlier` "train" and `later` "other".
    """
    both = pd.concat([train, other], ignore_index=True)
    parts = np.repeat(np.array(["train", "other"], dtype=object), [len(train), len(other)])
    return _leaks(both, parts, [("train", "other")], groups)


def related_to(faces: pd.DataFrame, some: np.ndarray, groups: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """Returns which faces (n, bool) share a subject, photograph or near-duplicate group with one of `some` (n, bool).

    The faces of `some` are included. `groups` are as in `find_leaks`.
    """
    found = some.copy()
    for codes in _compared_keys(faces, groups).values():
        found |= (codes >= 0) & np.isin(codes, codes[some])
    return found


def spanning_parts(
    faces: pd.DataFrame, column: str, groups: Sequence[int] | np.ndarray | None = None
) -> dict[Kind, np.ndarray]:
    """Finds faces whose subject, photograph or near-duplicate group has several values of a column.

    `column` is `fold` or `split`; faces without a value are ignored. `groups` are as in `find_leaks`.

    Returns:
        Kind -> mask (n,) of the faces.
    """
    known = faces[column].notna().to_numpy()
    values = pd.Series(pd.factorize(faces[column])[0][known])
    found = {}
    for kind, codes in _compared_keys(faces, groups).items():
        several = values.groupby(codes[known]).transform("nunique").to_numpy() > 1
        found[kind] = np.zeros(len(faces), dtype=bool)
        found[kind][known] = several & (codes[known] >= 0)
    return found


def _compared_keys(faces: pd.DataFrame, groups: Sequence[int] | np.ndarray | None) -> dict[Kind, np.ndarray]:
    """Returns codes (n,) of what two faces can share, by kind; -1 shares nothing."""
    keys = unit_keys(faces)
    if groups is not None:
        keys["near-duplicate"] = pd.factorize(checked_groups(groups, len(faces)))[0]
    return keys


def _leaks(
    faces: pd.DataFrame,
    parts: np.ndarray,
    pairs: Iterable[tuple[str, str]],
    groups: Sequence[int] | np.ndarray | None,
) -> list[Leak]:
    keys = _compared_keys(faces, groups)
    ids = faces["face"].to_numpy(dtype=object)
    leaks = []
    for earlier, later in pairs:
        before, after = parts == earlier, parts == later
        for kind, codes in keys.items():
            hit = after & (codes >= 0) & np.isin(codes, codes[before])
            if hit.any():
                row = np.flatnonzero(hit)[np.argmin(ids[hit])]
                example = (str(ids[row]), str(min(ids[before & (codes == codes[row])])))
                images = int(hit.sum())
                leaks.append(Leak(kind, earlier, later, images, images / int(after.sum()), example))
    return leaks
