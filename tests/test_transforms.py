"""The resize to the network's size, and the way back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from batching import picture
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from petseg.photos import transforms

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


planes = arrays.arrays(np.uint8, (12, 12))
larger = st.integers(12, 90)


def around(plane: np.ndarray, take: Callable[..., np.ndarray]) -> np.ndarray:
    """Least or largest value of each pixel and its eight neighbours."""
    wide = np.pad(plane, 1, mode="edge")
    return take(np.lib.stride_tricks.sliding_window_view(wide, (3, 3)), axis=(2, 3))


@given(planes, sizes, sizes)
def test_a_resize_invents_no_value(plane: np.ndarray, height: int, width: int) -> None:
    """Weights of bilinear filters are not negative and add up to one: what comes is between."""
    found = transforms.enlarge(plane, height, width)
    assert (found.shape, found.dtype) == ((height, width), np.uint8)
    assert plane.min() <= found.min() <= found.max() <= plane.max()


@given(planes, larger, larger)
def test_there_and_back_moves_nothing_by_more_than_a_pixel(
    plane: np.ndarray, height: int, width: int
) -> None:
    """On the way up a pixel takes from the two on its sides, less than one pixel away.

    On the way down the triangle reaches one pixel of the small size to each side, so that what is
    in the middle of one comes from it and its neighbours alone.
    """
    back = transforms.enlarge(transforms.enlarge(plane, height, width), 12, 12)
    assert (back >= around(plane, np.min)).all()
    assert (back <= around(plane, np.max)).all()


@given(arrays.arrays(np.uint8, (12, 12), elements=st.integers(0, 2)), larger, larger)
def test_class_ids_that_agree_with_their_neighbours_come_back(
    ids: np.ndarray, height: int, width: int
) -> None:
    certain = np.stack([np.where(ids == number, 255, 0).astype(np.uint8) for number in range(3)])
    back = transforms.trimap_to_model(transforms.to_source(certain, height, width), 12)
    inner = around(ids, np.min) == around(ids, np.max)
    np.testing.assert_array_equal(back[inner], ids[inner])
    # And an edge moves by no more than a pixel: no class comes from further away.
    for number in range(3):
        assert not (back == number)[around(ids == number, np.max) == 0].any()


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
    # Both planes may be off, in opposite directions: by half a unit where OpenCV enlarges, whose
    # weights have 11 bits in each direction; by as much in each of Pillow's two passes.
    shrinks = height < 12 or width < 12
    off = 0.5 + 0.5 if shrinks else 0.5 + 2 * 255 * 2**-12
    assert (planes.max(axis=0) - taken).max() <= 2 * off + 0.01
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
