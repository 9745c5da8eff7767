from __future__ import annotations

import math

import numpy as np
import pytest

from petseg.scoring import reliability

RANDOM = np.random.default_rng(4)


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities uint8 (N, C, S, S) of four photos, and class ids (N, S, S)."""
    scores = np.exp(3 * RANDOM.normal(size=(4, 3, 16, 16)))
    shares = scores / scores.sum(axis=1, keepdims=True)
    truth = RANDOM.integers(0, 3, (4, 16, 16)).astype(np.uint8)
    return np.rint(255 * shares).astype(np.uint8), truth


def test_it_is_what_the_article_says() -> None:
    """The mean of |right - confident| over ten bins, each pixel by itself."""
    probabilities, truth = drawn()
    counts = sum(reliability.count(*pair) for pair in zip(probabilities, truth, strict=True))
    assert isinstance(counts, np.ndarray)
    largest = (probabilities.max(axis=1) / 255).ravel()
    right = (probabilities.argmax(axis=1) == truth).ravel()
    expected = 0.0
    table = reliability.bins(counts)
    for low in range(10):
        inside = (largest >= low / 10) & ((largest < (low + 1) / 10) | (low == 9))
        found = [item for item in table if item.low == low / 10]
        assert len(found) == bool(inside.any())
        for item in found:
            assert (item.pixels, item.high) == (inside.sum(), (low + 1) / 10)
            assert item.predicted == pytest.approx(largest[inside].mean())
            assert item.right == pytest.approx(right[inside].mean())
            expected += inside.mean() * abs(item.right - item.predicted)
    assert reliability.expected_error(table) == pytest.approx(expected)
    assert expected > 0.1


def test_probabilities_that_are_true_have_no_error() -> None:
    counts = np.zeros((256, 2), np.int64)
    counts[204], counts[255], counts[102] = (10, 8), (7, 7), (5, 2)
    table = reliability.bins(counts)
    assert [(item.low, item.pixels, item.right) for item in table] == [
        *((0.4, 5, 0.4), (0.8, 10, 0.8), (0.9, 7, 1.0))
    ]
    assert reliability.expected_error(table) == pytest.approx(0)
    # All of them sure, none of them right.
    counts[:] = 0
    counts[255] = 3, 0
    assert reliability.expected_error(reliability.bins(counts)) == 1


def test_no_pixels_and_other_sizes() -> None:
    assert math.isnan(reliability.expected_error(reliability.bins(np.zeros((256, 2), np.int64))))
    with pytest.raises(ValueError, match=r"\(4, 4\), truth of \(4, 5\)"):
        reliability.count(np.zeros((3, 4, 4), np.uint8), np.zeros((4, 5), np.uint8))
