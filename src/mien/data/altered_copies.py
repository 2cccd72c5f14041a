"""Altered copies: pictures that are a mirrored, cropped, moved, framed or partly covered copy of another picture.

Perceptual hashes do not find these. Here a descriptor like that of SIFT (Lowe 2004), over the whole thumbnail, finds
candidates: gradients by place and direction change little when a picture is cropped. Each candidate is then aligned
(Lucas and Kanade 1981, with a scale and an offset a side), and compared where the two overlap. What this finds and
misses: benchmarks/copies.py, and "Duplicates" in docs/audit-data.md.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

SIDE = 32
"""Side of a thumbnail in pixels."""

DIFFERENCE = 0.008
"""How far aligned pictures may differ: one minus the structure term of SSIM, without the worst eighth of the pixels.

Set on 5,000 faces of UTKFace, where the nearest pair of different photographs was at 0.013, and on 1,652 drawn
portraits, where it was at 0.010. All 72 pairs that were then found in UTKFace and AAF show one photograph.
"""

_WINDOWS = (0.0, 0.04, 0.08)  # shares of each side that are cut off before a picture is looked for
_FOUND = 2  # candidates of each of these
_ALIKE = 0.96  # cosine of the descriptors of candidates, at least
_FLAT = 10.0  # standard deviation of grey values below which pictures are all alike
_LIST = 4096  # pictures of a list, about
_PROBED = 4  # lists that each picture is compared with, so that the cost is linear
_CELLS, _DIRECTIONS = 4, 8  # of the descriptor
_CHUNK = 512  # pairs that are aligned at once
_COARSE, _FINE = 4, 4  # steps of the alignment, on blurred and on sharp pictures
_HOPELESS = 0.08  # difference after the coarse steps from which the fine ones are spared
_OVERLAP = 0.6  # share of the picture that must be in the other
_COVERED = 0.125  # share of the pixels that may be anything: logos, writing
_C = 0.5 * (0.03 * 255) ** 2  # as in `duplicates`

_GRID = ((np.arange(SIDE) + 0.5) / SIDE).astype(np.float32)


class _Candidates(NamedTuple):
    """Pairs of positions (n,), whether the first is mirrored, and the share that is cut off its sides."""

    first: np.ndarray
    second: np.ndarray
    mirrored: np.ndarray
    cut: np.ndarray
    likeness: np.ndarray


def altered_copies(thumbnails: np.ndarray) -> pd.DataFrame:
    """Finds pairs of pictures of which one is an altered copy of the other.

    The cost is linear: each picture is compared with about 16,000 others, those most like it.

    Args:
        thumbnails: (n, 1024) uint8, the grey pixels of `duplicates.fingerprints`.

    Returns:
        One row a pair: `i` and `j`, positions with i < j; `difference`; `mirrored`.
    """
    _, first = np.unique(thumbnails, axis=0, return_index=True)  # equal ones would be the nearest of each other
    rows = np.sort(first)
    rows = rows[thumbnails[rows].std(axis=1) >= _FLAT]
    pictures = thumbnails[rows].reshape(-1, SIDE, SIDE)
    found = _best(_candidates(pictures) if len(rows) else iter([_Candidates(*np.empty((5, 0), dtype=np.int64))]))
    difference = np.empty(len(found.first))
    for start in range(0, len(difference), _CHUNK):
        part = slice(start, start + _CHUNK)
        difference[part] = _aligned_difference(pictures, _Candidates(*(values[part] for values in found)))
    near = difference <= DIFFERENCE
    ends = np.sort(np.stack([rows[found.first[near]], rows[found.second[near]]], axis=1), axis=1)
    pairs = pd.DataFrame(
        {"i": ends[:, 0], "j": ends[:, 1], "difference": difference[near], "mirrored": found.mirrored[near]}
    )
    return pairs.sort_values(["difference", "i", "j"]).drop_duplicates(["i", "j"]).sort_values(["i", "j"])


# ---- candidates --------------------------------------------------------------------------------------------------


def _candidates(pictures: np.ndarray) -> Iterator[_Candidates]:
    base = _descriptors(pictures, False, 0.0)
    lists = _Lists(base)
    for mirrored in (False, True):
        for cut in _WINDOWS:
            queries = base if not mirrored and not cut else _descriptors(pictures, mirrored, cut)
            others, likeness = lists.nearest(queries)
            row, place = np.nonzero(likeness >= _ALIKE)
            count = len(row)
            yield _Candidates(
                row, others[row, place], np.full(count, mirrored), np.full(count, cut), likeness[row, place]
            )


def _best(found: Iterator[_Candidates]) -> _Candidates:
    """Each pair once, mirrored and not, in the way in which the descriptors are most alike."""
    all_ = [np.concatenate(values) for values in zip(*found, strict=True)]
    low, high = np.minimum(all_[0], all_[1]), np.maximum(all_[0], all_[1])
    keys = pd.DataFrame({"low": low, "high": high, "mirrored": all_[2], "likeness": all_[4]})
    kept = keys.sort_values("likeness", ascending=False, kind="stable").drop_duplicates(["low", "high", "mirrored"])
    order = np.sort(kept.index.to_numpy())
    return _Candidates(*(values[order] for values in all_))


def _descriptors(pictures: np.ndarray, mirrored: bool, cut: float) -> np.ndarray:
    """The descriptors (n, 128), of length 1, of pictures mirrored and cut."""
    out = np.empty((len(pictures), _CELLS * _CELLS * _DIRECTIONS), dtype=np.float32)
    window = _sampling(np.array([1 - 2 * cut]), np.array([cut]))[0][0]
    for start in range(0, len(pictures), 1024):
        part = pictures[start : start + 1024].astype(np.float32)
        part = part[:, :, ::-1] if mirrored else part
        out[start : start + 1024] = _descriptor(window @ part @ window.T if cut else part)
    return out


def _descriptor(pictures: np.ndarray) -> np.ndarray:
    across, down = np.zeros_like(pictures), np.zeros_like(pictures)
    across[:, :, 1:-1] = pictures[:, :, 2:] - pictures[:, :, :-2]
    down[:, 1:-1] = pictures[:, 2:] - pictures[:, :-2]
    strength = np.hypot(across, down)
    direction = np.arctan2(down, across) * (_DIRECTIONS / (2 * np.pi)) % _DIRECTIONS
    lower = direction.astype(np.int64) % _DIRECTIONS
    share = direction - np.floor(direction)
    centres = (np.arange(_CELLS, dtype=np.float32) + 0.5) / _CELLS
    cells = np.maximum(0, 1 - np.abs(_GRID - centres[:, None]) * _CELLS)
    planes = []
    for number in range(_DIRECTIONS):
        weight = np.where(lower == number, 1 - share, 0) + np.where((lower + 1) % _DIRECTIONS == number, share, 0)
        planes.append((cells @ (strength * weight) @ cells.T).reshape(len(pictures), -1))
    out = np.sqrt(np.concatenate(planes, axis=1))  # of histograms, roots compare better (Arandjelovic 2012)
    return out / (np.linalg.norm(out, axis=1, keepdims=True) + 1e-6)


class _Lists:
    """Descriptors in lists around some of them; a search looks only into the lists that are nearest."""

    def __init__(self, base: np.ndarray) -> None:
        self._base = base
        count = max(1, len(base) // _LIST)
        self._centres = base[np.sort(np.random.default_rng(0).permutation(len(base))[:count])]
        nearest = self._probes(base, 1)[:, 0]
        self._members = [np.flatnonzero(nearest == number) for number in range(len(self._centres))]

    def _probes(self, queries: np.ndarray, count: int) -> np.ndarray:
        out = np.empty((len(queries), min(count, len(self._centres))), dtype=np.int64)
        for start in range(0, len(queries), _LIST):
            likeness = queries[start : start + _LIST] @ self._centres.T
            out[start : start + _LIST] = np.argsort(-likeness, axis=1, kind="stable")[:, : out.shape[1]]
        return out

    def nearest(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions and cosines (n, 2) of the nearest others; query k and picture k are the same picture."""
        others = np.zeros((len(queries), _FOUND), dtype=np.int64)
        likeness = np.full((len(queries), _FOUND), -1.0, dtype=np.float32)
        probes = self._probes(queries, _PROBED)
        for number, members in enumerate(self._members):
            asking = np.flatnonzero((probes == number).any(axis=1))
            for start in range(0, len(asking), 1024):
                rows = asking[start : start + 1024]
                self._look(queries, rows, members, others, likeness)
        return others, likeness

    def _look(
        self, queries: np.ndarray, rows: np.ndarray, members: np.ndarray, others: np.ndarray, likeness: np.ndarray
    ) -> None:
        """Compares some queries with a list, and keeps the nearest so far."""
        here = queries[rows] @ self._base[members].T
        here[rows[:, None] == members] = -1
        for _ in range(min(_FOUND, len(members))):
            at = here.argmax(axis=1)
            value = here[np.arange(len(rows)), at]
            worst = likeness[rows].argmin(axis=1)
            better = value > likeness[rows, worst]
            likeness[rows[better], worst[better]] = value[better]
            others[rows[better], worst[better]] = members[at[better]]
            here[np.arange(len(rows)), at] = -1


