"""A clip to rows: one for each face in each frame that is looked at, and one for each face that was followed.

Pooling: every output of the model (`p_female`, the three ages, the age groups) is averaged over the frames of a track
whose quality has no note, or over all where none is without, each frame alike; the words follow from the means as they
do for a single face (benchmarks/pooling.py compares ways). The mean of the medians and of the
ends of the intervals is the median and the interval of the distribution whose quantiles are the means of the frames'
quantiles (Vincent 1912; Lichtendahl, Grushka-Cockayne and Winkler 2013). Its interval is as wide as a typical frame's:
many frames of one face repeat one perception, and so do not make its age surer.
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
from mien.prediction.predict import Cut, Predictor, Row
from mien.prediction.tracks import GAP, Follower
from mien.prediction.video import ClipWriter, Frame, frames

if TYPE_CHECKING:
    import pandas as pd

    from mien.base.progress import ProgressCallback

EVERY = 0.5
"""Seconds between two looks at a clip, unless others are asked for."""

TRACK_COLUMNS = ("start", "end", "frames", "pooled")
"""Columns that clips add to the predictions table."""

_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


class Sighting(NamedTuple):
    """Where the face of a track was seen."""

    time: float
    box: Box | tuple[()]
    """Empty where the whole picture is the face."""


@dataclass
class Track:
    """A face that is being followed: what its pooled row needs, whatever its length."""

    start: float
    end: float
    frames: int = 0
    pooled: int = 0
    """How many of its frames the sums are of: those without a note, as soon as there is one."""
    sums: dict[str, float] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, time: float, outputs: dict[str, float], quality: str) -> None:
        """One more frame of the face."""
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
    """Predicts for the frames of one clip and follows the faces, in memory that does not grow with the frames.

    Args:
        predictor: With the model and the detector to use.
        path: A video file.
        every: Seconds between two looks.
        crops: Each frame already is a face.
    """

    def __init__(self, predictor: Predictor, path: str | Path, every: float = EVERY, crops: bool = False) -> None:
        check_every(every)
        self.sightings: dict[int, list[Sighting]] | None = None
        """Where each track was seen, if a dictionary is put here before the frames are read."""
        self._predictor = predictor
        self.path = str(path)
        self.every = every
        self._crops = crops
        self._tracks: dict[int, Track] = {}
        self._time = 0.0
        self._trouble = ""

    def frame_rows(self, progress: "ProgressCallback | None" = None) -> Iterator[Row]:
        """The rows of faces in frames as they come, of frames without one, and last what ended the clip early."""
        follow = Follower(max(GAP, 2 * self.every))
        try:
            for done, (frame, cuts) in enumerate(self._looks(), 1):
                self._time = frame.time
                rows = list(self._predictor.answers(cuts))
                seen = [row for row in rows if row["status"] == "ok"]
                numbers = follow(frame.time, [_box(row) or _WHOLE for row in seen], frame.cut)
                for number, row in zip(numbers, seen, strict=True):
                    row["face_index"] = number
                    self._add(number, row)
                yield from (row | {"time": round(frame.time, 3)} for row in rows)
                if progress:
                    progress(done, _expected(done, frame.share))
        except ImageError as error:
            self._trouble = error.reason
            yield {"file": self.path, "time": round(self._time, 3), "status": self._trouble}

    def track_rows(self) -> Iterator[Row]:
        """After `frame_rows`: a row for each face that was followed, or why there is none, and what ended the clip."""
        for number, track in self._tracks.items():
            times = {"start": round(track.start, 3), "end": round(track.end, 3)}
            counts = {"frames": track.frames, "pooled": track.pooled}
            means = {name: total / track.pooled for name, total in track.sums.items()}
            notes = "; ".join(note for note, count in track.notes.items() if 2 * count > track.pooled)
            row = {"file": self.path, "face_index": number, **times, **counts, "status": "ok"}
            yield row | self._predictor.pooled(means) | {"quality": notes}
        if self._trouble:
            yield {"file": self.path, "end": round(self._time, 3), "status": self._trouble}
        elif not self._tracks:
            yield {"file": self.path, "status": "no face"}

    def _add(self, number: int, row: Row) -> None:
        track = self._tracks.setdefault(number, Track(self._time, self._time))
        track.add(self._time, {name: row[name] for name in self._predictor.outputs}, row["quality"])
        if self.sightings is not None:
            self.sightings.setdefault(number, []).append(Sighting(self._time, _box(row)))

    def _looks(self) -> Iterator[tuple[Frame, list[Cut]]]:
        """Frames with their faces; the next frames, but no more than there are threads, are decoded meanwhile."""
        waiting: deque[tuple[Frame, Future[list[Cut]]]] = deque()
        trouble: ImageError | None = None
        with ThreadPoolExecutor(self._predictor.threads) as pool:
            try:
                for frame in frames(self.path, self.every):
                    waiting.append((frame, pool.submit(self._predictor.cuts, frame.image, self.path, self._crops)))
                    if len(waiting) > self._predictor.threads:
                        looked, cuts = waiting.popleft()
                        yield looked, cuts.result()
            except ImageError as error:
                trouble = error
            yield from ((frame, cuts.result()) for frame, cuts in waiting)
        if trouble is not None:
            raise trouble


def check_every(every: float) -> None:
    """Raises MienError where the seconds between two looks are none."""
    if not 0 < every < float("inf"):
        raise MienError(
            f"every is {every!r}; valid: seconds between two looks at a clip, more than 0, for instance 0.5"
        )


class ClipTables(NamedTuple):
    """What a clip shows."""

    tracks: "pd.DataFrame"
    """The predictions table, one row a face that was followed, `face_index` its number; with `TRACK_COLUMNS`."""
    frames: "pd.DataFrame"
    """The predictions table, one row a face in a frame that was looked at, with `time` and the same `face_index`."""


def predict_clip(
    predictor: Predictor,
    path: str | Path,
    every: float = EVERY,
    crops: bool = False,
    progress: "ProgressCallback | None" = None,
) -> ClipTables:
    """Both tables of a clip; see `ClipReader`."""
    import pandas as pd

    reader = ClipReader(predictor, path, every, crops)
    rows = list(reader.frame_rows(progress))
    tracks = pd.DataFrame(list(reader.track_rows()), columns=track_columns(predictor))
    return ClipTables(tracks, pd.DataFrame(rows, columns=frame_columns(predictor)))


def track_columns(predictor: Predictor) -> list[str]:
    """The columns of the predictions table where there are clips."""
    file, face, *rest = predictor.columns
    return [file, face, *TRACK_COLUMNS, *rest]


def frame_columns(predictor: Predictor) -> list[str]:
    """The columns of the table of a clip's frames."""
    file, *rest = predictor.columns
    return [file, "time", *rest]


