"""Occlusion maps: they find what an answer depends on, and their check tells good maps from chance."""

import numpy as np
import pytest
from skimage import data

from mien import MienError, Predictor
from mien.evaluation.occlusion import MAP_SIZE, check_maps, occlusion, overlay


class Brightness:
    """A model whose answers come from one corner: gender from the upper left, age from the lower right."""

    name = "made up"

    def predict_pixels(self, faces):
        half = faces.shape[1] // 4
        first = faces[:, :half, :half].std(axis=(1, 2, 3)) / 255
        last = faces[:, -half:, -half:].std(axis=(1, 2, 3)) / 255
        return {"p_female": 1 / (1 + np.exp(-8 * first)), "age": 100 * last}


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def test_a_map_shows_the_region_that_the_answer_depends_on(noise):
    maps = occlusion(Brightness(), noise)
    assert {name: grid.shape for name, grid in maps.items()} == {
        "gender": (MAP_SIZE, MAP_SIZE),
        "age": (MAP_SIZE, MAP_SIZE),
    }
    assert np.unravel_index(maps["gender"].argmax(), (MAP_SIZE, MAP_SIZE)) < (4, 4)
    assert maps["gender"][:4, :4].mean() > 10 * np.abs(maps["gender"][8:, 8:]).mean()
    assert maps["age"][-4:, -4:].mean() > 10 * np.abs(maps["age"][:8, :8]).mean()


def test_the_map_of_the_likelier_gender_does_not_depend_on_which_it_is(noise):
    class Contrary(Brightness):
        def predict_pixels(self, faces):
            answers = super().predict_pixels(faces)
            return answers | {"p_female": 1 - answers["p_female"]}

    np.testing.assert_allclose(occlusion(Contrary(), noise)["gender"], occlusion(Brightness(), noise)["gender"])


def test_the_check_tells_a_map_from_chance_and_from_its_contrary(noise):
    maps = occlusion(Brightness(), noise)
    good = check_maps(Brightness(), noise, maps)
    bad = check_maps(Brightness(), noise, {"gender": -maps["gender"]})
    assert good["gender"].gain > 0 and good["age"].gain > 0 and bad["gender"].gain < 0
    assert good["gender"].deletion[0] == 0 and good["gender"].insertion[-1] == 0
    assert good["gender"].deletion[-1] == pytest.approx(good["gender"].insertion[0])


def test_the_shipped_model_on_the_astronaut():
    predictor = Predictor(threads=1)
    face = predictor.crop_faces(data.astronaut())[0].pixels
    maps = occlusion(predictor, face)
    assert all(np.isfinite(grid).all() and grid.max() > 0 for grid in maps.values())
    # Of age: the model is not sure of the gender, and then its map need not be better than chance.
    assert check_maps(predictor, face, {"age": maps["age"]})["age"].gain > 0
    assert overlay(face, maps["age"]).size == (128, 128)


def test_mistakes_are_named(noise):
    class Silent(Brightness):
        def predict_pixels(self, faces):
            return {}

    with pytest.raises(MienError, match="neither gender nor age"):
        occlusion(Silent(), noise)
    with pytest.raises(MienError, match=r"shape \(2, 2\); valid: \(16, 16\)"):
        check_maps(Brightness(), noise, {"age": np.zeros((2, 2))})
