from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petseg.data.warping import warp


def draw(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (size, size, 3), np.uint8)
    return image, random.integers(0, 3, (size, size), np.uint8)


def test_a_frame_of_the_photos_own_size_changes_nothing() -> None:
    image, trimap = draw()
    for pixels, ids in (warp(image, trimap, 64), warp(image, trimap, 64, place=(0, 1))):
        np.testing.assert_array_equal(pixels, image)
        np.testing.assert_array_equal(ids, trimap)


def test_mirrored_and_turned_by_right_angles_every_pixel_is_one_of_the_photos() -> None:
    image, trimap = draw()
    pixels, ids = warp(image, trimap, 64, mirrored=True)
    np.testing.assert_array_equal(pixels, image[:, ::-1])
    np.testing.assert_array_equal(ids, trimap[:, ::-1])
    # The frame goes clockwise, what it shows the other way.
    pixels, ids = warp(image, trimap, 64, angle=90)
    np.testing.assert_array_equal(pixels, np.rot90(image))
    np.testing.assert_array_equal(ids, np.rot90(trimap))


@pytest.mark.parametrize(
    ("place", "corner"), [((0, 0), (0, 0)), ((1, 0), (0, 32)), ((0, 1), (32, 0))]
)
def test_enlarged_it_is_a_part(place: tuple[int, int], corner: tuple[int, int]) -> None:
    image, trimap = draw()
    pixels, ids = warp(image, trimap, 64, zoom=2, place=place)
    top, left = corner
    part = trimap[top : top + 32, left : left + 32]
    np.testing.assert_array_equal(ids, np.repeat(np.repeat(part, 2, 0), 2, 1))
    assert pixels.shape == (64, 64, 3)


def test_reduced_the_photo_stands_among_its_reflections() -> None:
    image, trimap = draw()
    _, ids = warp(image, trimap, 128, zoom=0.5)
    np.testing.assert_array_equal(ids[32:96, 32:96], trimap)
    np.testing.assert_array_equal(ids[:, :32], ids[:, 63:31:-1])
    np.testing.assert_array_equal(ids[96:], ids[95:63:-1])
    _, ids = warp(image, trimap, 128, zoom=0.5, place=(0, 0))
    np.testing.assert_array_equal(ids[64:, 64:], trimap)


def test_stretched_it_shows_less_of_the_width_and_more_of_the_height() -> None:
    trimap = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    image = np.repeat(trimap[..., None], 3, axis=2)
    _, ids = warp(image, trimap, 64, stretch=1.21)
    assert np.ptp(ids) == pytest.approx(64 / 1.1, abs=2)
    _, ids = warp(image, trimap, 64, stretch=1 / 1.21, zoom=1.1)
    assert np.ptp(ids) == pytest.approx(63, abs=1)


def test_what_shrinks_is_averaged() -> None:
    y, x = np.mgrid[:240, :240]
    checkers = np.repeat((255 * ((x + y) % 2)).astype(np.uint8)[..., None], 3, axis=2)
    pixels, _ = warp(checkers, checkers[..., 0], 60, angle=10)
    assert np.abs(pixels.astype(int) - 128).max() < 8


@given(
    st.floats(0.7, 2),
    st.floats(0.7, 1.4),
    st.floats(-30, 30),
    st.booleans(),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.sampled_from([48, 64, 128]),
)
def test_photo_and_class_ids_go_the_same_way(
    zoom: float,
    stretch: float,
    angle: float,
    mirrored: bool,
    place: tuple[float, float],
    size: int,
) -> None:
    y, x = np.mgrid[:96, :80]
    trimap = ((x // 40 + y // 48) % 3).astype(np.uint8)
    image = np.repeat(trimap[..., None] * np.uint8(120), 3, axis=2)
    pixels, ids = warp(image, trimap, size, zoom, stretch, angle, mirrored, place)
    # They differ only where the photo's edges are smooth.
    same = np.abs(pixels[..., 0].astype(int) - ids * 120) < 60
    assert same.mean() > 0.95
