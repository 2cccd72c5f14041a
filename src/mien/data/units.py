"""Units: faces that must stay in one part, because they share a subject, a photograph or a near-duplicate group."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from mien.base.errors import MienError

Kind = Literal["subject", "photo", "near-duplicate"]
"""Why two faces belong together."""


class SplitError(MienError):
    """A table that cannot be split in the way that was asked for."""


def connected(keys: Sequence[np.ndarray]) -> np.ndarray:
    """Labels rows that share a key, directly or through other rows.

    Args:
        keys: Arrays (n,) of codes from 0; -1 shares nothing.

    Returns:
        (n,) labels from 0, in the order of their first rows.
    """
    label = np.arange(len(keys[0]))
    while True:
        parent = np.arange(len(label))
        for codes in keys:
            known = codes >= 0
            smallest = np.full(codes.max(initial=-1) + 1, len(label))
            np.minimum.at(smallest, codes[known], label[known])
            np.minimum.at(parent, label[known], smallest[codes[known]])
        while (parent != parent[parent]).any():
            parent = parent[parent]
        if (parent[label] == label).all():
            return pd.factorize(label)[0]
        label = parent[label]


def unit_keys(faces: pd.DataFrame) -> dict["Kind", np.ndarray]:
    """Codes (n,) of the subject (-1 where it is not known) and the photograph, each within its data set."""
    # Faces that were boxed in the same file are of the same photograph, whether or not the table says so.
    photo = faces["photo"].fillna(faces["path"])
    subject = faces.groupby(["dataset", "subject"], sort=False).ngroup().fillna(-1)
    return {
        "subject": subject.to_numpy(dtype=np.int64),
        "photo": faces.groupby(["dataset", photo], sort=False).ngroup().to_numpy(),
    }


def checked_groups(groups: Sequence[int] | np.ndarray, rows: int) -> np.ndarray:
    """The near-duplicate groups as an array (n,), checked against the number of faces."""
    labels = np.asarray(groups)
    if labels.shape != (rows,):
        raise SplitError(f"groups must have one label for each of the {rows} faces; given: shape {labels.shape}")
    return labels
