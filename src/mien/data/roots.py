"""The folders that the paths of a faces table are relative to: one, or that of each of several data sets."""

from collections.abc import Mapping
from pathlib import Path

from mien.base.errors import MienError, choices
from mien.recipe.load import load_recipe
from mien.recipe.settings import Data


class Roots:
    """The folder of each of several data sets: `roots / "aaf/a.jpg"` is `a.jpg` in the folder of the set `aaf`."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = dict(folders)

    def __truediv__(self, path: str) -> Path:
        """The file of a path whose first part is the name of a set.

        Raises:
            MienError: There is no set of that name.
        """
        name, slash, rest = path.partition("/")
        if not slash or name not in self._folders:
            raise MienError(f"path {path!r} begins with no data set; {choices('data set', name, self._folders)}")
        return self._folders[name] / rest

    def __str__(self) -> str:
        """The names and the folders."""
        return ", ".join(f"{name}: {folder}" for name, folder in self._folders.items())

    @property
    def folders(self) -> list[Path]:
        """The folders."""
        return list(self._folders.values())


Root = Path | Roots
"""What a path of a faces table is relative to: `root / path` is the file."""


def folders_of(root: Root) -> list[Path]:
    """Returns the folder, or those of all data sets."""
    return root.folders if isinstance(root, Roots) else [root]


def data_root(root: str | Path) -> Path:
    """The folder that the paths of a faces table are relative to: `root`, or that of the table at `root`."""
    root = Path(root).expanduser()
    return root.parent if root.is_file() else root


def open_root(root: str | Path | Roots) -> Root:
    """Returns the root that a user names.

    Args:
        root: A folder of images or the table in it; or the folder of a run, for the folders of its data sets.

    Raises:
        MienError: The recipe of the run names no folder.
    """
    if isinstance(root, Roots):
        return root
    folder = data_root(root)
    recipe = folder / "recipe.yaml"
    if recipe.is_file() and (folder / "faces.parquet").is_file():
        return recipe_root(load_recipe(recipe).data)
    return folder


def recipe_root(data: Data, section: str = "data") -> Root:
    """Returns the root of the faces of a recipe.

    Args:
        data: The section of the recipe.
        section: Its key in the recipe, which errors name.

    Raises:
        MienError: A folder is not set.
    """
    folders = {}
    for key, one in data.keyed().items():
        if one.root is None:
            raise MienError(
                f"{section}.{key}root is not set: which folder holds the data? --set {section}.{key}root=FOLDER"
            )
        folders[key] = data_root(one.root)
    if not data.sets:
        return folders[""]
    return Roots(dict(zip(data.sets, folders.values(), strict=True)))
