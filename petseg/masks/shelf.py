"""Where masks lie and what a plan has to know of them, on this machine or in a store."""

from __future__ import annotations

import functools
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from petseg.masks import records
from petseg.masks.record import Record
from petseg.masks.records import MaskState

# Tells what lies at a mask's place, as `records.inspect`.
Look = Callable[[], tuple[MaskState, Record | None]]


class Shelf(Protocol):
    """A folder of masks; names are relative to it, with forward slashes."""

    def look(self, names: Iterable[str]) -> Iterator[Look]:
        """For each of these masks, in order, what tells what lies there.

        An error belongs to the mask it is met at: it is raised by its `Look` alone.
        """

    def changed_ns(self, name: str) -> int | None:
        """When a file last became what it is, nanoseconds since 1970; None where there is none."""

    def made_ns(self, name: str) -> int | None:
        """When a file got its content; None where there is none."""


class LocalShelf:
    """A folder on this machine."""

    def __init__(self, folder: Path, max_pixels: int) -> None:
        self.folder, self.max_pixels = folder, max_pixels

    def look(self, names: Iterable[str]) -> Iterator[Look]:
        for name in names:
            yield functools.partial(records.inspect, self.folder / name, self.max_pixels)

    def changed_ns(self, name: str) -> int | None:
        # The status' time, and not the content's alone, because a mask that was worked on
        # elsewhere may be put here with its own.
        try:
            status = (self.folder / name).stat()
        except OSError:
            return None
        return max(status.st_mtime_ns, status.st_ctime_ns) if stat.S_ISREG(status.st_mode) else None

    def made_ns(self, name: str) -> int | None:
        try:
            return (self.folder / name).stat().st_mtime_ns
        except OSError:
            return None
