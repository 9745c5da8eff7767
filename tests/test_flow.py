"""The flow of images on workers and a session that do whatever a schedule says."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

from hypothesis import example, given, settings
from hypothesis import strategies as st

from petseg.engines import flow
from petseg.engines.flight import Flight
from petseg.engines.flow import Flow, Means
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.engines.pool import Worker
from petseg.engines.tuning import BatchTuner
from petseg.engines.worker import DeriveTask, ReadTask, Reply, Task
from petseg.errors import GOES_ON, PetsegError
from petseg.steps import Photo

SLOTS, BATCH, READ_TIMEOUT = 7, 2, 1.0
# Longer than a worker may be at one task, and than a run that is to stop goes on.
LONG_SECONDS = 1.5
MOST_LOOKS = 2000


class Pipe:
    """Our end of a pipe to a worker, and the worker."""

    def __init__(self) -> None:
        self.tasks: deque[Task] = deque()
        self.said: deque[Reply | None] = deque()
        self.ready, self.lives, self.hangs = False, True, False

    def send_bytes(self, data: bytes) -> None:
        if not self.lives:
            raise BrokenPipeError
        self.tasks.append(pickle.loads(data))

    def recv_bytes(self) -> bytes:
        if not self.said:
            raise EOFError
        return pickle.dumps(self.said.popleft())

    def poll(self) -> bool:
        return bool(self.said) or not self.lives

    def actions(self) -> list[Callable[[], None]]:
        """What it may do next, first what a good one does."""
        if not self.lives or self.hangs:
            return []
        if not self.ready:
            return [self._begin, self._die]
        if not self.tasks:
            return [self._die]
        good, photo = Reply(0.0), Photo("x", 4, 4, 1, 1, "ab")
        answers = [Reply(0.0, problem="damaged"), Reply(0.0, stop="no room")]
        if isinstance(self.tasks[0], ReadTask):
            good = Reply(0.0, photo=photo)
        else:
            answers.append(Reply(0.0, kept=True))
            if not isinstance(self.tasks[0], DeriveTask):
                good = Reply(0.0, certainty=(1.0, 0.0))
        says = [lambda reply=reply: self._say(reply) for reply in (good, *answers)]
        return [*says, self._die, self._hang]

    def _begin(self) -> None:
        self.ready = True
        self.said.append(None)

    def _say(self, reply: Reply) -> None:
        self.tasks.popleft()
        self.said.append(reply)

    def _die(self) -> None:
        self.lives = False

    def _hang(self) -> None:
        self.hangs = True


class World:
    """Pool, inference and clock of a flow; once the schedule is over, all goes well."""

    def __init__(self, schedule: Sequence[int], workers: int) -> None:
        self.schedule = deque(schedule)
        self.now = 0.0
        self.workers: dict[Pipe, Worker[Flight]] = {}
        self.queued: deque[tuple[list[Flight], list[int]]] = deque()
        self.inferred: deque[tuple[list[Flight], Batch]] = deque()
        self.looks = 0
        self.bells, self.bell = self, object()
        for _ in range(workers):
            self.add()

    # The clock.
    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic

    # The pool.
    def add(self) -> None:
        pipe: Any = Pipe()
        self.workers[pipe] = Worker(None, pipe)  # type: ignore[arg-type]

    def replace(self, worker: Any, hangs: bool = False) -> str:
        assert hangs == (worker.pipe.lives and not worker.pipe.said)
        del self.workers[worker.pipe]
        self.add()
        return "SIGKILL"

    def wait(self, timeout: float) -> list[Any]:
        self.looks += 1
        assert self.looks < MOST_LOOKS, "it turns in circles"
        self._act(timeout)
        found: list[Any] = [pipe for pipe in self.workers if pipe.poll()]
        return [*found, self.bell] if self.inferred else found

    def _act(self, timeout: float) -> None:
        of_workers = [pipe.actions() for pipe in self.workers]
        of_session = [self._infer] if self.queued else []
        if self.schedule:
            everything = [action for actions in of_workers for action in actions] + of_session
            waits = [lambda: self._pass(timeout), lambda: self._pass(LONG_SECONDS)]
            choice = [*everything, *waits]
            choice[self.schedule.popleft() % len(choice)]()
            return
        # A worker that has nothing to do could only die.
        good = [actions[0] for actions in of_workers if len(actions) > 1] + of_session
        good[0]() if good else self._pass(timeout)

    def _pass(self, seconds: float) -> None:
        self.now += seconds

    # The inference, with one stream: it is at the first batch of those that are queued.
    def put(self, tag: list[Flight], slots: Sequence[int], waiting: int) -> None:
        assert len(set(slots)) == len(slots) <= BATCH
        self.queued.append((tag, list(slots)))

    def take(self) -> tuple[list[Flight], Batch]:
        return self.inferred.popleft()

    def cancel(self) -> list[list[Flight]]:
        unbegun = [*self.queued][1:]
        for batch in unbegun:
            self.queued.remove(batch)
        return [tag for tag, _ in unbegun]

    def _infer(self) -> None:
        tag, slots = self.queued.popleft()
        self.now += 0.01
        self.inferred.append((tag, Batch(len(slots), 0.01, 0)))


def works(kinds: Sequence[str]) -> Iterator[Work | None]:
    for number, kind in enumerate(kinds):
        if kind == "nothing yet":
            yield None
        else:
            derive = ("color",) if kind == "formats" else ()
            yield Work(f"{number}.jpg", f"{number}.jpg", f"{number}.png", derive)


KINDS = st.sampled_from(["photo", "photo", "photo", "formats", "nothing yet"])


@settings(max_examples=300)
@given(
    st.lists(KINDS, max_size=25),
    st.lists(st.integers(0, 999), max_size=120),
    st.integers(1, 3),
    st.none() | st.integers(0, 60),
)
# A worker that dies with one task begun and another behind it; the second of two hangs.
@example(["photo"] * 9, [0, 4], 1, None)
@example(["photo"] * 9, [0, 1, 0, 9, 9, 9, 9, 9], 2, None)
def test_counts_add_up_under_any_schedule(
    kinds: list[str], schedule: list[int], workers: int, stop_after: int | None
) -> None:
    """Replies, deaths, hangs and stops: each image has one outcome, and none if it is left."""
    world = World(schedule, workers)
    session: Any = SimpleNamespace(streams=1, batch_size=BATCH)
    anything: Any = world
    outcomes: list[Outcome] = []
    stopped = False

    def stopping() -> bool:
        nonlocal stopped
        stopped = stop_after is not None and world.looks >= stop_after
        return stopped

    means = Means(session, anything, anything, SLOTS, BatchTuner((BATCH,)), 4, READ_TIMEOUT)
    batches: list[Batch] = []
    with mock.patch.object(flow, "time", world):
        found = Flow(means, works(kinds), outcomes.append, batches.append, stopping)
        try:
            found.loop()
        except PetsegError as error:
            stopped = str(error) == f"no room; {GOES_ON}"
    names = [outcome.work.name for outcome in outcomes]
    assert len(set(names)) == len(names)
    everything = {work.name for work in works(kinds) if work is not None}
    assert set(names) <= everything
    assert len(set(found.free)) == len(found.free)
    if not stopped:
        assert set(names) == everything
        assert sorted(found.free) == list(range(SLOTS))
        assert (found.reading, found.batches) == (0, 0)
        done = sum(outcome.status == "done" for outcome in outcomes)
        assert done <= sum(batch.images for batch in batches)
