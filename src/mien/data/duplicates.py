"""Exact and near-duplicate pictures: fingerprints of images, the pairs that match, and groups of them.

A fingerprint is a 64-bit perceptual hash and the 32x32 grey thumbnail from which it is made. The hash finds
candidates among many images quickly, the thumbnails decide: aligned faces and drawn portraits share the low
frequencies that the hash looks at without being the same photograph.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mien.base.atomic import atomic_path
from mien.base.errors import MienError, MissingExtra
from mien.data import images
from mien.data.altered_copies import SIDE, altered_copies
from mien.data.face_pixels import cache_folder
from mien.data.split_units import components

DISTANCE = 6
"""Bits in which the hashes of near-duplicates may differ, by default."""

DIFFERENCE = 0.05
"""How far the thumbnails of near-duplicates may differ, by default (see `near_duplicates`).

Both defaults were set on 19,923 aligned faces of UTKFace. 2,684 pairs have hashes within 6 bits, some of
them of different people even within 2. Of those whose thumbnails are within 0.05, all 50 from 0.015 on were
looked at, and each shows one photograph; the first pair of different people is at 0.057, and above 0.06
most are. The 868 pairs found make 761 groups of 1,595 images; 7.8% of the pairs with equal hashes disagree
about gender. Hashes within 8 bits would add 10 pairs. Among 1,500 drawn portraits there is no pair; the
nearest is at 0.078.
"""

RECALL = (
    "The search does not find every copy: in a measurement it found 99.7% of those that were encoded again, resized, "
    "darkened, mirrored or cropped by up to 8% a side (n 2,200), 87% of those that were shifted, framed or had a logo "
    "(n 1,200), and 32% of those that were turned by 3 degrees (n 200)."
)
"""What reports say wherever they say that nothing was found; benchmarks/copies.py and docs/audit-data.md."""

_DECODED = 64  # the shorter side that JPEG files are decoded at, where they are larger
_CHUNK = 64  # images that a worker gets at once
_WINDOW = 512  # images of equal key that each is compared with
_MANY = 4_000_000  # images from which on three bands must agree: fewer agree by chance, more orders are sorted
_MEMBERS = 8  # different images of one hash that are compared with those of other hashes
_CACHE_FILE = "fingerprints-1.npz"  # count up when the fingerprint of an image changes
_C = 0.5 * (0.03 * 255) ** 2  # keeps flat thumbnails from being divided by nothing

_Print = tuple[str, int, bytes]


def fingerprints(
    paths: Sequence[Path],
    jobs: int | None = None,
    progress: Callable[[int, int], object] | None = None,
    cache: Path | None = None,
) -> pd.DataFrame:
    """Computes the fingerprint of each image file.

    Args:
        paths: n files.
        jobs: Processes; None: one for each core.
        progress: Called with the number of images done and of all, now and then.
        cache: A folder that keeps fingerprints of files (by path, size and time of change) from call to call.

    Returns:
        n rows in the order of `paths`: `path`; `status`, "ok" or the reason why the image cannot be used (see
        `mien.data.images.load`); `hash`, uint64, ImageHash's pHash; `thumbnail`, the bytes of 32x32 grey pixels.
        Where the status is not "ok" the hash is 0 and the thumbnail empty.

    Raises:
        MissingExtra: The packages of the extra `report` are not installed.
        MienError: `jobs` is below 1.
    """
    _need_imagehash()
    if jobs is not None and jobs < 1:
        raise MienError(f"jobs={jobs!r} is not a valid number of processes; valid: 1 or more")
    files = [Path(path) for path in paths]
    keys = [file_key(path) for path in files]
    known = _read_cache(cache)
    todo = [row for row, key in enumerate(keys) if key not in known]
    results = _compute([files[row] for row in todo], jobs or os.cpu_count() or 1)
    found = {}
    if progress:
        progress(len(files) - len(todo), len(files))
    try:
        for row, result in zip(todo, results, strict=True):
            found[row] = result
            if progress and (len(found) % _CHUNK == 0 or len(found) == len(todo)):
                progress(len(files) - len(todo) + len(found), len(files))
    finally:  # an interruption keeps what is done
        new = {keys[row]: result for row, result in found.items() if keys[row] and result[0] == "ok"}
        _write_cache(cache, known, new)
    rows = [found[row] if row in found else known[key] for row, key in enumerate(keys)]
    table = pd.DataFrame(rows, columns=["status", "hash", "thumbnail"]).astype({"hash": "uint64", "status": "str"})
    table.insert(0, "path", pd.Series([str(path) for path in files], dtype="str"))
    return table


def _need_imagehash() -> None:
    try:
        import imagehash  # noqa: F401
        import scipy  # noqa: F401
    except ImportError:
        raise MissingExtra("the search for duplicate pictures", "report") from None


def _compute(paths: list[Path], jobs: int) -> Iterator[_Print]:
    if jobs == 1 or len(paths) <= _CHUNK:
        yield from map(_fingerprint, paths)
        return
    with ProcessPoolExecutor(min(jobs, len(paths) // _CHUNK + 1)) as pool:
        try:
            yield from pool.map(_fingerprint, paths, chunksize=_CHUNK)
        finally:
            pool.shutdown(cancel_futures=True)


def _fingerprint(path: Path) -> _Print:
    import imagehash

    try:
        pixels = images.load(path, min_size=_DECODED)
    except images.ImageError as error:
        return error.reason, 0, b""
    # pHash makes this very thumbnail of what it is given.
    grey = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return "ok", int(str(imagehash.phash(grey)), 16), grey.tobytes()


def file_key(path: Path) -> bytes:
    """Names this state of a file; empty where there is none."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return b""
    text = f"{path.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}"
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).digest()


