"""A folder of masks: which lie in it, and what each of them says of its photo."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from petseg.classes import SegmentClass, values_to_ids
from petseg.errors import ImageError, PetsegError, some
from petseg.masks import measures, packs
from petseg.masks.packs import Member
from petseg.masks.record import Box, Record
from petseg.masks.records import MAX_MASK_BYTES, MaskState, judge, read_bytes
from petseg.photos import imageio
from petseg.system.temporary import PARTIAL

# Everything in a folder of masks that is no mask lies below this name.
RESERVED = "petseg"

# Masks read ahead of the one that is wanted; unpacking them needs no lock of Python's.
_THREADS, _AHEAD = 4, 32
# Files that a note names.
_NAMED = 5


@dataclass(frozen=True)
class MaskFile:
    """One mask as it lies there.

    Attributes:
        name: below the folder, with suffix and forward slashes.
        photo: its photo's name below the input; None where nothing tells.
        written_ns: its modification time, nanoseconds since 1970.
        by_person: whether a person made or changed it.
        record: None where a person did, and where another version of petseg wrote it.
        height, width: of the photo; of the mask where the record does not tell.
        class_pixels: pixels of each class, by class id.
        box: of the foreground, in the photo's pixels; None without foreground.
        ids: class ids, uint8 (h, w); None where they were not asked for.
        packed: where it lies in a tar file; None for a file of its own.
        photo_sha256: of the photo it was made from; of a mask that a person changed, too, as long
            as it carries petseg's record.
    """

    name: str
    photo: str | None
    written_ns: int
    by_person: bool
    record: Record | None
    height: int
    width: int
    class_pixels: tuple[int, ...]
    box: Box | None
    ids: NDArray[np.uint8] | None
    packed: Member | None = None
    photo_sha256: str | None = None


def load(path: Path, packed: Member | None) -> tuple[bytes, int]:
    """The bytes of what may be a mask, and its modification time, nanoseconds since 1970.

    Args:
        path: of the file.
        packed: where it lies, if there is no such file.

    Raises:
        OSError: it cannot be read, or is larger than any mask of petseg's.
    """
    try:
        written = path.stat().st_mtime_ns
        return read_bytes(path), written
    except (FileNotFoundError, NotADirectoryError):
        if packed is None:
            raise
    return packs.read(packed, MAX_MASK_BYTES), packed.mtime_ns


def decode(
    data: bytes,
    table: NDArray[np.uint8],
    path: Path,
    max_pixels: int = imageio.DEFAULT_MAX_PIXELS,
) -> NDArray[np.uint8]:
    """Class ids uint8 (H, W) from the bytes of an 8-bit greyscale mask.

    Args:
        data: the whole file.
        table: uint8 (256,), value on disk to class id, 255 for none.
        path: for messages.
        max_pixels: larger masks are refused before they are decoded, as photos are.

    Raises:
        ImageError: unreadable, not 8-bit greyscale, too large, or with a value that stands for no
            class.
    """
    try:
        values = imageio.decode_grey(data, max_pixels)
    except ImageError as error:
        raise ImageError(f"the mask cannot be read: {error}: {path}") from error
    ids: NDArray[np.uint8] = table[values]
    if (ids == 255).any():
        unknown = np.unique(values[ids == 255]).tolist()
        known = np.flatnonzero(table < 255).tolist()
        raise ImageError(f"the mask has the values {unknown[:5]}, expected {known}: {path}")
    return ids


def read_all(
    folder: Path,
    classes: tuple[SegmentClass, ...],
    photos: Mapping[str, str],
    with_ids: bool,
    max_pixels: int = imageio.DEFAULT_MAX_PIXELS,
    on_other: Callable[[str], None] = lambda name: None,
) -> Iterator[MaskFile]:
    """Every mask in a folder of masks, whoever made it, in the order of names.

    In bounded memory, but for the names in one folder, or all of them where some are packed.  What
    is no mask of these classes is passed over, and so is what may not be read.

    Args:
        folder: of the masks.
        classes: what their values mean.
        photos: the names of the photos of masks that carry no record, where they are known.
        with_ids: whether class ids are asked for; the rest is in the records, and costs less.
        max_pixels: larger masks are not decoded.
        on_other: takes the names of what is passed over.

    Raises:
        PetsegError: a folder cannot be read, or a tar file of masks is damaged.
    """
    table = values_to_ids(classes)

    def read(name: str) -> MaskFile | None:
        path, member = folder / name, packed.get(name)
        return _read(path, name, classes, table, photos, with_ids, max_pixels, member)

    names = _names(folder)
    packed = {
        name: member
        for name, member in packs.index(folder).items()
        if not name.startswith(f"{RESERVED}/")
    }
    if packed:
        # As `walk` sorts each folder.
        names = iter(sorted({*names, *packed}, key=lambda name: name.split("/")))
    waiting: deque[tuple[str, Future[MaskFile | None]]] = deque()

    def settled(most: int) -> Iterator[MaskFile]:
        while len(waiting) > most:
            name, future = waiting.popleft()
            if (found := future.result()) is None:
                on_other(name)
            else:
                yield found

    with ThreadPoolExecutor(_THREADS) as pool:
        for name in names:
            waiting.append((name, pool.submit(read, name)))
            yield from settled(_AHEAD)
        yield from settled(0)


class Others:
    """What lies among masks and is none of these classes: how many, and the first few names."""

    def __init__(self, classes: tuple[SegmentClass, ...]) -> None:
        self.values = ", ".join(str(item.value) for item in classes)
        self.count = 0
        self._first: list[str] = []

    def add(self, name: str) -> None:
        self.count += 1
        if len(self._first) < _NAMED:
            self._first.append(name)

    def __str__(self) -> str:
        plural = "" if self.count == 1 else "s"
        return (
            f"{self.count} file{plural} among the masks cannot be used, and no table, page or "
            f"picture shows them: expected 8-bit greyscale PNGs with the values {self.values}: "
            + some(self._first, self.count)
        )


def _read(
    path: Path,
    name: str,
    classes: tuple[SegmentClass, ...],
    table: NDArray[np.uint8],
    photos: Mapping[str, str],
    with_ids: bool,
    max_pixels: int,
    packed: Member | None = None,
) -> MaskFile | None:
    try:
        data, written = load(path, packed)
        state, found = judge(data, max_pixels)
        record = found if state is MaskState.OURS else None
        ids = decode(data, table, path, max_pixels) if with_ids or record is None else None
    except (OSError, ImageError):
        return None
    if record is not None and (
        len(record.class_pixels) != len(classes) or record.height * record.width > max_pixels
    ):
        return None
    # The record of a mask that was corrected still knows the photo.
    photo = photos.get(name) if found is None else name.rpartition("/")[0] + "/" + found.image.name
    by_person = state is MaskState.FOREIGN
    if record is not None:
        size, areas, box = (record.height, record.width), record.class_pixels, record.box
    else:
        assert ids is not None
        size = (ids.shape[0], ids.shape[1])
        areas = measures.class_pixels(ids, classes)
        box = measures.bounding_box(ids, classes, *size)
    photo = None if photo is None else photo.removeprefix("/")
    sha256 = None if found is None else found.image.sha256
    return MaskFile(name, photo, written, by_person, record, *size, areas, box, ids, packed, sha256)


def _names(folder: Path) -> Iterator[str]:
    try:
        yield from walk(str(folder))
    except OSError as error:
        where = error.filename or folder
        raise PetsegError(f"cannot read the folder {where}: {error.strerror}") from error


def walk(folder: str, prefix: str = "") -> Iterator[str]:
    """The names of all files that may be masks, sorted in each folder; links are not entered.

    Args:
        folder: of the masks, or one in it.
        prefix: what the names begin with.

    Raises:
        OSError: a folder cannot be read; one in it that may not be read is passed over.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except PermissionError:
        if not prefix:
            raise
        return
    for name, is_dir in names:
        if is_dir:
            if prefix or name != RESERVED:
                yield from walk(os.path.join(folder, name), f"{prefix}{name}/")  # noqa: PTH118 - a Path for each of millions is slow
        # A process that is killed may leave half a mask under such a name.
        elif name.endswith(".png") and not name.startswith(PARTIAL):
            yield prefix + name
