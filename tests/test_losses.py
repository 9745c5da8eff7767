from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from petseg.classes import IGNORED
from petseg.training.losses import PixelAccuracy, SegmentationLoss


@pytest.fixture
def samples() -> tuple[np.ndarray, np.ndarray]:
    """Class ids (4, 12, 10) and log-probabilities (4, 12, 10, 3)."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(4, 12, 10, 3)).astype(np.float32)
    return random.integers(0, 3, (4, 12, 10), np.uint8), np.array(ops.log_softmax(logits))


def value(loss: SegmentationLoss, ids: np.ndarray, log_probabilities: np.ndarray) -> float:
    return float(loss(ids, log_probabilities))


def test_plain_it_is_keras_cross_entropy(samples: tuple[np.ndarray, np.ndarray]) -> None:
    ids, logs = samples
    expected = keras.losses.SparseCategoricalCrossentropy()(ids, np.exp(logs))
    assert value(SegmentationLoss(), ids, logs) == pytest.approx(float(expected), rel=1e-5)
    smoothed = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    expected = smoothed(np.eye(3, dtype=np.float32)[ids], np.exp(logs))
    found = value(SegmentationLoss(label_smoothing=0.1), ids, logs)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_dice_is_meaned_over_the_classes_that_are_there(
    samples: tuple[np.ndarray, np.ndarray],
) -> None:
    ids, logs = samples
    ids[0][ids[0] == 2] = 1
    dices = []
    for truth, probabilities in zip(ids, np.exp(logs), strict=True):
        dices.append(
            np.mean(
                [
                    2
                    * probabilities[truth == c, c].sum()
                    / (probabilities[..., c].sum() + (truth == c).sum())
                    for c in np.unique(truth)
                ]
            )
        )
    added = value(SegmentationLoss(dice_weight=0.5), ids, logs) - value(
        SegmentationLoss(), ids, logs
    )
    assert added == pytest.approx(0.5 * (1 - np.mean(dices)), rel=1e-4)


def test_pixels_near_boundaries_weigh_more(samples: tuple[np.ndarray, np.ndarray]) -> None:
    _, logs = samples
    ids = np.zeros((4, 12, 10), np.uint8)
    ids[:, 6:, :] = 2
    weights = np.ones((12, 10))
    weights[4:8] = 3
    losses = -np.take_along_axis(logs, ids[..., None].astype(int), axis=-1)[..., 0]
    expected = np.mean([np.average(loss, weights=weights) for loss in losses])
    found = value(SegmentationLoss(boundary_weight=2), ids, logs)
    assert found == pytest.approx(expected, rel=1e-5)


def test_ignored_pixels_count_for_nothing(samples: tuple[np.ndarray, np.ndarray]) -> None:
    ids, logs = samples
    ids[:, :, 7:] = IGNORED
    loss = SegmentationLoss(dice_weight=1, boundary_weight=1, label_smoothing=0.1)
    other = logs.copy()
    other[:, :, 7:] = np.log(1 / 3)
    assert value(loss, ids, logs) == pytest.approx(value(loss, ids, other), rel=1e-6)
    # What lies beyond them is no neighbour of another class either.
    assert value(loss, ids, logs) == pytest.approx(
        value(loss, ids[:, :, :7], logs[:, :, :7]), rel=1e-5
    )
    ids[:] = IGNORED
    assert value(SegmentationLoss(), ids, logs) == 0
    accuracy = PixelAccuracy()
    accuracy.update_state(ids, logs)
    assert float(accuracy.result()) == 0


def test_a_network_that_is_sure_and_wrong_still_learns() -> None:
    logits = tf.constant([[[[0.0, 300.0, 0.0]]]])
    ids = np.zeros((1, 1, 1), np.uint8)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = SegmentationLoss(dice_weight=1)(ids, ops.log_softmax(logits))
    assert float(loss) == pytest.approx(301)
    np.testing.assert_allclose(tape.gradient(loss, logits)[0, 0, 0], [-1, 1, 0], atol=1e-6)


def test_accuracy_is_of_the_pixels_that_count(samples: tuple[np.ndarray, np.ndarray]) -> None:
    ids, logs = samples
    ids[:2, :5] = IGNORED
    accuracy = PixelAccuracy()
    for part in (slice(0, 1), slice(1, 4)):
        accuracy.update_state(ids[part], logs[part])
    counted = ids != IGNORED
    expected = (logs.argmax(axis=-1) == ids)[counted].mean()
    assert float(accuracy.result()) == pytest.approx(expected)


def test_saved_with_a_model_it_comes_back() -> None:
    loss = SegmentationLoss(0.5, 1.5, 0.1)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(again, SegmentationLoss)
    assert again.get_config() == loss.get_config()
