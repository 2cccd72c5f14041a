"""Writes predictions to a table atomically, with a journal from which an interrupted command resumes."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from mien.base.errors import MienError, MissingExtra
from mien.base.lock import lock_open_file
from mien.base.messages import note

EXTENSIONS = (".csv", ".parquet", ".json", ".jsonl")

COCO = ".coco.json"
"""Ending of files in COCO's format of object detection, which other programs read."""

STANDARD_OUTPUT = {"-": ".csv", "-.jsonl": ".jsonl"}
"""Names of outputs that go to standard output, and their formats."""

_TEXT = ("file", "status", "gender", "age_group", "quality")
_INTEGERS = ("face_index", "frames", "pooled")
_CHUNK = 1024


def check_output(path: Path, overwrite: bool) -> None:
    """Checks the output file before any work is done.

    Raises:
        MienError: The extension is unknown, or the file exists and must not be overwritten.
        MissingExtra: Parquet needs pyarrow.
    """
    if path.suffix not in EXTENSIONS:
        raise MienError(f"--out {str(path)!r}: unknown extension {path.suffix!r}; valid: {', '.join(EXTENSIONS)}")
    if path.is_dir():
        raise MienError(f"--out {str(path)!r} is a folder; valid: a file with the extension {', '.join(EXTENSIONS)}")
    if path.exists():
        _remove_stale_journal(path)
    if path.exists() and not overwrite:
        raise MienError(f"--out {str(path)!r} exists; use --overwrite to replace it")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise MissingExtra(f"Parquet (--out {str(path)!r}; .csv and .jsonl need no extra)", "parquet") from None


def _remove_stale_journal(out: Path) -> None:
    """Removes a journal whose rows are all in the table, left by a process that was killed before removing it."""
    part = journal_path(out)
    if part.is_file() and part.stat().st_mtime_ns < out.stat().st_mtime_ns:
        with part.open("rb") as file:
            head = _options(file.readline())
            if head and sum(1 for _ in file) == head["images"]:
                part.unlink()


def frames_path(out: Path) -> Path:
    """Returns the path of the table of clips' frames: `faces-frames.csv` for `faces.csv`."""
    return out.with_name(f"{out.stem}-frames{out.suffix}")


def journal_path(out: Path) -> Path:
    """Returns the path of the journal, which holds the predictions until the table is complete."""
    return out.with_name(f"{out.name}.part")


def _options(line: bytes) -> dict[str, Any]:
    """The options of a command in the first line of its journal; empty if it is not a journal."""
    try:
        head = json.loads(line)
    except ValueError:
        return {}
    return head if isinstance(head, dict) and isinstance(head.get("images"), int) else {}


class RowsFile:
    """Context manager that writes rows to a `.csv`, `.jsonl` or `.parquet` file.

    Args:
        path: The file; replaced when the block ends without an error, otherwise unchanged.
        columns: The columns in order; absent values are missing.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        from mien.base.atomic import atomic_path

        path.parent.mkdir(parents=True, exist_ok=True)
        self._place = atomic_path(path)
        self._open = _open_coco if path.name.endswith(COCO) else _OPENERS[path.suffix]
        self._columns = list(columns)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Callable[[dict[str, Any]], None]:
        part = self._place.__enter__()
        self._flush, self._close = self._open(part, self._columns)
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


class StandardOutput:
    """Writes predictions to standard output as they are made, in place of a `Journal`, which can resume.

    Args:
        name: One of `STANDARD_OUTPUT`.
        columns: The columns in order; absent values are missing.
    """

    done = 0

    def __init__(self, name: str, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        # Not closed: standard output stays open for whoever calls.
        self._write = _csv_writer(sys.stdout, self._columns) if name == "-" else self._write_json

    def images(self) -> Iterator[list[dict[str, Any]]]:
        """Yields nothing: there are no earlier rows."""
        return iter(())

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Writes the rows of the next image; those of the frames of a clip are left out."""
        self._write([row for row in rows if "time" not in row])
        sys.stdout.flush()

    def _write_json(self, rows: list[dict[str, Any]]) -> None:
        sys.stdout.writelines(_json_lines(rows, self._columns))


