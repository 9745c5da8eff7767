from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from petseg import plots
from petseg.classes import PET_CLASSES
from petseg.runs import HISTORY_FIELDS


def test_curves_follow_the_history(tmp_path: Path) -> None:
    def draw(name: str, losses: list[float]) -> np.ndarray:
        rows = [
            {**dict.fromkeys(HISTORY_FIELDS, "0.5"), "epoch": str(epoch), "loss": str(loss)}
            for epoch, loss in enumerate(losses, start=1)
        ]
        plots.curves(rows, tmp_path / name)
        return np.array(Image.open(tmp_path / name).convert("RGB"))

    falling = draw("falling.png", [1.0, 0.5, 0.2])
    rising = draw("rising.png", [0.2, 0.5, 1.0])
    assert falling.shape == rising.shape
    assert (falling != rising).any()


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
