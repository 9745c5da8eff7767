from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from petseg.classes import PET_CLASSES
from petseg.scoring.evaluation import boundary_f_score, confusion_matrix, row_shares, scores

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


def test_rows_tell_what_became_of_a_class() -> None:
    shares = row_shares(np.array([[3, 1, 0], [0, 5, 5], [0, 0, 0]]))
    np.testing.assert_array_equal(shares[:2], [[0.75, 0.25, 0], [0, 0.5, 0.5]])
    assert np.isnan(shares[2]).all()


def test_boundaries_of_a_worked_example() -> None:
    """An edge between columns 2 and 3; the prediction has it, and a spot where there is none."""
    truth = np.ones((5, 7), np.uint8)
    truth[:, :3] = 0
    prediction = truth.copy()
    prediction[2, 5] = 0
    # Class 0: five pixels of column 2 are right, and the spot is one too many.  Class 1: five
    # pixels of column 3, and the spot's four neighbours, of which one lies beside column 3.
    exact = boundary_f_score(truth, prediction, 3, 0)
    assert exact[:2] == pytest.approx([2 * (5 / 6) / (5 / 6 + 1), 2 * (5 / 9) / (5 / 9 + 1)])
    near = boundary_f_score(truth, prediction, 3, 1)
    assert near[:2] == pytest.approx([2 * (5 / 6) / (5 / 6 + 1), 2 * (6 / 9) / (6 / 9 + 1)])
    # Three columns from the spot to column 2; its neighbours above and below lie two from column 3.
    assert boundary_f_score(truth, prediction, 3, 2)[:2] == pytest.approx([10 / 11, 16 / 17])
    assert boundary_f_score(truth, prediction, 3, 3)[:2].tolist() == [1, 1]
    # Precision and recall change places, and the mean stays.
    np.testing.assert_array_equal(boundary_f_score(prediction, truth, 3, 1), near)
    assert np.isnan([exact[2], near[2]]).all()


def test_distances_between_boundaries_are_euclidean() -> None:
    truth, prediction = np.zeros((2, 9, 9), np.uint8)
    truth[2, 2] = prediction[5, 6] = 1
    assert boundary_f_score(truth, prediction, 2, 4.99)[1] == 0
    assert boundary_f_score(truth, prediction, 2, 5)[1] == 1


def test_boundaries_that_are_not_there() -> None:
    nothing = np.zeros((4, 4), np.uint8)
    # The image's edge is no boundary.
    assert np.isnan(boundary_f_score(nothing, nothing, 2, 1)).all()
    half = nothing.copy()
    half[:, 2:] = 1
    assert boundary_f_score(half, nothing, 2, 1).tolist() == [0, 0]
    assert boundary_f_score(nothing, half, 2, 1).tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"found truth \(4, 4\), prediction \(4, 3\)"):
        boundary_f_score(nothing, nothing[:, :3], 2, 1)


@given(
    hnp.arrays(np.uint8, (6, 8), elements=st.integers(0, 2)),
    hnp.arrays(np.uint8, (6, 8), elements=st.integers(0, 2)),
    st.floats(0, 10),
)
def test_boundaries_by_their_definition(
    truth: np.ndarray, prediction: np.ndarray, tolerance: float
) -> None:
    def boundary(ids: np.ndarray, class_id: int) -> list[tuple[int, int]]:
        height, width = ids.shape
        return [
            (y, x)
            for y, x in np.ndindex(height, width)
            if ids[y, x] == class_id
            and any(
                0 <= v < height and 0 <= u < width and ids[v, u] != class_id
                for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            )
        ]

    def share(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        near = [any(np.float32(math.dist(a, b)) <= tolerance for b in others) for a in some]
        return sum(near) / len(near) if near else 0.0

    found = boundary_f_score(truth, prediction, 3, tolerance)
    for class_id in range(3):
        true, predicted = boundary(truth, class_id), boundary(prediction, class_id)
        precision, recall = share(predicted, true), share(true, predicted)
        if not true and not predicted:
            assert math.isnan(found[class_id])
        elif precision + recall == 0:
            assert found[class_id] == 0
        else:
            expected = 2 * precision * recall / (precision + recall)
            assert found[class_id] == pytest.approx(expected)
