"""Units: faces that must be in the same part because they share a subject, photograph or near-duplicate group."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from mien.base.errors import MienError, MissingExtra

Kind = Literal["subject", "photo", "near-duplicate"]
"""What two faces share."""


class SplitError(MienError):
    """A table cannot be split as requested."""


def components(first: np.ndarray, second: np.ndarray, size: int) -> np.ndarray:
    """Labels the connected components of an undirected graph.

    Args:
        first: (edges,) nodes from 0 to `size` - 1.
        second: (edges,) the other end of each edge.
        size: Number of nodes.

    Returns:
        (size,) labels from 0.
    """
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    except ImportError:
        raise MissingExtra("grouping of related faces", "report") from None
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(size, size))
    return connected_components(graph, directed=False)[1]


def connected(keys: Sequence[np.ndarray]) -> np.ndarray:
    """Labels rows that share a key, directly or through other rows.

    Args:
        keys: Arrays (n,) of codes from 0; rows with code -1 share nothing.

    Returns:
        (n,) labels from 0, in the order of their first rows.
    """
    rows = size = len(keys[0])
    first, second = [], []
    for codes in keys:  # each code is a node too, linked to its rows
        known = np.flatnonzero(codes >= 0)
        first.append(known)
        second.append(size + codes[known])
        size += codes.max(initial=-1) + 1
    return pd.factorize(components(np.concatenate(first), np.concatenate(second), int(size))[:rows])[0]


def unit_keys(faces: pd.DataFrame) -> dict["Kind", np.ndarray]:
    """Returns codes (n,) of the subject (-1 if unknown) and the photograph, each within its data set."""
    # Faces with boxes in the same file belong to the same photograph, even if the table has no photo column.
    photo = faces["photo"].fillna(faces["path"])
    subject = faces.groupby(["dataset", "subject"], sort=False).ngroup().fillna(-1)
    return {
        "subject": subject.to_numpy(dtype=np.int64),
        "photo": faces.groupby(["dataset", photo], sort=False).ngroup().to_numpy(),
    }


def checked_groups(groups: Sequence[int] | np.ndarray, rows: int) -> np.ndarray:
    """Returns the near-duplicate groups as an array (n,), checked against the number of faces."""
    labels = np.asarray(groups)
    if labels.shape != (rows,):
        raise SplitError(f"groups must have one label for each of the {rows} faces; given: shape {labels.shape}")
    return labels
