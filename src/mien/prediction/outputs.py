"""Predictions as they come, row by row, to a file that appears whole or not at all, and survives an interruption."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any

from mien.base.errors import MienError, MissingExtra
from mien.base.lock import lock_open_file

ENDINGS = (".csv", ".parquet", ".jsonl")

_TEXT = ("file", "status", "gender", "age_group", "quality")
_WHOLE = ("face_index", "frames", "pooled")
_CHUNK = 1024


def check_output(path: Path, overwrite: bool) -> None:
    """Raises before any work is done: an ending that is not known, a file that exists, Parquet without pyarrow."""
    if path.suffix not in ENDINGS:
        raise MienError(f"--out {str(path)!r}: unknown ending {path.suffix!r}; valid: {', '.join(ENDINGS)}")
    if path.is_dir():
        raise MienError(f"--out {str(path)!r} is a folder; valid: a file that ends in {', '.join(ENDINGS)}")
    if path.exists():
        _remove_leftover(path)
    if path.exists() and not overwrite:
        raise MienError(f"--out {str(path)!r} exists; --overwrite replaces it")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise MissingExtra(f"--out {str(path)!r}: Parquet (.csv and .jsonl do not)", "parquet") from None


def _remove_leftover(out: Path) -> None:
    """Removes a journal that is all in the table, which a process was killed before it could."""
    part = part_of(out)
    if part.is_file() and part.stat().st_mtime_ns < out.stat().st_mtime_ns:
        with part.open("rb") as file:
            head = _asked(file.readline())
            if head and sum(1 for _ in file) == head["images"]:
                part.unlink()


def frames_path(out: Path) -> Path:
    """Where the rows of clips' frames go: `faces.csv` has them in `faces-frames.csv`."""
    return out.with_name(f"{out.stem}-frames{out.suffix}")


def part_of(out: Path) -> Path:
    """Where the answers are kept until the table is there."""
    return out.with_name(f"{out.name}.part")


def _asked(line: bytes) -> dict[str, Any]:
    """What the first line of a journal says that was asked for; empty where it is none."""
    try:
        head = json.loads(line)
    except ValueError:
        return {}
    return head if isinstance(head, dict) and isinstance(head.get("images"), int) else {}


