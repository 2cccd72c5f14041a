"""Several data sets as one faces table: read, each split by itself, and cleared of pictures that two of them share.

A joined table has the name of the set in the column `dataset` and before each face's id and path, so that both are
unique: `aaf/00000A02.jpg`. Subjects and photographs keep their names and are compared within their set only.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mien.base.errors import MienError
from mien.base.ledger import Entry, Ledger
from mien.base.table import SPLITS, read_faces_table
from mien.data import splits
from mien.data.sources import read_faces
from mien.data.split_units import SplitError
from mien.recipe.settings import Data, DataSet, Recipe, split_of


def read_data(data: Data) -> tuple[pd.DataFrame, Ledger]:
    """Reads the data set of a recipe, or joins several.

    Returns:
        The faces, and what became of every row of each source.

    Raises:
        MienError: A data set cannot be read; where there are several, the message names it.
    """
    if data.sets and data.faces is not None:
        return _read_joined(data, data.faces)
    tables, ledgers = {}, {}
    for name, one in data.each().items():
        try:
            if one.faces is not None:
                tables[name] = read_faces_table(one.faces)
            else:
                assert one.root is not None
                tables[name] = read_faces(one.source, one.root, one.labels, one.map or None)
        except MienError as error:
            raise MienError(f"data.sets.{name}: {error}") if data.sets else error from None
        found = tables[name].attrs.get("ledger")
        ledgers[name] = Ledger.from_dict(found) if found else Ledger(one.source, len(tables[name]))
    if not data.sets:
        return next(iter(tables.values())), next(iter(ledgers.values()))
    return join_sets(tables), _joined_ledger(data.title, ledgers)


def _read_joined(data: Data, file: str) -> tuple[pd.DataFrame, Ledger]:
    """Reads a table that was joined before, in the order of the sets."""
    faces = read_faces_table(file)
    ledger = Ledger(data.title, len(faces))
    faces = ledger.drop(faces, ~faces["dataset"].isin(list(data.sets)), "a data set that is not in data.sets")
    parts = {name: faces[faces["dataset"] == name] for name in data.sets}
    absent = [name for name, own in parts.items() if own.empty]
    if absent:
        raise MienError(f"data.faces {file!r}: no row has {absent[0]!r} in the column dataset")
    return pd.concat(parts.values(), ignore_index=True), ledger


def join_sets(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Joins checked faces tables; columns that only some of them have are missing in the others."""
    named = [
        table.assign(
            dataset=name,
            face=f"{name}/" + table["face"],
            path=f"{name}/" + table["path"],
            photo=table["photo"].fillna(table["path"]),
        )
        for name, table in tables.items()
    ]
    for table in named:
        table.attrs = {}  # pandas compares them
    return pd.concat(named, ignore_index=True)


def _joined_ledger(title: str, ledgers: Mapping[str, Ledger]) -> Ledger:
    entries = [
        Entry(entry.kind, f"{name}: {entry.reason}", entry.rows, entry.example)
        for name, ledger in ledgers.items()
        for entry in ledger.entries
    ]
    return Ledger(title, sum(ledger.read for ledger in ledgers.values()), entries)


def assign_parts(faces: pd.DataFrame, recipe: Recipe, groups: Mapping[str, np.ndarray] | None) -> pd.DataFrame:
    """Splits the faces of a recipe, each data set by its own method.

    Args:
        faces: What `read_data` returned, or some of its rows.
        recipe: The recipe.
        groups: Labels of near-duplicate groups by the name of the data set, see `mien.data.splits.assign`.

    Raises:
        SplitError: A data set cannot be split; where there are several, the message names it.
    """
    parts = []
    for name in recipe.data.each():
        own = faces[faces["dataset"] == name] if recipe.data.sets else faces
        split = split_of(recipe, name)
        try:
            parts.append(
                splits.assign(
                    own,
                    split.method,
                    test_fold=split.test_fold,
                    val=split.val,
                    test=split.test,
                    seed=split.seed,
                    folds=split.folds,
                    groups=None if groups is None else groups[name],
                )
            )
        except SplitError as error:
            raise SplitError(f"data.sets.{name}: {error}") if recipe.data.sets else error from None
    return pd.concat(parts, ignore_index=True) if recipe.data.sets else parts[0]


def without_untrained(faces: pd.DataFrame, sets: Mapping[str, DataSet], ledger: Ledger) -> pd.DataFrame:
    """Returns the faces without the training and validation part of data sets that have the weight 0."""
    for name, one in sets.items():
        if not one.weight:
            rows = (faces["dataset"] == name) & (faces["split"] != "test")
            faces = ledger.drop(faces, rows, f"{name}: its weight is 0, so only its test part is used")
    return faces


def without_shared(faces: pd.DataFrame, groups: np.ndarray, ledger: Ledger) -> pd.DataFrame:
    """Returns the faces without training and validation faces that a later part of another data set has too.

    Each data set is split by itself, so that its test part does not depend on the others; what two sets share then has
    to leave the part that comes first (train, val, test).

    Args:
        faces: A joined table of n rows with its split.
        groups: (n,) labels of near-duplicate groups over all sets.
        ledger: Where the faces are counted.
    """
    part = faces["split"].cat.codes.to_numpy()
    dataset = pd.factorize(faces["dataset"])[0]
    rows = pd.DataFrame({"group": groups, "part": part, "dataset": dataset})
    latest = rows.groupby(["group", "dataset"])["part"].max().reset_index()
    pairs = latest.merge(latest, on="group", suffixes=("", "_other"))
    pairs = pairs[pairs["dataset"] != pairs["dataset_other"]]
    beyond = pairs.groupby(["group", "dataset"])["part_other"].max()
    other = beyond.reindex(pd.MultiIndex.from_arrays([rows["group"], rows["dataset"]])).to_numpy()
    shared = other > part  # NaN, no other set, is not
    for code, name in enumerate(pd.unique(faces["dataset"])):
        for at, left in enumerate(SPLITS[:-1]):
            mine = shared & (dataset == code) & (part == at)
            ledger.drop(faces, mine, f"{name}: a {left} face that is in a later part of another data set")
    return faces[~shared]
