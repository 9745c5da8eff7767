"""The session in a thread of its own; onnxruntime lets go of Python's lock while it runs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from petseg import steps
from petseg.engines.outcome import Batch
from petseg.runtime import Session

T = TypeVar("T")


class Inference(Generic[T]):
    """Takes batches of slots in order and puts their probabilities into the same slots.

    Attributes:
        bell: becomes readable with each result, to be waited for beside the workers' pipes.
    """

    def __init__(
        self,
        session: Session | None,
        images: NDArray[np.uint8],
        probabilities: NDArray[np.uint8],
        bell: tuple[Connection, Connection],
    ) -> None:
        """Start the thread.

        Args:
            session: the model; None where nothing is ever put.
            images: all slots' inputs, uint8 (slots, S, S, 3).
            probabilities: all slots' outputs, uint8 (slots, C, S, S).
            bell: both ends of a pipe, the reading end first.
        """
        self.session = session
        self.images, self.probabilities = images, probabilities
        self.bell, self._rope = bell
        self._tasks: queue.SimpleQueue[tuple[T, Sequence[int], int] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[T, Batch | BaseException]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="petseg-infer", daemon=True)
        self._thread.start()

    def put(self, tag: T, slots: Sequence[int], waiting: int) -> None:
        """Queue a batch; `tag` comes back with its result, `waiting` is for the books."""
        self._tasks.put((tag, slots, waiting))

    def take(self) -> tuple[T, Batch]:
        """The next result, once the bell has rung; raises what the session raised."""
        self.bell.recv_bytes()
        tag, result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        return tag, result

    def close(self) -> None:
        """End the thread, after the batches that are queued."""
        self._tasks.put(None)
        self._thread.join()
        self.bell.close()
        self._rope.close()

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            assert self.session is not None
            tag, slots, waiting = task
            result: Batch | BaseException
            try:
                wall, cpu = time.perf_counter(), time.process_time()
                scores = steps.infer(self.session, self.images[list(slots)])
                self.probabilities[list(slots)] = scores
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                result = Batch(len(slots), wall, cpu, waiting)
            except BaseException as error:  # raised again in the main thread, by `take`
                result = error
            self._results.put((tag, result))
            self._rope.send_bytes(b"!")
