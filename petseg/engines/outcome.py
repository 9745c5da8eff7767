"""What an engine is given and what it tells: work, outcomes and batches, whatever the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Work:
    """One image to do: where it lies, what it is called, and its mask's name."""

    path: str
    name: str
    mask: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image.

    Attributes:
        work: the image.
        status: "done"; "failed", with a problem; or "kept": somebody's mask lies there.
        problem: why it failed.
        pixels: of the photo.
        read_seconds, write_seconds: processor time.
    """

    work: Work
    status: Literal["done", "failed", "kept"]
    problem: str | None = None
    pixels: int = 0
    read_seconds: float = 0.0
    write_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """One run of the session.

    Attributes:
        images: how many.
        wall_seconds: how long it took, of one stream's time.
        waiting: images that were ready beyond this batch.
    """

    images: int
    wall_seconds: float
    waiting: int
