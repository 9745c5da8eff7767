"""A worker process: it reads and writes images for the parent, one task after the other."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from petseg import steps
from petseg.engines.attempt import Verdict, attempt
from petseg.steps import Job, Photo
from petseg.system import machine
from petseg.system.sharedbuffer import SharedBuffer


# Tuples, because each is packed and unpacked for every photo.
class ReadTask(NamedTuple):
    """Decode the photo at `path` into the input part of a slot."""

    slot: int
    path: str


class WriteTask(NamedTuple):
    """Make the mask `name` from the probabilities in a slot."""

    slot: int
    name: str
    photo: Photo


class DeriveTask(NamedTuple):
    """Make formats of the mask `name` that is there, of the photo at `path`."""

    name: str
    path: str
    formats: tuple[str, ...]


Task = ReadTask | WriteTask | DeriveTask


class Reply(NamedTuple):
    """What became of a task.

    Attributes:
        seconds: processor time it took in this worker.
        photo: of a read that went well.
        certainty: confidence and share of uncertain pixels of a mask that was written.
        problem: why the image failed.
        kept: the mask was left alone, because somebody's lies there.
        stop: the run cannot go on (a full disk, say), and why.
        peak_memory: of this worker so far, bytes; None where it cannot be known.
    """

    seconds: float
    photo: Photo | None = None
    certainty: tuple[float, float] | None = None
    problem: str | None = None
    kept: bool = False
    stop: str | None = None
    peak_memory: int | None = None


@dataclass(frozen=True)
class Slots:
    """Shared memory for pixels going in and probabilities coming back.

    Slot i holds one image: input uint8 (S, S, 3), then probabilities uint8 (C, S, S).
    """

    buffer: SharedBuffer
    count: int
    size: int
    classes: int

    @classmethod
    def allocate(cls, count: int, size: int, classes: int) -> Slots:
        return cls(SharedBuffer(count * size * size * (3 + classes)), count, size, classes)

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """All inputs uint8 (count, S, S, 3) and all probabilities uint8 (count, C, S, S)."""
        side = self.size
        flat = np.frombuffer(self.buffer.memory, np.uint8)
        cut = self.count * side * side * 3
        return (
            flat[:cut].reshape(self.count, side, side, 3),
            flat[cut:].reshape(self.count, self.classes, side, side),
        )


def send(connection: Connection, message: Task | Reply | None) -> None:
    """Connection.send, without its detour for objects that only multiprocessing can pack."""
    connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def receive(connection: Connection) -> Any:
    """What `send` sent; raises EOFError or OSError where the other end is closed."""
    return pickle.loads(connection.recv_bytes())


def work(connection: Connection, slots: Slots, job: Job) -> None:
    """Serve tasks until the parent closes the connection, or is gone."""
    # Ctrl-C reaches the whole process group; only the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _let_go()
    # There is a worker for each core already.
    cv2.setNumThreads(1)
    images, probabilities = slots.arrays()
    try:
        send(connection, None)  # ready
        while True:
            task = receive(connection)
            started = time.process_time()
            send(connection, _serve(task, images, probabilities, job, started))
    except (EOFError, OSError):
        return  # `_serve` lets none of these out: the parent is gone


def _let_go() -> None:
    """Hold nothing that others wait for: a worker may hang where not even a kill ends it."""
    null = os.open(os.devnull, os.O_WRONLY)
    # Results are the parent's to print; who reads them waits until nobody can write any more.
    os.dup2(null, 1)
    if sys.platform == "linux":
        # The fork server, and the tracker of named memory, of which there is none here
        # (`sharedbuffer`), have the parent's stdout, too, and end when nobody holds these.
        server = forkserver._forkserver
        server_held = server._forkserver_alive_fd  # type: ignore[attr-defined]
        for held in (resource_tracker.getfd(), server_held):
            if held is not None:
                os.dup2(null, held)
    os.close(null)


def _serve(
    task: Task,
    images: NDArray[np.uint8],
    probabilities: NDArray[np.uint8],
    job: Job,
    started: float,
) -> Reply:
    photo = record = None
    verdict = Verdict()
    if isinstance(task, ReadTask):
        pixels = images[task.slot]
        photo, verdict = attempt(
            lambda: steps.read(task.path, pixels, job.max_pixels), job.masks, None
        )
    elif isinstance(task, WriteTask):
        scores = probabilities[task.slot]
        record, verdict = attempt(
            lambda: steps.write(task.name, task.photo, scores, job), job.masks, task.name
        )
    else:
        _, verdict = attempt(
            lambda: steps.derive(task.name, task.path, task.formats, job), job.masks, task.name
        )
    certainty = None if record is None else (record.confidence, record.uncertain)
    seconds = time.process_time() - started
    return Reply(seconds, photo, certainty, *verdict, machine.peak_memory())