def _read_cache(cache: Path | None) -> dict[bytes, _Print]:
    if cache is None:
        return {}
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with np.load(cache / _CACHE_FILE) as kept:
            keys, hashes, thumbnails = kept["keys"], kept["hashes"].tolist(), kept["thumbnails"]
        if keys.shape != (len(hashes), 16) or thumbnails.shape != (len(hashes), SIDE * SIDE):
            return {}
        rows = zip(keys, hashes, thumbnails, strict=True)
        return {key.tobytes(): ("ok", value, thumbnail.tobytes()) for key, value, thumbnail in rows}
    except Exception:  # numpy and zipfile raise many kinds for what is absent, cut short or foreign
        return {}


def _write_cache(cache: Path | None, known: dict[bytes, _Print], new: dict[bytes, _Print]) -> None:
    if cache is None or not new:
        return
    rows = known | new
    _, hashes, thumbnails = zip(*rows.values(), strict=True)
    with atomic_path(cache / _CACHE_FILE) as part:
        np.savez(
            part,
            keys=np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 16),
            hashes=np.array(hashes, dtype=np.uint64),
            thumbnails=_pixels(thumbnails),
        )


def _pixels(thumbnails: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(thumbnails), dtype=np.uint8).reshape(-1, SIDE * SIDE)


def near_duplicates(
    fingerprints: pd.DataFrame, distance: int = DISTANCE, difference: float = DIFFERENCE
) -> pd.DataFrame:
    """Finds pairs of images that are one photograph: copied, scaled, re-encoded, toned or cropped a little.

    Two images match when their hashes differ in at most `distance` bits and their thumbnails by at most
    `difference`, which is 1 - (cov + c) / (sd sd' + c) with c = (0.03 * 255)^2 / 2: one minus the structure
    term of SSIM (Wang et al. 2004) over the whole thumbnail. It ignores brightness and contrast; pictures
    without any contrast are all alike. Copies that are mirrored or changed more: `copies`.

    So that a million images take seconds: of images with equal fingerprints, each is compared with the
    first only; of different images with one hash, 8 are compared with those of other hashes; and an image
    is compared with at most 512 others that agree with it in the same part of the hash. Where more
    different pictures than that are nearly alike, pairs can be missed, though most of these images still
    meet in one of `groups`.

    Args:
        fingerprints: As `fingerprints` gives them; tables of several data sets may be concatenated. Rows
            with a status other than "ok" match nothing.
        distance: 0 to 16 bits.
        difference: 0 to 1.

    Returns:
        One row a pair, ordered: `i` and `j`, positions of rows with i < j; `distance`; `difference`; `exact`,
        that the hashes are equal.

    Raises:
        MienError: `distance` or `difference` is out of its range.
    """
    if not 0 <= distance <= 16:
        raise MienError(f"distance={distance!r} is not a valid number of differing bits; valid: 0 to 16")
    if not 0 <= difference <= 1:
        raise MienError(f"difference={difference!r} is not a valid difference of thumbnails; valid: 0 to 1")
    rows = np.flatnonzero(fingerprints["status"] == "ok")
    prints = fingerprints.iloc[rows][["hash", "thumbnail"]].reset_index(drop=True)
    same = prints.groupby(["hash", "thumbnail"], sort=False).ngroup().to_numpy()
    first = np.unique(same, return_index=True)[1]  # the first row of each different fingerprint
    copies = np.flatnonzero(first[same] != np.arange(len(prints)))
    hashes = prints["hash"].to_numpy(dtype=np.uint64)
    a, b = _candidates(hashes[first], distance)
    apart = _difference(_pixels(prints["thumbnail"].iloc[first].to_list()), a, b)
    near = apart <= difference
    i = np.concatenate([first[same[copies]], first[a[near]]])
    j = np.concatenate([copies, first[b[near]]])
    bits = np.bitwise_count(hashes[i] ^ hashes[j]).astype(np.int64)
    apart = np.concatenate([np.zeros(len(copies)), apart[near]])
    pairs = pd.DataFrame({"i": rows[i], "j": rows[j], "distance": bits, "difference": apart, "exact": bits == 0})
    return pairs.sort_values(["i", "j"], ignore_index=True)


