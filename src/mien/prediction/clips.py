"""Predictions for clips: one row per face and sampled frame, and one row per tracked face.

Pooling: every output of the model (`p_female`, the three ages, the age groups) is averaged over the frames of a track
without quality notes, or over all frames if each has one, with equal weights; the labels follow from the means as for
a single face (benchmarks/pooling.py compares methods). The mean of the medians and of the
ends of the intervals is the median and the interval of the distribution whose quantiles are the means of the frames'
quantiles (Vincent 1912; Lichtendahl, Grushka-Cockayne and Winkler 2013). Its interval is as wide as that of a typical
frame: the frames of one face are not independent, so that more frames do not make the age more certain.
"""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mien.base.errors import MienError
from mien.data.images import Box, ImageError
from mien.prediction import annotate
from mien.prediction.predict import FaceCrop, Predictor, Row
from mien.prediction.tracking import GAP, Follower
from mien.prediction.video_files import ClipWriter, Frame, frames

if TYPE_CHECKING:
    import pandas as pd

    from mien.base.progress import ProgressCallback

EVERY = 0.5
"""Default sampling interval of clips in seconds."""

TRACK_COLUMNS = ("start", "end", "frames", "pooled")
"""Columns that clips add to the predictions table."""

_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


class Sighting(NamedTuple):
    """A detection of a tracked face."""

    time: float
    box: Box | tuple[()]
    """Empty if the whole frame is the face."""


@dataclass
class Track:
    """A tracked face: the sums for its pooled row, in constant memory."""

    start: float
    end: float
    frames: int = 0
    pooled: int = 0
    """Number of frames in the sums: those without quality notes, if there are any."""
    sums: dict[str, float] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, time: float, outputs: dict[str, float], quality: str) -> None:
        """Adds a frame of the face."""
        self.end = time
        self.frames += 1
        spotless = self.pooled > 0 and not self.notes
        if quality and spotless:
            return
        if not quality and not spotless:
            self.pooled, self.sums = 0, {}
            self.notes.clear()
        self.pooled += 1
        for name, value in outputs.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.notes.update(note for note in quality.split("; ") if note)


class ClipReader:
    """Predicts for the frames of one clip and tracks the faces, in constant memory.

    Args:
        predictor: The model and the detector.
        path: A video file.
        every: Sampling interval in seconds.
        crops: Whether each frame is a face crop.
    """

    def __init__(self, predictor: Predictor, path: str | Path, every: float = EVERY, crops: bool = False) -> None:
        check_every(every)
        self.sightings: dict[int, list[Sighting]] | None = None
        """The detections of each track; recorded only if a dictionary is assigned before reading."""
        self._predictor = predictor
        self.path = str(path)
        self.every = every
        self._crops = crops
        self._tracks: dict[int, Track] = {}
        self._time = 0.0
        self._error = ""

    def frame_rows(self, progress: "ProgressCallback | None" = None) -> Iterator[Row]:
        """Yields the rows of the frames: faces, frames without a face, and at the end why the clip ended."""
        follow = Follower(max(GAP, 2 * self.every))
        try:
            for done, (frame, face_crops) in enumerate(self._sampled_frames(), 1):
                self._time = frame.time
                rows = list(self._predictor.predict_crops(face_crops))
                seen = [row for row in rows if row["status"] == "ok"]
                numbers = follow(frame.time, [_box(row) or _WHOLE for row in seen], frame.new_shot)
                for number, row in zip(numbers, seen, strict=True):
                    row["face_index"] = number
                    self._add(number, row)
                yield from (row | {"time": round(frame.time, 3)} for row in rows)
                if progress:
                    progress(done, _expected(done, frame.share))
        except ImageError as error:
            self._error = error.reason
            yield {"file": self.path, "time": round(self._time, 3), "status": self._error}

    def track_rows(self) -> Iterator[Row]:
        """Yields, after `frame_rows`, one row per tracked face, or the reason for none, and why the clip ended."""
        for number, track in self._tracks.items():
            times = {"start": round(track.start, 3), "end": round(track.end, 3)}
            counts = {"frames": track.frames, "pooled": track.pooled}
            means = {name: total / track.pooled for name, total in track.sums.items()}
            notes = "; ".join(note for note, count in track.notes.items() if 2 * count > track.pooled)
            row = {"file": self.path, "face_index": number, **times, **counts, "status": "ok"}
            yield row | self._predictor.predict_mean(means) | {"quality": notes}
        if self._error:
            yield {"file": self.path, "end": round(self._time, 3), "status": self._error}
        elif not self._tracks:
            yield {"file": self.path, "status": "no face"}

    def _add(self, number: int, row: Row) -> None:
        track = self._tracks.setdefault(number, Track(self._time, self._time))
        track.add(self._time, {name: row[name] for name in self._predictor.outputs}, row["quality"])
        if self.sightings is not None:
            self.sightings.setdefault(number, []).append(Sighting(self._time, _box(row)))

    def _sampled_frames(self) -> Iterator[tuple[Frame, list[FaceCrop]]]:
        """Yields frames with their faces, while as many next frames as there are threads are being processed."""
        waiting: deque[tuple[Frame, Future[list[FaceCrop]]]] = deque()
        failure: ImageError | None = None
        with ThreadPoolExecutor(self._predictor.threads) as pool:
            try:
                for frame in frames(self.path, self.every):
                    waiting.append(
                        (frame, pool.submit(self._predictor.crop_faces, frame.image, self.path, self._crops))
                    )
                    if len(waiting) > self._predictor.threads:
                        looked, face_crops = waiting.popleft()
                        yield looked, face_crops.result()
            except ImageError as error:
                failure = error
            yield from ((frame, face_crops.result()) for frame, face_crops in waiting)
        if failure is not None:
            raise failure


