"""Masks whose photo is not there any more: told of after a run, and never deleted."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from petseg.errors import PetsegError
from petseg.masks import reading
from petseg.planning.collisions import key
from petseg.planning.plan import Plan


def find_gone(
    folder: Path, photos: Path, plan: Plan, stopping: Callable[[], bool]
) -> Iterator[str]:
    """The names of masks, in their order, that belong to none of the photos of a plan.

    Whoever made them: a mask that a person drew is as much without a photo as one of petseg's.
    Those in tar files (`packs`) are not looked at.
    What lies below a folder of photos that could not be read is not looked at: nobody knows.

    Args:
        folder: of the masks.
        photos: the folder that the plan is of; all of it, or what it left out would be missed here.
        plan: of the photos.
        stopping: whether to end before all masks have been looked at.

    Raises:
        PetsegError: the masks cannot be looked through.
    """
    # Eight bytes a name, twice while they are sorted.
    keys = array("Q", np.sort(np.frombuffer(plan.mask_keys, np.uint64)).tobytes())
    unknown = tuple(name for name, _ in plan.failed if name.endswith("/"))
    home, inner = os.path.realpath(folder), os.path.realpath(photos)
    if inner.startswith(os.path.join(home, "")):  # noqa: PTH118 - nothing but names
        # Photos in a folder beside their masks are no masks.
        unknown = (*unknown, f"{os.path.relpath(inner, home).replace(os.path.sep, '/')}/")
    try:
        for name in reading.walk(str(folder)):
            if stopping():
                return
            place = bisect_left(keys, wanted := key(name))
            there = place < len(keys) and keys[place] == wanted
            if not there and not name.startswith(unknown):
                yield name
    except OSError as error:
        raise PetsegError(
            f"cannot read the folder {error.filename or folder}: {error.strerror}; the masks are "
            "in place"
        ) from error
