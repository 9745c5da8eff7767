"""Where a mask would meet another mask, or a photo: refused before anything is done."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from array import array
from pathlib import Path

import numpy as np

from petseg import masks, sources, steps
from petseg.errors import PetsegError, some
from petseg.sources import Source


def refuse_collisions(images: list[Source], names: str, target: Path, pattern: str) -> None:
    """See that each image's mask has a place of its own, where no photo lies.

    Args:
        images: all of the run.
        names: "stem" or "full": how masks are named.
        target: the folder of masks.
        pattern: what the images were found by: a glob may find masks as well.

    Raises:
        PetsegError: two images have one mask name, an image lies where a mask goes, or masks would
            be taken for photos the next time.
    """
    # Eight bytes a name: there may be millions.
    keys = array("Q", (_key(steps.mask_name(source.name, names)) for source in images))
    folders = _folders(images)
    _refuse_shared_names(images, keys, folders, names)
    _refuse_places(images, keys, folders, target)
    _refuse_masks_among_photos(images, names, target, pattern)


def _key(mask: str) -> int:
    """Eight bytes that are equal for names which some file system takes for one."""
    return int.from_bytes(hashlib.blake2b(_folded(mask), digest_size=8).digest(), "little")


def _folded(mask: str) -> bytes:
    """File systems may ignore case and Unicode form; a mask must have its name on all of them."""
    # The Unicode Standard, section 3.13, canonical caseless matching.
    folded = unicodedata.normalize("NFD", mask).casefold()
    return unicodedata.normalize("NFD", folded).encode("utf-8", "surrogateescape")


def _folders(images: list[Source]) -> dict[str, int]:
    """Every folder that masks will lie in, and its key."""
    found: dict[str, int] = {}
    for source in images:
        folder = source.name.rpartition("/")[0]
        while folder and folder not in found:
            found[folder] = _key(folder)
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
    for source, key in zip(images, keys, strict=True):
        if key in suspects:
            folded = _folded(steps.mask_name(source.name, names))
            meeting.setdefault(folded, []).append(source.name)
    for folder, key in folders.items():
        if key in suspects:
            meeting.setdefault(_folded(folder), []).append(f"{folder}/")
    groups = [group for group in meeting.values() if len(group) > 1]
    if not groups:
        return  # two names with one hash
    helps = names == "stem" and all(
        len({_folded(steps.mask_name(name, "full")) for name in group}) == len(group)
        for group in groups
    )
    raise PetsegError(
        f"{len(groups)} mask names are claimed more than once: "
        + some([" and ".join(group) for group in groups])
        + ("; --names full gives x.jpg.png" if helps else "; rename them")
    )


def _refuse_places(
    images: list[Source], keys: array[int], folders: dict[str, int], target: Path
) -> None:
    """Refuse photos where masks go, whatever glob, list or link led there."""
    reserved = [folder for folder in folders if _folded(folder) == _folded(masks.RESERVED)]
    if reserved:
        raise PetsegError(
            f"the input has a folder {reserved[0]}/, which would meet {target / masks.RESERVED}, "
            "where stats and other formats go; rename it"
        )
    home = os.path.join(os.path.realpath(target), "")  # noqa: PTH118 - a Path for each is slow
    folder = real = None
    inside: list[tuple[Source, int]] = []
    for source in images:
        if os.path.dirname(source.path) != folder:  # noqa: PTH120 - as above
            folder = os.path.dirname(source.path)  # noqa: PTH120 - as above
            real = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118 - as above
        assert real is not None
        if real.startswith(home):
            file = os.path.basename(source.path)  # noqa: PTH119 - as above
            inside.append((source, _key(f"{real[len(home) :]}{file}")))
    places = set(keys) if inside else set()
    meeting = [source.path for source, key in inside if key in places]
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
