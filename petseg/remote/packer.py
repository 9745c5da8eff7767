"""Masks put into tar files of so many each (`--shards`), in a folder of this machine."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from petseg.errors import GOES_ON, PetsegError
from petseg.masks import packs, records
from petseg.masks.packs import Member
from petseg.masks.record import Record
from petseg.masks.records import MaskState
from petseg.masks.shelf import Look
from petseg.remote.kinds import CONNECTIONS
from petseg.remote.part import Part, create, take_over
from petseg.remote.shelf import StoreShelf
from petseg.remote.store import Entry

# How long a run at most waits that took a number in the same moment as another one.
_STEP_ASIDE_SECONDS = 0.05


class Packer:
    """A folder of masks, whose tar files masks are appended to; see `store.Masks`.

    Attributes:
        address, root: the folder.
        retries: none.
        connections: all threads at once.
        closing: is for those that wait; nobody does here.
    """

    def __init__(self, folder: Path, count: int) -> None:
        """Nothing is read or written yet.

        Args:
            folder: of the masks.
            count: members of each tar file.
        """
        self.folder, self.count = folder, count
        self.address = self.root = str(folder)
        self.retries, self.connections = 0, CONNECTIONS
        self.closing = threading.Event()
        self._members: dict[str, Member] = {}
        self._part: Part | None = None
        self._lock = threading.Lock()

    def find(self, pattern: bool = False) -> dict[str, Entry]:
        """All masks that are packed, by name.

        Raises:
            PetsegError: a tar file is damaged or cannot be read.
        """
        del pattern  # a folder of masks is none
        self._members = packs.index(self.folder)
        return {name: Entry(one.size, one.mtime_ns) for name, one in self._members.items()}

    def read(self, name: str, most: int) -> bytes:
        """The first `most` bytes of a mask that is packed, or all where it has no more.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read.
        """
        member = self._members.get(name)
        if member is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return packs.read(member, most)

    def put(self, name: str, data: bytes, replace: bool) -> None:
        """Append a mask; from any thread.

        Args:
            name: of the mask.
            data: its content.
            replace: whether one that is there is replaced: packed, it stays where it is, and no
                longer counts; a single file of that name is removed.

        Raises:
            FileExistsError: one is there, and not to be replaced.
            PetsegError: it cannot be written; what was there before is as it was.
        """
        with self._lock:
            if self.closing.is_set():
                raise PetsegError(f"{name} came when {self.folder} was closed")
            if not replace and (name in self._members or os.path.lexists(self.folder / name)):
                raise FileExistsError(errno.EEXIST, "there is a mask already", name)
            try:
                if self._part is None:
                    self._part = self._next_part()
                self._members[name] = self._part.append(name, data)
                if self._part.count >= self.count:
                    self._end_part()
                if replace:
                    self.remove(name)
            except OSError as error:
                raise PetsegError(
                    f"cannot write {error.filename or self.folder}: {error.strerror}; {GOES_ON}"
                ) from error

    def remove(self, name: str) -> None:
        """Remove a mask that is a single file; what is packed stays."""
        (self.folder / name).unlink(missing_ok=True)

    def tidy(self) -> None:
        """End what this run is at; nothing is put any more.

        Raises:
            OSError: it cannot be written.
        """
        self.closing.set()
        with self._lock:
            self._end_part()

    def recover(self) -> None:
        """End what runs that were killed have left.

        Raises:
            OSError: it cannot be written.
        """
        with self._lock:
            for pack in packs.find(self.folder):
                if (left := take_over(pack)) is not None:
                    left.end()

    def _end_part(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.end()

    def _next_part(self) -> Part:
        """The last tar file, where a run that was killed left it, or a new one behind it.

        Never one before it: a mask that is made again has to come behind the one it replaces.
        """
        found = packs.find(self.folder)
        left = take_over(found[-1]) if found else None
        if left is not None and left.count < self.count:
            return left
        if left is not None:
            left.end()
        while True:
            number = found[-1].number + 1 if found else 0
            if (fresh := create(self.folder, number)) is not None:
                return fresh
            time.sleep(random.uniform(0, _STEP_ASIDE_SECONDS))
            found = packs.find(self.folder)


class PackerShelf(StoreShelf):
    """The masks of a `Packer`, and those that lie beside it as single files, which come first.

    Attributes:
        loose: how many were looked at that are single files.
    """

    def __init__(self, packer: Packer, max_pixels: int) -> None:
        """See `StoreShelf`."""
        super().__init__(packer, max_pixels)
        self.folder, self.loose = packer.folder, 0

    def look(self, names: Iterable[str]) -> Iterator[Look]:
        return (partial(self.glance, name) for name in names)

    def glance(self, name: str) -> tuple[MaskState, Record | None]:
        found = records.inspect(self.folder / name, self.max_pixels)
        if found[0] is not MaskState.ABSENT:
            self.loose += 1
            return found
        return super().glance(name) if name in self.files else found

    def examine(self, name: str) -> tuple[MaskState, Record | None]:
        found = records.inspect(self.folder / name, self.max_pixels)
        return super().examine(name) if found[0] is MaskState.ABSENT else found
