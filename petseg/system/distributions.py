"""Many values in bounded memory: seconds, shares, and how many there were at which time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Seconds are counted in bins 5 % apart, from a microsecond to a quarter of an hour.
_EDGES = 1e-6 * 1.05 ** np.arange(425)
# At most so many bins tell how many there were over time.
_TIME_BINS = 120


@dataclass
class Stage:
    """Times of one stage, in bounded memory whatever the number of images."""

    busy_seconds: float = 0.0
    bins: np.ndarray[Any, np.dtype[np.int64]] = field(
        default_factory=lambda: np.zeros(len(_EDGES) + 1, np.int64)
    )

    def add(self, seconds: float) -> None:
        """Count one item by its seconds, for the percentiles."""
        self.bins[np.searchsorted(_EDGES, seconds)] += 1

    def percentile(self, share: float) -> float | None:
        """Seconds that this share of the items stayed below, within 5 %; None without items."""
        total = int(self.bins.sum())
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(self.bins), share * total))
        return float(_EDGES[min(place, len(_EDGES) - 1)])

    def as_dict(self) -> dict[str, float | None]:
        return {
            "busy_core_seconds": self.busy_seconds,
            "p50_seconds": self.percentile(0.50),
            "p95_seconds": self.percentile(0.95),
            "p99_seconds": self.percentile(0.99),
        }


@dataclass
class Shares:
    """Values of 0..1, in bounded memory, to the percent."""

    total: float = 0.0
    bins: np.ndarray[Any, np.dtype[np.int64]] = field(
        default_factory=lambda: np.zeros(101, np.int64)
    )

    def add(self, value: float) -> None:
        self.total += value
        self.bins[round(value * 100)] += 1

    def as_dict(self) -> dict[str, Any] | None:
        """Mean, and how many values lie nearest to 0.00, 0.01, ... 1.00; None without values."""
        count = int(self.bins.sum())
        return {"mean": self.total / count, "histogram": self.bins.tolist()} if count else None


class Histogram:
    """Values of 0..1 in a thousand bins of equal width.

    Attributes:
        total: the sum of all values.
        bins: int64 (1000,).
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.bins: NDArray[np.int64] = np.zeros(1000, np.int64)

    def add(self, value: float) -> None:
        self.total += value
        # 0.57 * 1000 is a little less than 570.
        self.bins[min(int(value * 1000 + 1e-9), 999)] += 1

    def __len__(self) -> int:
        return int(self.bins.sum())

    @property
    def mean(self) -> float:
        """Of all values; there must be some."""
        return self.total / len(self)

    def quantile(self, share: float) -> float:
        """The value that this share of all values does not exceed, within 0.001."""
        rank = max(1, math.ceil(share * len(self)))
        return (int(np.searchsorted(np.cumsum(self.bins), rank)) + 0.5) / 1000

    def grouped(self, count: int) -> NDArray[np.int64]:
        """How many values lie in each of `count` bins, a divisor of 1000: int64 (count,)."""
        found: NDArray[np.int64] = self.bins.reshape(count, -1).sum(axis=1)
        return found


class OverTime:
    """How many there were at which time, in bins of equal width, which doubles as time goes on.

    Times may come in any order.

    Attributes:
        width: of a bin, seconds.
    """

    def __init__(self, width: float) -> None:
        """Nothing so far.

        Args:
            width: of a bin, to begin with, seconds.
        """
        self.width = width
        self._counts: dict[int, int] = {}
        self._first = self._last = 0

    def add(self, time: float) -> None:
        """Count one, at this time in seconds."""
        place = int(time // self.width)
        self._first = min(self._first, place) if self._counts else place
        self._last = max(self._last, place) if self._counts else place
        self._counts[place] = self._counts.get(place, 0) + 1
        while self._last - self._first >= _TIME_BINS:
            self._join()

    def _join(self) -> None:
        joined: dict[int, int] = {}
        for place, count in self._counts.items():
            joined[place // 2] = joined.get(place // 2, 0) + count
        self._counts = joined
        self._first, self._last, self.width = self._first // 2, self._last // 2, self.width * 2

    def as_dict(self) -> dict[str, Any] | None:
        """The first bin's begin and a bin's width, both in seconds, and the counts in time's order.

        None where nothing was counted.
        """
        if not self._counts:
            return None
        places = range(self._first, self._last + 1)
        return {
            "begin_seconds": self._first * self.width,
            "bin_seconds": self.width,
            "counts": [self._counts.get(place, 0) for place in places],
        }
