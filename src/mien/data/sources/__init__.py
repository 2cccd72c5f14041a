"""The data sets: each is a module here that reads it into the faces table, and a line in `SOURCES`.

To add a data set, write a module with `NOTICE`, `LABELS` and `read` (see `Adapter`) and add it to the dictionary.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from mien.base.errors import MienError, choices
from mien.base.labels import PREDICTED
from mien.base.ledger import Ledger
from mien.base.table import check_faces
from mien.data.corrections import apply_corrections
from mien.data.roots import data_root
from mien.data.sources import _files, aaf, adience, celeba, csv, fairface, lfw, utkface


class Adapter(Protocol):
    """What the module of a data set defines.

    `NOTICE` states the terms of use in a sentence. `LABELS` describes each label policy in a line, the default first.
    `read(root, labels)` returns the faces and the ledger of all rows; further keyword arguments are options of this
    data set alone. A module of a data set without ages defines `TASKS`, the tasks that can be learnt from it. It may
    also define `FACES`, the size of the complete data set, and `TRAIN_FACES`, that of the training part of its official
    partition; estimates of cost use them while the data are not available.
    """

    NOTICE: str
    LABELS: dict[str, str]
    read: Callable[..., tuple[pd.DataFrame, Ledger]]


SOURCES: dict[str, Adapter] = {
    "adience": adience,
    "celeba": celeba,
    "utkface": utkface,
    "fairface": fairface,
    "aaf": aaf,
    "lfw": lfw,
    "csv": csv,
}
"""The data sets by name."""


def tasks_of(source: str) -> tuple[str, ...]:
    """The tasks that can be learnt from a data set, as far as is known without reading it."""
    if source not in SOURCES:
        raise MienError(choices("source", source, SOURCES))
    return tuple(getattr(SOURCES[source], "TASKS", PREDICTED))


def published_faces(source: str) -> tuple[int, int] | None:
    """The number of faces of a complete data set, and of its training part; None if the module does not state it."""
    adapter = SOURCES[source]
    faces = getattr(adapter, "FACES", None)
    return None if faces is None else (faces, getattr(adapter, "TRAIN_FACES", faces))


def read_faces(
    source: str,
    root: str | Path,
    labels: str | None = None,
    map: Mapping[str, str] | None = None,
    corrections: str | Path | None = None,
    images: str | Path | None = None,
) -> pd.DataFrame:
    """Reads a data set into a checked faces table.

    Rows whose image is not there are dropped; if there are no images at all, the table is metadata alone.

    Args:
        source: A name in `SOURCES`.
        root: The folder of the data set; for `csv` also the table's file.
        labels: One of the source's label policies, `SOURCES[source].LABELS`; the first of them if None.
        map: For `csv`: the user's names of columns and the names in the faces table that they stand for, and values of
            labels, as "gender.0": "male".
        corrections: A file of corrected labels, see `mien.data.corrections`.
        images: For a table of `csv`: the folder of its images; None: that of the table.

    Returns:
        The faces, one a row, paths relative to `images`, or to `data_root(root)`. `attrs["ledger"]` says what became of
        every row of the source (`Ledger.to_dict`).

    Raises:
        MienError: The source, policy, root or map is not valid, the data set has no faces, its table breaks the
            contract of `table.check_faces`, or a correction does not fit it.
    """
    if source not in SOURCES:
        raise MienError(choices("source", source, SOURCES))
    adapter = SOURCES[source]
    policy = next(iter(adapter.LABELS)) if labels is None else labels
    if policy not in adapter.LABELS:
        raise MienError(f"{source}: {choices('label policy', policy, adapter.LABELS)}")
    options: dict[str, Any] = {"map": dict(map)} if map else {}
    if map and not _takes(source, "map"):
        takers = ", ".join(name for name in SOURCES if _takes(name, "map"))
        raise MienError(f"{source} takes no map of columns (given: {dict(map)}); sources that do: {takers}")
    if images is not None:
        if not _takes(source, "images"):
            raise MienError(f"{source} has its images in its own folder; a folder of images is for a table: csv")
        options["images"] = _files.need_folder(Path(images).expanduser())
    root = Path(root).expanduser()
    faces, ledger = adapter.read(root, policy, **options)
    _need_faces(faces, ledger, root)
    faces = check_faces(faces, f"{source} {str(root)!r}")
    if corrections is not None:
        faces = apply_corrections(faces, corrections, ledger)
    faces = _drop_without_image(faces, options.get("images", data_root(root)), ledger)
    faces.attrs["ledger"] = ledger.to_dict()
    return faces


def _takes(source: str, option: str) -> bool:
    return option in inspect.signature(SOURCES[source].read).parameters


def _drop_without_image(faces: pd.DataFrame, root: Path, ledger: Ledger) -> pd.DataFrame:
    exists = _files.present(root, faces["path"])
    if exists.any():
        return ledger.drop(faces, ~exists, "the image is not there").reset_index(drop=True)
    first = str(root / faces["path"].iloc[0])
    ledger.warn(f"no images are there, the table is metadata alone; looked for {first!r} and others (--root FOLDER)")
    return faces


def _need_faces(faces: pd.DataFrame, ledger: Ledger, root: str | Path) -> None:
    if faces.empty:
        entries = "; ".join(f"{entry.kind} {entry.rows}: {entry.reason}" for entry in ledger.entries)
        found = f"{ledger.read} rows read from {str(root)!r}"
        raise MienError(f"{ledger.source}: no face is left of {found} ({entries or 'it is empty'})")
