"""Where photos and masks of a run are, and what an engine is given of them: on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from petseg.engines.carrying import Carriage
from petseg.engines.engine import Engine
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.photos import sources
from petseg.photos.sources import Source
from petseg.planning.config import BatchConfig
from petseg.remote.shelf import StoreShelf
from petseg.remote.stage import Stage


class Site:
    """Where the photos and masks of a run are: on this machine.

    Attributes:
        config: the run as the engine and its workers see it.
        pattern: what finds photos on this machine; "" where none does.
        shelf: the masks that are there; None for single files in `config.folder`.
        staged: where the workers write masks, on their way; None where they write to that folder.
        retries: requests that were made again, because a store was busy or a connection died.
        waited: seconds in which the engine could have gone on, had a store been quicker.
        notes: what is left out, for people.
    """

    def __init__(self, config: BatchConfig) -> None:
        self.config = config
        self.waited = 0.0
        self.notes: list[str] = []

    @property
    def pattern(self) -> str:
        return self.config.images

    @property
    def shelf(self) -> StoreShelf | None:
        return None

    @property
    def loose(self) -> int:
        """Masks that were looked at and are single files where a run packs them."""
        return 0

    @property
    def staged(self) -> Stage | None:
        return None

    @property
    def retries(self) -> int:
        return 0

    @property
    def carriage(self) -> Carriage | None:
        """What carries photos and masks between stores and nodes; None where nothing is to be."""
        return None

    def shown(self, text: str) -> str:
        """A line for people, with addresses in place of what lies here for a while."""
        return text

    def find(self) -> Iterator[Source]:
        """The photos.

        Raises:
            PetsegError: as `sources.find`.
        """
        config = self.config
        wanted = sources.everything if config.shard is None else config.shard.holds
        return sources.find(config.images, config.list_file, config.list_key, wanted)

    def run(
        self,
        engine: Engine,
        todo: Iterator[Work],
        on_outcome: Callable[[Outcome], None],
        on_batch: Callable[[Batch], None],
        stopping: Callable[[], bool],
    ) -> None:
        """As `Engine.run`; an image is done when its mask lies where it belongs."""
        engine.run(todo, on_outcome, on_batch, stopping)
