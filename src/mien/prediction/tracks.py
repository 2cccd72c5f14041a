"""Faces followed through a clip by where they are: times and boxes in, numbers of tracks out. Nobody is identified.

A track is expected where its last two places lead, and takes the face that lies best over this place. How much two
boxes agree is the share that they have in common (intersection over union) after both were made twice as wide: half
a second after the last look a face may well have left its own box.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mien.data.images import Box

GAP = 2.0
"""So many seconds at most a face may be away and still be the same track."""

OVERLAP = 0.2
"""Boxes of one track agree at least so much: a face that moved by 4/3 of its side, or is 2.2 times as large."""

_KEEPS_MOVING = 1.0  # seconds for which a face that is not seen is expected to move on
_SETTLING = 0.5  # seconds over which a track's velocity is averaged, since boxes jitter


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
    """Gives the faces of each look at a clip the numbers of their tracks: 0, 1, ... in the order of appearance.

    Args:
        gap: Seconds after which a face that was not seen again is no longer waited for.
    """

    def __init__(self, gap: float = GAP) -> None:
        self.gap = gap
        self._tracks: list[_Track] = []
        self._next = 0

    def __call__(self, time: float, boxes: Sequence[Box], cut: bool = False) -> list[int]:
        """The number of each box's track.

        Args:
            time: Of this look, in seconds, later than that of the look before.
            boxes: Of the faces that are seen now, in pixels.
            cut: The picture is another one since the last look (a new shot, a new clip): no track goes on.
        """
        self._tracks = [track for track in self._tracks if not cut and time - track.time <= self.gap]
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
        """Pairs of a box's place and a track, those that agree best first, each used once."""
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
    """Intersection over union of two boxes after each was made twice as wide and high around its middle, 0 to 1."""
    (x, y), (other_x, other_y) = _middle(first), _middle(second)
    (_, _, w, h), (_, _, other_w, other_h) = first, second
    across = min(x + w, other_x + other_w) - max(x - w, other_x - other_w)
    upright = min(y + h, other_y + other_h) - max(y - h, other_y - other_h)
    common = max(0.0, across) * max(0.0, upright)
    return common / (4 * w * h + 4 * other_w * other_h - common)


def _middle(box: Box) -> tuple[float, float]:
    x, y, w, h = box
    return x + w / 2, y + h / 2
