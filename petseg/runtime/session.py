"""What an engine needs of a session, whatever library runs it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from petseg.signature import Signature


class Stream(Protocol):
    """A way through the network, with buffers of its own; it belongs to one thread."""

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB uint8 (N, S, S, 3) to probabilities uint8 (N, C, S, S), where 255 is certainty.

        Any N goes; up to the session's `batch_size` it goes at once.
        """
        ...


class Session(Protocol):
    """A model that is loaded and ready to run.

    Attributes:
        signature: the model's.
        provider: what it runs on.
        precision: what the network is computed in.
        batch_sizes: images that a stream may be given at once, ascending; try which is best.
        batch_size: the most that it takes at once; falls when memory runs out.
        streams: how many streams at a time use the whole machine.
        notes: what happened that the user should know.
    """

    signature: Signature
    provider: str
    precision: str
    batch_sizes: tuple[int, ...]
    batch_size: int
    streams: int
    notes: list[str]

    def open_stream(self) -> Stream:
        """A new stream."""
        ...


class NoSession:
    """What stands in a session's place where no photo needs the network: it takes no batch."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.provider = self.precision = ""
        self.batch_sizes: tuple[int, ...] = (1,)
        self.batch_size = self.streams = 1
        self.notes: list[str] = []

    def open_stream(self) -> NoSession:
        return self

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        raise RuntimeError(f"{len(images)} images for a network that was not loaded")
