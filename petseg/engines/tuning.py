"""Finds the batch size the session is fastest with, on batches whose masks are real output."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

# Batches of each size that are timed, after one that may have to prepare its shape.
_TRIALS = 3
# A larger batch costs memory and delays the first masks: it has to be faster by this share.
_WORTH = 1.03


class BatchTuner:
    """Tries each size in turn, from the smallest on, then stays with the best.

    Attributes:
        size: images to put into the next batch.
        found: the best size, once all have been tried; None before, and where there is no choice.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        """`sizes`: the batch sizes to choose from, ascending."""
        self._rates: dict[int, list[float]] = {size: [] for size in sizes}
        self._choice = len(sizes) > 1
        self.size = sizes[0]
        self.found: int | None = None

    @property
    def trying(self) -> bool:
        """Whether `size` is one of several that are still being tried."""
        return self._choice and self.found is None

    def add(self, images: int, seconds: float) -> None:
        """Count a batch: how many images it had, and how long one stream took for it."""
        if not self.trying or images not in self._rates:
            return
        rates = self._rates[images]
        rates.append(images / seconds)
        if images != self.size or len(rates) <= _TRIALS:
            return
        larger = [size for size in self._rates if size > self.size]
        if larger:
            self.size = larger[0]
        else:
            self._settle()

    def limit(self, size: int) -> None:
        """No batch may be larger than `size` from now on: there is no memory for more."""
        if self.size <= size:
            return
        self._rates = {tried: rates for tried, rates in self._rates.items() if tried <= size}
        self._rates.setdefault(size, [])
        self.size = size
        if self._choice:
            self._settle()

    def _settle(self) -> None:
        best, best_rate = self.size, 0.0
        for size, rates in self._rates.items():
            if len(rates) > _TRIALS:
                rate = statistics.median(rates[1:])
                if rate > best_rate * _WORTH:
                    best, best_rate = size, rate
        self.size = self.found = best
