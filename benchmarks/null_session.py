"""A network that takes no time, or just as much as it is told: what is left is petseg itself."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from host import SIDE, draw_probabilities
from numpy.typing import NDArray


class NullSession:
    """See `petseg.runtime.Session`; every photo gets the same probabilities.

    Attributes:
        rate: images a second that it takes; None for as many as there are.
    """

    provider, precision, streams = "null", "float32", 1
    padded = None

    def __init__(self, signature: Any, rate: float | None = None, batch_size: int = 32) -> None:
        self.signature = signature
        self.rate = rate
        self.batch_size = batch_size
        self.batch_sizes = (batch_size,)
        self.notes: list[str] = []
        self._scores = draw_probabilities(SIDE)

    def open_stream(self) -> NullSession:
        return self

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.rate is not None:
            # It sleeps, as the processor does while a GPU works.
            time.sleep(len(images) / self.rate)
        return np.broadcast_to(self._scores, (len(images), *self._scores.shape))
