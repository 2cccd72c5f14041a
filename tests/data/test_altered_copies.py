"""Copies that perceptual hashes do not find. How many of real faces: benchmarks/copies.py."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mien.data import altered_copies, duplicates
from mien.demo.dataset import draw_faces

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from copies import KINDS  # noqa: E402


def picture(seed, size=(200, 200)):
    """Blurred noise: different pictures have nothing in common, and edges everywhere."""
    noise = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def written(pictures, folder):
    """The files of pictures, and their fingerprints."""
    for number, one in enumerate(pictures):
        one.save(folder / f"{number:03d}.png")
    return duplicates.fingerprints([folder / f"{number:03d}.png" for number in range(len(pictures))], jobs=1)


def test_copies_of_every_kind_are_found_and_nothing_else_is(tmp_path):
    rng = np.random.default_rng(0)
    originals = [picture(seed) for seed in range(len(KINDS) + 40)]
    changed = [change(originals[number], rng) for number, change in enumerate(KINDS.values())]
    found = duplicates.copies(written(originals + changed, tmp_path))
    kinds = {int(pair.i): (int(pair.j) - len(originals), pair) for pair in found.itertuples()}
    assert len(found) == len(kinds) and all(i == j for i, (j, _) in kinds.items()), found
    missed = {kind for number, kind in enumerate(KINDS) if number not in kinds}
    assert missed <= {"turned by 3 degrees", "brightness 1.4", "black border of 6%"}
    for number, kind in enumerate(KINDS):
        if number in kinds:
            pair = kinds[number][1]
            assert pair.mirrored == kind.startswith("mirrored") and (pair.altered or not pair.mirrored)
    near = duplicates.near_duplicates(
        duplicates.fingerprints([tmp_path / "000.png", tmp_path / f"{len(originals):03d}.png"])
    )
    assert list(KINDS)[0] == "mirrored" and near.empty, "the hashes alone do not find it"


def test_where_nothing_is_altered_the_groups_are_those_of_the_hashes(tmp_path):
    """Splits depend on the groups: they must not change where nothing more is found."""
    pictures = [picture(seed) for seed in range(20)] + [picture(3).resize((90, 90)), picture(7).resize((70, 70))]
    prints = written(pictures, tmp_path)
    both = [duplicates.groups(find(prints), len(prints)) for find in (duplicates.near_duplicates, duplicates.copies)]
    assert both[0].tolist() == both[1].tolist() and len(set(both[0])) == 20


def test_drawn_portraits_are_no_copies_of_each_other(tmp_path):
    draw_faces(tmp_path, subjects=12)
    prints = duplicates.fingerprints(sorted(tmp_path.rglob("*.jpg")), jobs=1)
    assert len(prints) > 50 and duplicates.copies(prints).empty


def test_flat_and_repeated_pictures_cost_nothing_and_are_no_altered_copies():
    flat = np.repeat(np.arange(200, dtype=np.uint8)[:, None], 1024, axis=1)
    noise = np.random.default_rng(0).integers(0, 256, (1, 1024), dtype=np.uint8)
    assert altered_copies.altered_copies(np.concatenate([flat, np.repeat(noise, 300, axis=0)])).empty
    assert altered_copies.altered_copies(np.empty((0, 1024), np.uint8)).empty


@pytest.mark.parametrize("size", [40, 400])
def test_lists_find_what_comparing_all_finds(monkeypatch, size, tmp_path):
    """The search looks into the nearest lists alone, where there are many."""
    pictures = [picture(seed, (32, 32)) for seed in range(400)]
    pictures += [ImageOps.mirror(one) for one in pictures[:50]]
    thumbnails = np.stack([np.asarray(one.convert("L")).reshape(-1) for one in pictures])
    monkeypatch.setattr(altered_copies, "_LIST", size)
    found = altered_copies.altered_copies(thumbnails)
    assert found[["i", "j"]].to_numpy().tolist() == [[number, 400 + number] for number in range(50)]
    assert found["mirrored"].all()
