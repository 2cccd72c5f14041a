"""Predictions for very many images on one machine or a cluster, with Ray Data; implements `mien predict --engine ray`.

The images are divided into parts. A worker process reads the images of a part, wherever they are, and writes its rows
atomically as one Parquet file. A part lost with its worker is repeated by another one and gives the same file: each row
is written once, and rerunning the same command resumes with the missing parts. Ray Data manages the workers, assigns
the parts and restarts failed workers.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from mien.base.errors import MienError, MissingExtra, choices
from mien.base.messages import note
from mien.data import images
from mien.data.images import SUFFIXES
from mien.prediction.input_files import image_files
from mien.prediction.outputs import RowsFile
from mien.prediction.predict import BATCH, FaceCrop, Predictor, Row

PART_SIZE = 1024
"""Images per part; for tables, each row group is a part."""

STATE_FILE = "_mien.json"
"""File in the output folder with the options of the command and, at the end, the number of images by status."""

_BYTES = ("bytes", "image")
_NAMES = ("file", "path")

Load = Callable[[], images.Source]


def predict_cluster(
    paths: Sequence[str],
    out: str,
    *,
    model: str | None = None,
    detector: str = "mien",
    min_face: float | None = None,
    runtime: str = "onnxruntime",
    threads: int = 1,
    crops: bool = False,
    column: str | None = None,
    overwrite: bool = False,
    part: int = PART_SIZE,
) -> Counter[str]:
    """Predicts for images with Ray Data, and writes a folder of Parquet files; rerun an interrupted call to resume.

    Ray runs on this machine, or on the cluster that the environment variable RAY_ADDRESS names; all machines need mien,
    the model file, the images and `out` under the same names.

    Args:
        paths: Files, folders, patterns and tables of paths as `inputs.image_files` takes them; Parquet files with the
            bytes of images, or folders of them; each also as an address of fsspec, such as s3://bucket/folder.
        out: A folder, or its fsspec URL.
        model: As for `Predictor`.
        detector: As for `Predictor`.
        min_face: As for `Predictor`.
        runtime: As for `Predictor`.
        threads: Threads per worker process; there are as many workers as the processors of the cluster allow.
        crops: Whether each image is a face crop.
        column: Column of tables with the bytes of images; None: `bytes` or `image`.
        overwrite: Whether to replace an existing output.
        part: Images per part.

    Returns:
        The number of images by status.

    Raises:
        MienError: Ray is not installed, there are no images, or `out` has other content.
    """
    ray = _ray()
    options: dict[str, Any] = {"model": model, "threads": threads, "detector": detector, "runtime": runtime}
    options["min_face"] = min_face
    predictor = Predictor(**options)
    parts = list(_parts(paths, column, part))
    folder = _Folder(out)
    settings = {
        "images": hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogateescape")).hexdigest(),
        "parts": len(parts),
        "model": predictor.digest(),
        "detector": predictor.detector,
        "--min-face": predictor.min_face,
        "runtime": predictor.runtime,
        "--crops": crops,
    }
    done = folder.begin(settings, overwrite)
    remaining_parts = [dict(part, number=number) for number, part in enumerate(parts) if _name(number) not in done]
    if done:
        note(f"resuming {out}: {len(done):,} of {len(parts):,} parts are done")
    worker = {"options": options, "crops": crops, "out": out}
    with _running(ray), _progress(len(remaining_parts)) as update:
        try:
            for count, _ in enumerate(_work(ray, remaining_parts, worker, threads), 1):
                update(count, len(remaining_parts))
        except ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise MienError(
                f"a worker failed: {lines[-1].strip()}; after fixing the cause, rerun the same command to resume"
            ) from error
    return folder.finish(settings)


def _ray() -> Any:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors are also raised as exceptions
    try:
        import ray.data
    except ImportError:
        raise MissingExtra("--engine ray", "cluster") from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


@contextmanager
def _running(ray: Any) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    # Only without a cluster; workers return only a few numbers, so that a small object store is enough.
    own = {} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False, "object_store_memory": 100_000_000}
    ray.init(logging_level="error", log_to_driver=False, **own)
    try:
        yield
    finally:
        ray.shutdown()


def _work(ray: Any, remaining_parts: list[dict[str, Any]], worker: dict[str, Any], threads: int) -> Iterator[Any]:
    """Writes all remaining parts."""
    if not remaining_parts:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    workers = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
    parts = ray.data.from_items(
        [{"part": json.dumps(part)} for part in remaining_parts], override_num_blocks=len(remaining_parts)
    )
    written = parts.map_batches(
        _Worker,
        fn_constructor_kwargs=worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(remaining_parts))),
        # Half of what they use: Ray's own tasks also need processors, and would wait forever for those of the workers.
        num_cpus=threads / 2,
    )
    yield from written.iter_rows()


class _Worker:
    """A worker process with the model that writes parts."""

    def __init__(self, options: dict[str, Any], crops: bool, out: str) -> None:
        self._predictor = Predictor(**options)
        self._crops = crops
        self._folder = _Folder(out)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """Writes the parts of a batch; returns their numbers."""
        numbers = []
        for text in batch["part"]:
            part = json.loads(text)
            rows = _rows(self._predictor, _images(part), self._crops)
            self._folder.write(_name(part["number"]), rows, self._predictor.columns)
            numbers.append(part["number"])
        return {"number": numbers}


def _rows(predictor: Predictor, named: Iterable[tuple[str, Load]], crops: bool) -> Iterator[Row]:
    """Like `Predictor.stream`, for named images that are fetched in its threads."""

    def face_crops(name: str, load: Load) -> list[FaceCrop]:
        try:
            return predictor.crop_faces(load(), name, crops)
        except images.ImageError as error:
            return [FaceCrop({"file": name, "status": error.reason}, None)]

    remaining = iter(named)
    with ThreadPoolExecutor(predictor.threads) as pool:
        while futures := [pool.submit(face_crops, *one) for one in islice(remaining, BATCH)]:
            yield from predictor.predict_crops([crop for future in futures for crop in future.result()])


def _name(number: int) -> str:
    return f"part-{number:06d}.parquet"


def _is_address(path: str) -> bool:
    return "://" in path


def _file_system(path: str) -> tuple[Any, str]:
    """The file system of an address or a local path, and the path in it."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise MienError(f"address {path!r} cannot be used: {error}") from None


