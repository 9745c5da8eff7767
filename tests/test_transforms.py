"""The resize to the network's size, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from batching import picture
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from petseg import transforms

sizes = st.integers(1, 90)
scores = arrays.arrays(np.uint8, (3, 12, 12))


@given(sizes, sizes)
def test_a_photo_becomes_a_square(height: int, width: int) -> None:
    pixels = picture(3, height, width)
    found = transforms.to_model(pixels, 16)
    assert found.shape == (16, 16, 3)
    assert found.dtype == np.uint8
    expected = Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, np.array(expected))


def test_a_photo_of_the_right_size_stays_as_it_is() -> None:
    pixels = picture(4, 32, 32)
    np.testing.assert_array_equal(transforms.to_model(pixels, 32), pixels)


def test_shrinking_averages() -> None:
    # Without antialiasing one column in ten would decide.
    stripes = np.zeros((40, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    found = transforms.to_model(stripes, 20)
    assert 110 < found.min() <= found.max() < 145


@given(sizes, sizes)
def test_a_trimap_keeps_its_values(height: int, width: int) -> None:
    trimap = (picture(5, height, width)[..., 0] % 3 + 1).astype(np.uint8)
    found = transforms.trimap_to_model(trimap, 16)
    assert found.shape == (16, 16)
    assert set(found.ravel()) <= set(trimap.ravel())
    np.testing.assert_array_equal(transforms.trimap_to_model(found, 16), found)


@given(scores)
def test_the_way_back_is_the_argmax_where_sizes_are_equal(probabilities: np.ndarray) -> None:
    found = transforms.to_source(probabilities, 12, 12)
    np.testing.assert_array_equal(found, probabilities.argmax(axis=0))
    assert found.dtype == np.uint8


@given(scores, sizes, sizes)
def test_the_way_back_takes_the_largest_of_the_enlarged_probabilities(
    probabilities: np.ndarray, height: int, width: int
) -> None:
    before = probabilities.copy()
    found = transforms.to_source(probabilities, height, width)
    # In floating point; to_source rounds each probability to whole numbers.
    planes = np.stack(
        [
            np.array(
                Image.fromarray(plane.astype(np.float32)).resize(
                    (width, height), Image.Resampling.BILINEAR
                )
            )
            for plane in probabilities
        ]
    )
    taken = np.take_along_axis(planes, found[None].astype(np.int64), axis=0)[0]
    assert (planes.max(axis=0) - taken).max() <= 1.01
    np.testing.assert_array_equal(probabilities, before)


@given(st.tuples(*[st.integers(0, 255)] * 4), sizes, sizes)
def test_constant_probabilities_give_a_constant_mask(
    levels: tuple[int, ...], height: int, width: int
) -> None:
    probabilities = np.empty((4, 9, 9), np.uint8)
    probabilities[:] = np.array(levels)[:, None, None]
    found = transforms.to_source(probabilities, height, width)
    np.testing.assert_array_equal(found, np.full((height, width), int(np.argmax(levels))))


@pytest.mark.parametrize(("height", "width"), [(12, 70_000), (70_000, 12), (1, 300), (300, 1)])
def test_the_way_back_to_extreme_sizes(height: int, width: int) -> None:
    probabilities = np.zeros((2, 12, 12), np.uint8)
    probabilities[0, :, :6] = probabilities[1, :, 6:] = 255
    found = transforms.to_source(probabilities, height, width)
    # Beside the middle both classes have the same whole number.
    side = width // 2 - width // 100
    assert (found[:, :side] == 0).all()
    assert (found[:, width - side :] == 1).all()


@given(sizes, sizes)
def test_height_is_not_width(height: int, width: int) -> None:
    # Class 0 above, class 1 below: the border between them is level.
    probabilities = np.zeros((2, 8, 8), np.uint8)
    probabilities[0, :4] = probabilities[1, 4:] = 255
    found = transforms.to_source(probabilities, height, width)
    assert found.shape == (height, width)
    assert (found == found[:, :1]).all()
    assert (np.diff(found[:, 0].astype(int)) >= 0).all()
