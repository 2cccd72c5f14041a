"""A short look with hypothesis at what `fuzz/fuzz.py` fuzzes for long: cut, spoiled and joined valid inputs."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

from targets import TARGETS, seeds  # noqa: E402

SEEDS = {name: seeds(name) for name in TARGETS}


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(draw=st.data())
def test_spoiled_inputs_end_in_an_answer_or_in_our_own_error(name, draw):
    content = bytearray(draw.draw(st.sampled_from(SEEDS[name])))
    for place, value in draw.draw(st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=4)), max_size=4)):
        at = place % (len(content) + 1)
        content[at : at + len(value)] = value
    TARGETS[name](bytes(content[: draw.draw(st.integers(0, len(content)))] if draw.draw(st.booleans()) else content))


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_read(name):
    for content in SEEDS[name]:
        TARGETS[name](content)


def test_what_fuzzing_found_stays_mended():
    TARGETS["table"](b'face,pa,ethna,botedo"ace,path,gender,age,x\n48pg,,,2\n')  # a column of paths without any
    TARGETS["recipe"](b":a &a [x, xttttttt:\n Sb]*a, *a]\n")  # a key that looks like a branch of a union