# Inputs


def _parts(paths: Iterable[str], column: str | None, size: int) -> Iterator[dict[str, Any]]:
    """Yields the parts of the inputs: lists of files, and row groups of tables with bytes."""
    found = list(dict.fromkeys(file for path in paths for file in _files(path, column)))
    for is_table, files in groupby(found, key=lambda file: file[1]):
        if is_table:
            for table, _ in files:
                yield from _groups(table, column)
        else:
            names = (file for file, _ in files)
            while some := list(islice(names, size)):
                yield {"files": some}


def _files(path: str, column: str | None) -> Iterator[tuple[str, bool]]:
    """Yields files, and whether each is a table with bytes of images."""
    if _is_address(path):
        yield from _files_at(path)
    elif Path(path).is_dir() and not any(_listed(path, SUFFIXES)) and any(_listed(path, (".parquet",))):
        yield from ((file, True) for file in _listed(path, (".parquet",)))
    elif path.endswith(".parquet") and Path(path).is_file() and (column or _bytes_column(path, None) is not None):
        yield path, True
    else:
        yield from ((file, False) for file in image_files([path]))


def _listed(folder: str, endings: tuple[str, ...]) -> Iterator[str]:
    try:
        yield from image_files([folder], endings)
    except MienError:
        return


def _files_at(address: str) -> Iterator[tuple[str, bool]]:
    system, root = _file_system(address)
    try:
        found = sorted(system.find(root))
    except OSError as error:
        raise MienError(f"address {address!r} cannot be read: {error}") from None
    kinds = (*SUFFIXES, ".parquet")
    taken = [name for name in found if name.lower().endswith(kinds) and not Path(name).name.startswith((".", "_"))]
    if not taken:
        raise MienError(f"address {address!r} has no images; supported extensions: {', '.join(kinds)}")
    yield from ((system.unstrip_protocol(name), name.lower().endswith(".parquet")) for name in taken)


def _groups(table: str, column: str | None) -> Iterator[dict[str, Any]]:
    """The row groups of a table."""
    name = _bytes_column(table, column)
    if name is None:
        raise MienError(f"table {table!r} has no column {' or '.join(map(repr, _BYTES))}; --image-column names another")
    with _opened(table) as file:
        first = 0
        for group in range(file.num_row_groups):
            yield {"table": table, "group": group, "first": first, "column": name}
            first += file.metadata.row_group(group).num_rows


@contextmanager
def _opened(table: str) -> Iterator[Any]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    system, path = _file_system(table)
    try:
        with system.open(path, "rb") as handle, ParquetFile(handle) as file:
            yield file
    except ArrowInvalid as error:
        raise MienError(f"table {table!r} cannot be read: {error}") from None


def _bytes_column(table: str, column: str | None) -> str | None:
    """The column with bytes of images: the given one, or one with a default name that holds bytes."""
    import pyarrow as pa

    with _opened(table) as file:
        schema = file.schema_arrow
    if column is not None and column not in schema.names:
        raise MienError(f"--image-column: {choices(f'column of {table!r}', column, schema.names)}")
    for name in (column,) if column else _BYTES:
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:  # as in Hugging Face data sets
            kind = kind.field("bytes").type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return name
        if column:
            raise MienError(f"--image-column: column {name!r} of {table!r} is {kind}; valid: bytes of image files")
    return None


