"""The names of the data sets, for help texts: they are known without importing pandas."""

from pathlib import Path

SOURCE_NAMES = tuple(sorted(path.stem for path in (Path(__file__).parent / "sources").glob("[!_]*.py")))
"""A name for each module in `mien.data.sources`; a test checks that `SOURCES` has the same."""
