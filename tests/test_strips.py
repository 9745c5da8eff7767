from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from petseg.classes import PET_CLASSES
from petseg.training import strips


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_rows_hold_the_photos_and_their_masks_side_by_side(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    images = np.zeros((3, strips.SIDE, strips.SIDE, 3), np.uint8)
    images[1] = 200
    truth = np.zeros((3, strips.SIDE, strips.SIDE), np.uint8)
    truth[2] = 2
    strips.write_samples(folder, images, truth, PET_CLASSES)
    photos = pixels(folder / strips.PHOTOS)
    assert photos.shape == (strips.SIDE, 3 * strips.SIDE, 3)
    middles = np.arange(3) * strips.SIDE + strips.SIDE // 2
    np.testing.assert_allclose(photos[80, middles, 0], (0, 200, 0), atol=3)
    colors = [item.color for item in PET_CLASSES]
    masks = pixels(folder / strips.TRUTH)
    np.testing.assert_array_equal(masks[80, middles], [colors[0], colors[0], colors[2]])
    # Of another size, as the network sees them.
    strips.write_epoch(folder, 1, np.full((3, 32, 32), 1, np.uint8), PET_CLASSES)
    (path,) = strips.epochs(folder, 6, 99).values()
    np.testing.assert_array_equal(pixels(path), np.full(photos.shape, colors[1]))


def test_of_many_epochs_some_are_shown(tmp_path: Path) -> None:
    assert strips.epochs(tmp_path / "nothing", 6, 99) == {}
    for epoch in range(1, 37):
        strips.write_epoch(tmp_path, epoch, np.zeros((1, 8, 8), np.uint8), PET_CLASSES)
    shown = strips.epochs(tmp_path, 6, 99)
    assert list(shown) == [1, 8, 15, 22, 29, 36]
    assert shown[8].name == "epoch-0008.png"
    assert list(strips.epochs(tmp_path, 50, 99)) == list(range(1, 37))
    # An epoch that is done again.
    strips.write_epoch(tmp_path, 36, np.ones((1, 8, 8), np.uint8), PET_CLASSES)
    assert tuple(pixels(shown[1])[5, 5]) == PET_CLASSES[0].color
    assert tuple(pixels(shown[36])[5, 5]) == PET_CLASSES[1].color
    assert len(list(tmp_path.iterdir())) == 36
    # Those of an epoch that was cut off, and what somebody else put there, are no epoch's.
    (tmp_path / "epoch-0001 copy.png").write_bytes(b"")
    assert list(strips.epochs(tmp_path, 50, 3)) == [1, 2, 3]
