"""Where a mask would meet another mask, or a photo: refused before anything is done."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from petseg import steps
from petseg.errors import PetsegError, some
from petseg.masks import reading
from petseg.photos import sources
from petseg.photos.sources import Source
from petseg.planning.config import RENAME
from petseg.system.text import caseless


class Surroundings:
    """What masks may meet: of all images of an input, those of other shards, too.

    Attributes:
        folders: those that images lie in, by their names.
        inside: paths of images in the folder of masks, whatever glob, list or link led there, and
            where in it they lie.
    """

    def __init__(self, target: Path) -> None:
        """Nothing yet; `target` is the folder of masks."""
        self.folders: set[str] = set()
        self.inside: list[tuple[str, str]] = []
        self._home = os.path.join(os.path.realpath(target), "")  # noqa: PTH118 - a Path for each of millions is slow
        self._folder = self._real = ""

    def add(self, image: Source) -> None:
        self.folders.add(image.name.rpartition("/")[0])
        folder, file = os.path.split(image.path)
        if folder != self._folder or not self._real:
            self._folder = folder
            self._real = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118 - as above
        if self._real.startswith(self._home):
            below = self._real[len(self._home) :].replace(os.path.sep, "/")
            self.inside.append((image.path, f"{below}{file}"))


def refuse_collisions(
    images: list[Source], around: Surroundings, names: str, target: Path, pattern: str
) -> array[int]:
    """See that each image's mask has a place of its own, where no photo lies.

    Args:
        images: all of the run.
        around: all images of the input.
        names: "stem" or "full": how masks are named.
        target: the folder of masks.
        pattern: what the images were found by: a glob may find masks as well.

    Returns:
        The `key` of each image's mask.

    Raises:
        PetsegError: two images have one mask name, an image lies where a mask goes, or masks would
            be taken for photos the next time.
    """
    # Eight bytes a name: there may be millions.
    keys = array("Q", (key(steps.mask_name(source.name, names)) for source in images))
    folders = _with_those_above(around.folders)
    _refuse_shared_names(images, keys, folders, names)
    _refuse_places(around.inside, keys, folders, target)
    _refuse_masks_among_photos(images, names, target, pattern)
    return keys


def key(mask: str) -> int:
    """Eight bytes that are equal for names which some file system takes for one.

    A mask must have its name on all of them.
    """
    return int.from_bytes(hashlib.blake2b(caseless(mask), digest_size=8).digest(), "little")


def _with_those_above(folders: Iterable[str]) -> dict[str, int]:
    """Every folder that masks will lie in, and its key."""
    found: dict[str, int] = {}
    for folder in folders:
        while folder and folder not in found:
            found[folder] = key(folder)
            folder = folder.rpartition("/")[0]
    return found


def _refuse_shared_names(
    images: list[Source], keys: array[int], folders: dict[str, int], names: str
) -> None:
    values, counts = np.unique(np.frombuffer(keys, np.uint64), return_counts=True)
    # A mask may also meet a folder: x.jpg gives x.png, and so does x.png/ with an image in it.
    taken = np.isin(values, np.array([*folders.values()], np.uint64))
    suspects = set(values[(counts > 1) | taken].tolist())
    if not suspects:
        return
    meeting: dict[bytes, list[str]] = {}
    for source, own in zip(images, keys, strict=True):
        if own in suspects:
            folded = caseless(steps.mask_name(source.name, names))
            meeting.setdefault(folded, []).append(source.name)
    for folder, own in folders.items():
        if own in suspects:
            meeting.setdefault(caseless(folder), []).append(f"{folder}/")
    groups = [group for group in meeting.values() if len(group) > 1]
    if not groups:
        return  # two names with one hash
    helps = names == "stem" and all(
        len({caseless(steps.mask_name(name, "full")) for name in group}) == len(group)
        for group in groups
    )
    raise PetsegError(
        f"{len(groups)} mask names are claimed more than once: "
        + some([" and ".join(group) for group in groups])
        + ("; --names full, in a new folder, gives x.jpg.png" if helps else "; rename them")
    )


def _refuse_places(
    inside: list[tuple[str, str]], keys: array[int], folders: dict[str, int], target: Path
) -> None:
    """Refuse photos where masks go."""
    reserved = [folder for folder in folders if caseless(folder) == caseless(reading.RESERVED)]
    if reserved:
        raise PetsegError(
            f"the input has a folder {reserved[0]}/, which would meet {target / reading.RESERVED}, "
            f"where stats and other formats go; {RENAME}"
        )
    places = set(keys) if inside else set()
    meeting = [path for path, place in inside if key(place) in places]
    if meeting:
        raise PetsegError(
            f"{len(meeting)} images lie in {target}, where masks of that name are to go: "
            f"{some(meeting)}; choose another folder for the masks"
        )


def _refuse_masks_among_photos(
    images: list[Source], names: str, target: Path, pattern: str
) -> None:
    """Refuse a glob that would take this run's masks for photos the next time."""
    made = (steps.mask_name(source.name, names) for source in images)
    found = sources.would_find(pattern, target, made)
    if found is not None:
        raise PetsegError(
            f"{pattern} finds masks in {target}, too: {found} would be taken for a "
            "photo the next time; choose a folder outside, or a pattern that leaves it out"
        )
