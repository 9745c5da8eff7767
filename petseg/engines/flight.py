"""An image on its way through the local engine, and what is to be done with it next."""

from __future__ import annotations

from dataclasses import dataclass

from petseg.engines.outcome import Work
from petseg.engines.worker import DeriveTask, ReadTask, Task, WriteTask
from petseg.steps import Photo


@dataclass
class Flight:
    """An image under way, and the slot it holds."""

    work: Work
    slot: int
    photo: Photo | None = None
    read_seconds: float = 0.0
    infer_seconds: float = 0.0

    @property
    def next_task(self) -> Task:
        if self.work.derive:
            return DeriveTask(self.work.mask, self.work.path, self.work.derive)
        if self.photo is None:
            return ReadTask(self.slot, self.work.path)
        return WriteTask(self.slot, self.work.mask, self.photo)

    @property
    def verb(self) -> str:
        """What is done to it, for people."""
        if self.work.derive:
            return "making formats of its mask"
        return "reading it" if self.photo is None else "writing its mask"