# ---- alignment ---------------------------------------------------------------------------------------------------


def _aligned_difference(pictures: np.ndarray, pairs: _Candidates) -> np.ndarray:
    """The difference (n,) of each pair after alignment; infinite where they share too little."""
    one, other = (pictures[rows].astype(np.float32) for rows in (pairs.first, pairs.second))
    one = np.where(pairs.mirrored[:, None, None], one[:, :, ::-1], one)
    scale = 1 - 2 * pairs.cut
    warp = np.stack([scale, pairs.cut, scale, pairs.cut], axis=1)
    soft_one, soft_other = _blurred(one), _blurred(other)
    for _ in range(_COARSE):
        warp = _step(soft_one, soft_other, warp)
    out = np.full(len(one), np.inf)
    hopeful = np.flatnonzero(_difference(one, other, warp) <= _HOPELESS)
    one, other, warp = one[hopeful], other[hopeful], warp[hopeful]
    for _ in range(_FINE):
        warp = _step(one, other, warp)
    out[hopeful] = _difference(one, other, warp)
    return out


def _blurred(pictures: np.ndarray) -> np.ndarray:
    away = np.subtract.outer(np.arange(SIDE), np.arange(SIDE))
    kernel = np.exp(-0.5 * away**2).astype(np.float32)
    kernel /= kernel.sum(axis=1, keepdims=True)
    return kernel @ pictures @ kernel.T


