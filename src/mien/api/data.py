"""Data: draw demonstration faces, read a data set into the faces table, explore it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mien.api.arguments import PathLike, as_faces
from mien.base.console import progress
from mien.base.errors import MienError

if TYPE_CHECKING:
    import pandas as pd


def draw(root: PathLike, layout: str = "adience", seed: int = 0, *, subjects: int | None = None) -> dict[str, int]:
    """Draws demonstration faces in the layout of Adience or CelebA; they show that the software works, nothing more.

    Args:
        root: Folder to write: a new one, or one with an earlier drawing of this layout, which is replaced.
        layout: "adience" or "celeba".
        seed: Another seed draws other faces.
        subjects: Number of people, at least 10; None: 400, which makes about 2,500 images.

    Returns:
        How many images, subjects and rows were written.

    Raises:
        MienError: An argument is not valid, or the folder holds something else.

    Examples:
        >>> import tempfile, mien
        >>> mien.draw(tempfile.mkdtemp() + "/faces", subjects=10)["subjects"]
        10
    """
    from mien.demo.dataset import draw_faces

    with progress("drawing") as update:
        return draw_faces(root, layout, seed, subjects, progress=update)


def faces(
    source: str,
    path: PathLike,
    labels: str | None = None,
    *,
    root: PathLike | None = None,
    map: Mapping[str, str] | None = None,
    corrections: PathLike | None = None,
    out: PathLike | None = None,
    overwrite: bool = False,
) -> "pd.DataFrame":
    """Reads a data set into the faces table.

    Args:
        source: The data set, a name in `mien.data.sources.SOURCES`, for instance "adience" or "csv".
        path: Folder of the data set; for "csv" a table, or a folder with one folder for each class.
        labels: Label policy of the source; None: its default.
        root: For a table of "csv": the folder that its paths are relative to; None: the folder of the table.
        map: For "csv": columns of the table and the columns of the faces table that they stand for, and values of
            labels, as "gender.0": "male", "age.child": "4-12" or "gender.x": "missing".
        corrections: CSV file of corrected labels with the columns face, column, old, new and why.
        out: Faces table to write, .parquet or .csv; None: nothing is written.
        overwrite: Replace `out` if it exists.

    Returns:
        One row per face; `attrs["ledger"]` counts every row of the source, with the reason for each change.

    Raises:
        MienError: The source, policy, folder or map is not valid, no face is left, or `out` exists.

    Examples:
        >>> import tempfile, mien
        >>> folder = tempfile.mkdtemp() + "/faces"
        >>> _ = mien.draw(folder, subjects=10)
        >>> table = mien.faces("adience", folder, labels="masked")
        >>> table["gender"].cat.categories.to_list()
        ['female', 'male']
        >>> table.attrs["ledger"]["kept"] == len(table)
        True
    """
    from mien.base.table import check_ending, write_table
    from mien.data.sources import read_faces

    if out is not None:
        check_ending(Path(out))
        if Path(out).exists() and not overwrite:
            raise MienError(f"--out {str(out)!r} exists; give another name, or --overwrite")
    table = read_faces(source, path, labels, map, corrections, root)
    if out is not None:
        write_table(table, Path(out))
    return table


def eda(faces: "pd.DataFrame | PathLike", root: PathLike | None = None, out: PathLike = "eda") -> Path:
    """Explores a data set: labels, image sizes, duplicates and leaks, as one HTML report with its tables.

    Args:
        faces: A faces table, or its file.
        root: Folder that its paths are relative to, or a run for those of its data sets; None: the images are not
            looked at.
        out: Folder for the report and its tables.

    Returns:
        The HTML report.

    Raises:
        MienError: The table is not a faces table, or no image is under `root`.

    Examples:
        >>> import tempfile, mien
        >>> folder = tempfile.mkdtemp()
        >>> _ = mien.draw(folder + "/faces", subjects=10)
        >>> table = mien.faces("adience", folder + "/faces", labels="masked")
        >>> mien.eda(table, out=folder + "/eda").name
        'eda.html'
    """
    from mien.reports.eda import explore

    table = as_faces(faces)
    with progress("reading images") as update:
        return explore(table, root, out, progress=update)
