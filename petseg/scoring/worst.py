"""The images that a model does worst on, each from its own confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petseg.classes import SegmentClass
from petseg.scoring import evaluation


@dataclass(frozen=True)
class ImageScore:
    """What one image scores, as in `evaluation.Scores`, and what is wrong most often.

    Attributes:
        name: of the image.
        mean_iou, foreground_iou, pixel_accuracy: over its pixels, 0..1; nan where nothing was
            counted.
        true, taken_for: of the most frequent mistake, the right class and the one predicted.
        share: of the image's pixels that are so mistaken, 0..1; 0 where all are right.
    """

    name: str
    mean_iou: float
    foreground_iou: float
    pixel_accuracy: float
    true: str
    taken_for: str
    share: float


def worst(
    names: Sequence[str],
    confusions: NDArray[np.int64],
    classes: tuple[SegmentClass, ...],
    number: int,
) -> list[ImageScore]:
    """The images with the lowest mean IoU, the lowest first; of equal ones by name.

    The mean is over the classes that occur in the image, in truth or prediction.

    Args:
        names: of the N images.
        confusions: int64 (N, C, C), rows truth, columns prediction; each with some pixels.
        classes: the C classes.
        number: how many, at most.
    """
    found = [_score(*pair, classes) for pair in zip(names, confusions, strict=True)]
    return sorted(found, key=lambda item: (item.mean_iou, item.name))[:number]


def _score(
    name: str, confusion: evaluation.Confusion, classes: tuple[SegmentClass, ...]
) -> ImageScore:
    figures = evaluation.scores(confusion, classes)
    mistakes = confusion * (1 - np.eye(len(classes), dtype=np.int64))
    true, taken_for = np.unravel_index(mistakes.argmax(), mistakes.shape)
    return ImageScore(
        name=name,
        mean_iou=figures.mean_iou,
        foreground_iou=figures.foreground_iou,
        pixel_accuracy=figures.pixel_accuracy,
        true=classes[true].name,
        taken_for=classes[taken_for].name,
        share=float(mistakes.max()) / figures.pixels,
    )