def copies(fingerprints: pd.DataFrame) -> pd.DataFrame:
    """Finds pairs of images of one photograph: near-duplicates and altered copies.

    Args:
        fingerprints: As in `near_duplicates`.

    Returns:
        The pairs of `near_duplicates` and those that only `altered_copies.altered_copies` finds, ordered, with two more
        columns: `altered`, that it is one of the latter, and `mirrored`.
    """
    near = near_duplicates(fingerprints)
    rows = np.flatnonzero(fingerprints["status"] == "ok")
    found = altered_copies(_pixels(fingerprints["thumbnail"].iloc[rows].to_list()))
    found = found.assign(i=rows[found["i"]], j=rows[found["j"]])
    hashes = fingerprints["hash"].to_numpy(dtype=np.uint64)
    bits = np.bitwise_count(hashes[found["i"]] ^ hashes[found["j"]]).astype(np.int64)
    found = found.assign(distance=bits, exact=False, altered=True)
    both = pd.concat([near.assign(altered=False, mirrored=False), found[[*near.columns, "altered", "mirrored"]]])
    return both.drop_duplicates(["i", "j"]).sort_values(["i", "j"], ignore_index=True)


def groups(pairs: pd.DataFrame, rows: int) -> np.ndarray:
    """Labels images that are near-duplicates of each other, directly or through others.

    Args:
        pairs: As `near_duplicates` or `copies` gives them.
        rows: The number of images, n.

    Returns:
        (n,) labels from 0; an image without a near-duplicate has a label of its own.
    """
    return components(pairs["i"].to_numpy(), pairs["j"].to_numpy(), rows)


def group_files(paths: Sequence[Path], progress: Callable[[int, int], object] | None = None) -> np.ndarray:
    """Labels image files (n,) as `groups` does; their fingerprints are kept in the user's cache folder."""
    return groups(copies(fingerprints(paths, progress=progress, cache=cache_folder())), len(paths))


def _candidates(hashes: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (a < b) of positions whose hashes differ in at most `distance` bits, each once.

    Of distance + k bands of bits, two such hashes agree in at least k (Manku et al. 2007), so only those are compared
    that agree in some choice of k bands. k is as large as it must be for few others to agree by chance.
    """
    few = np.flatnonzero(pd.Series(hashes).groupby(hashes).cumcount().to_numpy() < _MEMBERS)
    size = len(hashes)
    found = [_code(size, *pair) for pair in _neighbours(hashes, 64, 0)]
    agree = 2 if len(few) < _MANY else 3
    edges = [int(edge) for edge in np.linspace(0, 64, distance + agree + 1).round()]
    bands = list(itertools.pairwise(edges))
    for chosen in itertools.combinations(bands, agree) if distance else ():
        turned = _turn(hashes[few], [*chosen, *(band for band in bands if band not in chosen)])
        high = sum(end - start for start, end in chosen)
        for a, b in _neighbours(turned, high, distance):
            found.append(_code(size, few[a], few[b]))
    codes = np.unique(np.concatenate([*found, np.empty(0, dtype=np.int64)]))
    return codes // size, codes % size


def _turn(hashes: np.ndarray, bands: Sequence[tuple[int, int]]) -> np.ndarray:
    """The same bits in another order: that of `bands` (start, end), from the highest bit on."""
    turned, place = np.zeros_like(hashes), 64
    for start, end in bands:
        place -= end - start
        turned |= (hashes >> np.uint64(start) & np.uint64((1 << (end - start)) - 1)) << np.uint64(place)
    return turned


def _code(size: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.minimum(a, b).astype(np.int64) * size + np.maximum(a, b)


def _neighbours(hashes: np.ndarray, high: int, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Compares hashes that agree in their `high` highest bits; gives the positions of those within `distance` bits."""
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    keys = hashes >> np.uint64(64 - high)
    at = np.arange(len(keys))
    for step in range(1, _WINDOW + 1):
        at = at[at + step < len(keys)]
        at = at[keys[at] == keys[at + step]]
        if not len(at):
            return
        near = at[np.bitwise_count(hashes[at] ^ hashes[at + step]) <= distance]
        yield order[near], order[near + step]


def _difference(pixels: np.ndarray, a: np.ndarray, b: np.ndarray, chunk: int = 8192) -> np.ndarray:
    """The `difference` of `near_duplicates` between rows a and b of `pixels` (n, pixels), in chunks."""
    out = np.empty(len(a))
    for start in range(0, len(a), chunk):
        part = slice(start, start + chunk)
        one, other = (pixels[rows[part]].astype(np.float32) for rows in (a, b))
        one -= one.mean(axis=1, keepdims=True)
        other -= other.mean(axis=1, keepdims=True)
        covariance = (one * other).mean(axis=1)
        deviations = np.sqrt((one**2).mean(axis=1) * (other**2).mean(axis=1))
        out[part] = 1 - (covariance + _C) / (deviations + _C)
    return out
