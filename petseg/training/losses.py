"""What training minimises, and the share of pixels that are right."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# Side of the window in which a pixel of another class makes one a boundary pixel.
_NEIGHBOURHOOD = 5
# Keeps Dice from dividing by 0 where a class is neither there nor predicted.
_EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="petseg")
class SegmentationLoss(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy, with more weight near boundaries, and soft Dice.

    Takes class ids (B, H, W) and log-probabilities (B, H, W, C), which stay finite where a
    probability is too small for a float32.  All of it is computed in float32, one value a sample.
    Pixels whose id is no class (`classes.IGNORED`) count for nothing.  There is no lookup by class
    id in it: torch's gradient of one fails on four axes.

    Dice is that of Milletari et al. 2016 without their squares, meaned over the classes a sample
    holds.
    """

    def __init__(
        self,
        dice_weight: float = 0.0,
        boundary_weight: float = 0.0,
        label_smoothing: float = 0.0,
        name: str = "segmentation",
        **options: Any,
    ) -> None:
        """Set what is added to plain cross-entropy; 0 for nothing.

        Args:
            dice_weight: of 1 - Dice.
            boundary_weight: by which the weight of a pixel with another class within 2 pixels is
                greater than the 1 of others.
            label_smoothing: part of the truth that is spread evenly over all classes
                (Szegedy et al. 2016).
            name: Keras'.
            options: Keras' own.
        """
        super().__init__(name=name, **options)
        self.dice_weight = dice_weight
        self.boundary_weight = boundary_weight
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        log_probabilities = ops.cast(y_pred, "float32")
        truth = _one_hot(y_true, log_probabilities.shape[-1])
        counted = ops.max(truth, axis=-1)
        likelihood = ops.sum(truth * log_probabilities, axis=-1)
        if self.label_smoothing:
            evenly = ops.mean(log_probabilities, axis=-1)
            likelihood += self.label_smoothing * (evenly - likelihood)
        weights = counted
        if self.boundary_weight:
            weights = counted * (1 + self.boundary_weight * _boundaries(truth))
        # A sample's weights are scaled to a mean of 1, so that losses stay comparable.
        loss = -_total(weights * likelihood) / ops.maximum(_total(weights), 1.0)
        if self.dice_weight:
            loss += self.dice_weight * (1 - _dice(truth, log_probabilities, counted))
        return loss

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dice_weight": self.dice_weight,
            "boundary_weight": self.boundary_weight,
            "label_smoothing": self.label_smoothing,
        }


@keras.saving.register_keras_serializable(package="petseg")
class PixelAccuracy(keras.metrics.Mean):  # type: ignore[misc]
    """The share of pixels whose class is right, of those whose id is a class."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        classes = y_pred.shape[-1]
        truth = ops.cast(y_true, "int32")
        right = ops.equal(truth, ops.cast(ops.argmax(y_pred, axis=-1), "int32"))
        super().update_state(ops.cast(right, "float32"), ops.cast(truth < classes, "float32"))


def _one_hot(ids: Any, classes: int) -> Any:
    """float32 (..., C) for ids (...); all 0 where an id is no class."""
    every = ops.arange(classes, dtype="int32")
    return ops.cast(ops.equal(ops.cast(ids, "int32")[..., None], every), "float32")


def _boundaries(truth: Any) -> Any:
    """float32 (B, H, W), 1 where the window around a pixel holds more than one class."""
    near = ops.max_pool(truth, _NEIGHBOURHOOD, strides=1, padding="same")
    return ops.cast(ops.sum(near, axis=-1) > 1, "float32")


def _dice(truth: Any, log_probabilities: Any, counted: Any) -> Any:
    probabilities = ops.exp(log_probabilities) * counted[..., None]
    both = ops.sum(truth * probabilities, axis=(1, 2))
    there = ops.sum(truth, axis=(1, 2))
    either = there + ops.sum(probabilities, axis=(1, 2))
    dice = (2 * both + _EPSILON) / (either + _EPSILON)
    present = ops.cast(there > 0, "float32")
    return ops.sum(present * dice, axis=1) / ops.maximum(ops.sum(present, axis=1), 1.0)


def _total(values: Any) -> Any:
    return ops.sum(values, axis=(1, 2))