class RowsFile:
    """Context manager that writes rows to a `.csv`, `.jsonl` or `.parquet` file.

    Args:
        path: Replaced when the block ends without an error; after one, what was there before stays.
        columns: In their order; what a row lacks is missing.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        from mien.base.atomic import atomic_path

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush(self._rows)
            self._close()
        except BaseException as problem:
            self._place.__exit__(type(problem), problem, problem.__traceback__)
            raise
        self._place.__exit__(kind, error, trace)


class Journal:
    """Context manager that keeps the answers of images in `<out>.part` until all are there, and then writes `out`.

    A process that is killed loses the last batch at most: the same command goes on after it. The first line says what
    was asked for; each further line holds the rows of one image, as JSON, which gives back equal values.

    Args:
        out: The table that is to be; see `check_output`.
        asked: All that the answers depend on, by name; what was begun with other values is not gone on with.
        images: How many there will be.
        batch: Images are kept, and gone on with, by so many, so that the batches that the network sees are those of an
            uninterrupted run.
        overwrite: Begin anew where something else was asked for before.
        clips: How many of them, the last ones, are clips, each of which is kept by itself.

    Raises:
        MienError: `<out>.part` is of another command, no file of this kind, or in use by another process.
    """

    def __init__(
        self,
        out: Path,
        asked: Mapping[str, Any],
        images: int,
        batch: int,
        overwrite: bool = False,
        clips: int = 0,
    ) -> None:
        self.path = part_of(out)
        self.done = 0
        self._out, self._images, self._batch, self._overwrite = out, images, batch, overwrite
        self._clips = clips
        self._asked = {**asked, "images": images}
        self._lines: list[bytes] = []

    def __enter__(self) -> "Journal":
        from mien.base.atomic import naming_full_disk

        with naming_full_disk(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b", buffering=0)
        try:
            self._lock()
            self._take_up()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _lock(self) -> None:
        handle = self._file.fileno()
        # Another process may have just finished the table and removed the journal.
        if not lock_open_file(handle) or os.fstat(handle).st_nlink == 0:
            raise MienError(f"{str(self.path)!r} is in use: another process writes this table")

    def _take_up(self) -> None:
        """Finds what is done, and cuts off what is not whole."""
        head = json.dumps(self._asked).encode() + b"\n"
        with self.path.open("rb") as file:
            first = file.readline()
        if first != head:
            if not head.startswith(first):
                self._check_other(first)
            self._file.truncate(0)
            self._write(head)
            return
        done, end = 0, len(head)
        good = end
        for done, line in enumerate(self._whole_lines(), 1):
            end += len(line)
            if self._is_whole(done):
                self.done, good = done, end
        self._file.truncate(good)

    def _check_other(self, first: bytes) -> None:
        """Raises unless it may be begun anew."""
        before = _asked(first)
        if not before:
            raise MienError(f"{str(self.path)!r} is no unfinished table of mien; give another --out, or remove it")
        different = " and ".join(name for name, value in self._asked.items() if before.get(name) != value)
        if not self._overwrite:
            raise MienError(
                f"{str(self.path)!r} holds the answers of an interrupted command with another {different}; valid: the "
                "same command, which goes on with it; --overwrite, which begins anew; another --out"
            )
        print(f"{self.path}: begun anew, what was there is of a command with another {different}")

    def _whole_lines(self) -> Iterator[bytes]:
        """The lines of images, up to the first that is not whole."""
        with self.path.open("rb") as file:
            for line in islice(file, 1, None):
                if not line.endswith(b"]\n"):
                    return
                yield line

    def images(self) -> Iterator[list[dict[str, Any]]]:
        """The rows of each image that is done, in constant memory."""
        return (json.loads(line) for line in islice(self._whole_lines(), self.done))

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Adds the rows of the next image."""
        self._lines.append(json.dumps(rows).encode() + b"\n")
        self.done += 1
        if self._is_whole(self.done):
            self._keep()

    def _is_whole(self, done: int) -> bool:
        """Whether a batch, or a clip, ends here."""
        return done % self._batch == 0 or done >= self._images - self._clips

    def _keep(self) -> None:
        self._write(b"".join(self._lines))
        self._lines = []

    def _write(self, content: bytes) -> None:
        from mien.base.atomic import naming_full_disk

        with naming_full_disk(self.path):
            while content:  # a disk that is almost full takes a part, and tells at the next call
                content = content[self._file.write(content) :]

    def finish(self, columns: Sequence[str], frame_columns: Sequence[str] = ()) -> None:
        """Writes the table, and if it has columns that of frames, which are rows with a `time`; removes the journal."""
        self._keep()
        with ExitStack() as stack:
            # The table is closed last, so that it is younger than the journal and all else is there.
            write = write_frame = stack.enter_context(RowsFile(self._out, columns))
            if frame_columns:
                write_frame = stack.enter_context(RowsFile(frames_path(self._out), frame_columns))
            for row in chain.from_iterable(self.images()):
                (write_frame if "time" in row else write)(row)
        self.path.unlink()


_Flush = Callable[[list[dict[str, Any]]], Any]
_Close = Callable[[], Any]


def _open_csv(path: Path, columns: list[str]) -> tuple[_Flush, _Close]:
    file = path.open("w", newline="", encoding="utf-8", errors="backslashreplace")
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    # The writer forgets that a carriage return ends a line too.
    quoted = csv.DictWriter(file, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)

    def flush(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            (quoted if "\r" in row["file"] else writer).writerow(row)

    return flush, file.close


def _open_jsonl(path: Path, columns: list[str]) -> tuple[_Flush, _Close]:
    file = path.open("w", encoding="utf-8")

    def flush(rows: list[dict[str, Any]]) -> None:
        file.writelines(json.dumps({name: row.get(name) for name in columns}) + "\n" for row in rows)

    return flush, file.close


def _open_parquet(path: Path, columns: list[str]) -> tuple[_Flush, _Close]:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {name: pa.string() if name in _TEXT else pa.float64() for name in columns}
    kinds |= dict.fromkeys(_WHOLE, pa.int64())
    schema = pa.schema([(name, kinds[name]) for name in columns])
    writer = parquet.ParquetWriter(path, schema)

    def flush(rows: list[dict[str, Any]]) -> None:
        if rows:
            writer.write_table(pa.Table.from_pylist([row | {"file": as_utf8(row["file"])} for row in rows], schema))

    return flush, writer.close


def as_utf8(text: str) -> str:
    """A file's name as a table holds it: bytes that are no text are escaped, as `\\udce9`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


_OPENERS = {".csv": _open_csv, ".jsonl": _open_jsonl, ".parquet": _open_parquet}
