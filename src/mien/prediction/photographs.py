"""From what a user names to predictions on the screen, in a file and on drawings; what `mien predict` does."""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any

from mien import images
from mien.errors import MienError
from mien.prediction import annotate
from mien.prediction.inputs import check_homes, homes, image_files
from mien.prediction.outputs import Journal, check_output
from mien.prediction.predict import BATCH, Predictor, Row

READ = ("ok", "no face")
"""Statuses of images that could be read."""

SHOWN = 40
"""So many rows at most go to the screen where no file is asked for."""

_SCREEN = ("file", "face", "gender", "p_female", "age", "80% interval", "age_group", "status", "quality")


def predict_files(
    predictor: Predictor,
    paths: Sequence[str],
    out: Path | None = None,
    crops: bool = False,
    draw: Path | None = None,
    overwrite: bool = False,
) -> Counter[str]:
    """Predicts for images, and shows, writes and draws the answers; an interrupted call with `out` is gone on with.

    Args:
        predictor: With the model and the detector to use.
        paths: See `inputs.image_files`.
        out: A `.csv`, `.parquet` or `.jsonl` file; None: the first rows go to the screen.
        crops: Each image already is a face.
        draw: A folder for the images with boxes and labels.
        overwrite: Replace `out` if it exists.

    Returns:
        How many images have each status.
    """
    if out is not None:
        check_output(out, overwrite)
    if draw is not None and draw.exists() and not draw.is_dir():
        raise MienError(f"--draw {str(draw)!r} is a file; valid: a folder")
    files = image_files(paths)
    places = homes(paths)
    statuses: Counter[str] = Counter()
    shown: list[Row] = []
    drawn: set[str] = set()
    with ExitStack() as stack:
        journal = None
        if out is not None:
            asked = _asked(predictor, files, crops, draw)
            journal = stack.enter_context(Journal(out, asked, len(files), BATCH, overwrite))
            _take_up(journal, statuses, draw, drawn)
        done = sum(statuses.values())
        tell = stack.enter_context(_progress(len(files) - done))
        rows = predictor.stream(files[done:], crops=crops)
        for count, (file, group) in enumerate(groupby(rows, key=lambda row: row["file"]), 1):
            found = list(group)
            if found[0]["status"] not in READ:
                check_homes(places)
            statuses[found[0]["status"]] += 1
            if len(shown) < SHOWN:
                shown += found
            if draw is not None and found[0]["status"] == "ok":
                _draw(annotate.annotated_path(draw, file, drawn), file, found)
            if journal is not None:
                journal.add(found)
            tell(count, len(files) - done)
        if journal is not None:
            journal.finish(predictor.columns)
    if out is None:
        print("\n".join(_lines(shown[:SHOWN])))
    print(_summary(statuses, out, draw, len(shown) > SHOWN or (out is None and sum(statuses.values()) > SHOWN)))
    return statuses


def _asked(predictor: Predictor, files: Sequence[str], crops: bool, draw: Path | None) -> dict[str, Any]:
    """All that the answers to a command depend on, but for the content of the images."""
    from mien import __version__

    names = hashlib.sha256("\0".join(files).encode("utf-8", "surrogateescape")).hexdigest()
    return {
        "list of images": names,
        "model": predictor.digest(),
        "detector": predictor.detector,
        "runtime": predictor.runtime,
        "--crops": crops,
        "--draw": None if draw is None else str(draw.absolute()),
        "version of mien": __version__,
    }


def _take_up(journal: Journal, statuses: Counter[str], draw: Path | None, drawn: set[str]) -> None:
    """Counts what an interrupted command has done, and takes the names of its drawings."""
    for found in journal.images():
        statuses[found[0]["status"]] += 1
        if draw is not None and found[0]["status"] == "ok":
            annotate.annotated_path(draw, found[0]["file"], drawn)
    if journal.done:
        print(f"going on with {journal.path}: {journal.done:,} images are done")


@contextmanager
def _progress(count: int) -> Iterator[Any]:
    if count <= 64:  # done before a bar could be read, and a single image should not wait for its drawing
        with nullcontext():
            yield lambda done, total: None
        return
    from mien.console import progress

    with progress("predicting") as tell:
        yield tell


def _draw(path: Path, file: str, rows: list[Row]) -> None:
    from mien.atomic import atomic_path

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        annotate.draw_boxes(images.load(file), rows).save(part)


def _lines(rows: Iterable[Row]) -> Iterator[str]:
    """A table for the screen; rich would take longer to import than one image takes to predict."""
    cells = [_SCREEN, *(tuple(_cells(row)) for row in rows)]
    filled = [any(line[place] for line in cells[1:]) for place in range(len(_SCREEN))]
    widths = [max(len(line[place]) for line in cells) for place in range(len(_SCREEN))]
    for line in cells:
        shown = (cell.ljust(width) for cell, width, there in zip(line, widths, filled, strict=True) if there)
        yield "  ".join(shown).rstrip()


def _cells(row: Row) -> Iterator[str]:
    has_age = row.get("age") is not None
    yield _printable(row["file"])
    yield "" if row.get("face_index") is None else str(row["face_index"])
    yield row.get("gender") or ""
    yield f"{row['p_female']:.2f}" if "p_female" in row else ""
    yield f"{row['age']:.1f}" if has_age else ""
    yield f"{row['age_low']:.0f} to {row['age_high']:.0f}" if has_age else ""
    yield row.get("age_group") or ""
    yield row["status"]
    yield row.get("quality") or ""


def _printable(text: str) -> str:
    """A file's name may hold line breaks, or bytes that are no text in the terminal's encoding."""
    plain = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return plain.encode(sys.stdout.encoding or "utf-8", "backslashreplace").decode(sys.stdout.encoding or "utf-8")


def _summary(statuses: Counter[str], out: Path | None, draw: Path | None, more: bool) -> str:
    counts = ", ".join(f"{status} {count:,}" for status, count in statuses.most_common())
    parts = [f"{sum(statuses.values()):,} images: {counts}"]
    if out is not None:
        parts.append(f"table: {out}")
    elif more:
        parts.append(f"only the first {SHOWN} rows are shown; --out FILE.csv writes all")
    if draw is not None:
        parts.append(f"drawings: {draw}")
    return "\n".join(parts)
