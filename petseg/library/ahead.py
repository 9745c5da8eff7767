"""Photos read ahead of the network and brought to their size behind it, in bounded memory.

    photos -> [read in a thread] -> [a batch through a stream] -> [finish in a thread] -> results

In threads, because a program that starts processes has to be written for it, with a guard around
its main part; decoding, resizing and the network all let go of Python's lock.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petseg import steps
from petseg.engines.tuning import BatchTuner
from petseg.errors import ImageError
from petseg.library.result import Result
from petseg.library.segmenter import PhotoLike, Reading, Segmenter

# Batches beside those that the streams are at: one being read, and one being finished.
_BATCHES_BESIDE = 2
# Results that are made ahead of the one that is asked for, for each thread; they are as large as
# the photos.
_RESULTS_A_THREAD = 2

OnError = Callable[[PhotoLike, ImageError], object]


@dataclass(frozen=True, eq=False)
class _Flight:
    """A photo under way, and its reading."""

    photo: PhotoLike
    reading: Future[Reading]


@dataclass(frozen=True, eq=False)
class _Batch:
    """What a stream made of some flights.

    Attributes:
        scores: each one's probabilities uint8 (C, S, S); None where the photo was not read.
        images: that went through the network.
        seconds: that it took.
    """

    scores: list[NDArray[np.uint8] | None]
    images: int
    seconds: float


class Ahead:
    """One pass over photos; its threads live as long as `results` does."""

    def __init__(self, segmenter: Segmenter, workers: int, max_pixels: int) -> None:
        """Nothing is begun yet.

        Args:
            segmenter: the model.
            workers: threads that read and finish.
            max_pixels: larger images are refused.
        """
        self.segmenter, self.session = segmenter, segmenter.session
        self.max_pixels = max_pixels
        self.tuner = BatchTuner(self.session.batch_sizes)
        self.most_results = _RESULTS_A_THREAD * workers
        self.hands = ThreadPoolExecutor(workers, "petseg-photos")
        self.network = ThreadPoolExecutor(
            self.session.streams, "petseg-network", initializer=self._open_stream
        )
        self.own = threading.local()
        # In the order of photos: what comes later stands in an earlier one of these.
        self.batches: deque[tuple[list[_Flight], Future[_Batch]]] = deque()
        self.inferred: deque[tuple[_Flight, NDArray[np.uint8] | None]] = deque()
        self.finishing: deque[tuple[PhotoLike, Future[Result]]] = deque()
        self.under_way = 0

    def results(
        self, photos: Iterable[PhotoLike], on_error: OnError
    ) -> Generator[Result, None, None]:
        """The photos' results in their order; once only."""
        waiting = iter(photos)
        try:
            while True:
                self._begin(waiting)
                self._finish()
                if not self.finishing:
                    return
                photo, future = self.finishing.popleft()
                self.under_way -= 1
                try:
                    result = future.result()
                except ImageError as error:
                    on_error(photo, error)
                else:
                    yield result
        finally:
            # What has not begun never does; a batch whose photos are no longer read ends, too.
            self.network.shutdown(wait=False, cancel_futures=True)
            self.hands.shutdown(cancel_futures=True)
            self.network.shutdown()

    def _begin(self, waiting: Iterator[PhotoLike]) -> None:
        """Have photos read, and batches of them wait for the network."""
        size = self.tuner.size
        room = self.most_results + (self.session.streams + _BATCHES_BESIDE) * size
        while self.under_way + size <= room:
            flights = [
                _Flight(photo, self.hands.submit(self.segmenter.read, photo, self.max_pixels))
                for photo in itertools.islice(waiting, size)
            ]
            if not flights:
                return
            self.under_way += len(flights)
            self.batches.append((flights, self.network.submit(self._infer, flights)))

    def _finish(self) -> None:
        """Have results made of what has been through the network; wait where there is none."""
        while len(self.finishing) < self.most_results:
            if self.inferred:
                flight, scores = self.inferred.popleft()
                future = self.hands.submit(self._result, flight.reading, scores)
                self.finishing.append((flight.photo, future))
                continue
            if not self.batches or (self.finishing and not self.batches[0][1].done()):
                return
            flights, inferring = self.batches.popleft()
            batch = inferring.result()
            self.inferred.extend(zip(flights, batch.scores, strict=True))
            if batch.images:
                self.tuner.add(batch.images, batch.seconds)
            self.tuner.limit(self.session.batch_size)

    def _open_stream(self) -> None:
        self.own.stream = self.session.open_stream()

    def _infer(self, flights: list[_Flight]) -> _Batch:
        scores: list[NDArray[np.uint8] | None] = [None] * len(flights)
        # What a reading raised is raised again where its result is made.
        read = [i for i, flight in enumerate(flights) if flight.reading.exception() is None]
        if not read:
            return _Batch(scores, 0, 0.0)
        seen = np.stack([flights[i].reading.result().seen for i in read])
        started = time.perf_counter()
        for i, probabilities in zip(read, steps.infer(self.own.stream, seen), strict=True):
            # A copy: one that is kept does not keep its batch.
            scores[i] = probabilities.copy()
        return _Batch(scores, len(read), time.perf_counter() - started)

    def _result(self, reading: Future[Reading], scores: NDArray[np.uint8] | None) -> Result:
        found = reading.result()
        assert scores is not None
        return self.segmenter.result(found, scores, self.max_pixels)
