"""What is wrong with pictures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter
from skimage import data

from mien.audit.data import image_quality
from mien.base.table import check_faces


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """120 crops of one portrait that differ a little, and what is wrong in different ways."""
    root = tmp_path_factory.mktemp("pictures")
    face = Image.fromarray(data.astronaut()).crop((160, 20, 300, 160))
    rng = np.random.default_rng(0)
    for at in range(120):
        left, top = rng.integers(0, 20, 2)
        face.crop((left, top, left + 120, top + 120)).save(root / f"{at:03d}.png")
    face.filter(ImageFilter.GaussianBlur(8)).save(root / "blurred.png")
    face.resize((30, 30)).save(root / "small.png")
    Image.new("RGB", (100, 100), (90, 91, 92)).save(root / "uniform.png")
    (root / "text.png").write_text("no image")
    stripes = np.zeros((100, 100, 3), np.uint8)
    stripes[:, ::20] = stripes[:, 1::20] = stripes[:, 2::20] = stripes[:, 3::20] = 255
    Image.fromarray(stripes).save(root / "stripes.png")
    return root


@pytest.fixture(scope="module")
def measured(folder):
    paths = sorted(path.name for path in folder.iterdir())
    faces = check_faces(pd.DataFrame({"face": paths, "path": paths}))
    found, thumbnails = image_quality.measure(faces, folder)
    return faces, found.set_index(faces["face"]), thumbnails


def test_each_kind_is_named(measured):
    noted = image_quality.quality_flags(measured[1])
    said = {face: list(row.index[row]) for face, row in noted.iterrows() if row.any()}
    assert said.pop("small.png")[0] == "small"
    assert said == {"blurred.png": ["blurred"], "uniform.png": ["uniform"], "text.png": ["unreadable"]}
    assert measured[1]["status"]["text.png"] == "not an image"
    assert measured[1]["side"]["small.png"] == 30


def test_what_is_no_face_is_an_outlier(measured):
    _, found, thumbnails = measured
    scores = image_quality.outlier_scores(found, thumbnails)
    assert scores["stripes.png"] > image_quality.OUTLIER_SCORE
    assert (scores[[f"{at:03d}.png" for at in range(120)]] > image_quality.OUTLIER_SCORE).sum() <= 12
    assert scores[["text.png", "uniform.png"]].isna().all()


def test_the_rest_is_what_the_components_leave(measured):
    """Against scikit-learn's principal components."""
    from sklearn.decomposition import PCA

    _, found, thumbnails = measured
    known = ((found["status"] == "ok") & (found["contrast"] >= image_quality.UNIFORM)).to_numpy()
    rows = thumbnails[known].astype(float)
    away = ((rows - np.median(rows, axis=0)) ** 2).sum(axis=1)
    model = PCA(image_quality.COMPONENTS, svd_solver="full").fit(
        rows[away <= np.quantile(away, image_quality.USUAL_SHARE)]
    )
    rest = ((rows - model.inverse_transform(model.transform(rows))) ** 2).sum(axis=1)
    middle = np.median(rest)
    expected = (rest - middle) / (1.4826 * np.median(np.abs(rest - middle)))
    np.testing.assert_allclose(image_quality.outlier_scores(found, thumbnails)[known], expected, rtol=1e-3, atol=1e-3)


def test_too_few_pictures_say_nothing(measured):
    _, found, thumbnails = measured
    assert image_quality.outlier_scores(found.head(50), thumbnails[:50]).isna().all()


def test_a_box_is_what_is_measured(folder):
    faces = check_faces(pd.DataFrame({"face": ["a"], "path": ["000.png"], "x": 10, "y": 10, "w": 25, "h": 20}))
    found, _ = image_quality.measure(faces, Path(folder))
    assert found["side"].tolist() == [25]