class Journal:
    """Context manager that keeps predictions in `<out>.part` until all are complete, then writes `out`.

    A process that is killed loses at most the last batch: rerun the same command to resume. The first line holds the
    options of the command; each further line holds the rows of one image as JSON.

    Args:
        out: The final table; see `check_output`.
        options: All options that the predictions depend on; a journal with other options is not resumed.
        images: The number of images.
        batch: Images are saved and resumed in batches of this size, so that the network sees the same batches as in
            an uninterrupted run.
        overwrite: Whether to restart if the journal has other options.
        clips: How many of the images, the last ones, are clips, each saved by itself.

    Raises:
        MienError: `<out>.part` belongs to another command, is not a journal, or is in use by another process.
    """

    def __init__(
        self,
        out: Path,
        options: Mapping[str, Any],
        images: int,
        batch: int,
        overwrite: bool = False,
        clips: int = 0,
    ) -> None:
        self.path = journal_path(out)
        self.done = 0
        self._out, self._images, self._batch, self._overwrite = out, images, batch, overwrite
        self._clips = clips
        self._options = {**options, "images": images}
        self._lines: list[bytes] = []

    def __enter__(self) -> "Journal":
        from mien.base.atomic import naming_full_disk

        with naming_full_disk(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b", buffering=0)
        try:
            self._lock()
            self._resume()
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
            raise MienError(f"{str(self.path)!r} is in use by another process")

    def _resume(self) -> None:
        """Finds the completed images, and truncates incomplete lines."""
        head = json.dumps(self._options).encode() + b"\n"
        with self.path.open("rb") as file:
            first = file.readline()
        if first != head:
            if not head.startswith(first):
                self._check_conflict(first)
            self._file.truncate(0)
            self._write(head)
            return
        done, end = 0, len(head)
        good = end
        for done, line in enumerate(self._complete_lines(), 1):
            end += len(line)
            if self._batch_complete(done):
                self.done, good = done, end
        self._file.truncate(good)

    def _check_conflict(self, first: bytes) -> None:
        """Raises an error unless the journal may be overwritten."""
        before = _options(first)
        if not before:
            raise MienError(f"{str(self.path)!r} is not an unfinished table of mien; give another --out, or remove it")
        different = " and ".join(name for name, value in self._options.items() if before.get(name) != value)
        if not self._overwrite:
            raise MienError(
                f"{str(self.path)!r} holds the predictions of an interrupted command with another {different}; valid: "
                "rerun the same command to resume, --overwrite to start over, or another --out"
            )
        note(f"{self.path}: starting over, the interrupted command had another {different}")

    def _complete_lines(self) -> Iterator[bytes]:
        """Yields the lines of images, up to the first incomplete one."""
        with self.path.open("rb") as file:
            for line in islice(file, 1, None):
                if not line.endswith(b"]\n"):
                    return
                yield line

    def images(self) -> Iterator[list[dict[str, Any]]]:
        """Yields the rows of each completed image, in constant memory."""
        return (json.loads(line) for line in islice(self._complete_lines(), self.done))

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Adds the rows of the next image."""
        self._lines.append(json.dumps(rows).encode() + b"\n")
        self.done += 1
        if self._batch_complete(self.done):
            self._flush_lines()

    def _batch_complete(self, done: int) -> bool:
        """Whether a batch or a clip is complete."""
        return done % self._batch == 0 or done >= self._images - self._clips

    def _flush_lines(self) -> None:
        self._write(b"".join(self._lines))
        self._lines = []

    def _write(self, content: bytes) -> None:
        from mien.base.atomic import naming_full_disk

        with naming_full_disk(self.path):
            while content:  # a full disk accepts a part, and the next call raises the error
                content = content[self._file.write(content) :]

    def finish(self, columns: Sequence[str], frame_columns: Sequence[str] = ()) -> None:
        """Writes the table, and with `frame_columns` the table of frames (rows with a `time`); removes the journal."""
        self._flush_lines()
        with ExitStack() as stack:
            # The table is closed last, so that it is newer than the journal and the other files are complete.
            write = write_frame = stack.enter_context(RowsFile(self._out, columns))
            if frame_columns:
                write_frame = stack.enter_context(RowsFile(frames_path(self._out), frame_columns))
            for row in chain.from_iterable(self.images()):
                (write_frame if "time" in row else write)(row)
        self.path.unlink()


_Flush = Callable[[list[dict[str, Any]]], Any]
_Close = Callable[[], Any]


def _csv_writer(file: TextIO, columns: list[str]) -> _Flush:
    """Writes the header, and returns what writes rows."""
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    # The csv writer does not quote a carriage return, which also ends a line.
    quoted = csv.DictWriter(file, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)

    def flush(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            (quoted if "\r" in row["file"] else writer).writerow(row)

    return flush


def _open_csv(path: Path, columns: list[str]) -> tuple[_Flush, _Close]:
    file = path.open("w", newline="", encoding="utf-8", errors="backslashreplace")
    return _csv_writer(file, columns), file.close


def _json_lines(rows: list[dict[str, Any]], columns: list[str]) -> Iterator[str]:
    return (json.dumps({name: row.get(name) for name in columns}) + "\n" for row in rows)


def _open_jsonl(path: Path, columns: list[str]) -> tuple[_Flush, _Close]:
    file = path.open("w", encoding="utf-8")
    return lambda rows: file.writelines(_json_lines(rows, columns)), file.close


def _open_json(path: Path, columns: list[str]) -> tuple[_Flush, _Close]:
    """One array of objects, an object a line."""
    file = path.open("w", encoding="utf-8")
    before = "[\n"

    def flush(rows: list[dict[str, Any]]) -> None:
        nonlocal before
        for line in _json_lines(rows, columns):
            file.write(before + line.rstrip("\n"))
            before = ",\n"

    def close() -> None:
        file.write("[]\n" if before == "[\n" else "\n]\n")
        file.close()

    return flush, close


_CATEGORIES = ("face", "female", "male", "unsure")


def _open_coco(path: Path, columns: list[str]) -> tuple[_Flush, _Close]:
    """COCO's format (https://cocodataset.org/#format-data): an annotation per face, its predictions as `attributes`.

    An image without a face, or that cannot be read, has its status.
    """
    pictures: dict[str, dict[str, Any]] = {}
    faces: list[dict[str, Any]] = []

    def flush(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            file = row["file"]
            if file not in pictures:
                pictures[file] = {"id": len(pictures) + 1, "file_name": as_utf8(file)} | _size_of(file)
            if row["status"] != "ok":
                pictures[file]["status"] = row["status"]
            else:
                faces.append({"id": len(faces) + 1} | _annotation(row, pictures[file], columns))

    def close() -> None:
        categories = [{"id": number, "name": name} for number, name in enumerate(_CATEGORIES, 1)]
        content = {"images": list(pictures.values()), "annotations": faces, "categories": categories}
        path.write_text(json.dumps({"info": {"description": "mien predict"}} | content) + "\n", "utf-8")

    return flush, close


def read_coco(path: Path) -> list[dict[str, Any]]:
    """The rows of predictions that a file in COCO's format was written from."""
    found = json.loads(path.read_text("utf-8"))
    names = {picture["id"]: picture["file_name"] for picture in found["images"]}
    rows = [
        {"file": picture["file_name"], "status": picture["status"]}
        for picture in found["images"]
        if "status" in picture
    ]
    for face in found["annotations"]:
        box = dict(zip(("x", "y", "w", "h"), face["bbox"], strict=True))
        head = {"file": names[face["image_id"]], "status": "ok", "detector_score": face["score"]}
        rows.append(head | box | face["attributes"])
    return rows


def _size_of(file: str) -> dict[str, Any]:
    from mien.data.images import ImageError, dimensions

    try:
        width, height = dimensions(file)
    except ImageError:
        return {}
    return {"width": width, "height": height}


def _annotation(row: Mapping[str, Any], picture: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    # A crop is a face as a whole.
    whole = {"x": 0, "y": 0, "w": picture.get("width", 0), "h": picture.get("height", 0)}
    box = [float(row[name] if row.get(name) is not None else size) for name, size in whole.items()]
    told = ("file", "status", "detector_score", *whole)
    return {
        "image_id": picture["id"],
        "category_id": _CATEGORIES.index(row.get("gender") or "face") + 1,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
        "score": 1.0 if row.get("detector_score") is None else row["detector_score"],
        "attributes": {name: row.get(name) for name in columns if name not in told},
    }


def _open_parquet(path: Path, columns: list[str]) -> tuple[_Flush, _Close]:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {name: pa.string() if name in _TEXT else pa.float64() for name in columns}
    kinds |= dict.fromkeys(_INTEGERS, pa.int64())
    schema = pa.schema([(name, kinds[name]) for name in columns])
    writer = parquet.ParquetWriter(path, schema)

    def flush(rows: list[dict[str, Any]]) -> None:
        if rows:
            writer.write_table(pa.Table.from_pylist([row | {"file": as_utf8(row["file"])} for row in rows], schema))

    return flush, writer.close


def as_utf8(text: str) -> str:
    """Returns a file name as stored in tables: bytes that are not valid UTF-8 are escaped, as `\\udce9`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


_OPENERS = {".csv": _open_csv, ".json": _open_json, ".jsonl": _open_jsonl, ".parquet": _open_parquet}
