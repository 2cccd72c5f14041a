"""Boxes and labels on pictures."""

from pathlib import Path

import numpy as np

from mien.prediction.annotate import COLOURS, annotated_path, draw_boxes, label

ROW = {"gender": "female", "p_female": 0.97, "age": 34.2, "age_low": 28.0, "age_high": 41.0}


def test_a_label_says_gender_with_certainty_and_age_with_interval():
    assert label(ROW) == "female 97%, 34 (28-41)"
    assert label(ROW | {"gender": "male", "p_female": 0.1}).startswith("male 90%")
    assert label({"gender": "unsure", "p_female": 0.55}) == "unsure 55%"
    assert label({"age_group": "25-32"}) == "25-32"


def test_a_box_is_drawn_where_it_is_and_nothing_far_from_it():
    picture = np.asarray(draw_boxes(np.zeros((300, 400, 3), np.uint8), [ROW | {"x": 100, "y": 120, "w": 80, "h": 80}]))
    assert (picture[120, 110] == COLOURS["female"]).all() and (picture[160, 100] == COLOURS["female"]).all()
    assert not picture[210:].any() and not picture[:90].any() and not picture[130:190, 110:170].any()


def test_boxes_beyond_the_edge_and_no_box_are_drawn_too():
    draw_boxes(np.zeros((50, 50, 3), np.uint8), [ROW | {"x": -20, "y": -20, "w": 90, "h": 90}])
    assert np.asarray(draw_boxes(np.zeros((50, 50, 3), np.uint8), [ROW])).any()


def test_two_files_of_one_name_get_two_drawings():
    taken: set[str] = set()
    names = [annotated_path(Path("out"), file, taken).name for file in ("a/x.jpg", "b/x.png", "x.jpg")]
    assert names == ["x.png", "x-2.png", "x-3.png"]
