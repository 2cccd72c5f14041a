"""Predictions for files: on the screen, in a table and on annotated copies; the work of `mien predict`."""

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import compress, groupby
from pathlib import Path
from typing import Any

from mien.base.errors import MienError, printable
from mien.base.messages import note, progress_line
from mien.data import images
from mien.data.images import SUFFIXES
from mien.prediction import annotate, video_files
from mien.prediction.clips import EVERY, ClipReader, check_every, draw_clip, frame_columns, track_columns
from mien.prediction.input_files import image_files, source_folders
from mien.prediction.outputs import STANDARD_OUTPUT, Journal, StandardOutput, check_output, frames_path, journal_path
from mien.prediction.predict import BATCH, Predictor, Row

READ = ("ok", "no face")
"""Statuses of images that could be read."""

SHOWN = 40
"""Rows shown on the screen, at most, without an output file."""

_SCREEN = (
    "file",
    "face",
    "seconds",
    "frames",
    "gender",
    "p_female",
    "age",
    "80% interval",
    "age_group",
    "status",
    "quality",
)


def predict_files(
    predictor: Predictor,
    paths: Sequence[str],
    out: Path | None = None,
    crops: bool = False,
    draw: Path | None = None,
    overwrite: bool = False,
    every: float = EVERY,
) -> Counter[str]:
    """Predicts for photographs, then for clips, and shows, writes and draws the predictions.

    With `out`, rerunning the same call resumes an interrupted one.

    Args:
        predictor: Holds the model and the detector.
        paths: See `input_files.image_files`; files with one of `video_files.ENDINGS` are clips.
        out: A `.csv`, `.parquet`, `.json` or `.jsonl` file, or one of `outputs.STANDARD_OUTPUT`; None: the first rows
            go to the screen. The frames of clips go to a second file, see `outputs.frames_path`.
        crops: Each image, or frame of a clip, is a cropped face.
        draw: Folder for copies of the images and clips with boxes and labels.
        overwrite: Replace `out` if it exists.
        every: Seconds between two analysed frames of a clip.

    Returns:
        How many files have each status.
    """
    check_every(every)
    photographs, clips = _split_by_kind(image_files(paths, (*SUFFIXES, *video_files.ENDINGS)))
    files = photographs + clips
    _check_places(out, draw, overwrite, clips)
    places = source_folders(paths)
    with ExitStack() as stack:
        journal: Journal | StandardOutput | None = None
        if out is not None and str(out) in STANDARD_OUTPUT:
            journal = StandardOutput(str(out), track_columns(predictor) if clips else predictor.columns)
        elif out is not None:
            key = _resume_key(predictor, files, crops, draw) | ({"--every": every} if clips else {})
            journal = stack.enter_context(Journal(out, key, len(files), BATCH, overwrite, len(clips)))
        results = _Results(draw, journal, places)
        begun = sum(results.statuses.values())
        with _progress(len(photographs) - begun) as update:
            rows = predictor.stream(photographs[begun:], crops=crops)
            for count, (file, group) in enumerate(groupby(rows, key=lambda row: row["file"]), 1):
                results.add_photograph(file, list(group))
                update(count, len(photographs) - begun)
        for clip in clips[max(0, begun - len(photographs)) :]:
            results.add_clip(ClipReader(predictor, clip, every, crops))
        if isinstance(journal, Journal):
            columns = track_columns(predictor) if clips else predictor.columns
            journal.finish(columns, frame_columns(predictor) if clips else ())
    if out is None:
        note("\n".join(_lines(results.shown[:SHOWN])))
    # Standard output holds the table alone where it goes there.
    (progress_line if isinstance(journal, StandardOutput) else note)(_summary(results, out, draw, len(clips)))
    return results.statuses


def _split_by_kind(files: list[str]) -> tuple[list[str], list[str]]:
    """Photographs and clips."""
    kinds = [video_files.is_clip(file) for file in files]
    return [file for file, clip in zip(files, kinds, strict=True) if not clip], list(compress(files, kinds))


def _check_places(out: Path | None, draw: Path | None, overwrite: bool, clips: Sequence[str]) -> None:
    """Checks the outputs before any work is done."""
    if clips:
        video_files.load_av()
    if out is not None and str(out) not in STANDARD_OUTPUT:
        check_output(out, overwrite)
        if clips and not journal_path(out).exists():  # which was begun after this had been checked
            check_output(frames_path(out), overwrite)
    if draw is not None and draw.exists() and not draw.is_dir():
        raise MienError(f"--draw {str(draw)!r} is a file; valid: a folder")


