from __future__ import annotations

import numpy as np
import pytest

from petseg.classes import PET_CLASSES
from petseg.scoring import evaluation
from petseg.scoring.worst import worst

RIGHT = np.diag([40, 50, 10])
MIXED = np.array([[30, 10, 0], [2, 48, 0], [1, 3, 6]])
POOR = np.array([[5, 5, 30], [20, 30, 0], [0, 0, 10]])


def test_the_lowest_mean_iou_comes_first() -> None:
    names = ["right", "poor", "mixed", "again"]
    confusions = np.stack([RIGHT, POOR, MIXED, POOR])
    found = worst(names, confusions, PET_CLASSES, 10)
    assert [item.name for item in found] == ["again", "poor", "mixed", "right"]
    assert worst(names, confusions, PET_CLASSES, 2) == found[:2]
    for item, confusion in zip(found, (POOR, POOR, MIXED, RIGHT), strict=True):
        expected = evaluation.scores(confusion, PET_CLASSES)
        assert item.mean_iou == expected.mean_iou
        assert item.foreground_iou == expected.foreground_iou
        assert item.pixel_accuracy == expected.pixel_accuracy


def test_the_most_frequent_mistake_is_named() -> None:
    poor, mixed, right = worst(["a", "b", "c"], np.stack([POOR, MIXED, RIGHT]), PET_CLASSES, 3)
    assert (poor.true, poor.taken_for, poor.share) == ("pet", "border", 0.3)
    assert (mixed.true, mixed.taken_for) == ("pet", "background")
    assert mixed.share == pytest.approx(0.1)
    assert right.share == 0
