"""Worker processes, each with a pipe of its own.

One that is killed takes nothing with it but the task it was at.
"""

from __future__ import annotations

import multiprocessing
import selectors
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from petseg.engines.worker import Slots, work
from petseg.errors import PetsegError
from petseg.steps import Job

T = TypeVar("T")

# Workers that die one after the other before they are ready will not do better the next time.
_MOST_STILLBORN = 3
_PATIENCE_SECONDS = 0.5
# Processes that do not even die when they are killed, because a read that they are in never ends.
# Each holds memory.
_MOST_UNDEAD = 16


@dataclass(eq=False)
class Worker(Generic[T]):
    """A process, our end of its pipe, and what it was handed and has not answered, oldest first.

    It is ready once it has said so, by sending None.

    Attributes:
        since: when it began with the oldest of its tasks, seconds on the engine's clock.
    """

    process: BaseProcess
    pipe: Connection
    tasks: deque[T] = field(default_factory=deque)
    ready: bool = False
    since: float = 0.0
    peak_memory: int = 0


def warm_up() -> BaseContext:
    """Begin to load what the workers need; the caller has something else to do meanwhile.

    A fork server starts processes from a clean, single-threaded one, and quickly.

    Raises:
        PetsegError: no process can be started.
    """
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["petseg.engines.worker"])
    # The tracker, which starts with the server otherwise, would lift the block.
    resource_tracker.ensure_running()
    # Signals that reach the whole process group are the parent's to judge; while the server loads
    # what the workers need, they would end it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        forkserver.ensure_running()
    except OSError as error:
        raise PetsegError(
            f"no worker process can be started: {error}; they meet in the folder for temporary "
            "files, which must be there and have a short path: set TMPDIR to another, /tmp say"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


class Doorbells:
    """Waits for whichever of many connections has something to say.

    `multiprocessing.connection.wait` begins anew each time, which with many workers costs more than
    the messages.
    """

    def __init__(self) -> None:
        # Windows' pipes cannot be selected.
        self._selector = None if sys.platform == "win32" else selectors.DefaultSelector()
        self._connections: set[Connection] = set()

    def add(self, connection: Connection) -> None:
        """Wait for this one, too."""
        self._connections.add(connection)
        if self._selector is not None:
            self._selector.register(connection, selectors.EVENT_READ)

    def remove(self, connection: Connection) -> None:
        """No longer wait for this one, which is still open."""
        self._connections.remove(connection)
        if self._selector is not None:
            self._selector.unregister(connection)

    def wait(self, timeout: float) -> list[Any]:
        """The connections that can be read, or none after `timeout` seconds."""
        if self._selector is None:
            return wait(self._connections, timeout)
        return [key.fileobj for key, _ in self._selector.select(timeout)]

    def close(self) -> None:
        """Wait for nothing any more; the connections stay open."""
        if self._selector is not None:
            self._selector.close()


class Pool(Generic[T]):
    """Workers; those that die are replaced.

    Attributes:
        workers: the living, by their pipes.
        restarts: how many have died, or were killed because they hung.
        bells: ring when a worker has something to say.
    """

    def __init__(self, count: int, slots: Slots, job: Job) -> None:
        self.context = warm_up()
        self.slots, self.job = slots, job
        self.restarts = 0
        self._stillborn = self._undead = 0
        self.bells = Doorbells()
        self.workers: dict[Connection, Worker[T]] = {}
        for _ in range(count):
            self.add()

    def _start(self) -> Worker[T]:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(  # type: ignore[attr-defined]
            target=work, args=(theirs, self.slots, self.job), daemon=True, name="petseg-worker"
        )
        process.start()
        theirs.close()
        return Worker(process, ours)

    def add(self) -> None:
        """One worker more."""
        worker = self._start()
        self.workers[worker.pipe] = worker
        self.bells.add(worker.pipe)

    def replace(self, worker: Worker[T], hangs: bool = False) -> str:
        """Put a new worker in the place of one that died or hangs; returns how that one ended.

        Raises:
            PetsegError: several died before they were ready to do anything, or cannot be killed.
        """
        self.bells.remove(worker.pipe)
        worker.pipe.close()
        code = self._end(worker.process, 0 if hangs else _PATIENCE_SECONDS)
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._stillborn = 0 if worker.ready else self._stillborn + 1
        if self._stillborn > _MOST_STILLBORN:
            raise PetsegError(f"worker processes die before they are ready ({ended})")
        if self._undead > _MOST_UNDEAD:
            raise PetsegError(
                f"{self._undead} worker processes hang and cannot be killed: the images or the "
                "masks lie on something that does not answer; see to it, and run the same command"
            )
        del self.workers[worker.pipe]
        self.add()
        self.restarts += 1
        return ended

    def _end(self, process: BaseProcess, patience: float) -> int:
        """See a process to its end, which is brought about where it does not come by itself.

        Args:
            process: a worker's.
            patience: seconds it is left to itself.

        Returns:
            Its exit code; negative for a signal.
        """
        process.join(timeout=patience)
        if process.exitcode is None:
            process.kill()
            process.join(timeout=_PATIENCE_SECONDS)
        if process.exitcode is None:
            # It is dead to us, and must not be waited for when this process ends.
            self._undead += 1
            multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
            return -getattr(signal, "SIGKILL", 9)  # Windows has no name for it
        return process.exitcode

    def close(self) -> None:
        """End the workers; what they were at is lost, but no file is left half-written."""
        self.bells.close()
        for worker in self.workers.values():
            worker.pipe.close()
        patience = time.monotonic() + _PATIENCE_SECONDS
        for worker in self.workers.values():
            self._end(worker.process, max(0.0, patience - time.monotonic()))
