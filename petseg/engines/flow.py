"""How images flow from reading through the session to writing, and what happens when it stops.

work -> [read in a worker] -> ready -> [infer in a thread] -> [write in a worker] -> outcome
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from petseg.engines.bell import Bell
from petseg.engines.flight import Flight
from petseg.engines.inference import Inference
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.engines.pool import Pool, Worker
from petseg.engines.tuning import BatchTuner
from petseg.engines.worker import Reply, receive, send
from petseg.errors import GOES_ON, PetsegError
from petseg.runtime import Session

# Tasks in a worker's hands, so that it never waits for this process.
TASKS_PER_WORKER = 2
# Batches waiting for the session's streams, so that they never wait either.
BATCHES_WAITING = 1
# How many photos each worker does until its number is looked at again, and the share of the time
# that the session has to run for it to be left as it is.
_PATIENCE = 4
_BUSY = 0.9
# How long a signal may have to wait to be noticed.
_POLL_SECONDS = 0.2
# How long images that are ready wait for others to fill their batch, while the session is idle.
_GATHER_SECONDS = 1.0
# How long a run that is to stop goes on behind its last batch.  With what ending the workers takes,
# the command is gone within two seconds and that batch.
_GRACE_SECONDS = 1.0


@dataclass(frozen=True)
class Means:
    """What a flow runs on.

    Attributes:
        session: the model.
        inference: its threads.
        pool: the workers.
        slots: how many images may be under way.
        tuner: says how large batches are to be.
        most_workers: there may be up to so many.
        read_timeout: seconds after which a worker that is still at one task is killed.
        bell: rings when there may be more in `todo`, which had nothing yet.
    """

    session: Session
    inference: Inference[list[Flight]]
    pool: Pool[Flight]
    slots: int
    tuner: BatchTuner
    most_workers: int
    read_timeout: float
    bell: Bell | None = None


class Flow:
    """The state of one run: which images are where."""

    def __init__(
        self,
        means: Means,
        todo: Iterator[Work | None],
        on_outcome: Callable[[Outcome], None],
        on_batch: Callable[[Batch], None],
        stopping: Callable[[], bool],
    ) -> None:
        self.session, self.pool, self.inference = means.session, means.pool, means.inference
        self.tuner, self.most_workers = means.tuner, means.most_workers
        # Since the number of workers was looked at: images ended, and the session's busy seconds.
        self.ended, self.busy, self.since = 0, 0.0, time.perf_counter()
        self.todo: Iterator[Work | None] | None = todo
        self.bell, self.starved = means.bell, False  # it had nothing yet when it was last asked
        self.on_outcome, self.on_batch, self.stopping = on_outcome, on_batch, stopping
        self.read_timeout = means.read_timeout
        # On the clock: when the run ends whatever is under way; None while it is not to stop.
        self.deadline: float | None = None
        # Seconds of this run, and when they were last counted on.
        self.clock, self.looked = 0.0, time.monotonic()
        # When the oldest of `ready` got there.
        self.gathering = 0.0
        self.slots = means.slots
        self.free = list(range(self.slots))
        self.reading = 0
        self.ready: deque[Flight] = deque()
        self.batches = 0
        # To be written, or taken from a worker that died.
        self.waiting: deque[Flight] = deque()

    def loop(self) -> None:
        while True:
            self._tick()
            if self.deadline is None and self.stopping():
                self._stop()
            self._hand_out()
            self._launch()
            if self.todo is None and len(self.free) == self.slots:
                return
            if self.deadline is not None and self.clock > self.deadline and not self.batches:
                return
            self._collect()
            self._end_those_that_hang()

    def _stop(self) -> None:
        """Begin nothing more: what the session is at, and what has been through it, ends well."""
        self.todo, self.deadline = None, self.clock + _GRACE_SECONDS
        unbegun = self.inference.cancel()
        self.batches -= len(unbegun)
        left = [*self.ready, *(flight for flights in unbegun for flight in flights)]
        left += [flight for flight in self.waiting if flight.photo is None]
        self.ready.clear()
        self.waiting = deque(flight for flight in self.waiting if flight.photo is not None)
        for flight in left:
            self._let_go(flight)

    def _tick(self) -> None:
        """Let the clock go on: but not over a time in which this process itself stood still."""
        now = time.monotonic()
        self.clock += min(now - self.looked, 5 * _POLL_SECONDS)
        self.looked = now

    def _hand_out(self) -> None:
        """Give every worker something to do; writing comes first, because it frees slots."""
        while True:
            worker = min(self.pool.workers.values(), key=lambda worker: len(worker.tasks))
            if len(worker.tasks) >= TASKS_PER_WORKER:
                return
            flight = self.waiting.popleft() if self.waiting else self._next()
            if flight is None:
                return
            if not worker.tasks:
                worker.since = self.clock
            worker.tasks.append(flight)
            # Where it is dead, `_collect` buries it, after what it had to say before.
            with contextlib.suppress(OSError):
                send(worker.pipe, flight.next_task)

    def _next(self) -> Flight | None:
        if self.todo is None or not self.free:
            return None
        try:
            work = next(self.todo)
        except StopIteration:
            self.todo = work = None
        self.starved = self.todo is not None and work is None
        if work is None:
            return None
        self.reading += 1
        return Flight(work, self.free.pop())

    def _launch(self) -> None:
        """Hand the session full batches, and a smaller one when nothing more is being read.

        Or nothing that comes soon: images that are ready do not wait for one that hangs.
        """
        size = self.tuner.size
        while self.ready and self.batches < self.session.streams + BATCHES_WAITING:
            waited = 0.0 if self.batches else self.clock - self.gathering
            coming = self.reading or self.starved
            if len(self.ready) < size and coming and waited < _GATHER_SECONDS:
                return
            self.gathering = self.clock
            flights = [self.ready.popleft() for _ in range(min(size, len(self.ready)))]
            self.batches += 1
            self.inference.put(flights, [flight.slot for flight in flights], len(self.ready))

    def _collect(self) -> None:
        """Wait for workers and session, and take what they have."""
        for pipe in self.pool.bells.wait(_POLL_SECONDS):
            if pipe is self.inference.bell:
                flights, batch = self.inference.take()
                self.batches -= 1
                if self.deadline is not None:
                    self.deadline = self.clock + _GRACE_SECONDS
                self.tuner.add(batch.images, batch.wall_seconds)
                self.tuner.limit(self.session.batch_size)
                self.busy += batch.wall_seconds
                for place, flight in enumerate(flights):
                    flight.infer_seconds = batch.wall_seconds / batch.images
                    if batch.padded is not None and flight.photo is not None:
                        flight.photo = flight.photo._replace(padded=batch.padded[place])
                self.on_batch(batch)
                self.waiting.extend(flights)
                continue
            if self.bell is not None and pipe is self.bell.pipe:
                self.bell.hear()
                continue
            worker = self.pool.workers[pipe]
            try:
                reply = receive(pipe)
            except (EOFError, OSError):
                self._bury(worker)
                continue
            worker.since = self.clock
            if reply is None:
                worker.ready = True
                continue
            worker.peak_memory = reply.peak_memory or 0
            self._replied(worker.tasks.popleft(), reply)

    def _replied(self, flight: Flight, reply: Reply) -> None:
        if reply.stop is not None:
            raise PetsegError(f"{reply.stop}; {GOES_ON}")
        if reply.kept:
            self._end(flight, Outcome(flight.work, "kept"))
        elif reply.problem is not None:
            self._end(flight, Outcome(flight.work, "failed", reply.problem))
        elif flight.work.derive:
            self._end(flight, Outcome(flight.work, "derived", write_seconds=reply.seconds))
        elif flight.photo is None:
            self.reading -= 1
            flight.photo, flight.read_seconds = reply.photo, reply.seconds
            if self.deadline is not None:
                self._let_go(flight)
                return
            if not self.ready:
                self.gathering = self.clock
            self.ready.append(flight)
        else:
            assert reply.certainty is not None
            pixels = flight.photo.height * flight.photo.width
            seconds = (flight.read_seconds, reply.seconds, flight.infer_seconds)
            outcome = Outcome(flight.work, "done", None, pixels, *seconds, *reply.certainty)
            self._end(flight, outcome)

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

    def _end(self, flight: Flight, outcome: Outcome) -> None:
        self._let_go(flight)
        self.on_outcome(outcome)
        self._grow()

    def _let_go(self, flight: Flight) -> None:
        if flight.photo is None:
            self.reading -= 1
        self.free.append(flight.slot)

    def _end_those_that_hang(self) -> None:
        for worker in [*self.pool.workers.values()]:
            at_work = worker.ready and worker.tasks and not worker.pipe.poll()
            if at_work and self.clock - worker.since > self.read_timeout:
                self._bury(worker, hangs=True)

    def _bury(self, worker: Worker[Flight], hangs: bool = False) -> None:
        """A worker died or hangs: the image it was at has failed, those behind it go to another."""
        ended = self.pool.replace(worker, hangs)
        # One that never was ready had not begun.
        if worker.ready and worker.tasks:
            flight = worker.tasks.popleft()
            verb = flight.verb
            problem = f"a worker process died ({ended}) while {verb}"
            if hangs:
                problem = (
                    f"{verb} took more than {self.read_timeout:g} seconds: what it lies on does "
                    "not answer, or it needs a larger --read-timeout"
                )
            self._end(flight, Outcome(flight.work, "failed", problem))
        self.waiting.extend(worker.tasks)
