"""Figures of one mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from petseg.classes import PET_CLASSES
from petseg.masks import measures
from petseg.masks.record import Box

some_ids = arrays.arrays(
    np.uint8,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=20),
    elements=st.integers(0, len(PET_CLASSES) - 1),
)


def test_certainty() -> None:
    probabilities = np.zeros((3, 2, 2), np.uint8)
    # 255 is certainty: 152 / 255 lies below 0.6, 153 / 255 is 0.6.
    probabilities[0], probabilities[2, 0, 0], probabilities[1, 1, 1] = 153, 255, 20
    probabilities[0, 1, 1] = 152
    confidence, uncertain = measures.certainty(probabilities)
    assert confidence == pytest.approx((255 + 153 + 153 + 152) / 4 / 255, abs=1e-4)
    assert uncertain == 0.25


@given(arrays.arrays(np.uint8, (3, 8, 8), elements=st.integers(1, 255)))
def test_certainty_lies_in_0_to_1(probabilities: np.ndarray) -> None:
    assert all(0 <= value <= 1 for value in measures.certainty(probabilities))


@given(some_ids)
def test_areas_and_box(ids: np.ndarray) -> None:
    areas = measures.class_pixels(ids, PET_CLASSES)
    assert areas == tuple(np.bincount(ids.ravel(), minlength=3))
    places = np.argwhere(ids != 1)
    found = measures.bounding_box(ids, PET_CLASSES, *ids.shape)
    if not len(places):
        assert found is None
        return
    (top, left), (bottom, right) = places.min(axis=0), places.max(axis=0)
    assert found == Box(left, top, right - left + 1, bottom - top + 1)


@pytest.mark.parametrize("side", [29, 225, 478, 11_999])
def test_a_box_ends_where_the_photo_does(side: int) -> None:
    """With 224 pixels of the network, whose multiples are no whole numbers of the photo's."""
    ids = np.zeros((224, 224), np.uint8)
    assert measures.bounding_box(ids, PET_CLASSES, side, side) == Box(0, 0, side, side)


def test_a_box_is_counted_in_the_photos_pixels() -> None:
    ids = np.ones((10, 10), np.uint8)
    ids[2:4, 5:10] = 0
    assert measures.bounding_box(ids, PET_CLASSES, 35, 200) == Box(100, 7, 100, 7)
    assert measures.bounding_box(ids, PET_CLASSES, 3, 3) == Box(1, 0, 2, 2)