def draw_clip(clip: ClipReader, rows: Sequence[Row], out: Path, progress: "ProgressCallback | None" = None) -> None:
    """Writes a clip again, without sound, with the box and the pooled answer of each track on every frame.

    Args:
        clip: That has been read, with its sightings.
        rows: Of its tracks.
        out: A `.mp4` file.
        progress: Told how many frames are done.
    """
    assert clip.sightings is not None
    tracks = [(row, clip.sightings[row["face_index"]]) for row in rows if row["status"] == "ok"]
    with ClipWriter(out) as writer, suppress(ImageError):  # of a clip that ends early, what there is
        for done, frame in enumerate(frames(clip.path), 1):
            placed = [(row, place(seen, frame.time, clip.every)) for row, seen in tracks]
            shown = [row | dict(zip("xywh", box, strict=False)) for row, box in placed if box is not None]
            writer.add(np.asarray(annotate.draw_boxes(frame.image, shown, _words)), frame.time)
            if progress:
                progress(done, _expected(done, frame.share))


def place(seen: Sequence[Sighting], time: float, every: float) -> Sequence[float] | None:
    """Where a track's box is drawn at a time: x, y, w and h, nothing for the whole picture, None for nowhere.

    Between two looks in a row that saw the face the box goes straight from one place to the other. At the ends, and
    where the face was away, it stays for half the time between two looks.
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
    """How many there will be, from the share of the file that has been read."""
    return max(done, round(done / share)) if share else done


def _box(row: Row) -> Box | tuple[()]:
    return (row["x"], row["y"], row["w"], row["h"]) if "x" in row else ()
