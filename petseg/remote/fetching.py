"""A file from its store onto a stage, and what it means when that, or putting a mask, fails."""

from __future__ import annotations

from pathlib import Path

from petseg.errors import ImageError, PetsegError, StoreError
from petseg.photos.addresses import shown, stays_below
from petseg.remote.stage import Stage
from petseg.remote.store import Entry, Photos, Store


def fetch(photos: Photos, stage: Stage, name: str, entry: Entry) -> str:
    """Bring a photo here; returns its path.

    Raises:
        ImageError: it is another one now than was listed, or no file here can be it.
        OSError, StoreError: as `Store.read`.
        PetsegError: it cannot be written here.
    """
    # A byte more shows that the file has grown.
    data = photos.read(name, entry.size + 1) if entry.size else b""
    if len(data) != entry.size:
        raise ImageError("the file changed since it was listed")
    return stage.write_photo(name, data, entry)


def bring_file(stage: Stage, folder: str, address: str) -> Path:
    """A single file, put down in a folder of the stage under its own name.

    Raises:
        PetsegError: it cannot be had.
    """
    above, _, name = address.rpartition("/")
    if not stays_below(name):
        raise PetsegError(f"{shown(address)} names no file")
    target = stage.folder / folder / name
    target.parent.mkdir(exist_ok=True)
    try:
        Store(above).fetch(name, target)
    except (StoreError, OSError) as error:
        raise PetsegError(f"cannot read {shown(address)}: {error}") from error
    stage.stands_for(target, address)
    return target


def too_large(size: int, most: int) -> str | None:
    """Why a photo of so many bytes is not fetched."""
    if size <= most:
        return None
    return (
        f"the file is {size} bytes, over the limit of {most}; raise --max-pixels if the file can "
        "be trusted"
    )


def unanswered(error: BaseException) -> bool:
    """Whether it is the store that does not answer, whatever it is asked for."""
    return isinstance(error, StoreError | TimeoutError)


def reason(error: BaseException) -> str:
    """Why an image has failed; raises the error where it is none of one image's."""
    if isinstance(error, FileNotFoundError):
        return "it is no longer there"
    if isinstance(error, PermissionError):
        return shown(f"it may not be read: {error}")
    if not isinstance(error, ImageError | StoreError | OSError):
        raise error
    return shown(str(error))
