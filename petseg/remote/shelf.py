"""Masks in a store: what lies where each is to go, from one listing and from their heads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from petseg.errors import PetsegError
from petseg.masks import records
from petseg.masks.record import Record
from petseg.masks.records import MaskState
from petseg.masks.shelf import Look
from petseg.photos import imageio
from petseg.photos.addresses import shown
from petseg.remote.listing import refusal
from petseg.remote.store import Entry, Masks

# A mask's first bytes, up to where its compressed pixels begin: its header and its record.
_HEAD_BYTES = 4096
# Heads that are asked for before they are wanted, for each of the threads that ask.
_AHEAD = 4


class StoreShelf:
    """See `petseg.masks.shelf.Shelf`.

    Attributes:
        files: what lay there when the run began, by name.
    """

    def __init__(
        self, store: Masks, max_pixels: int, files: dict[str, Entry] | None = None
    ) -> None:
        """List the folder.

        Args:
            store: the folder of masks; it need not be there.
            max_pixels: see `records.judge`.
            files: what has been listed already.

        Raises:
            PetsegError: there is no such bucket, or it may not be listed.
        """
        self.store, self.max_pixels = store, max_pixels
        if files is not None:
            self.files = files
            return
        asked, root = store.address, store.root
        try:
            self.files = store.find()
        except FileNotFoundError as error:
            raise PetsegError(
                shown(f"there is no {asked} to put masks into: {error}; create the bucket first")
            ) from error
        except OSError as error:
            raise PetsegError(refusal(store, "list", error)) from error
        if store.root != root:
            raise PetsegError(f"{asked} is a file, and masks need a folder: choose another address")

    def look(self, names: Iterable[str]) -> Iterator[Look]:
        waiting: deque[Look] = deque()
        threads = self.store.connections
        with ThreadPoolExecutor(threads) as pool:
            try:
                for name in names:
                    there = name in self.files
                    waiting.append(pool.submit(self.glance, name).result if there else _absent)
                    if len(waiting) > _AHEAD * threads:
                        yield waiting.popleft()
                yield from waiting
            finally:
                pool.shutdown(cancel_futures=True)

    def changed_ns(self, name: str) -> int | None:
        return self.made_ns(name)

    def made_ns(self, name: str) -> int | None:
        entry = self.files.get(name)
        return None if entry is None else entry.mtime_ns

    def glance(self, name: str) -> tuple[MaskState, Record | None]:
        """What lies at a mask's place, from its first bytes alone where they are enough.

        A mask of petseg's says in them how long it is.  Whoever changes its pixels and keeps that
        length and the record goes unnoticed here: the mask is left as it is, which is right, but
        not told of as a person's.  Nothing is ever replaced on this word alone (see `examine`).

        Raises:
            PermissionError: it may not be read.
            StoreError: the store does not answer.
        """
        entry = self.files[name]
        try:
            head = self.store.read(name, _HEAD_BYTES) if entry.size else b""
        except FileNotFoundError:
            return _absent()
        return records.judge_head(head, entry.size) or self.examine(name)

    def examine(self, name: str) -> tuple[MaskState, Record | None]:
        """What lies at a mask's place, from all of its bytes.

        Raises:
            PermissionError: it may not be read.
            StoreError: the store does not answer.
        """
        most = imageio.max_bytes(self.max_pixels)
        try:
            data = self.store.read(name, most + 1)
        except FileNotFoundError:
            return _absent()
        if len(data) > most:
            return MaskState.FOREIGN, None
        return records.judge(data, self.max_pixels)


def _absent() -> tuple[MaskState, Record | None]:
    return MaskState.ABSENT, None
