from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from petseg.classes import PET_CLASSES
from petseg.evaluation import confusion_matrix, scores

MASKS = hnp.arrays(np.uint8, (2, 3, 4), elements=st.integers(0, 2))


@given(MASKS, MASKS)
def test_confusion_counts_every_pair(truth: np.ndarray, prediction: np.ndarray) -> None:
    expected = np.zeros((3, 3), np.int64)
    for true, predicted in zip(truth.ravel(), prediction.ravel(), strict=True):
        expected[true, predicted] += 1
    found = confusion_matrix(truth, prediction, 3)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


def test_confusion_of_many_classes_does_not_overflow() -> None:
    ids = np.arange(200, dtype=np.uint8)
    np.testing.assert_array_equal(confusion_matrix(ids, ids, 200), np.eye(200))


@given(MASKS, MASKS)
def test_scores_by_their_definitions(truth: np.ndarray, prediction: np.ndarray) -> None:
    found = scores(confusion_matrix(truth, prediction, 3), PET_CLASSES)
    assert found.pixels == truth.size
    assert found.pixel_accuracy == pytest.approx((truth == prediction).mean())
    for index, item in enumerate(PET_CLASSES):
        both = ((truth == index) & (prediction == index)).sum()
        either = ((truth == index) | (prediction == index)).sum()
        sizes = (truth == index).sum() + (prediction == index).sum()
        if either:
            assert found.iou[item.name] == pytest.approx(both / either)
            assert found.dice[item.name] == pytest.approx(2 * both / sizes)
        else:
            assert math.isnan(found.iou[item.name])
    inside, found_inside = truth != 1, prediction != 1
    if (inside | found_inside).any():
        expected = (inside & found_inside).sum() / (inside | found_inside).sum()
        assert found.foreground_iou == pytest.approx(expected)
    else:
        assert math.isnan(found.foreground_iou)
    occurring = [value for value in found.iou.values() if not math.isnan(value)]
    assert found.mean_iou == pytest.approx(np.mean(occurring))


def test_a_worked_example() -> None:
    found = scores(np.array([[6, 2, 0], [1, 9, 0], [1, 0, 1]]), PET_CLASSES)
    assert found.iou == pytest.approx({"pet": 6 / 10, "background": 9 / 12, "border": 1 / 2})
    assert found.dice == pytest.approx({"pet": 12 / 16, "background": 18 / 21, "border": 2 / 3})
    assert found.foreground_iou == pytest.approx(8 / 11)
    assert found.foreground == ("pet", "border")
    lines = found.table().splitlines()
    assert "mean IoU              0.6167" in lines
    assert "pet + border IoU      0.7273" in lines
    assert "border                0.5000  0.6667" in lines


def test_what_was_not_counted_is_null_in_json() -> None:
    found = scores(confusion_matrix(np.ones((2, 2), int), np.ones((2, 2), int), 3), PET_CLASSES)
    values = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert values["iou"] == {"pet": None, "background": 1.0, "border": None}
    assert values["mean_iou"] == 1.0
    assert values["foreground_iou"] is None


def test_ids_and_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"prediction has class ids 0\.\.3, expected 0\.\.2"):
        confusion_matrix(np.zeros(4, int), np.arange(4), 3)
    with pytest.raises(ValueError, match="shapes differ"):
        confusion_matrix(np.zeros(4, int), np.zeros(3, int), 3)
    with pytest.raises(ValueError, match="3 classes"):
        scores(np.zeros((2, 2), np.int64), PET_CLASSES)
