from __future__ import annotations

import numpy as np

from petseg.classes import IGNORED
from petseg.data.patches import cut_out, mix


def test_a_hole_is_one_colour_and_not_asked_for() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        image = random.integers(0, 256, (40, 40, 3), np.uint8)
        trimap = random.integers(0, 3, (40, 40), np.uint8)
        before, ids = image.copy(), trimap.copy()
        cut_out(image, trimap, random)
        hole = trimap == IGNORED
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert 4 <= len(rows) <= 16
        assert 4 <= len(columns) <= 16
        assert hole.sum() == len(rows) * len(columns)
        assert len(np.unique(image[hole], axis=0)) == 1
        np.testing.assert_array_equal(image[~hole], before[~hole])
        np.testing.assert_array_equal(trimap[~hole], ids[~hole])


def test_mixed_samples_hold_a_rectangle_of_the_one_before() -> None:
    count, size = 6, 40
    trimaps = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, size, size))
    trimaps = trimaps.copy()
    images = np.repeat(trimaps[..., None], 3, axis=3)
    parts = mix(images, trimaps, 1.0, np.random.default_rng(0))
    for place in range(count):
        foreign = trimaps[place] == (place - 1) % count
        assert set(np.unique(trimaps[place])) == {place, (place - 1) % count}
        assert np.float32(foreign.mean()) == parts[place]
        assert 0.25**2 < parts[place] < 0.75**2
        np.testing.assert_array_equal(images[place, ..., 0], trimaps[place])


def test_a_share_of_the_samples_is_mixed() -> None:
    images = np.zeros((400, 8, 8, 3), np.uint8)
    parts = mix(images, images[..., 0].copy(), 0.25, np.random.default_rng(0))
    assert 70 < np.count_nonzero(parts) < 130
    assert not mix(images, images[..., 0].copy(), 0.0, np.random.default_rng(0)).any()
