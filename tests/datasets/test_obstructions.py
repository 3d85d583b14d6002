"""What lies before a frame hides what it is meant to hide, and nothing far from it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image
from roadside.datasets import obstructions
from roadside.datasets.boxes import ObjectBox
from roadside.datasets.obstructions import obscure

LAMP = ObjectBox(("red-light",), 150, 40, 158, 48)
FAR_AWAY = ObjectBox(("bystander",), 2, 150, 10, 180)


def picture(lamp: tuple[int, int, int]) -> Image.Image:
    """A noisy street with a lamp in it."""
    noise = np.random.default_rng(0).integers(60, 140, (192, 320, 3), np.uint8)
    noise[int(LAMP.top) : int(LAMP.bottom), int(LAMP.left) : int(LAMP.right)] = lamp
    return Image.fromarray(noise)


@pytest.mark.parametrize("wet", [False, True])
def test_whatever_colour_is_hidden_the_picture_hardly_tells(wet):
    for seed in range(12):
        red, green = (
            np.asarray(obscure(picture(colour), [LAMP], random.Random(seed), wet=wet).picture, float)
            for colour in ((255, 0, 0), (0, 255, 0))
        )
        # A wiper's film of water lets a breath of colour through.
        assert np.abs(red - green).max() < 16


def test_hidden_boxes_are_not_seen_and_others_are():
    for seed in range(12):
        obscured = obscure(picture((255, 0, 0)), [LAMP], random.Random(seed), wet=True)
        assert LAMP not in obscured.still_seen([LAMP, FAR_AWAY])
        left, top, right, bottom = obscured.hidden
        assert left < LAMP.left < LAMP.right < right
        assert top < LAMP.top < LAMP.bottom < bottom
    beside = obstructions.Obscured(picture((0, 0, 0)), (100.0, 0.0, 200.0, 100.0))
    assert beside.still_seen([LAMP, FAR_AWAY]) == (FAR_AWAY,)


def test_without_evidence_something_is_hidden_all_the_same():
    clear = picture((0, 0, 0))
    for seed in range(6):
        obscured = obscure(clear, [], random.Random(seed), wet=False)
        assert np.abs(np.asarray(obscured.picture, float) - np.asarray(clear, float)).mean() > 3


def test_the_size_does_not_tell_what_is_behind():
    """A lamp of eight pixels is hidden by no less than a bus would be."""
    for seed in range(12):
        left, top, right, bottom = obscure(picture((0, 0, 0)), [LAMP], random.Random(seed), wet=True).hidden
        assert right - left >= 80
        assert bottom - top >= 70
