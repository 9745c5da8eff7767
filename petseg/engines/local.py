"""The local engine: worker processes read and write, this process runs the session.

An image holds one slot of shared memory from the moment its reading is handed out until its mask
is written; there are as many images under way as slots, and so memory is bounded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

from petseg.engines.bell import Bell
from petseg.engines.engine import Usage
from petseg.engines.flight import Flight
from petseg.engines.flow import BATCHES_WAITING, TASKS_PER_WORKER, Flow, Means
from petseg.engines.inference import Inference
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.engines.pool import Pool
from petseg.engines.tuning import BatchTuner
from petseg.engines.worker import Slots
from petseg.runtime import Session
from petseg.steps import Job
from petseg.system import machine


class LocalEngine:
    """Runs images through read, infer and write on this machine.

    Attributes:
        cpu_seconds: processor time of this process, the session's threads and all, while it ran.
        tuner: the batch size that is being tried, or was found.
    """

    def __init__(
        self,
        session: Session,
        job: Job,
        workers: int,
        read_timeout: float,
        most_workers: int | None = None,
    ) -> None:
        """Start the workers.

        Args:
            session: the model, ready to run.
            job: what is the same for every image.
            workers: number of worker processes to begin with.
            read_timeout: seconds after which a worker that is still at one task is killed.
            most_workers: there may be up to so many, where the session waits for them; None for
                no more than `workers`.
        """
        self.session, self.read_timeout = session, read_timeout
        # The session's batches, as many again being read and written, and the workers' hands.
        batches = session.streams + BATCHES_WAITING
        self.most_workers = max(workers, most_workers or workers)
        count = 3 * batches * session.batch_size + TASKS_PER_WORKER * self.most_workers
        self.slots = Slots.allocate(count, job.model_size, len(job.classes))
        self.pool: Pool[Flight] = Pool(workers, self.slots, job)
        self.tuner = BatchTuner(session.batch_sizes)
        self.cpu_seconds = 0.0

    @property
    def streams(self) -> int:
        """The session's; fewer where a device was lost."""
        return self.session.streams

    @property
    def restarts(self) -> int:
        """Worker processes that died, or hung and were killed, and were replaced."""
        return self.pool.restarts

    @property
    def peak_memory(self) -> int:
        """Bytes: the sum of the living workers' largest resident sizes."""
        return sum(worker.peak_memory for worker in self.pool.workers.values())

    def run(
        self,
        todo: Iterator[Work | None],
        on_outcome: Callable[[Outcome], None],
        on_batch: Callable[[Batch], None],
        stopping: Callable[[], bool],
        bell: Bell | None = None,
    ) -> None:
        """Do all of `todo`, or, once `stopping` says so, no more than the session has begun with.

        What else is under way then has no outcome, nor has what takes a second longer.  Where
        `todo` yields None, nothing is there yet, and `bell` is rung when that may have changed.

        Raises:
            PetsegError: masks cannot be written, the session fails, or workers do not start.
        """
        pipe = self.pool.context.Pipe(duplex=False)
        inference: Inference[list[Flight]] = Inference(self.session, *self.slots.arrays(), pipe)
        means = Means(
            self.session,
            inference,
            self.pool,
            self.slots.count,
            self.tuner,
            self.most_workers,
            self.read_timeout,
            bell,
        )
        before = time.process_time()
        bells = [inference.bell] if bell is None else [inference.bell, bell.pipe]
        for each in bells:
            self.pool.bells.add(each)
        try:
            Flow(means, todo, on_outcome, on_batch, stopping).loop()
        finally:
            for each in bells:
                self.pool.bells.remove(each)
            # Behind a second signal nobody waits for a batch that may never end.
            error = sys.exception()
            inference.close(wait=error is None or isinstance(error, Exception))
            self.cpu_seconds += time.process_time() - before

    def used(self) -> Usage:
        """What it took."""
        own = machine.peak_memory()
        return Usage(
            workers=len(self.pool.workers),
            batch_size=self.tuner.size,
            trying=self.tuner.trying,
            restarts=self.restarts,
            infer_seconds=self.cpu_seconds,
            peak_memory=None if own is None else own + self.peak_memory,
            notes=self.session.notes,
        )

    def close(self) -> None:
        """End the workers and let go of the shared memory."""
        self.pool.close()
        self.slots.buffer.close()