def _sampling(scale: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (n, 32, 32) that sample a side at scale * x + offset, x from 0 to 1, and which samples (n, 32) exist."""
    at = (scale[:, None] * _GRID + offset[:, None]) * SIDE - 0.5
    there = (at >= -0.5) & (at <= SIDE - 0.5)
    at = np.clip(at, 0, SIDE - 1)
    return np.maximum(0, 1 - np.abs(at[:, :, None] - np.arange(SIDE))).astype(np.float32), there


def _warped(pictures: np.ndarray, warp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures under a warp (n, 4), scale and offset across, then down; and where they have pixels (n, 32, 32)."""
    across, wide = _sampling(warp[:, 0], warp[:, 1])
    down, high = _sampling(warp[:, 2], warp[:, 3])
    return down @ pictures @ across.transpose(0, 2, 1), (high[:, :, None] & wide[:, None, :]).astype(np.float32)


def _step(one: np.ndarray, other: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """One step of Gauss and Newton towards the warp, gain and offset of grey values that turn `one` into `other`."""
    if not len(one):
        return warp
    seen, there = _warped(one, warp)
    down = np.gradient(seen, 1 / SIDE, axis=1) / warp[:, 2, None, None] * there
    across = np.gradient(seen, 1 / SIDE, axis=2) / warp[:, 0, None, None] * there
    terms = [across * _GRID, across, down * _GRID[:, None], down, seen * there, there]
    jacobian = np.stack(terms, axis=-1).reshape(len(one), SIDE * SIDE, 6).astype(np.float32)
    turned = jacobian.transpose(0, 2, 1)
    normal = (turned @ jacobian).astype(np.float64)
    diagonal = np.einsum("nii->ni", normal).copy()
    normal[:, range(6), range(6)] += 1e-3 * diagonal + 1e-6  # Levenberg's: flat pictures have no solution
    target = (turned @ (other * there).reshape(len(one), -1, 1)).astype(np.float64)
    solved = np.linalg.solve(normal, target)[:, :, 0]
    gain = np.maximum(np.abs(solved[:, 4:5]), 0.05) * np.where(solved[:, 4:5] < 0, -1, 1)
    moved = warp + np.clip(solved[:, :4] / gain, -0.06, 0.06)
    moved[:, [0, 2]] = np.clip(moved[:, [0, 2]], 0.6, 1.6)
    moved[:, [1, 3]] = np.clip(moved[:, [1, 3]], -0.4, 0.4)
    return moved


def _difference(one: np.ndarray, other: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """The difference (n,) of pictures under a warp where they overlap; infinite where they overlap too little."""
    if not len(one):
        return np.empty(0)
    seen, there = (part.reshape(len(one), -1) for part in _warped(one, warp))
    other = other.reshape(len(one), -1)
    whole, gain, left, right = _structure(seen, other, there)
    residual = np.where(there > 0, np.abs(right - gain[:, None] * left), -1)
    count = there.sum(axis=1)
    worst = np.sort(residual, axis=1)[np.arange(len(one)), (SIDE * SIDE - 1 - _COVERED * count).astype(int)]
    trimmed = _structure(seen, other, there * (residual <= worst[:, None]))[0]
    return np.where(count >= _OVERLAP * SIDE * SIDE, np.minimum(whole, trimmed), np.inf)


def _structure(
    one: np.ndarray, other: np.ndarray, where: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One minus SSIM's structure term (n,), the gain of grey values (n,), and both pictures without their means."""
    count = where.sum(axis=1, keepdims=True) + 1e-9
    left = (one - (one * where).sum(axis=1, keepdims=True) / count) * where
    right = (other - (other * where).sum(axis=1, keepdims=True) / count) * where
    covariance, first, second = (
        (a * b).sum(axis=1) / count[:, 0] for a, b in ((left, right), (left, left), (right, right))
    )
    difference = 1 - (covariance + _C) / (np.sqrt(first * second) + _C)
    return difference, covariance / (first + 1e-6), left, right
