"""The local engine: worker processes read and write, this process runs the session.

    work -> [read in a worker] -> ready -> [infer in a thread] -> [write in a worker] -> outcome

An image holds one slot of shared memory from the moment its reading is handed out until its mask
is written; there are as many images under way as slots, and so memory is bounded.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from petseg.engines.inference import Inference
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.engines.pool import Pool, Worker
from petseg.engines.tuning import BatchTuner
from petseg.engines.worker import ReadTask, Reply, Slots, WriteTask, receive, send
from petseg.errors import PetsegError
from petseg.runtime import Session
from petseg.steps import Job, Photo

# Tasks in a worker's hands, so that it never waits for this process.
_TASKS_PER_WORKER = 2
# Batches waiting for the session's streams, so that they never wait either.
_BATCHES_WAITING = 1
# How many photos each worker does until its number is looked at again, and the share of the time
# that the session has to run for it to be left as it is.
_PATIENCE = 4
_BUSY = 0.9
# How long a signal may have to wait to be noticed.
_POLL_SECONDS = 0.2


@dataclass
class _Flight:
    """An image under way, and the slot it holds."""

    work: Work
    slot: int
    photo: Photo | None = None
    read_seconds: float = 0.0

    @property
    def next_task(self) -> ReadTask | WriteTask:
        if self.photo is None:
            return ReadTask(self.slot, self.work.path)
        return WriteTask(self.slot, self.work.mask, self.photo)


class LocalEngine:
    """Runs images through read, infer and write on this machine.

    Attributes:
        cpu_seconds: processor time of this process, the session's threads and all, while it ran.
        tuner: the batch size that is being tried, or was found.
    """

    def __init__(
        self, session: Session, job: Job, workers: int, most_workers: int | None = None
    ) -> None:
        """Start the workers.

        Args:
            session: the model, ready to run.
            job: what is the same for every image.
            workers: number of worker processes to begin with.
            most_workers: there may be up to so many, where the session waits for them; None for
                no more than `workers`.
        """
        self.session = session
        # The session's batches, as many again being read and written, and the workers' hands.
        batches = session.streams + _BATCHES_WAITING
        self.most_workers = max(workers, most_workers or workers)
        count = 3 * batches * session.batch_size + _TASKS_PER_WORKER * self.most_workers
        self.slots = Slots.allocate(count, job.model_size, len(job.classes))
        self.pool: Pool[_Flight] = Pool(workers, self.slots, job)
        self.tuner = BatchTuner(session.batch_sizes)
        self.cpu_seconds = 0.0

    @property
    def restarts(self) -> int:
        """Worker processes that died and were replaced."""
        return self.pool.restarts

    @property
    def peak_memory(self) -> int:
        """Bytes: the sum of the living workers' largest resident sizes."""
        return sum(worker.peak_memory for worker in self.pool.workers.values())

    def run(
        self,
        todo: Iterator[Work],
        on_outcome: Callable[[Outcome], None],
        on_batch: Callable[[Batch], None],
        stopping: Callable[[], bool],
    ) -> None:
        """Do all of `todo`, or, once `stopping` says so, no more than is under way.

        Raises:
            PetsegError: masks cannot be written, the session fails, or workers do not start.
        """
        bell = self.pool.context.Pipe(duplex=False)
        inference: Inference[list[_Flight]] = Inference(self.session, *self.slots.arrays(), bell)
        before = time.process_time()
        self.pool.bells.add(inference.bell)
        try:
            _Run(self, inference, todo, on_outcome, on_batch, stopping).loop()
        finally:
            self.pool.bells.remove(inference.bell)
            inference.close()
            self.cpu_seconds += time.process_time() - before

    def close(self) -> None:
        """End the workers and let go of the shared memory."""
        self.pool.close()
        self.slots.buffer.close()


