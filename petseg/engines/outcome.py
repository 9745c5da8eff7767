"""What an engine is given and what it tells: work, outcomes and batches, whatever the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Work:
    """One image to do: where it lies, what it is called, and its mask's name.

    Attributes:
        derive: formats to make of the mask that is there, which stays; empty for the whole way.
        by_person: whether that mask is one that petseg did not make or somebody changed.
    """

    path: str
    name: str
    mask: str
    derive: tuple[str, ...] = ()
    by_person: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image.

    Attributes:
        work: the image.
        status: "done"; "derived": formats were made of the mask that is there; "failed", with a
            problem; or "kept": somebody's mask lies there.
        problem: why it failed.
        pixels: of the photo.
        read_seconds, write_seconds: processor time.
        infer_seconds: its share of the time its batch took.
        confidence, uncertain: see `measures.certainty`; of a mask that was made.
    """

    work: Work
    status: Literal["done", "derived", "failed", "kept"]
    problem: str | None = None
    pixels: int = 0
    read_seconds: float = 0.0
    write_seconds: float = 0.0
    infer_seconds: float = 0.0
    confidence: float = 0.0
    uncertain: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """One run of the session.

    Attributes:
        images: how many.
        wall_seconds: how long it took, of one stream's time.
        waiting: images that were ready beyond this batch.
        padded: see `runtime.Stream`; of each of its images.
    """

    images: int
    wall_seconds: float
    waiting: int
    padded: list[int] | None = None
