from __future__ import annotations

import numpy as np
import pytest

from petseg.data.coloring import blur, change_chroma, change_tone, sharpen


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_nothing_asked_for_changes_nothing(image: np.ndarray) -> None:
    np.testing.assert_array_equal(change_tone(image, 1, 1, 0), image)
    np.testing.assert_array_equal(change_chroma(image, 1, 0), image)
    np.testing.assert_array_equal(sharpen(image, 0), image)


def test_tone_is_gamma_then_contrast_about_the_mean_then_brightness(image: np.ndarray) -> None:
    found = change_tone(image, gamma=1.3, contrast=0.8, brightness=0.1)
    values = 255 * (image / 255) ** 1.3
    mean = 255 * (image.mean() / 255) ** 1.3
    expected = np.clip(mean + (values - mean) * 0.8 + 25.5, 0, 255)
    assert np.abs(found - expected).max() <= 0.51


def test_values_are_cut_off_and_do_not_wrap() -> None:
    image = np.array([[[0, 10, 250]]], np.uint8)
    assert change_tone(image, 1, 1, 0.5).ravel().tolist() == [128, 138, 255]
    assert change_tone(image, 1, 1, -0.5).ravel().tolist() == [0, 0, 123]
    assert change_chroma(image, 3, 0).ravel().tolist() == [0, 0, 255]


def test_without_saturation_it_is_grey(image: np.ndarray) -> None:
    found = change_chroma(image, saturation=0, hue=50)
    np.testing.assert_array_equal(found, np.repeat(found[..., :1], 3, axis=2))
    # OpenCV computes with fixed points here: it may round the wrong way.
    assert np.abs(found[..., 0] - image.mean(axis=2)).max() < 1


def test_hue_turns_red_into_green_and_leaves_grey() -> None:
    image = np.array([[[200, 50, 50], [90, 90, 90]]], np.uint8)
    assert change_chroma(image, 1, 120).tolist() == [[[50, 200, 50], [90, 90, 90]]]
    assert change_chroma(image, 1, -120).tolist() == [[[50, 50, 200], [90, 90, 90]]]


def test_blur_lowers_what_sharpening_raises(image: np.ndarray) -> None:
    deviations = [part.std() for part in (blur(image, 1), image, sharpen(image, 0.5))]
    assert deviations == sorted(deviations)
    np.testing.assert_allclose(blur(image, 1).mean(), image.mean(), atol=2)