def check_every(every: float) -> None:
    """Raises MienError if the sampling interval is not positive and finite."""
    if not 0 < every < float("inf"):
        raise MienError(
            f"every is {every!r}; valid: the sampling interval of clips in seconds, more than 0, for instance 0.5"
        )


class ClipTables(NamedTuple):
    """The predictions for a clip."""

    tracks: "pd.DataFrame"
    """The predictions table with one row per tracked face, `face_index` its number, and `TRACK_COLUMNS`."""
    frames: "pd.DataFrame"
    """The predictions table with one row per face and sampled frame, with `time` and the same `face_index`."""


def predict_clip(
    predictor: Predictor,
    path: str | Path,
    every: float = EVERY,
    crops: bool = False,
    progress: "ProgressCallback | None" = None,
) -> ClipTables:
    """Predicts for a clip; see `ClipReader`."""
    import pandas as pd

    reader = ClipReader(predictor, path, every, crops)
    rows = list(reader.frame_rows(progress))
    tracks = pd.DataFrame(list(reader.track_rows()), columns=track_columns(predictor))
    return ClipTables(tracks, pd.DataFrame(rows, columns=frame_columns(predictor)))


def track_columns(predictor: Predictor) -> list[str]:
    """Returns the columns of the predictions table with clips."""
    file, face, *rest = predictor.columns
    return [file, face, *TRACK_COLUMNS, *rest]


def frame_columns(predictor: Predictor) -> list[str]:
    """Returns the columns of the table of frames."""
    file, *rest = predictor.columns
    return [file, "time", *rest]


def draw_clip(clip: ClipReader, rows: Sequence[Row], out: Path, progress: "ProgressCallback | None" = None) -> None:
    """Writes a copy of a clip, without sound, with the box and the pooled prediction of each track.

    Args:
        clip: A clip that has been read, with its sightings.
        rows: The rows of its tracks.
        out: A `.mp4` file.
        progress: Called with the number of frames done and the expected total.
    """
    assert clip.sightings is not None
    tracks = [(row, clip.sightings[row["face_index"]]) for row in rows if row["status"] == "ok"]
    with ClipWriter(out) as writer, suppress(ImageError):  # a clip that ends early is drawn as far as possible
        for done, frame in enumerate(frames(clip.path), 1):
            placed = [(row, place(seen, frame.time, clip.every)) for row, seen in tracks]
            shown = [row | dict(zip("xywh", box, strict=False)) for row, box in placed if box is not None]
            writer.add(np.asarray(annotate.draw_boxes(frame.image, shown, _words)), frame.time)
            if progress:
                progress(done, _expected(done, frame.share))


def place(seen: Sequence[Sighting], time: float, every: float) -> Sequence[float] | None:
    """Returns the box of a track at a time: x, y, w and h; empty for the whole frame; None if it is not shown.

    Between consecutive detections the box is interpolated linearly. Before, after and in gaps it is kept for half of
    the sampling interval.
    """
    after = bisect_right(seen, time, key=lambda sighting: sighting.time)
    near = seen[max(0, after - 1) : after + 1]
    if len(near) == 2 and near[0].time <= time and near[1].time - near[0].time < 1.5 * every:
        share = (time - near[0].time) / (near[1].time - near[0].time)
        return [a + share * (b - a) for a, b in zip(near[0].box, near[1].box, strict=True)]
    nearest = min(near, key=lambda sighting: abs(sighting.time - time))
    return nearest.box if abs(nearest.time - time) <= every / 2 else None


def _words(row: Row) -> str:
    return f"{row['face_index']}: {annotate.label(row)}"


def _expected(done: int, share: float) -> int:
    """The expected number of frames, from the share of the file that has been read."""
    return max(done, round(done / share)) if share else done


def _box(row: Row) -> Box | tuple[()]:
    return (row["x"], row["y"], row["w"], row["h"]) if "x" in row else ()
