"""From one confusion matrix over all pixels of all images to every figure petseg prints.

Boundaries, which a confusion matrix knows nothing of, are compared image by image.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from petseg.classes import SegmentClass

Confusion = NDArray[np.int64]


def confusion_matrix(
    truth: NDArray[np.integer[Any]], prediction: NDArray[np.integer[Any]], classes: int
) -> Confusion:
    """Count pixels by true class (rows) and predicted class (columns).

    Args:
        truth: class ids 0..classes-1, any shape.
        prediction: class ids 0..classes-1, the same shape.
        classes: number of classes.

    Returns:
        int64 (classes, classes).

    Raises:
        ValueError: shapes differ, or an id lies outside 0..classes-1.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"shapes differ: truth {truth.shape}, prediction {prediction.shape}")
    for name, ids in (("truth", truth), ("prediction", prediction)):
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < classes:
            raise ValueError(
                f"{name} has class ids {ids.min()}..{ids.max()}, expected 0..{classes - 1}"
            )
    # The smallest type that holds every index, up to 16 times smaller than bincount's own.
    index = truth.astype(np.min_scalar_type(classes * classes)).ravel()
    index = index * index.dtype.type(classes) + prediction.astype(index.dtype).ravel()
    counts = np.bincount(index, minlength=classes * classes)
    return counts.astype(np.int64, copy=False).reshape(classes, classes)


@dataclass(frozen=True)
class Scores:
    """What one confusion matrix says; every share lies in 0..1, nan where nothing was counted.

    Attributes:
        pixels: pixels counted.
        pixel_accuracy: share of pixels with the right class.
        iou: intersection over union per class, by class name (Jaccard 1912; the PASCAL VOC
            measure: true positives / (true positives + false positives + false negatives)).
        mean_iou: mean of `iou` over the classes that occur.
        dice: 2 TP / (2 TP + FP + FN) per class.
        mean_dice: mean of `dice` over the classes that occur.
        foreground: names of the classes taken as one in `foreground_iou`.
        foreground_iou: IoU of all foreground classes taken as one (pet plus border).
    """

    pixels: int
    pixel_accuracy: float
    iou: dict[str, float]
    mean_iou: float
    dice: dict[str, float]
    mean_dice: float
    foreground: tuple[str, ...]
    foreground_iou: float

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them: None in place of nan."""
        values: dict[str, Any] = nan_to_none(asdict(self))
        return values

    def table(self) -> str:
        """The figures as lines of text, four decimals each."""
        lines = [
            f"{'pixel accuracy':<20}{self.pixel_accuracy:8.4f}",
            f"{'mean IoU':<20}{self.mean_iou:8.4f}",
            f"{'mean Dice':<20}{self.mean_dice:8.4f}",
            f"{' + '.join(self.foreground) + ' IoU':<20}{self.foreground_iou:8.4f}",
            "",
            f"{'class':<20}{'IoU':>8}{'Dice':>8}",
        ]
        lines += [f"{name:<20}{self.iou[name]:8.4f}{self.dice[name]:8.4f}" for name in self.iou]
        return "\n".join(lines)


def scores(confusion: Confusion, classes: tuple[SegmentClass, ...]) -> Scores:
    """Turn a confusion matrix into figures.

    Args:
        confusion: int (C, C), rows truth, columns prediction.
        classes: the C classes; those marked as foreground make up `foreground_iou`.

    Raises:
        ValueError: the matrix is not (C, C).
    """
    if confusion.shape != (len(classes), len(classes)):
        raise ValueError(f"{len(classes)} classes, but a confusion matrix of {confusion.shape}")
    names = [item.name for item in classes]
    hits = np.diag(confusion).astype(float)
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    total = int(confusion.sum())
    with np.errstate(invalid="ignore"):
        iou = hits / (truth + predicted - hits)
        dice = 2 * hits / (truth + predicted)
    inside = np.array([item.foreground for item in classes])
    both = int(confusion[np.ix_(inside, inside)].sum())
    either = total - int(confusion[np.ix_(~inside, ~inside)].sum())
    return Scores(
        pixels=total,
        pixel_accuracy=float(hits.sum()) / total if total else math.nan,
        iou=dict(zip(names, map(float, iou), strict=True)),
        mean_iou=_mean_of_numbers(iou),
        dice=dict(zip(names, map(float, dice), strict=True)),
        mean_dice=_mean_of_numbers(dice),
        foreground=tuple(item.name for item in classes if item.foreground),
        foreground_iou=both / either if either else math.nan,
    )


def row_shares(confusion: Confusion) -> NDArray[np.float64]:
    """What became of each class: (C, C), rows that sum to 1, nan for a class without pixels."""
    with np.errstate(invalid="ignore"):
        return np.asarray(confusion / confusion.sum(axis=1, keepdims=True), np.float64)


def boundary_f_score(
    truth: NDArray[np.integer[Any]],
    prediction: NDArray[np.integer[Any]],
    classes: int,
    tolerance: float,
) -> NDArray[np.float64]:
    """How well each class's boundary was found in one image.

    The harmonic mean of precision, the share of predicted boundary pixels that lie near a true one,
    and recall, the share of true ones that lie near a predicted one (Csurka, Larlus, Perronnin,
    "What is a good evaluation measure for semantic segmentation?", BMVC 2013, who take 0.75 % of
    the image's diagonal for near; Perazzi et al., "A Benchmark Dataset and Evaluation Methodology
    for Video Object Segmentation", CVPR 2016, section 4, who take 0.8 %).  A class's boundary are
    its pixels beside, above or below one of another class; the image's edge is none.

    Args:
        truth: class ids 0..classes-1, (H, W).
        prediction: class ids 0..classes-1, (H, W).
        classes: number of classes.
        tolerance: how far apart "near" may be, pixels, between their centres.

    Returns:
        float64 (classes,), 0..1; nan for a class that has no boundary in either.

    Raises:
        ValueError: shapes differ, or are not (H, W).
    """
    if truth.shape != prediction.shape or truth.ndim != 2:
        raise ValueError(
            f"expected two (H, W) of one shape, found truth {truth.shape}, "
            f"prediction {prediction.shape}"
        )
    found = np.full(classes, np.nan)
    for class_id in range(classes):
        true, predicted = _boundary(truth == class_id), _boundary(prediction == class_id)
        if true.any() and predicted.any():
            precision = float((_distances(true)[predicted] <= tolerance).mean())
            recall = float((_distances(predicted)[true] <= tolerance).mean())
            both = precision + recall
            found[class_id] = 2 * precision * recall / both if both else 0.0
        elif true.any() or predicted.any():
            found[class_id] = 0.0
    return found


def _boundary(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a region, bool (H, W), that have a neighbour outside it."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    # By default what lies beyond the image's edge erodes nothing.
    found: NDArray[np.bool_] = inside & (cv2.erode(inside.astype(np.uint8), cross) == 0)
    return found


def _distances(pixels: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How far each pixel is from the nearest of some, float32 (H, W), Euclidean, exact."""
    away = np.asarray(~pixels, np.uint8)
    return np.asarray(cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _mean_of_numbers(values: NDArray[np.float64]) -> float:
    """Mean of what is not nan; a class that occurs nowhere says nothing about the others."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if numbers.size else math.nan


def nan_to_none(value: Any) -> Any:
    """The same as JSON can hold it: dictionaries and lists, in any depth, with None for nan."""
    if isinstance(value, dict):
        return {name: nan_to_none(item) for name, item in value.items()}
    if isinstance(value, list):
        return [nan_to_none(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
