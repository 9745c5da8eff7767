"""Archives in a store: brought to the stage whole, and read there as those of this machine are.

listing -> room for all of them? -> [fetch: a few at once] -> archives on the stage
"""

from __future__ import annotations

import functools
import glob
import math
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from petseg.errors import ImageError, PetsegError, StoreError
from petseg.photos.addresses import is_address, shown, stays_below
from petseg.remote import archives, listing
from petseg.remote.archives import SUFFIXES, Archives, folder_of
from petseg.remote.crew import Crew
from petseg.remote.stage import Stage
from petseg.remote.store import Entry, Photos, Store

# Archives are large: more at once would each be slower.
_AT_ONCE = 4
# How long Ctrl-C may have to wait to be noticed.
_POLL_SECONDS = 0.2


class BroughtArchives(Archives):
    """The files in one archive in a store, or in all that a pattern finds there.

    Attributes:
        retries: requests that were made again.
    """

    def __init__(self, images: str, stage: Stage, say: Callable[[str], None]) -> None:
        """Nothing is asked of the store yet.

        Args:
            images: see `archives.in_store`.
            stage: where the archives lie for the time of the run.
            say: takes a line for people.

        Raises:
            PetsegError: as `Store`.
        """
        super().__init__(images)
        self._folder, _, self._name = images.rpartition("/")
        self._stage, self._say = stage, say
        # A name that may be a pattern says only in a listing what it is.
        self._pattern = glob.has_magic(images)
        self._store = Store(images if self._pattern else self._folder)
        self.address, self.closing = self._store.address, self._store.closing

    def _archives(self) -> Iterator[tuple[Path, str]]:
        found = self._listed()
        several = [*found] != [self._name]
        folder = self._stage.folder / "archives"
        folder.mkdir()
        # Under names of this machine's own, of which none leads elsewhere or is another's.
        places = {
            name: folder / f"{number}{PurePosixPath(name).suffix}"
            for number, name in enumerate(found)
        }
        for name, place in places.items():
            self._stage.stands_for(place, f"{self.address}/{name}")
        try:
            self._fetch(found, places)
        finally:
            self.retries = self._store.retries
        for name, place in places.items():
            yield place, folder_of(PurePosixPath(name)) if several else ""

    def _listed(self) -> dict[str, Entry]:
        """The archives, by name, once it is sure that there is room for all of them."""
        if self._pattern:
            found = listing.list_photos(self._store)
            self.address = self._store.address
            found = {name: one for name, one in found.items() if name.lower().endswith(SUFFIXES)}
        else:
            found = {self._name: self._single()}
        for name in found:
            if not stays_below(name):
                raise PetsegError(
                    f"{self.address}/{name}: its masks would lie in a folder of this name, which "
                    "no folder can have; name the archive anew"
                )
        total, free = sum(one.size for one in found.values()), self._free()
        what = f"{len(found)} archives, {total / 1e6:,.1f} MB, from {shown(self.images)}"
        if total > free:
            raise PetsegError(
                f"{what}, do not fit into {tempfile.gettempdir()}, where {free / 1e6:,.1f} MB are "
                "free: TMPDIR names another folder; or take some of them at a time"
            )
        self._say(f"fetching {what}")
        return found

    def _single(self) -> Entry:
        place = f"{self.address}/{self._name}"
        try:
            entry = self._store.entry(self._name)
        except FileNotFoundError as error:
            raise PetsegError(f"there is no folder, file or pattern {place}") from error
        except OSError as error:
            raise PetsegError(listing.refusal(self._store, "read", error)) from error
        if entry is None:
            raise PetsegError(f"{place} is a folder with an archive's name: write {place}/ for it")
        return entry

    def _free(self) -> int:
        return shutil.disk_usage(self._stage.folder).free

    def _fetch(self, found: dict[str, Entry], places: dict[str, Path]) -> None:
        come = threading.Event()
        threads = min(_AT_ONCE, self._store.connections)
        # How long an archive may take nobody knows.
        crew: Crew[str, None] = Crew(threads, math.inf, come.set)
        try:
            for name, place in places.items():
                crew.do(name, functools.partial(self._store.fetch, name, place))
            while len(crew):
                come.wait(_POLL_SECONDS)
                come.clear()
                for task in crew.take():
                    self._check(task.key, task.error, found, places)
        finally:
            crew.close()

    def _check(
        self,
        name: str,
        error: BaseException | None,
        found: dict[str, Entry],
        places: dict[str, Path],
    ) -> None:
        """Raise PetsegError where an archive has not come, or not as it was listed."""
        if isinstance(error, StoreError | ImageError | OSError):
            raise PetsegError(f"cannot fetch {self.address}/{name}: {shown(str(error))}") from error
        if error is not None:
            raise error
        size = places[name].stat().st_size
        if found[name].size not in (0, size):  # a web server may tell none
            raise PetsegError(
                f"{self.address}/{name} was listed with {found[name].size} bytes, and {size} have "
                "come: it changed meanwhile; run the same command"
            )


def photos_of(images: str, stage: Stage, say: Callable[[str], None]) -> Photos | None:
    """Where photos are had from; None where they are files of this machine.

    Raises:
        PetsegError: as `Store`.
    """
    if archives.in_store(images):
        return BroughtArchives(images, stage, say)
    if is_address(images):
        return Store(images)
    return Archives(images) if archives.are(images) else None
