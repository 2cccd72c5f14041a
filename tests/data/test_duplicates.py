import sys

import imagehash
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from mien.base.errors import MienError, MissingExtra
from mien.data import duplicates, images


def picture(seed, size=(160, 200)):
    """A smooth random picture: like a photograph, it has most of its power in the low frequencies."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def table(hashes, thumbnails):
    return pd.DataFrame(
        {
            "path": [f"{row}.jpg" for row in range(len(hashes))],
            "status": "ok",
            "hash": np.array(hashes, dtype=np.uint64),
            "thumbnail": thumbnails,
        }
    )


def thumbnail(seed):
    return np.random.default_rng(seed).integers(0, 256, 32 * 32, dtype=np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path):
    for seed in range(6):
        picture(seed).save(tmp_path / f"{seed}.jpg", quality=95)
    return tmp_path


class TestFingerprints:
    def test_the_hash_is_that_of_imagehash(self, folder):
        paths = sorted(folder.iterdir())
        found = duplicates.fingerprints(paths, jobs=1)
        for path, value in zip(paths, found["hash"], strict=True):
            expected = imagehash.phash(Image.fromarray(images.load(path, min_size=64)))
            assert f"{value:016x}" == str(expected)
        assert found["path"].tolist() == [str(path) for path in paths]
        assert set(found["thumbnail"].map(len)) == {32 * 32}

    def test_what_cannot_be_read_has_its_reason(self, folder):
        (folder / "empty.jpg").write_bytes(b"")
        (folder / "text.jpg").write_text("no image")
        whole = (folder / "0.jpg").read_bytes()
        (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
        Image.new("RGB", (1, 1)).save(folder / "tiny.png")
        names = ["empty.jpg", "text.jpg", "cut.jpg", "tiny.png", "absent.jpg", "0.jpg"]
        found = duplicates.fingerprints([folder / name for name in names])
        assert found["status"].tolist() == [
            "empty",
            "not an image",
            "truncated",
            "too small",
            "missing",
            "ok",
        ]
        assert (found.loc[found["status"] != "ok", "thumbnail"] == b"").all()
        assert duplicates.near_duplicates(found).empty

    def test_processes_give_the_same_as_one(self, folder):
        paths = sorted(folder.iterdir()) * 30
        seen = []
        several = duplicates.fingerprints(paths, jobs=2, progress=lambda done, all_: seen.append((done, all_)))
        pd.testing.assert_frame_equal(several, duplicates.fingerprints(paths, jobs=1))
        assert seen[0] == (0, 180)
        assert seen[-1] == (180, 180)
        assert seen == sorted(seen)

    def test_the_cache_spares_reading(self, folder, tmp_path, monkeypatch):
        paths, cache = sorted(folder.glob("*.jpg")), tmp_path / "cache"
        first = duplicates.fingerprints(paths, cache=cache)
        picture(99).save(paths[2])
        read = []
        compute = duplicates._fingerprint
        monkeypatch.setattr(duplicates, "_fingerprint", lambda path: read.append(path) or compute(path))
        second = duplicates.fingerprints(paths[::-1], cache=cache)
        assert read == [paths[2]]
        assert second["hash"].tolist()[::-1] != first["hash"].tolist()
        same = [row for row in range(6) if row != 2]
        pd.testing.assert_frame_equal(second[::-1].reset_index(drop=True).loc[same], first.loc[same])

    @pytest.mark.parametrize("damage", ["cut", "text", "other arrays"])
    def test_a_damaged_cache_is_computed_anew(self, folder, tmp_path, damage):
        paths, cache = sorted(folder.glob("*.jpg")), tmp_path / "cache"
        first = duplicates.fingerprints(paths, cache=cache)
        (file,) = cache.iterdir()
        if damage == "cut":
            file.write_bytes(file.read_bytes()[:-40])
        elif damage == "text":
            file.write_text("nothing")
        else:
            np.savez(file, keys=np.zeros((6, 2)), hashes=np.zeros(6), thumbnails=np.zeros((6, 3)))
        pd.testing.assert_frame_equal(duplicates.fingerprints(paths, cache=cache), first)
        pd.testing.assert_frame_equal(duplicates.fingerprints(paths, cache=cache), first)

    def test_an_interruption_keeps_what_is_done(self, folder, tmp_path, monkeypatch):
        paths, cache = sorted(folder.glob("*.jpg")), tmp_path / "cache"
        compute = duplicates._fingerprint

        def interrupted(path):
            if path == paths[4]:
                raise KeyboardInterrupt
            return compute(path)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(duplicates, "_fingerprint", interrupted)
            duplicates.fingerprints(paths, cache=cache)
        read = []
        monkeypatch.setattr(duplicates, "_fingerprint", lambda path: read.append(path) or compute(path))
        duplicates.fingerprints(paths, cache=cache)
        assert read == paths[4:]

    def test_no_images(self):
        found = duplicates.fingerprints([])
        assert len(found) == 0
        pairs = duplicates.near_duplicates(found)
        assert pairs.empty
        assert duplicates.groups(pairs, 0).tolist() == []

    def test_wrong_input(self, folder, monkeypatch):
        with pytest.raises(MienError, match="jobs=0 .* 1 or more"):
            duplicates.fingerprints([folder / "0.jpg"], jobs=0)
        monkeypatch.setitem(sys.modules, "imagehash", None)
        with pytest.raises(MissingExtra, match=r"mien\[report\]"):
            duplicates.fingerprints([folder / "0.jpg"])


class TestNearDuplicates:
    def test_altered_copies_are_found_and_others_are_not(self, tmp_path):
        original = picture(0, (400, 500))
        copies = {
            "original.png": original,
            "copy.png": original,
            "small.png": original.resize((200, 250)),
            "blurred.png": original.filter(ImageFilter.GaussianBlur(4)),
            "cropped.png": original.crop((4, 4, 396, 496)),
            "darker.png": original.point(lambda value: int(value * 0.6) + 10),
            "grey.png": original.convert("L"),
        }
        for name, image in copies.items():
            image.save(tmp_path / name)
        original.save(tmp_path / "poor.jpg", quality=20)
        for seed in range(1, 6):
            picture(seed, (400, 500)).save(tmp_path / f"other_{seed}.png")
        names = [*copies, "poor.jpg", *(f"other_{seed}.png" for seed in range(1, 6))]
        found = duplicates.fingerprints([tmp_path / name for name in names])
        pairs = duplicates.near_duplicates(found)
        labels = duplicates.groups(pairs, len(names))
        assert set(labels[:8]) == {labels[0]}
        assert len(set(labels)) == 6
        first = pairs.iloc[0]
        assert (first["i"], first["j"], first["distance"], first["difference"]) == (0, 1, 0, 0.0)
        assert first["exact"]

    def test_the_difference_by_hand(self):
        a = np.zeros(1024, dtype=np.uint8)
        a[:512] = 100
        b = np.zeros(1024, dtype=np.uint8)
        b[:512] = 200
        b[512:520] = 200  # sets it apart a little
        pairs = duplicates.near_duplicates(table([7, 7], [a.tobytes(), b.tobytes()]))
        covariance, constant = np.cov(a, b, bias=True), 0.5 * (0.03 * 255) ** 2
        expected = 1 - (covariance[0, 1] + constant) / (np.sqrt(covariance[0, 0] * covariance[1, 1]) + constant)
        assert pairs["difference"].tolist() == pytest.approx([expected], rel=1e-4)
        assert 0.001 < expected < 0.05

    def test_equal_hashes_of_different_pictures_are_no_duplicates(self):
        pairs = duplicates.near_duplicates(table([5, 5, 5], [thumbnail(0), thumbnail(1), thumbnail(0)]))
        assert pairs[["i", "j"]].to_numpy().tolist() == [[0, 2]]

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 2**32), distance=st.integers(0, 16), rows=st.integers(2, 40), many=st.booleans())
    def test_every_pair_within_the_distance_is_found(self, seed, distance, rows, many):
        rng = np.random.default_rng(seed)
        hashes = rng.integers(0, 2**64, 3, dtype=np.uint64)[rng.integers(0, 3, rows)]
        for _ in range(distance):
            bits = np.uint64(1) << rng.integers(0, 64, rows).astype(np.uint64)
            hashes ^= np.where(rng.random(rows) < 0.4, bits, np.uint64(0))
        hashes = np.unique(hashes)
        expected = {
            (i, j, (int(hashes[i]) ^ int(hashes[j])).bit_count())
            for i in range(len(hashes))
            for j in range(i + 1, len(hashes))
            if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= distance
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(duplicates, "_MANY", 0 if many else len(hashes) + 1)
            found = duplicates.near_duplicates(table(hashes, [thumbnail(0)] * len(hashes)), distance=distance)
        assert set(found[["i", "j", "distance"]].itertuples(index=False, name=None)) == expected

    def test_thousands_of_blank_images_give_one_group_and_few_pairs(self):
        thumbnails = [bytes([value]) * 1024 for value in range(50)] * 400
        found = table([1 << 63] * 20_000, thumbnails)
        pairs = duplicates.near_duplicates(found)
        assert len(pairs) == 20_000 - 50 + 50 * 49 // 2
        assert set(duplicates.groups(pairs, 20_000)) == {0}

    def test_rows_that_are_not_ok_keep_their_positions(self):
        found = table([0, 9, 0, 9], [b"", thumbnail(0), b"", thumbnail(0)])
        found.loc[[0, 2], "status"] = "empty"
        pairs = duplicates.near_duplicates(found)
        assert pairs[["i", "j"]].to_numpy().tolist() == [[1, 3]]
        labels = duplicates.groups(pairs, 4)
        assert labels[1] == labels[3]
        assert len(set(labels)) == 3

    @pytest.mark.parametrize(
        ("given", "message"),
        [({"distance": 17}, "distance=17 .* 0 to 16"), ({"difference": -0.5}, "difference=-0.5 .* 0 to 1")],
    )
    def test_wrong_thresholds(self, given, message):
        with pytest.raises(MienError, match=message):
            duplicates.near_duplicates(table([0], [thumbnail(0)]), **given)


def test_real_faces(shared_data):
    """The one-year-olds of UTKFace: the search misses no pair that comparing all with all finds."""
    found = duplicates.fingerprints(sorted((shared_data / "utkface").glob("1_*.jpg")))
    assert found["status"].value_counts().to_dict() == {"ok": 942}
    distances = np.bitwise_count(found["hash"].to_numpy()[:, None] ^ found["hash"].to_numpy())
    near = np.argwhere(np.triu(distances <= duplicates.DISTANCE, 1))
    labels = duplicates.groups(duplicates.near_duplicates(found, difference=1.0), len(found))
    assert all(labels[i] == labels[j] for i, j in near)
    assert len(near) == 54
    assert len(duplicates.near_duplicates(found)) == 51
