"""What an engine is to those who hand it work, where it runs, and what it took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from petseg.engines.bell import Bell
from petseg.engines.outcome import Batch, Outcome, Work


@dataclass
class Usage:
    """What a run took of its machines.

    Attributes:
        workers: processes, or on a cluster sessions, at the end.
        batch_size: images at once through a session at the end.
        trying: whether that is one of several sizes that were still being tried.
        restarts: worker processes that died, or hung and were killed, and were replaced.
        retries: steps of images that were begun once more, because what they ran on was lost.
        store_retries: requests that nodes made again, because a store was busy.
        infer_seconds: processor time of the processes that run sessions, threads and all.
        peak_memory: bytes, the sum of the workers' largest resident sizes; None where unknown.
        notes: what happened that the user should know.
        provider, precision, device: what sessions elsewhere ran on; empty where it is known here.
    """

    workers: int = 0
    batch_size: int = 0
    trying: bool = False
    restarts: int = 0
    retries: int = 0
    store_retries: int = 0
    infer_seconds: float = 0.0
    peak_memory: int | None = None
    notes: list[str] = field(default_factory=list)
    provider: str = ""
    precision: str = ""
    device: str = ""


@dataclass(frozen=True)
class Cluster:
    """Where and on what a run's network runs.

    Attributes:
        address: of a cluster, or "auto" for the one this machine belongs to; None starts one here.
        actors: sessions at the same time; None for as many as the cluster has room for.
        actor_cpus: cores that each of them takes.
        actor_gpus: GPUs that each of them takes; a fraction shares one.  None takes one where the
            cluster has any.
    """

    address: str | None = None
    actors: int | None = None
    actor_cpus: float = 1.0
    actor_gpus: float | None = None


class Engine(Protocol):
    """Moves images between the steps, with bounded memory."""

    @property
    def streams(self) -> int:
        """Batches at a time that use all there is."""
        ...

    def run(
        self,
        todo: Iterator[Work | None],
        on_outcome: Callable[[Outcome], None],
        on_batch: Callable[[Batch], None],
        stopping: Callable[[], bool],
        bell: Bell | None = None,
    ) -> None:
        """Do all of `todo`, or, once `stopping` says so, what has been begun.

        Args:
            todo: images; None where nothing is there yet.
            on_outcome: is told what became of each.
            on_batch: is told of each run of the session.
            stopping: says whether nothing more is to be begun.
            bell: rings when there may be more in `todo`, which had nothing yet.
        """

    def used(self) -> Usage:
        """What it took."""
        ...

    def close(self) -> None:
        """Let go of everything."""
