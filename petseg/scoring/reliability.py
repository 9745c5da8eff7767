"""Whether a model's probabilities are what they say: of pixels given 0.8, are 80 % right?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Pixels by the probability of the class that was chosen, 0..255, and of these the right ones:
# int64 (256, 2).  A session's probabilities have no more values, so that nothing is rounded here.
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Bin:
    """Pixels whose chosen class had nearly the same probability.

    Attributes:
        low, high: the probabilities, low <= p < high; of the last bin also p = 1.
        pixels: how many there are.
        predicted: their mean probability, 0..1.
        right: the share of them with the right class, 0..1.
    """

    low: float
    high: float
    pixels: int
    predicted: float
    right: float


def count(probabilities: NDArray[np.uint8], truth: NDArray[np.uint8]) -> Counts:
    """One photo's pixels by the probability of their chosen class; add those of all photos.

    Args:
        probabilities: uint8 (C, S, S), 255 is certainty.
        truth: class ids 0..C-1, uint8 (S, S).

    Raises:
        ValueError: they differ in size.
    """
    if probabilities.shape[1:] != truth.shape:
        raise ValueError(f"probabilities of {probabilities.shape[1:]}, truth of {truth.shape}")
    largest = probabilities.max(axis=0)
    right = probabilities.argmax(axis=0) == truth
    columns = [np.bincount(part.ravel(), minlength=256) for part in (largest, largest[right])]
    return np.stack(columns, axis=1).astype(np.int64)


def bins(counts: Counts, number: int = 10) -> list[Bin]:
    """The reliability table: bins of equal width, those without pixels left out.

    Args:
        counts: the sum of `count` over all photos.
        number: of bins between 0 and 1.
    """
    values = np.arange(256)
    places = np.minimum(values * number // 255, number - 1)
    found = []
    for place in range(number):
        inside = places == place
        pixels, right = (int(column) for column in counts[inside].sum(axis=0))
        if pixels:
            predicted = float(values[inside] @ counts[inside, 0]) / 255 / pixels
            found.append(
                Bin(place / number, (place + 1) / number, pixels, predicted, right / pixels)
            )
    return found


def expected_error(table: list[Bin]) -> float:
    """The expected calibration error, 0..1; nan without pixels.

    The mean over all pixels of how far their bin's predicted and right lie apart (Guo, Pleiss, Sun,
    Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3).
    """
    pixels = sum(item.pixels for item in table)
    apart = sum(item.pixels * abs(item.right - item.predicted) for item in table)
    return apart / pixels if pixels else float("nan")
