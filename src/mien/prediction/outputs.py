"""Predictions as they come, row by row, to a file that appears whole or not at all."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mien.errors import MienError, MissingExtra

ENDINGS = (".csv", ".parquet", ".jsonl")

_TEXT = ("file", "status", "gender", "age_group", "quality")
_CHUNK = 1024


def check_output(path: Path, overwrite: bool) -> None:
    """Raises before any work is done: an ending that is not known, a file that exists, Parquet without pyarrow."""
    if path.suffix not in ENDINGS:
        raise MienError(f"--out {str(path)!r}: unknown ending {path.suffix!r}; valid: {', '.join(ENDINGS)}")
    if path.is_dir():
        raise MienError(f"--out {str(path)!r} is a folder; valid: a file that ends in {', '.join(ENDINGS)}")
    if path.exists() and not overwrite:
        raise MienError(f"--out {str(path)!r} exists; --overwrite replaces it")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise MissingExtra(f"--out {str(path)!r}: Parquet (.csv and .jsonl do not)", "parquet") from None


class RowsFile:
    """Context manager that writes rows to a `.csv`, `.jsonl` or `.parquet` file.

    Args:
        path: Replaced when the block ends without an error; after one, what was there before stays.
        columns: In their order; what a row lacks is missing.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        from mien.atomic import atomic_path

        path.parent.mkdir(parents=True, exist_ok=True)
        self._place = atomic_path(path)
        self._columns = list(columns)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Callable[[dict[str, Any]], None]:
        part = self._place.__enter__()
        self._flush, self._close = _OPENERS[part.suffix](part, self._columns)
        return self._add

    def _add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _CHUNK:
            self._flush(self._rows)
            self._rows = []

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                self._flush(self._rows)
            self._close()
        except BaseException as error:
            self._place.__exit__(type(error))
            raise
        self._place.__exit__(kind)


_Flush = Callable[[list[dict[str, Any]]], Any]
_Close = Callable[[], Any]


def _open_csv(path: Path, columns: list[str]) -> tuple[_Flush, _Close]:
    file = path.open("w", newline="", encoding="utf-8", errors="surrogateescape")
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    return writer.writerows, file.close


def _open_jsonl(path: Path, columns: list[str]) -> tuple[_Flush, _Close]:
    file = path.open("w", encoding="utf-8")

    def flush(rows: list[dict[str, Any]]) -> None:
        file.writelines(json.dumps({name: row.get(name) for name in columns}) + "\n" for row in rows)

    return flush, file.close


def _open_parquet(path: Path, columns: list[str]) -> tuple[_Flush, _Close]:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {name: pa.string() if name in _TEXT else pa.float64() for name in columns} | {"face_index": pa.int64()}
    schema = pa.schema([(name, kinds[name]) for name in columns])
    writer = parquet.ParquetWriter(path, schema)

    def flush(rows: list[dict[str, Any]]) -> None:
        if rows:
            writer.write_table(pa.Table.from_pylist([_as_utf8(row) for row in rows], schema))

    return flush, writer.close


def _as_utf8(row: dict[str, Any]) -> dict[str, Any]:
    """A file's name may hold bytes that are no text; Parquet knows none, so they are escaped."""
    return row | {"file": row["file"].encode("utf-8", "backslashreplace").decode("utf-8")}


_OPENERS = {".csv": _open_csv, ".jsonl": _open_jsonl, ".parquet": _open_parquet}
