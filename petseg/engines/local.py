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
from multiprocessing import connection

from petseg.engines.inference import Inference
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.engines.pool import Pool, Worker
from petseg.engines.worker import ReadTask, Reply, Slots, WriteTask
from petseg.errors import PetsegError
from petseg.runtime import Session
from petseg.steps import Job, Photo

# Tasks in a worker's hands, so that it never waits for this process.
_TASKS_PER_WORKER = 2
# Batches in the session's hands, so that it never waits either.
_BATCHES_AHEAD = 2
# How long a signal may have to wait to be noticed.
_POLL_SECONDS = 0.2
# How long images that are ready wait for others to fill their batch, while the session is idle.
_GATHER_SECONDS = 1.0
# What a worker is left with when the run is to stop.
_GRACE_SECONDS = 2.0


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
    """Runs images through read, infer and write on this machine."""

    def __init__(self, session: Session, job: Job, workers: int, read_timeout: float) -> None:
        """Start the workers.

        Args:
            session: the model, ready to run.
            job: what is the same for every image.
            workers: number of worker processes.
            read_timeout: seconds after which a worker that is still at one task is killed.
        """
        self.session, self.read_timeout = session, read_timeout
        # The session's batches, as many again being read and written, and the workers' hands.
        count = 3 * _BATCHES_AHEAD * session.batch_size + _TASKS_PER_WORKER * workers
        self.slots = Slots.allocate(count, job.model_size, len(job.classes))
        self.pool: Pool[_Flight] = Pool(workers, self.slots, job)

    @property
    def restarts(self) -> int:
        """Worker processes that died, or hung and were killed, and were replaced."""
        return self.pool.restarts

    @property
    def peak_memory(self) -> int:
        """Bytes: the sum of the living workers' largest resident sizes."""
        return sum(worker.peak_memory for worker in self.pool.workers)

    def run(
        self,
        todo: Iterator[Work],
        on_outcome: Callable[[Outcome], None],
        on_batch: Callable[[Batch], None],
        stopping: Callable[[], bool],
    ) -> None:
        """Do all of `todo`, or, once `stopping` says so, no more than is under way.

        Of that, what a worker is long about then has no outcome.

        Raises:
            PetsegError: masks cannot be written, the session fails, or workers do not start.
        """
        bell = self.pool.context.Pipe(duplex=False)
        inference: Inference[list[_Flight]] = Inference(self.session, *self.slots.arrays(), bell)
        try:
            _Run(self, inference, todo, on_outcome, on_batch, stopping).loop()
        finally:
            inference.close()

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
        self.todo: Iterator[Work] | None = todo
        self.on_outcome, self.on_batch, self.stopping = on_outcome, on_batch, stopping
        self.read_timeout = engine.read_timeout
        self.stopped = False
        # Seconds of this run, and when they were last counted on.
        self.clock, self.looked = 0.0, time.monotonic()
        # When the oldest of `ready` got there.
        self.gathering = 0.0
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
                self.todo, self.stopped = None, True
            self._tick()
            self._hand_out()
            self._launch()
            if self.todo is None and len(self.free) == self.slots:
                return
            self._collect()
            self._end_those_that_hang()

    def _tick(self) -> None:
        """Let the clock go on: but not over a time in which this process itself stood still."""
        now = time.monotonic()
        self.clock += min(now - self.looked, 5 * _POLL_SECONDS)
        self.looked = now

    def _hand_out(self) -> None:
        """Give every worker something to do; writing comes first, because it frees slots."""
        while True:
            worker = min(self.pool.workers, key=lambda worker: len(worker.tasks))
            if len(worker.tasks) >= _TASKS_PER_WORKER:
                return
            flight = self.waiting.popleft() if self.waiting else self._next()
            if flight is None:
                return
            if not worker.tasks:
                worker.since = self.clock
            worker.tasks.append(flight)
            # Where it is dead, `_collect` buries it, after what it had to say before.
            with contextlib.suppress(OSError):
                worker.pipe.send(flight.next_task)

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
        """Hand the session full batches, and a smaller one when nothing more is being read.

        Or nothing that comes soon: images that are ready do not wait for one that hangs.
        """
        size = self.session.batch_size
        while self.ready and self.batches < _BATCHES_AHEAD:
            waited = 0.0 if self.batches else self.clock - self.gathering
            if len(self.ready) < size and self.reading and waited < _GATHER_SECONDS:
                return
            self.gathering = self.clock
            flights = [self.ready.popleft() for _ in range(min(size, len(self.ready)))]
            self.batches += 1
            self.inference.put(flights, [flight.slot for flight in flights], len(self.ready))

    def _collect(self) -> None:
        """Wait for workers and session, and take what they have."""
        pipes = {worker.pipe: worker for worker in self.pool.workers}
        for pipe in connection.wait([*pipes, self.inference.bell], timeout=_POLL_SECONDS):
            if pipe is self.inference.bell:
                flights, batch = self.inference.take()
                self.batches -= 1
                self.on_batch(batch)
                self.waiting.extend(flights)
                continue
            worker = pipes[pipe]  # type: ignore[index]
            try:
                reply = worker.pipe.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            worker.since = self.clock
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
            if not self.ready:
                self.gathering = self.clock
            self.ready.append(flight)
        else:
            pixels = flight.photo.height * flight.photo.width
            seconds = (flight.read_seconds, reply.seconds)
            self._end(flight, Outcome(flight.work, "done", None, pixels, *seconds))

    def _end(self, flight: _Flight, outcome: Outcome | None) -> None:
        if flight.photo is None:
            self.reading -= 1
        self.free.append(flight.slot)
        if outcome is not None:
            self.on_outcome(outcome)

    def _end_those_that_hang(self) -> None:
        limit = self.read_timeout
        if self.stopped:
            limit = min(limit, _GRACE_SECONDS)
        for worker in [*self.pool.workers]:
            at_work = worker.ready and worker.tasks and not worker.pipe.poll()
            if at_work and self.clock - worker.since > limit:
                self._bury(worker, hangs=True)

    def _bury(self, worker: Worker[_Flight], hangs: bool = False) -> None:
        """A worker died or hangs: the image it was at has failed, those behind it go to another."""
        ended = self.pool.replace(worker, hangs)
        # One that never was ready had not begun.
        if worker.ready and worker.tasks:
            flight = worker.tasks.popleft()
            verb = "reading it" if flight.photo is None else "writing its mask"
            problem = f"a worker process died ({ended}) while {verb}"
            if hangs:
                problem = (
                    f"{verb} took more than {self.read_timeout:g} seconds: what it lies on does "
                    "not answer, or it needs a larger --read-timeout"
                )
            # A run that is to stop has not given it the time that it may take.
            left = hangs and self.stopped
            self._end(flight, None if left else Outcome(flight.work, "failed", problem))
        self.waiting.extend(worker.tasks)
