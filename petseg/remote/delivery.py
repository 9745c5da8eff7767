"""Taking masks, and what is beside them, from the stage to a store."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from petseg import steps
from petseg.engines.outcome import Outcome
from petseg.formats.catalog import PICTURES
from petseg.masks.records import MaskState, judge
from petseg.remote.shelf import StoreShelf
from petseg.remote.stage import Stage

Status = Literal["done", "derived", "kept"]


class Delivery:
    """Puts each file whole or not at all, the mask with its record last, and nobody's work away."""

    def __init__(self, stage: Stage, shelf: StoreShelf, replace_any: bool) -> None:
        """Nothing is put yet.

        Args:
            stage: where masks lie on this machine.
            shelf: where they go.
            replace_any: whether anybody's mask is replaced.
        """
        self.stage, self.shelf, self.replace_any = stage, shelf, replace_any

    def put(self, outcome: Outcome) -> Status:
        """Take a mask and what is beside it to the store; from any thread.

        Raises:
            OSError, StoreError, ImageError: as `Store.put`.
        """
        work, store = outcome.work, self.shelf.store
        # By name; None for those that are not made now.
        pictures = {name: self.stage.take(name) for name in pictures_of(work.mask)}
        try:
            if outcome.status == "derived":
                self._put_pictures(pictures)
                return "derived"
            data = self.stage.read(work.mask)
            # One that was there is looked at once more: somebody may have worked on it.
            there = work.mask in self.shelf.files
            if there and not self._may_replace(work.mask, data, pictures):
                return "kept"
            if not there:
                # Of a mask that somebody has removed.
                self._remove_stale(pictures)
            self._put_pictures(pictures)
            try:
                store.put(work.mask, data, replace=there)
            except FileExistsError:
                # Somebody was quicker: another run, an earlier try of this one's, or a person.
                if not self._may_replace(work.mask, data, pictures):
                    # They are not of that mask; the next run makes them of it.
                    for name, picture in pictures.items():
                        if picture is not None:
                            store.remove(name)
                    return "kept"
                store.put(work.mask, data, replace=True)
            return "done"
        finally:
            self.stage.remove_mask(work.mask)

    def _put_pictures(self, pictures: dict[str, bytes | None]) -> None:
        for name, data in pictures.items():
            if data is not None:
                self.shelf.store.put(name, data, replace=True)

    def _may_replace(self, mask: str, data: bytes, pictures: dict[str, bytes | None]) -> bool:
        """Whether what lies at a mask's place is not somebody's."""
        state, before = self.shelf.examine(mask)
        if state is MaskState.FOREIGN and not self.replace_any:
            return False
        if judge(data)[1] != before:
            self._remove_stale(pictures)
        return True

    def _remove_stale(self, pictures: dict[str, bytes | None]) -> None:
        """Pictures of an earlier mask that are not made now would pass for this one's."""
        for name, picture in pictures.items():
            if picture is None and name in self.shelf.files:
                self.shelf.store.remove(name)


def pictures_of(mask: str) -> list[str]:
    """The names of all pictures that may lie beside a mask."""
    pictures = PICTURES.values()
    return [steps.extra_path(Path(), picture, mask).as_posix() for picture in pictures]
