"""Nodes replayed: how long each of them is at its photos, from measured times of single photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]

# Nodes that are replayed photo by photo, and how far: a first stretch, and these many behind it.
LANES = 32
LATER = 4
# Photos of a stretch, or a little more, so that it is whole batches.
STRETCH = 512


def replay(
    measured: dict[str, Any], workers: int, batches: int, randoms: Sequence[np.random.Generator]
) -> Seconds:
    """When each node has written its first batches, photo by photo.

    Reading and writing wait for a free worker, a batch for its last photo and for the session.
    Where the session runs on the same cores, its measured times hold what they took from each
    other already.

    Args:
        measured: what `overheads.py` prints.
        workers: of each node.
        batches: so many of each.
        randoms: a generator for each node, which draws its photos, with replacement.

    Returns:
        Seconds since the first photo, (N, batches), growing along a row.
    """
    nodes, size = len(randoms), measured["batch_size"]
    there = len(measured["read_seconds"])
    chosen = np.stack([random.integers(0, there, batches * size) for random in randoms], axis=1)
    # (photo, N): a step of the replay is one photo of every node.
    read, infer, write = (
        np.asarray(measured[f"{step}_seconds"])[chosen] for step in ("read", "infer", "write")
    )
    free = np.zeros((nodes, workers))
    session = np.zeros(nodes)
    written = np.zeros((nodes, batches))
    for number in range(batches):
        batch = slice(number * size, (number + 1) * size)
        ready = np.max([_work(free, 0.0, seconds) for seconds in read[batch]], axis=0)
        if number:
            # Masks of the batch before are written while the session is at this one.
            before = slice(batch.start - size, batch.start)
            ends = [_work(free, session, seconds) for seconds in write[before]]
            written[:, number - 1] = np.max(ends, axis=0)
        session = np.maximum(session, ready) + infer[batch].sum(axis=0)
    written[:, -1] = np.max([_work(free, session, seconds) for seconds in write[batch]], axis=0)
    return np.maximum.accumulate(written, axis=1)


def _work(free: Seconds, since: Seconds | float, seconds: Seconds) -> Seconds:
    """Give a task to each node's worker that is free first; returns when they end."""
    rows = np.arange(len(free))
    who = free.argmin(axis=1)
    ends: Seconds = np.maximum(free[rows, who], since) + seconds
    free[rows, who] = ends
    return ends


@dataclass(frozen=True)
class Pace:
    """How long stretches of photos take a node.

    Attributes:
        photos: of a stretch.
        first: seconds of the first one, (L,): nothing is read ahead yet.
        later: of those that follow, (M,).
    """

    photos: int
    first: Seconds
    later: Seconds

    @property
    def images_per_second(self) -> float:
        """Of one node that is at work."""
        return self.photos / float(self.later.mean())

    def seconds(self, photos: NDArray[np.int64], random: np.random.Generator) -> Seconds:
        """How long nodes with so many photos are at them, (N,).

        Each node has its own draw: of a first stretch, and of as many later ones as it has photos
        for.  A stretch does not depend on the one before, so that the sum of many is normal
        (central limit theorem); that sum is drawn, in place of each of what are millions.
        """
        later = np.maximum(photos / self.photos - 1, 0)
        drawn = random.normal(later * self.later.mean(), np.sqrt(later) * self.later.std())
        begun = np.minimum(photos / self.photos, 1)
        found: Seconds = begun * random.choice(self.first, len(photos)) + np.maximum(drawn, 0)
        return found


def find_pace(measured: dict[str, Any], workers: int, seed: int = 0) -> Pace:
    """Replay LANES nodes, each with a generator of its own."""
    size = measured["batch_size"]
    batches = -(-STRETCH // size)
    seeds = np.random.SeedSequence(seed).spawn(LANES)
    randoms = [np.random.default_rng(one) for one in seeds]
    written = replay(measured, workers, batches * (1 + LATER), randoms)
    ends = written[:, batches - 1 :: batches]
    return Pace(batches * size, ends[:, 0], np.diff(ends).ravel())
