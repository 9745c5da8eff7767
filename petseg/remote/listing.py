"""The photos in a store, from one listing: what `sources.find` is for a folder of this machine."""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Iterator
from pathlib import Path

from petseg.errors import PetsegError
from petseg.photos import imageio, lists
from petseg.photos.addresses import shown, stays_below
from petseg.photos.shards import Shard
from petseg.photos.sources import Source
from petseg.remote.store import Entry, Photos


def list_photos(store: Photos) -> dict[str, Entry]:
    """Everything below an address, by name; it may also be one file, or a pattern.

    Raises:
        PetsegError: nothing is there, or it may not be listed.
    """
    asked = store.address  # which `find` shortens to the folder of a file or a pattern
    try:
        found = store.find()
        if not found and glob.has_magic(store.root):
            found = store.find(pattern=True)
    except FileNotFoundError as error:
        raise PetsegError(shown(f"there is no {asked}: {error}")) from error
    except OSError as error:
        raise PetsegError(refusal(store, "list", error)) from error
    if not found:
        raise PetsegError(f"there is no folder, file or pattern {asked}")
    return found


def find(
    store: Photos, found: dict[str, Entry], list_file: Path | str | None, list_key: str | None
) -> Iterator[Source]:
    """The files that were listed as sources, or those of them that `list_file` names.

    Which of them are images their names alone say: to look at first bytes would take a request for
    each.

    Raises:
        PetsegError: the list cannot be read.
    """
    if list_file is None:
        return (_source(store, name, entry) for name, entry in found.items())
    return _listed(store, found, Path(list_file), list_key)


def own(found: dict[str, Entry], shard: Shard | None) -> dict[str, Entry]:
    """Those of the files that were listed which a run may do.

    The plan has to see all of them, but once: of other shards' nothing is kept.
    """
    if shard is None:
        return found
    return {name: entry for name, entry in found.items() if shard.holds(name)}


def refusal(store: Photos, verb: str, error: OSError) -> str:
    """A line for people about a store that does not let something be done."""
    return shown(
        f"may not {verb} {store.address}: {error}; see that the credentials this machine has are "
        "for it (docs/remote.md)"
    )


def _source(store: Photos, name: str, entry: Entry, listed: bool = False) -> Source:
    problem = entry.problem
    if not stays_below(name):
        problem = "no file can have this name: it leads elsewhere"
    claims = listed or imageio.looks_like_image(name, b"")
    # What looks at paths, collisions say, need not bear what no path can hold.
    path = f"{store.address}/{name}".replace("\0", "?")
    return Source(path, name, claims, problem, entry.size, entry.mtime_ns)


def _listed(
    store: Photos, found: dict[str, Entry], list_file: Path, list_key: str | None
) -> Iterator[Source]:
    def exists(name: str) -> bool:
        return posixpath.normpath(name) in found

    # What is named twice is done once.
    for name in dict.fromkeys(lists.read(list_file, list_key, store.address, exists)):
        if name in found:
            # Whoever lists a file says that it is an image.
            yield _source(store, name, found[name], listed=True)
        else:
            yield Source(f"{store.address}/{name}", name, True, "no such file")