class _Run:
    """The state of one run: which images are where."""

    def __init__(
        self,
        engine: LocalEngine,
        inference: Inference[list[_Flight]],
        todo: Iterator[Work],
        on_outcome: Callable[[Outcome], None],
        on_batch: Callable[[Batch], None],
        stopping: Callable[[], bool],
    ) -> None:
        self.session, self.pool, self.inference = engine.session, engine.pool, inference
        self.tuner, self.most_workers = engine.tuner, engine.most_workers
        # Since the number of workers was looked at: images ended, and the session's busy seconds.
        self.ended, self.busy, self.since = 0, 0.0, time.perf_counter()
        self.todo: Iterator[Work] | None = todo
        self.on_outcome, self.on_batch, self.stopping = on_outcome, on_batch, stopping
        self.slots = engine.slots.count
        self.free = list(range(self.slots))
        self.reading = 0
        self.ready: deque[_Flight] = deque()
        self.batches = 0
        # To be written, or taken from a worker that died.
        self.waiting: deque[_Flight] = deque()

    def loop(self) -> None:
        while True:
            if self.stopping():
                self.todo = None
            self._hand_out()
            self._launch()
            if self.todo is None and len(self.free) == self.slots:
                return
            self._collect()

    def _hand_out(self) -> None:
        """Give every worker something to do; writing comes first, because it frees slots."""
        while True:
            worker = min(self.pool.workers.values(), key=lambda worker: len(worker.tasks))
            if len(worker.tasks) >= _TASKS_PER_WORKER:
                return
            flight = self.waiting.popleft() if self.waiting else self._next()
            if flight is None:
                return
            worker.tasks.append(flight)
            # Where it is dead, `_collect` buries it, after what it had to say before.
            with contextlib.suppress(OSError):
                send(worker.pipe, flight.next_task)

    def _next(self) -> _Flight | None:
        if self.todo is None or not self.free:
            return None
        work = next(self.todo, None)
        if work is None:
            self.todo = None
            return None
        self.reading += 1
        return _Flight(work, self.free.pop())

    def _launch(self) -> None:
        """Hand the session full batches, and a smaller one when nothing more is being read."""
        size = self.tuner.size
        while self.ready and self.batches < self.session.streams + _BATCHES_WAITING:
            if len(self.ready) < size and self.reading:
                return
            flights = [self.ready.popleft() for _ in range(min(size, len(self.ready)))]
            self.batches += 1
            self.inference.put(flights, [flight.slot for flight in flights], len(self.ready))

    def _collect(self) -> None:
        """Wait for workers and session, and take what they have."""
        for pipe in self.pool.bells.wait(_POLL_SECONDS):
            if pipe is self.inference.bell:
                flights, batch = self.inference.take()
                self.batches -= 1
                self.tuner.add(batch.images, batch.wall_seconds)
                self.tuner.limit(self.session.batch_size)
                self.busy += batch.wall_seconds
                self.on_batch(batch)
                self.waiting.extend(flights)
                continue
            worker = self.pool.workers[pipe]
            try:
                reply = receive(pipe)
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if reply is None:
                worker.ready = True
                continue
            worker.peak_memory = reply.peak_memory or 0
            self._replied(worker.tasks.popleft(), reply)

    def _replied(self, flight: _Flight, reply: Reply) -> None:
        if reply.stop is not None:
            raise PetsegError(
                f"{reply.stop}; what is done stays valid, and the same command goes on from there"
            )
        if reply.kept:
            self._end(flight, Outcome(flight.work, "kept"))
        elif reply.problem is not None:
            self._end(flight, Outcome(flight.work, "failed", reply.problem))
        elif flight.photo is None:
            self.reading -= 1
            flight.photo, flight.read_seconds = reply.photo, reply.seconds
            self.ready.append(flight)
        else:
            pixels = flight.photo.height * flight.photo.width
            seconds = (flight.read_seconds, reply.seconds)
            self._end(flight, Outcome(flight.work, "done", None, pixels, *seconds))

    def _grow(self) -> None:
        """Every few photos: one worker more, where the session had to wait for those there are."""
        workers = len(self.pool.workers)
        self.ended += 1
        if self.ended < _PATIENCE * workers:
            return
        now = time.perf_counter()
        waited = self.busy < _BUSY * (now - self.since) * self.session.streams
        behind = len(self.ready) >= self.tuner.size
        if waited and not behind and self.todo is not None and workers < self.most_workers:
            self.pool.add()
        self.ended, self.busy, self.since = 0, 0.0, now

    def _end(self, flight: _Flight, outcome: Outcome) -> None:
        if flight.photo is None:
            self.reading -= 1
        self.free.append(flight.slot)
        self.on_outcome(outcome)
        self._grow()

    def _bury(self, worker: Worker[_Flight]) -> None:
        """A worker died: the image it was at has failed, those behind it go to another."""
        ended = self.pool.replace(worker)
        # One that never was ready had not begun.
        if worker.ready and worker.tasks:
            flight = worker.tasks.popleft()
            verb = "reading it" if flight.photo is None else "writing its mask"
            problem = f"a worker process died ({ended}) while {verb}"
            self._end(flight, Outcome(flight.work, "failed", problem))
        self.waiting.extend(worker.tasks)