def _images(part: dict[str, Any]) -> Iterator[tuple[str, Load]]:
    """Yields the images of a part: their names, and functions that fetch them."""
    if "files" in part:
        for name in part["files"]:
            yield name, partial(_fetch, name)
        return
    with _opened(part["table"]) as file:
        names = [name for name in _NAMES if name in file.schema_arrow.names][:1]
        number = part["first"]
        for batch in file.iter_batches(BATCH, [part["group"]], [part["column"], *names]):
            for row in batch.to_pylist():
                content = row[part["column"]]
                inner = content if isinstance(content, dict) else {"bytes": content}
                name = row.get(names[0]) if names else inner.get("path")
                yield name or f"{part['table']}#{number}", partial(bytes, inner["bytes"] or b"")
                number += 1


def _fetch(name: str) -> images.Source:
    if not _is_address(name):
        return name
    system, path = _file_system(name)
    try:
        return system.cat_file(path)
    except FileNotFoundError as error:
        raise images.ImageError("missing", name) from error


# Outputs


class _Folder:
    """The output folder, local or remote."""

    def __init__(self, address: str) -> None:
        from fsspec.implementations.local import LocalFileSystem

        self._address = address
        self._system, self._root = _file_system(address)
        self._is_local = isinstance(self._system, LocalFileSystem)

    def begin(self, settings: dict[str, Any], overwrite: bool) -> set[str]:
        """Creates the folder; returns the names of the parts completed by an interrupted command.

        Raises:
            MienError: The folder has other content, and must not be overwritten.
        """
        found = (
            {Path(name).name for name in self._system.find(self._root)} if self._system.exists(self._root) else set()
        )
        before = json.loads(self._system.cat_file(f"{self._root}/{STATE_FILE}")) if STATE_FILE in found else None
        if found and not overwrite:
            if before is None:
                raise MienError(f"--out {self._address!r} holds other files; valid: a new folder, or --overwrite")
            if "statuses" in before:
                raise MienError(f"--out {self._address!r} is a finished table; use --overwrite to replace it")
            other = [name for name, value in settings.items() if before.get(name) != value]
            if other:
                raise MienError(
                    f"--out {self._address!r} was started with another {' and '.join(other)}; valid: rerun the same "
                    "command to resume, --overwrite, or another --out"
                )
        if (
            found
            and overwrite
            and (before is None or "statuses" in before or any(before.get(k) != settings[k] for k in settings))
        ):
            self._clear(found)
            found = set()
        self._system.makedirs(self._root, exist_ok=True)
        self._put_text(settings)
        return {name for name in found if name.startswith("part-")}

    def _sweep(self) -> None:
        """Removes the incomplete files of killed workers."""
        for name in self._system.find(self._root):
            if Path(name).name.startswith(".part-"):
                self._system.rm_file(name)

    def _clear(self, found: set[str]) -> None:
        """Removes the parts and the state file, but no other files."""
        other = sorted(name for name in found if not name.startswith(("part-", ".part-")) and name != STATE_FILE)
        if other:
            raise MienError(
                f"--out {self._address!r} holds {other[0]!r}, which is not part of a table; give another --out"
            )
        for name in sorted(found):
            self._system.rm_file(f"{self._root}/{name}")

    def _put_text(self, facts: dict[str, Any]) -> None:
        self._system.pipe_file(f"{self._root}/{STATE_FILE}", json.dumps(facts, indent=2).encode())

    def write(self, name: str, rows: Iterator[Row], columns: Sequence[str]) -> None:
        """Writes one part atomically."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(self._root if self._is_local else scratch) / name
            with RowsFile(path, columns) as write:
                for row in rows:
                    write(row)
            if not self._is_local:
                self._system.put_file(str(path), f"{self._root}/{name}")  # object stores show only complete files

    def finish(self, settings: dict[str, Any]) -> Counter[str]:
        """Counts the images by status, and marks the table as complete."""
        from pyarrow import parquet

        statuses: Counter[str] = Counter()
        for number in range(settings["parts"]):
            with self._system.open(f"{self._root}/{_name(number)}", "rb") as file:
                table = parquet.read_table(file, columns=["face_index", "status"])
            for face, status in zip(*(column.to_pylist() for column in table.columns), strict=True):
                statuses[status] += face is None or face == 0  # the first row of each image
        self._sweep()
        self._put_text(settings | {"statuses": dict(statuses)})
        return statuses


@contextmanager
def _progress(count: int) -> Iterator[Callable[[int, int], None]]:
    from mien.base.console import progress

    with progress("predicting", "parts") as update:
        yield update
