"""Tracking of faces in a clip by position: times and boxes in, track numbers out. Nobody is identified.

The next position of a track is extrapolated from its velocity and matched with the face that overlaps it most.
Overlap is the intersection over union after both boxes were doubled in size: half a second later, a face may have
left its own box.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mien.data.images import Box

GAP = 2.0
"""Maximum seconds without a detection within one track."""

OVERLAP = 0.2
"""Minimum overlap of boxes of one track: a shift by 4/3 of the side, or a size ratio of 2.2."""

_KEEPS_MOVING = 1.0  # seconds for which the position of an undetected face is extrapolated
_SETTLING = 0.5  # time constant of the velocity in seconds, since boxes jitter


@dataclass
class _Track:
    number: int
    time: float
    box: Box
    right: float = 0.0  # pixels a second, of the middle
    down: float = 0.0

    def expected(self, time: float) -> Box:
        x, y, w, h = self.box
        past = min(time - self.time, _KEEPS_MOVING)
        return x + self.right * past, y + self.down * past, w, h

    def move(self, time: float, box: Box) -> None:
        past = time - self.time
        share = 1 - math.exp(-past / _SETTLING)
        (x, y), (old_x, old_y) = _middle(box), _middle(self.box)
        self.right += share * ((x - old_x) / past - self.right)
        self.down += share * ((y - old_y) / past - self.down)
        self.time, self.box = time, box


class Follower:
    """Assigns track numbers to the faces of each sampled frame: 0, 1, ... in the order of appearance.

    Args:
        gap: Seconds without a detection after which a track ends.
    """

    def __init__(self, gap: float = GAP) -> None:
        self.gap = gap
        self._tracks: list[_Track] = []
        self._next = 0

    def __call__(self, time: float, boxes: Sequence[Box], new_shot: bool = False) -> list[int]:
        """Returns the track number of each box.

        Args:
            time: Time of the frame in seconds, later than that of the previous frame.
            boxes: Boxes of the detected faces, in pixels.
            cut: Whether a new shot or clip began since the last frame, which ends all tracks.
        """
        self._tracks = [track for track in self._tracks if not new_shot and time - track.time <= self.gap]
        found = self._match(time, boxes)
        numbers = []
        for place, box in enumerate(boxes):
            track = found.get(place)
            if track is None:
                track = _Track(self._next, time, box)
                self._next += 1
                self._tracks.append(track)
            else:
                track.move(time, box)
            numbers.append(track.number)
        return numbers

    def _match(self, time: float, boxes: Sequence[Box]) -> dict[int, _Track]:
        """Matches boxes (by index) and tracks greedily by overlap, each at most once."""
        pairs = [
            (agreement(track.expected(time), box), place, track)
            for track in self._tracks
            for place, box in enumerate(boxes)
        ]
        found: dict[int, _Track] = {}
        taken: set[int] = set()
        for overlap, place, track in sorted(pairs, key=lambda pair: -pair[0]):
            if overlap >= OVERLAP and place not in found and track.number not in taken:
                found[place] = track
                taken.add(track.number)
        return found


def agreement(first: Box, second: Box) -> float:
    """Returns the intersection over union of two boxes, each doubled in size around its centre, 0 to 1."""
    (x, y), (other_x, other_y) = _middle(first), _middle(second)
    (_, _, w, h), (_, _, other_w, other_h) = first, second
    across = min(x + w, other_x + other_w) - max(x - w, other_x - other_w)
    upright = min(y + h, other_y + other_h) - max(y - h, other_y - other_h)
    common = max(0.0, across) * max(0.0, upright)
    return common / (4 * w * h + 4 * other_w * other_h - common)


def _middle(box: Box) -> tuple[float, float]:
    x, y, w, h = box
    return x + w / 2, y + h / 2
