"""Threads that wait for a store, so that nobody else has to."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from petseg.errors import PetsegError

K = TypeVar("K")
V = TypeVar("V")

# Threads that were left behind because what they asked for never came; each may hold a file.
_MOST_LOST = 64


@dataclass(eq=False)
class Task(Generic[K, V]):
    """Something to do.

    Attributes:
        key: what it is about.
        since: when a thread began with it, `time.monotonic()`; None before.
        lost: whether nobody waits for it any more.
        result, error: one of them, once it is done.
    """

    key: K
    call: Callable[[], V]
    since: float | None = None
    lost: bool = False
    result: V | None = None
    error: BaseException | None = None


class Crew(Generic[K, V]):
    """Does tasks in whatever order they end.

    Threads that hang are left behind and replaced; none of them keeps the command from ending.
    """

    def __init__(self, threads: int, patience: float, ring: Callable[[], None]) -> None:
        """Threads start when there is something to do.

        Args:
            threads: at most so many work at once.
            patience: seconds after which a task has failed.
            ring: is called when a task is done.
        """
        self.threads, self.patience, self.ring = threads, patience, ring
        self._todo: queue.SimpleQueue[Task[K, V] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Task[K, V]] = queue.SimpleQueue()
        self._open: set[Task[K, V]] = set()
        self._started = self._lost = 0
        self._lock = threading.Lock()
        self._looked = time.monotonic()

    def __len__(self) -> int:
        """Tasks that were handed in and have not come back."""
        return len(self._open)

    def do(self, key: K, call: Callable[[], V]) -> None:
        task = Task(key, call)
        self._open.add(task)
        if self._started < min(self.threads, len(self._open)):
            self._start()
        self._todo.put(task)

    def take(self) -> Iterator[Task[K, V]]:
        """Those that are done; those that take too long, with a TimeoutError.

        Raises:
            PetsegError: too many hang.
        """
        while not self._done.empty():
            task = self._done.get()
            if not task.lost:
                self._open.remove(task)
                yield task
        now = time.monotonic()
        if now - self._looked > 1.0:
            self._looked = now
            yield from self._overdue(now)

    def close(self) -> None:
        """Let the threads go; they end when they have done what they are at."""
        for task in self._open:
            task.lost = True
        for _ in range(self._started):
            self._todo.put(None)

    def _overdue(self, now: float) -> Iterator[Task[K, V]]:
        late = [t for t in self._open if t.since is not None and now - t.since > self.patience]
        for task in late:
            if task.error is not None or task.result is not None:
                continue  # it has just come
            with self._lock:
                task.lost = True
                self._lost += 1
                lost = self._lost
            self._open.remove(task)
            if lost > _MOST_LOST:
                raise PetsegError(
                    f"{lost} requests to a store hang; what is done stays valid: see to it, "
                    "and run the same command"
                )
            self._start()
            task.error = TimeoutError(
                f"the store took more than {self.patience:g} seconds: it does not answer, or needs "
                "a larger --read-timeout"
            )
            yield task

    def _start(self) -> None:
        self._started += 1
        threading.Thread(target=self._serve, daemon=True, name="petseg-ferry").start()

    def _serve(self) -> None:
        while (task := self._todo.get()) is not None:
            if task.lost:
                continue
            task.since = time.monotonic()
            try:
                task.result = task.call()
            except BaseException as error:  # looked at in the main thread
                task.error = error
            with self._lock:
                if task.lost:
                    self._lost -= 1  # it came after all
                    return  # another thread has taken this one's place
            self._done.put(task)
            self.ring()
