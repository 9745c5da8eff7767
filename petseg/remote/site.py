"""Where photos, masks, model and list of a run are: here, or in stores and archives."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from petseg.engines.carrying import Carriage
from petseg.engines.engine import Engine
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.errors import ImageError, PetsegError, StoreError
from petseg.masks import packs
from petseg.masks.reading import RESERVED
from petseg.photos.addresses import is_address
from petseg.photos.sources import Source
from petseg.planning.config import BatchConfig
from petseg.remote import archives, fetching, listing
from petseg.remote.brought import photos_of
from petseg.remote.carrier import carriage
from petseg.remote.ferry import Ferry
from petseg.remote.here import Site
from petseg.remote.packer import Packer, PackerShelf
from petseg.remote.refusals import check
from petseg.remote.shelf import StoreShelf
from petseg.remote.stage import Stage, open_stage
from petseg.remote.store import Entry, Masks, Photos, Store
from petseg.system.deadline import within

Say = Callable[[str], None]

# What tells of a run, below `masks/petseg/`; the first is always written.
_LISTS = ("failures.csv", "kept.csv")
_BOOKS = ("stats.json", *_LISTS)
# How long these may take; and where nobody wants to wait any more.
_PATIENCE_SECONDS = 120.0
_HURRIED_SECONDS = 2.0


class RemoteSite(Site):
    """Photos lie elsewhere, or masks go elsewhere: into a store, or into tar files.

    What is written lies on the stage until it is put there.
    """

    def __init__(self, config: BatchConfig, stage: Stage, say: Say) -> None:
        """Fetch model and list; nothing else is asked of a store yet.

        Args:
            config: what the run is asked to do.
            stage: where files lie in between.
            say: takes lines for people.

        Raises:
            PetsegError: a package is missing, or model or list cannot be had.
        """
        self.stage, self._asked = stage, config
        self._photos = photos_of(config.images, stage, say)
        self._store = Store(str(config.masks)) if is_address(config.masks) else None
        self._packer = Packer(config.folder, config.shards) if config.shards else None
        self._masks: Masks | None = self._store or self._packer
        self._entries: dict[str, Entry] = {}
        self._shelf: StoreShelf | None = None
        self._hurried = False
        changes: dict[str, object] = {
            name: fetching.bring_file(stage, name, str(place))
            for name in ("model", "list_file")
            if is_address(place := getattr(config, name))
        }
        if self._masks is not None:
            stage.stands_for(stage.masks, self._masks.address)
        if self._store is not None:
            # What tells of the run lies beside the masks, and goes the same way.
            changes |= {"masks": stage.masks, "report": False}
        super().__init__(dataclasses.replace(config, **changes))  # type: ignore[arg-type]
        if config.report and self._store is not None:
            self.notes.append(
                "no report.html, which is made of all masks: copy them to this machine, and run "
                "petseg report there"
            )

    @property
    def pattern(self) -> str:
        return "" if self._photos else super().pattern

    @property
    def retries(self) -> int:
        return sum(store.retries for store in (self._photos, self._masks) if store is not None)

    @property
    def shelf(self) -> StoreShelf | None:
        """Listed when it is first asked for; raises PetsegError where it may not be."""
        if self._shelf is None:
            if self._packer:
                self._shelf = PackerShelf(self._packer, self.config.max_pixels)
            elif self._store is not None:
                self._shelf = StoreShelf(self._store, self.config.max_pixels)
                if any(map(packs.is_name, self._shelf.files)):
                    raise PetsegError(
                        f"the masks in {self._store.address} are in shards, tar files: copy them "
                        "to a folder of this machine, and run the command there with --shards"
                    )
        return self._shelf

    @property
    def loose(self) -> int:
        return self._shelf.loose if isinstance(self._shelf, PackerShelf) else 0

    @property
    def staged(self) -> Stage | None:
        return None if self._masks is None else self.stage

    @property
    def carriage(self) -> Carriage | None:
        if self.config.engine != "ray" or (self._photos is None and self._store is None):
            return None
        return carriage(self._asked, self._photos, self._entries, self.shelf)

    def shown(self, text: str) -> str:
        return self.stage.shown(text)

    def find(self) -> Iterator[Source]:
        if self._photos is None:
            return super().find()
        found, config = listing.list_photos(self._photos), self.config
        self._entries = listing.own(found, config.shard)
        return listing.find(self._photos, found, config.list_file, config.list_key)

    def run(
        self,
        engine: Engine,
        todo: Iterator[Work],
        on_outcome: Callable[[Outcome], None],
        on_batch: Callable[[Batch], None],
        stopping: Callable[[], bool],
    ) -> None:
        try:
            if self.carriage is not None or (self._photos is None and self._masks is None):
                super().run(engine, todo, on_outcome, on_batch, stopping)
                return
            with self._ferry() as ferry:
                ferry.run(engine, todo, on_outcome, on_batch, stopping)
        finally:
            self._hurried = stopping()

    @contextmanager
    def _ferry(self) -> Iterator[Ferry]:
        photos = None if self._photos is None else (self._photos, self._entries)
        config = self.config
        patience = config.read_timeout
        ferry = Ferry(self.stage, photos, self.shelf, config.max_pixels, config.overwrite, patience)
        try:
            yield ferry
        except PetsegError as error:
            stage = f"{tempfile.gettempdir()} (TMPDIR, where masks lie on their way)"
            told = str(error).replace(str(self.stage.folder), stage)
            raise PetsegError(told) from error
        finally:
            ferry.close()
            self.waited = ferry.waited

    def close(self, well: bool) -> None:
        """Put what tells of the run beside the masks, one put each, and end what is open.

        After a signal nobody waits for a store that does not answer, nor after an error.

        Args:
            well: whether the run ended without an error.

        Raises:
            PetsegError: it cannot be put, after a run that went to its end.
        """
        stores: list[Photos] = [one for one in (self._photos, self._masks) if one is not None]
        hurried = self._hurried or not well
        patience = _HURRIED_SECONDS if hurried else _PATIENCE_SECONDS
        if hurried:
            for store in stores:
                store.closing.set()
        try:
            # Before the books are opened there is nothing to tell.
            if self._store is not None and self.config.reserved.is_dir():
                within(patience, functools.partial(self._put_books, self._store, well))
            for store in stores:
                store.closing.set()
                if store is self._packer:
                    within(patience, store.tidy)
                    continue
                # What half-written files were for: nobody misses that it is gone.
                with contextlib.suppress(TimeoutError):
                    within(patience, store.tidy)
            if self._packer and not hurried and not self.config.dry_run:
                within(patience, self._packer.recover)
        except (StoreError, ImageError, OSError) as error:
            if not hurried:
                place = self.config.folder if self._packer else self.config.reserved
                raise PetsegError(
                    f"cannot write {self.shown(str(place))}: {error}; the masks are in place"
                ) from error

    def _put_books(self, store: Store, well: bool) -> None:
        for book in _BOOKS:
            name = f"{RESERVED}/{self.config.beside(book).name}"
            data = self.stage.take(name)
            if data is not None:
                store.put(name, data, replace=True)
            # A list of an earlier run, where this one has nothing to list.
            elif well and book in _LISTS and self._shelf and name in self._shelf.files:
                store.remove(name)


@contextmanager
def opened(config: BatchConfig, say: Say = lambda line: None) -> Iterator[Site]:
    """Where the photos and masks of a run are.

    Args:
        config: what the run is asked to do.
        say: takes lines for people.

    Raises:
        PetsegError: something is asked for that cannot be had there.
    """
    check(config)
    places = (config.images, config.masks, config.model, config.list_file)
    elsewhere = any(map(is_address, places)) or archives.are(config.images)
    if not elsewhere and config.shards is None:
        yield Site(config)
        return
    with open_stage() as stage:
        site = RemoteSite(config, stage, say)
        well = False
        try:
            yield site
            well = True
        except PetsegError as error:
            shown = stage.shown(str(error))
            if shown == str(error):
                raise
            raise PetsegError(shown) from error
        finally:
            with contextlib.nullcontext() if well else contextlib.suppress(PetsegError):
                site.close(well)
