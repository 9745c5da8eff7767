from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from petseg.classes import PET_CLASSES
from petseg.training import plots
from petseg.training.runs import HISTORY_FIELDS


def test_curves_follow_the_history(tmp_path: Path) -> None:
    def draw(name: str, losses: list[float], rates: Sequence[float] = (0.5,) * 3) -> np.ndarray:
        rows = [
            {
                **dict.fromkeys(HISTORY_FIELDS, "0.5"),
                "epoch": str(epoch),
                "loss": str(loss),
                "learning_rate": str(rate),
            }
            for epoch, (loss, rate) in enumerate(zip(losses, rates, strict=True), start=1)
        ]
        plots.curves(rows, tmp_path / name)
        return np.array(Image.open(tmp_path / name).convert("RGB"))

    falling = draw("falling.png", [1.0, 0.5, 0.2])
    rising = draw("rising.png", [0.2, 0.5, 1.0])
    assert falling.shape == rising.shape
    assert (falling != rising).any()
    other = draw("other.png", [1.0, 0.5, 0.2], rates=[0.5, 0.3, 0.1])
    third = falling.shape[1] * 2 // 3
    assert (falling[:, third:] != other[:, third:]).any()
    np.testing.assert_array_equal(falling[:, : third - 10], other[:, : third - 10])


def test_a_confusion_matrix_is_darkest_where_most_pixels_are(tmp_path: Path) -> None:
    matrix = np.array([[90, 10, 0], [0, 100, 0], [0, 0, 0]])
    plots.confusion(matrix, PET_CLASSES, tmp_path / "confusion.png")
    pixels = np.array(Image.open(tmp_path / "confusion.png").convert("RGB"))
    # Matplotlib's "Blues" ends in this colour: the one full share.
    dark = (pixels == (8, 48, 107)).all(axis=2)
    assert dark.any()
    rows, columns = np.nonzero(dark)
    # In the middle of the matrix, and of one cell.
    assert np.ptp(rows) < pixels.shape[0] / 3
    assert abs(rows.mean() - pixels.shape[0] / 2) < pixels.shape[0] / 8
    assert np.ptp(columns) < pixels.shape[1] / 3


def test_predictions_stand_beside_image_and_truth(tmp_path: Path) -> None:
    images = np.full((2, 32, 32, 3), (10, 200, 30), np.uint8)
    truth = np.zeros((2, 32, 32), np.uint8)
    predicted = np.full((2, 32, 32), 2, np.int64)
    path = tmp_path / "predictions.png"
    plots.predictions(images, truth, predicted, PET_CLASSES, path)
    pixels = np.array(Image.open(path).convert("RGB"))
    middles = []
    for color in ((10, 200, 30), PET_CLASSES[0].color, PET_CLASSES[2].color):
        there = (pixels == color).all(axis=2)
        assert there.any()
        middles.append(np.nonzero(there)[1].mean())
    assert middles == sorted(middles)
    assert not (pixels == PET_CLASSES[1].color).all(axis=2).any()
