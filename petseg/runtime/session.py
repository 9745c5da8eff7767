"""What an engine needs of a session, whatever library runs it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from petseg.modelfile.signature import Signature


class Stream(Protocol):
    """A way through the network, with buffers of its own; it belongs to one thread.

    Attributes:
        padded: for each image of the last run, how many places the batch had that it was computed
            in, where the result depends on that; None where it does not.
    """

    @property
    def padded(self) -> list[int] | None: ...

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB uint8 (N, S, S, 3) to probabilities uint8 (N, C, S, S), where 255 is certainty.

        Any N goes; up to the session's `batch_size` it goes at once.

        Raises:
            ProviderError: the device failed, or has no memory for a single image.
            DeviceLostError: this stream is no more; others of the session are for its batches.
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
        streams: how many streams at a time use the whole machine; falls when a device is lost.
        notes: what happened that the user should know.
    """

    signature: Signature
    provider: str
    precision: str
    batch_sizes: tuple[int, ...]

    @property
    def batch_size(self) -> int: ...

    @property
    def streams(self) -> int: ...

    @property
    def notes(self) -> list[str]: ...

    def open_stream(self) -> Stream:
        """A new stream."""
        ...


class NoSession:
    """What stands in a session's place where no photo needs the network: it takes no batch."""

    padded = None

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