class _Results:
    """The predictions so far: counted, drawn, written to the journal, and the first rows kept for the screen.

    Files that an interrupted command finished are counted, and the names of their drawings stay taken.
    """

    def __init__(self, draw: Path | None, journal: Journal | StandardOutput | None, places: Sequence[Path]) -> None:
        self.statuses: Counter[str] = Counter()
        self.rows = 0
        self.shown: list[Row] = []
        self._draw, self._journal, self._places = draw, journal, places
        self._drawn: set[str] = set()
        if journal is not None:
            for rows in journal.images():
                found = [row for row in rows if "time" not in row]
                self.statuses[found[-1]["status"]] += 1
                self._drawing(found)
            if isinstance(journal, Journal) and journal.done:
                note(f"resuming {journal.path}: {journal.done:,} files are done")

    def add_photograph(self, file: str, rows: list[Row]) -> None:
        """Adds the rows of the next photograph."""
        drawing = self._drawing(rows)
        if drawing is not None:
            with _written(drawing) as part:
                annotate.draw_boxes(images.load(file), rows).save(part)
        self._add(rows)

    def add_clip(self, clip: ClipReader) -> None:
        """Predicts for the next clip."""
        from mien.base.console import progress

        if self._draw is not None:
            clip.sightings = {}
        name = printable(Path(clip.path).name)
        with progress(name, "frames") as update:
            seen = clip.frame_rows(update)
            frames = list(seen) if self._journal is not None else deque(seen, maxlen=0)
        rows = list(clip.track_rows())
        drawing = self._drawing(rows)
        if drawing is not None:
            with _written(drawing) as part, progress(f"drawing {name}", "frames") as update:
                draw_clip(clip, rows, part, update)
        self._add(rows, frames)

    def _add(self, rows: list[Row], frames: Iterable[Row] = ()) -> None:
        status = rows[-1]["status"]  # of a clip that ends early, the last row says so
        if status not in READ:
            images.check_there(self._places)
        self.statuses[status] += 1
        self.rows += len(rows)
        if len(self.shown) < SHOWN:
            self.shown += rows
        if self._journal is not None:
            self._journal.add([*frames, *rows])

    def _drawing(self, rows: list[Row]) -> Path | None:
        """Path of the annotated copy of a file with these rows; None: it gets none."""
        if self._draw is None or rows[0]["status"] != "ok":
            return None
        file = rows[0]["file"]
        return annotate.annotated_path(self._draw, file, self._drawn, ".mp4" if video_files.is_clip(file) else ".png")


def _resume_key(predictor: Predictor, files: Sequence[str], crops: bool, draw: Path | None) -> dict[str, Any]:
    """Everything that determines the predictions of a command, except the content of the images."""
    from mien.base.version import __version__

    names = hashlib.sha256("\0".join(files).encode("utf-8", "surrogateescape")).hexdigest()
    return {
        "list of images": names,
        "model": predictor.digest(),
        "detector": predictor.detector,
        "--min-face": predictor.min_face,
        "runtime": predictor.runtime,
        "--crops": crops,
        "--draw": None if draw is None else str(draw.absolute()),
        "version of mien": __version__,
    }


@contextmanager
def _progress(count: int) -> Iterator[Any]:
    if count <= 64:  # quicker than a progress bar can be read, and importing it costs more than one image
        with nullcontext():
            yield lambda done, total: None
        return
    from mien.base.console import progress

    with progress("predicting") as update:
        yield update


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    from mien.base.atomic import atomic_path

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        yield part


def _lines(rows: Iterable[Row]) -> Iterator[str]:
    """A table for the screen; importing rich would take longer than predicting one image."""
    cells = [_SCREEN, *(tuple(_cells(row)) for row in rows)]
    filled = [any(line[place] for line in cells[1:]) for place in range(len(_SCREEN))]
    widths = [max(len(line[place]) for line in cells) for place in range(len(_SCREEN))]
    for line in cells:
        shown = (cell.ljust(width) for cell, width, there in zip(line, widths, filled, strict=True) if there)
        yield "  ".join(shown).rstrip()


def _cells(row: Row) -> Iterator[str]:
    has_age = row.get("age") is not None
    yield printable(row["file"])
    yield "" if row.get("face_index") is None else str(row["face_index"])
    yield f"{row['start']:.1f} to {row['end']:.1f}" if "start" in row else ""
    yield f"{row['pooled']} of {row['frames']}" if "frames" in row else ""
    yield row.get("gender") or ""
    yield f"{row['p_female']:.2f}" if "p_female" in row else ""
    yield f"{row['age']:.1f}" if has_age else ""
    yield f"{row['age_low']:.0f} to {row['age_high']:.0f}" if has_age else ""
    yield row.get("age_group") or ""
    yield row["status"]
    yield row.get("quality") or ""


def summary(statuses: Counter[str], clips: int = 0) -> str:
    """Counts of the statuses in words, for files of which some are clips."""
    total = sum(statuses.values())
    noun = "image" if not clips else "clip" if clips == total else "file"
    counts = ", ".join(f"{count:,} {status}" for status, count in statuses.most_common())
    return f"{total:,} {noun}{'' if total == 1 else 's'}: {counts}"


def _summary(results: _Results, out: Path | None, draw: Path | None, clips: int) -> str:
    parts = [summary(results.statuses, clips)]
    if out is not None and str(out) not in STANDARD_OUTPUT:
        parts.append(f"table: {out}" + (f", and of the clips' frames: {frames_path(out)}" if clips else ""))
    elif out is None and results.rows > SHOWN:
        parts.append(f"only the first {SHOWN} rows are shown; --out FILE.csv writes all")
    if draw is not None:
        parts.append(f"drawings: {draw}")
    return "\n".join(parts)
