"""Training of the face detector: labels, scenes, targets, the loop and the exported file, on drawn pictures."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from mien.base.errors import MienError
from mien.data.alignment import roll
from mien.training.detector import lookalikes, sources
from mien.training.detector.cache import FACE, HALVINGS, IGNORED, LOOKALIKE, Cache, build, lookalikes_file
from mien.training.detector.export import export
from mien.training.detector.network import SIZES, STRIDES, FaceNet
from mien.training.detector.settings import Scenes, Settings
from mien.training.detector.start import load_exported
from mien.training.detector.targets import assign, decode, losses

FIVE = [40.0, 40, 60, 40, 50, 50, 43, 60, 57, 60]


def taught(x=0.0, y=0.0):
    """A row of the teacher: box, score, landmarks."""
    points = np.array(FIVE).reshape(5, 2) + (x, y)
    return np.array([[30 + x, 25 + y, 40, 50, 0.9, *points.reshape(-1)]])


@pytest.fixture
def data(tmp_path):
    """Pictures with one drawn face each, in the layout of the real folders, and what the teacher says of them."""
    rng = np.random.default_rng(0)
    for folder in ("celeba/img_align_celeba", "photographs/none"):
        (tmp_path / folder).mkdir(parents=True)
    labels = {}
    for number in range(30):
        pixels = rng.integers(0, 90, (120, 100, 3), dtype=np.uint8)
        pixels[30:70, 30:70] = (220, 180, 150)
        Image.fromarray(pixels).save(tmp_path / f"celeba/img_align_celeba/{number:06}.jpg")
        labels[f"{number:06}.jpg"] = taught()
        Image.fromarray(pixels[80:]).save(tmp_path / f"photographs/none/{number:06}.jpg")
    (tmp_path / "run/teacher").mkdir(parents=True)
    (tmp_path / "run/teacher/celeba.json").write_text(
        json.dumps({name: rows.tolist() for name, rows in labels.items()})
    )
    (tmp_path / "run/teacher/none.json").write_text(json.dumps({name: [] for name in labels}))
    build(tmp_path, tmp_path / "run/teacher", tmp_path / "run/cache")
    return tmp_path


def test_parts_follow_from_names_and_do_not_change():
    names = [f"{number:06}.jpg" for number in range(20_000)]
    parts = [sources.part_of("photographs", name) for name in names]
    assert parts == [sources.part_of("photographs", name) for name in names]
    assert parts.count("test") / len(parts) == pytest.approx(0.35, abs=0.02)
    assert sources.part_of("aaf", "00001A02.jpg") == "val"  # as recorded: another answer would be another split


def test_no_picture_of_the_test_part_is_cached(data):
    parts = [Cache(data / "run/cache", part).entries.get("celeba", []) for part in ("train", "val", "test")]
    cached = {entry.name for entries in parts for entry in entries}
    there = {picture.name for picture in sources.pictures(data, "celeba") if picture.part != "test"}
    assert cached == there and len(there) < 30
    assert not Cache(data / "run/cache", "test").entries


def test_cached_pictures_are_halved_copies_of_the_files(data):
    cache = Cache(data / "run/cache", "train")
    entry = cache.entries["celeba"][0]
    with Image.open(data / "celeba/img_align_celeba" / entry.name) as image:
        whole = np.asarray(image.convert("RGB"))
    assert np.array_equal(cache.pixels(entry), whole)
    for halvings in range(1, HALVINGS + 1):
        small = cache.pixels(entry, halvings)
        assert small.shape == (120 >> halvings, 100 >> halvings, 3)
        assert abs(float(small.mean()) - float(whole.mean())) < 8


def test_labels_are_squares_of_the_convention(data):
    (face,) = Cache(data / "run/cache", "train").entries["celeba"][0].faces
    assert face[2] == pytest.approx(0.752 * 50) and face[3] == FACE
    assert face[:2].tolist() == pytest.approx([50, 50 + 0.076 * 50])
    assert face[4:].tolist() == pytest.approx(FIVE)


@pytest.fixture
def maker(data):
    pytest.importorskip("cv2")
    from mien.training.detector.scenes import SceneMaker

    settings = Scenes(sides=(128, 160), pixels=4 * 160 * 160, shares={"celeba": 0.8, "none": 0.2}, mask=0, hand=0)
    return SceneMaker(Cache(data / "run/cache", "train"), settings.model_copy(update={"sunglasses": 0}), 3)


def test_a_batch_is_a_function_of_its_number(maker):
    first, again, other = maker.batch(5), maker.batch(5), maker.batch(6)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first.pixels.shape != other.pixels.shape or not np.array_equal(first.pixels, other.pixels)


def test_labels_move_with_the_pixels(maker):
    bright, dark = [], []
    for number in range(12):
        batch = maker.batch(number)
        side = batch.pixels.shape[1]
        for scene, x, y, size, *_ in batch.faces:
            if size > 20 and 10 < x < side - 10 and 10 < y < side - 10:
                pixels = batch.pixels[int(scene)].astype(float)
                bright.append(pixels[int(y), int(x)].mean())
                dark.append(np.median(pixels))
    assert len(bright) > 30
    assert np.mean(np.array(bright) > np.array(dark)) > 0.9, "the drawn face is not where its label is"


def test_landmarks_of_mirrored_and_turned_faces_keep_their_order(maker):
    angles = []
    for number in range(20):
        for row in maker.batch(number).faces:
            points = row[5:].reshape(5, 2)
            across, down = points[1] - points[0], points[3:].mean(0) - points[:2].mean(0)
            assert across[0] * down[1] - across[1] * down[0] > 0, "left and right were swapped"
            angles.append(abs(np.degrees(roll(points))))
    assert max(angles) > 50 and np.median(angles) < 20


def face(scene, x, y, side, kind=FACE):
    points = (np.array(FIVE).reshape(5, 2) - 50) / 40 * side + (x, y)
    return np.array([scene, x, y, side, kind, *points.reshape(-1)], np.float32)


def test_four_cells_answer_for_a_face_on_each_level_that_it_belongs_to():
    faces = np.stack([face(0, 100, 60, 20), face(1, 60, 60, 40), face(1, 64, 64, 120)])
    ignored = np.zeros((2, 20, 20), bool)
    counts = [[int((assign(faces, ignored, level).face == number).sum()) for number in range(3)] for level in range(3)]
    assert counts == [[4, 4, 0], [0, 4, 0], [0, 0, 4]] or counts == [[4, 4, 0], [0, 4, 4], [0, 0, 4]]
    near = torch.nonzero(assign(faces, ignored, 0).face == 0)
    cells = (near[:, [2, 1]] + 0.5) * 8
    assert ((cells - torch.tensor([100.0, 60.0])).abs() <= 8).all()


def test_ignored_places_and_the_ring_around_a_face_weigh_less():
    ignored = np.zeros((1, 20, 20), bool)
    ignored[0, :4] = True
    target = assign(np.stack([face(0, 84, 100, 20)]), ignored, 0)
    assert (target.weight[0, :4] == 0).all() and target.weight[0, 19, 0] == 1
    assert (target.weight[target.face >= 0] == 1).all()
    assert sorted(set(target.weight.flatten().tolist())) == [0, 0.25, 1]


def perfect_maps(faces, side):
    """Maps that say exactly what the labels say."""
    maps = []
    for level, (stride, size) in enumerate(zip(STRIDES, SIZES, strict=True)):
        cells = side // stride
        one = torch.zeros(1, 14, cells, cells)
        one[:, 0] = -12
        target = assign(faces, np.zeros((1, side // 8, side // 8), bool), level).face[0]
        for y, x in torch.nonzero(target >= 0).tolist():
            row = torch.from_numpy(faces[target[y, x]])
            cell = stride * (torch.tensor([x, y]) + 0.5)
            one[0, 0, y, x] = 12
            one[0, 1:3, y, x] = (row[1:3] - cell) / stride
            one[0, 3, y, x] = torch.log(row[3] / size)
            one[0, 4:, y, x] = ((row[5:].reshape(5, 2) - cell) / (size / 2)).flatten()
        maps.append(one)
    return maps


def test_the_loss_of_perfect_maps_is_none_and_decoding_gives_the_labels():
    faces = np.stack([face(0, 100, 60, 20), face(0, 160, 200, 130)])
    maps = perfect_maps(faces, 256)
    found = losses(maps, faces, np.zeros((1, 32, 32), bool))
    assert all(value.item() < 1e-3 for value in found)
    centres, sides, points = decode(maps[0], 0)
    at = maps[0][0, 0] > 0
    assert torch.allclose(centres[0][at], torch.tensor([100.0, 60.0]), atol=1e-3)
    assert torch.allclose(sides[0][at], torch.tensor(20.0), atol=1e-3)
    assert np.allclose(points[0][at][0].flatten(), faces[0, 5:], atol=1e-3)


def test_faces_without_landmarks_and_scenes_without_faces_have_a_loss():
    unmarked = np.stack([face(0, 100, 60, 20, kind=0)])
    maps = FaceNet()(torch.zeros(1, 3, 256, 256))
    assert losses(maps, unmarked, np.zeros((1, 32, 32), bool)).points.item() == 0
    nothing = losses(maps, np.zeros((0, 15), np.float32), np.zeros((1, 32, 32), bool))
    assert nothing.square.item() == 0 and nothing.score.item() >= 0


def test_the_exported_file_is_the_network_at_any_size(tmp_path):
    torch.manual_seed(0)
    network = FaceNet().eval()
    export(network, tmp_path / "face.onnx", {"side": 512, "score": 0.5})
    session = onnxruntime.InferenceSession(tmp_path / "face.onnx")
    assert (tmp_path / "face.onnx").stat().st_size < 1_500_000
    for count, height, width in ((1, 64, 96), (3, 320, 256)):
        pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
        with torch.no_grad():
            expected = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
        for one, other in zip(session.run(None, {"images": pixels}), expected, strict=True):
            assert np.allclose(one[:, 1:], other[:, 1:], atol=1e-4)
            assert np.allclose(one[:, 0], torch.sigmoid(other[:, 0]), atol=1e-5)


def test_training_can_start_from_an_exported_file(tmp_path):
    torch.manual_seed(0)
    network = FaceNet()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, 64, 96))).float()
    for _ in range(3):  # statistics of the normalisations other than those of a new network
        network(images)
    file = tmp_path / "face.onnx"
    export(network, file, {"side": 512, "score": 0.5})
    other = FaceNet()
    load_exported(other, file, images)
    for one, two in zip(network.eval()(images), other.eval()(images), strict=True):
        assert torch.allclose(one, two, atol=1e-4)
    for one, two in zip(other.train()(images), other.eval()(images), strict=True):
        assert torch.allclose(one, two, atol=2e-2), "the statistics are not those of the images"


def test_a_file_of_another_network_is_no_start(tmp_path):
    file = tmp_path / "wide.onnx"
    export(FaceNet(widths=(16, 32, 64, 96, 160)), file, {"side": 512, "score": 0.5})
    with pytest.raises(MienError, match=r"wide\.onnx' is of another network"):
        load_exported(FaceNet(), file, torch.zeros(1, 3, 64, 64))
    with pytest.raises(MienError, match=r"gone\.onnx'.*no such file"):
        load_exported(FaceNet(), tmp_path / "gone.onnx", torch.zeros(1, 3, 64, 64))


def test_what_was_taken_for_a_face_is_shown_and_is_no_face(data):
    pytest.importorskip("cv2")
    from mien.training.detector.scenes import SceneMaker

    folder = data / "run/cache"
    label = [50, 50, 40, LOOKALIKE, *[0] * 10]
    entries = Cache(folder, "train").entries["celeba"]
    lookalikes_file(folder, "celeba").write_text(json.dumps({entry.name: [label] for entry in entries}))
    cache = Cache(folder, "train")
    assert all(entry.faces[-1, 3] == LOOKALIKE and len(entry.faces) == 2 for entry in cache.entries["celeba"])
    settings = Scenes(sides=(160,), pixels=160 * 160, grids=(1,), shares={"celeba": 1.0}, lookalikes=1.0)
    batches = [SceneMaker(cache, settings, 3).batch(number) for number in range(5)]
    assert all(set(batch.faces[:, 4]) <= {FACE} for batch in batches)


class Teacher:
    """Says what it is told of every picture: a score for a face that fills the middle third."""

    def __init__(self, score):
        self.score = score

    def __call__(self, session, picture, longer, border):
        side = picture.width / 3 / 0.752
        x, y = picture.width / 2 - side / 2, picture.height / 2 - side / 2 - 0.076 * side
        return np.array([[x, y, side, side, self.score, *[picture.width / 2] * 10]])


@pytest.mark.parametrize(("score", "kind"), [(0.1, LOOKALIKE), (0.4, IGNORED), (0.8, FACE)])
def test_the_teacher_judges_what_the_detector_found_at_close_range(monkeypatch, score, kind):
    monkeypatch.setattr(lookalikes, "detect", Teacher(score))
    label = lookalikes.judged(None, Image.new("RGB", (300, 200)), np.array([120.0, 80, 30]))
    assert label[3] == kind and label[:3] == pytest.approx([120, 80, 30], abs=1.5)
    assert kind != FACE or label[4:] == pytest.approx([120, 80] * 5, abs=1.5)


def test_an_interrupted_training_resumes_to_the_same_weights(data):
    pytest.importorskip("cv2")
    from mien.training.detector.fit import train

    scenes = Scenes(sides=(64,), pixels=2 * 64 * 64, shares={"celeba": 1.0})

    def run(out, *totals):
        for total in totals:
            settings = Settings(data=data, out=out, steps=total, warmup=2, decay=0.01, scenes=scenes)
            settings = settings.model_copy(update={"save_every": 2, "validate_every": 100})
            file = train(settings)
        return torch.load(file, weights_only=True)

    for name in ("whole", "halves"):
        (data / name).mkdir()
        (data / name / "cache").symlink_to(data / "run/cache")
    # With so short a decay the learning rate is the same whatever the total.
    whole, halves = run(data / "whole", 4), run(data / "halves", 2, 4)
    assert whole["step"] == halves["step"] == 4
    for part in ("network", "average"):
        assert all(torch.equal(a, b) for a, b in zip(whole[part].values(), halves[part].values(), strict=True))
