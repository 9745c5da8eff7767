"""The session, a thread for each of its streams; they let go of Python's lock while it runs."""

from __future__ import annotations

import contextlib
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
from petseg.errors import GOES_ON, DeviceLostError, ProviderError
from petseg.runtime import Session, Stream
from petseg.system.threads import native_thread

T = TypeVar("T")


class Inference(Generic[T]):
    """Takes batches of slots in order and puts their probabilities into the same slots.

    Attributes:
        bell: becomes readable with each result, to be waited for beside the workers' pipes.
    """

    def __init__(
        self,
        session: Session,
        images: NDArray[np.uint8],
        probabilities: NDArray[np.uint8],
        bell: tuple[Connection, Connection],
    ) -> None:
        """Start the threads.

        Args:
            session: the model.
            images: all slots' inputs, uint8 (slots, S, S, 3).
            probabilities: all slots' outputs, uint8 (slots, C, S, S).
            bell: both ends of a pipe, the reading end first.
        """
        self.images, self.probabilities = images, probabilities
        self.bell, self._rope = bell
        self._ringing = threading.Lock()
        self._tasks: queue.SimpleQueue[tuple[T, Sequence[int], int] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[T, Batch | BaseException]] = queue.SimpleQueue()
        self._threads = [
            native_thread(self._serve, session.open_stream()) for _ in range(session.streams)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, tag: T, slots: Sequence[int], waiting: int) -> None:
        """Queue a batch; `tag` comes back with its result, `waiting` is for the books."""
        self._tasks.put((tag, slots, waiting))

    def take(self) -> tuple[T, Batch]:
        """The next result, once the bell has rung; raises what the session raised."""
        self.bell.recv_bytes()
        tag, result = self._results.get()
        if isinstance(result, ProviderError):
            raise ProviderError(f"{result}; {GOES_ON}") from result
        if isinstance(result, BaseException):
            raise result
        return tag, result

    def cancel(self) -> list[T]:
        """Take back the batches that no thread has begun; returns their tags."""
        unbegun = []
        with contextlib.suppress(queue.Empty):
            while (task := self._tasks.get_nowait()) is not None:
                unbegun.append(task[0])
        return unbegun

    def close(self, wait: bool = True) -> None:
        """End the threads.

        Args:
            wait: for the batches that they are at and for those that are queued.  Otherwise no
                more is begun, and each thread ends with its batch, or, if a device hangs, with the
                process; pipes and arrays are theirs until then.
        """
        if not wait:
            self.cancel()
        for _ in self._threads:
            self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()
            self.bell.close()
            self._rope.close()

    def _serve(self, stream: Stream) -> None:
        while (task := self._tasks.get()) is not None:
            tag, slots, waiting = task
            result: Batch | BaseException
            try:
                started = time.perf_counter()
                scores = steps.infer(stream, self.images[list(slots)])
                self.probabilities[list(slots)] = scores
                seconds = time.perf_counter() - started
                result = Batch(len(slots), seconds, waiting, stream.padded)
            except DeviceLostError:
                # The threads of other devices take it, and what else is in the queue.
                self._tasks.put(task)
                return
            except BaseException as error:  # raised again in the main thread, by `take`
                result = error
            self._results.put((tag, result))
            with self._ringing:
                self._rope.send_bytes(b"!")
