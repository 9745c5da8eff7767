"""Photos and masks between a store and the nodes of a cluster, each of which asks by itself."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from petseg.engines.carrying import Carriage, Carried
from petseg.engines.outcome import Outcome, Work
from petseg.errors import ImageError, PetsegError
from petseg.photos import imageio
from petseg.planning.config import BatchConfig
from petseg.remote import fetching
from petseg.remote.delivery import Delivery, pictures_of
from petseg.remote.listing import refusal
from petseg.remote.shelf import StoreShelf
from petseg.remote.stage import Stage, open_stage
from petseg.remote.store import Entry, Photos, Store
from petseg.steps import Job


class Place(NamedTuple):
    """A folder in a store: its address, and what the listing made of it (see `Store.root`)."""

    address: str
    root: str


class Luggage(NamedTuple):
    """What is known of an image before it is read.

    Attributes:
        entry: of the photo, as it was listed; None where that is a file.
        there: of its mask and pictures, those that were listed.
    """

    entry: Entry | None
    there: dict[str, Entry]


@dataclass(frozen=True)
class StoreCarrier:
    """See `carrying.Carrier`; in each process it opens the stores, and a stage, when first used.

    Attributes:
        photos: where they are; None where every node sees them.
        masks: where they go; None where every node sees that folder.
        max_pixels: photos that are too large for so many are not fetched.
        replace_any: whether anybody's mask is replaced.
        connections: how many requests there may be at once.
    """

    photos: Place | None
    masks: Place | None
    max_pixels: int
    replace_any: bool
    connections: int

    @property
    def brings(self) -> bool:
        return self.photos is not None

    @property
    def takes(self) -> bool:
        return self.masks is not None

    def job(self, job: Job) -> Job:
        if self.masks is None:
            return job
        stage = _here(self).stage
        return dataclasses.replace(job, masks=stage.masks, temporary=stage.folder)

    def bring(self, work: Work, luggage: Luggage) -> Carried:
        entry = luggage.entry
        assert entry is not None
        problem = fetching.too_large(entry.size, imageio.max_bytes(self.max_pixels))
        if problem is not None:
            return Carried(problem=problem)
        try:
            here = _here(self)
            assert here.photos is not None
            return Carried(fetching.fetch(here.photos, here.stage, work.name, entry))
        except (OSError, PetsegError) as error:
            return _failed(error)

    def drop(self, path: str) -> None:
        _here(self).stage.remove_photo(path)

    def bring_mask(self, work: Work, luggage: Luggage) -> Carried:
        try:
            here = _here(self)
            assert here.masks is not None
            # A byte more shows that it is another one now; making formats of it finds that.
            data = here.masks.read(work.mask, luggage.there[work.mask].size + 1)
            here.stage.write_mask(work.mask, data)
        except (OSError, PetsegError) as error:
            return _failed(error)
        return Carried()

    def take(self, outcome: Outcome, luggage: Luggage) -> Carried:
        try:
            here = _here(self)
            assert here.masks is not None
            shelf = StoreShelf(here.masks, self.max_pixels, luggage.there)
            status = Delivery(here.stage, shelf, self.replace_any).put(outcome)
            return Carried(status=status)
        except (FileNotFoundError, PermissionError) as error:
            assert here.masks is not None
            return Carried(stop=refusal(here.masks, "write to", error))
        except (OSError, PetsegError) as error:
            return _failed(error)

    def shown(self, text: str) -> str:
        return _here(self).stage.shown(text)

    def retries(self) -> int:
        here = _open.get(self)
        return 0 if here is None else sum(store.retries for store in here.stores)


def carriage(
    config: BatchConfig,
    photos: Photos | None,
    entries: Mapping[str, Entry],
    shelf: StoreShelf | None,
) -> Carriage:
    """What brings photos to nodes, and takes masks from there.

    Args:
        config: the run as it was asked for, with the addresses.
        photos: where they are, once they are listed; None where every node sees them.
        entries: what was listed there.
        shelf: where masks go; None where every node sees that folder.
    """
    masks = None if shelf is None else shelf.store
    stores = [one for one in (photos, masks) if one is not None]
    carrier = StoreCarrier(
        photos=None if photos is None else Place(config.images, photos.root),
        masks=None if masks is None else Place(str(config.masks), masks.root),
        max_pixels=config.max_pixels,
        replace_any=config.overwrite,
        connections=min(store.connections for store in stores),
    )
    files: Mapping[str, Entry] = {} if shelf is None else shelf.files

    def luggage(work: Work) -> Luggage:
        names = (work.mask, *pictures_of(work.mask)) if files else ()
        return Luggage(entries.get(work.name), {n: files[n] for n in names if n in files})

    return Carriage(carrier, luggage)


class _Here:
    """What a carrier has in this process, until it ends."""

    def __init__(self, carrier: StoreCarrier) -> None:
        with contextlib.ExitStack() as stack:
            self.stage: Stage = stack.enter_context(open_stage())
            self.photos, self.masks = _store(carrier.photos), _store(carrier.masks)
            if self.masks is not None:
                self.stage.stands_for(self.stage.masks, self.masks.address)
            # One that is killed leaves it to the next on this machine, as every run does.
            atexit.register(stack.pop_all().close)
        self.stores = [one for one in (self.photos, self.masks) if one is not None]


def _store(place: Place | None) -> Store | None:
    if place is None:
        return None
    found = Store(place.address)
    found.begin(place.root)
    return found


_open: dict[StoreCarrier, _Here] = {}
_opening = threading.Lock()


def _here(carrier: StoreCarrier) -> _Here:
    with _opening:
        if carrier not in _open:
            _open[carrier] = _Here(carrier)
        return _open[carrier]


def _failed(error: OSError | PetsegError) -> Carried:
    if isinstance(error, PetsegError) and not (
        isinstance(error, ImageError) or fetching.unanswered(error)
    ):
        return Carried(stop=str(error))  # no room here, say, or a package is missing
    return Carried(problem=fetching.reason(error), silent=fetching.unanswered(error))
