"""Photos in archives, `.tar` and `.zip`: listed once, and read where they lie, nothing unpacked.

Those of this machine; `brought` brings here those in a store.
"""

from __future__ import annotations

import calendar
import functools
import glob
import lzma
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from petseg.errors import ImageError, PetsegError
from petseg.photos import sources
from petseg.photos.addresses import is_address, shown
from petseg.remote.kinds import CONNECTIONS
from petseg.remote.store import Entry
from petseg.system.files import open_regular, possible_time

SUFFIXES = (".tar", ".zip")
_COMPRESSED = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz"),
    *(".tar.zst", ".tzst", ".tar.lz4"),
)
# Of zip files, whose directories are not read again for each photo; each is an open file.
_MOST_OPEN = 64
# What Python's modules raise of bytes that are no archive's, and not all of it is documented: text
# that is none (ValueError), numbers that do not fit, lengths beyond the memory, kinds of packing
# and encryption that are unknown (RuntimeError).
_DAMAGED = (
    *(OSError, EOFError, ValueError, OverflowError, MemoryError, RuntimeError, struct.error),
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


class _Place(NamedTuple):
    """Where a member lies: in a tar file at an offset, in a zip file under a name."""

    archive: Path
    offset: int
    member: str


class Archives:
    """The files in one archive, or in all that a pattern finds; see `store.Store`.

    In one archive names are the members'; of several, each archive's name without its suffix stands
    before them, as if it were a folder: `shard-000/x.jpg`.

    Attributes:
        address: the folder that the archives lie in, for messages.
        root: nothing, since names say all.
        retries: none.
        connections: all threads at once.
        closing: is for those that wait; nobody does here.
    """

    def __init__(self, images: str) -> None:
        """Nothing is read yet."""
        self.images = images
        self.address, self.root = str(sources.root(images)), ""
        self.retries, self.connections = 0, CONNECTIONS
        self.closing = threading.Event()
        self._places: dict[str, _Place] = {}
        self._zip = functools.lru_cache(_MOST_OPEN)(zipfile.ZipFile)

    def find(self, pattern: bool = False) -> dict[str, Entry]:
        """All files, by name, in the order of names.

        Raises:
            PetsegError: an archive cannot be read, or holds a name twice; or there is no file.
        """
        del pattern  # it is a pattern where it looks like one
        found: dict[str, Entry] = {}
        for archive, prefix in self._archives():
            try:
                for member, entry, offset in _members(archive):
                    name = prefix + member
                    if name in found:
                        raise PetsegError(
                            f"{archive} holds {member} twice, or another archive has its name: "
                            "pack or name them anew, so that each photo has a mask of its own"
                        )
                    found[name] = entry
                    self._places[name] = _Place(archive, offset, member)
            except _DAMAGED as error:
                reason = str(error) or type(error).__name__
                raise PetsegError(f"cannot read the archive {archive}: {reason}") from error
        if not found:
            raise PetsegError(f"there are no files in {shown(self.images)}: it is empty")
        return dict(sorted(found.items()))

    def _archives(self) -> Iterator[tuple[Path, str]]:
        """Each archive, and what stands before the names of its members."""
        if Path(self.images).exists():
            yield Path(self.images), ""
            return
        for match in sorted(glob.glob(self.images, recursive=True)):  # noqa: PTH207 - the pattern may be absolute
            yield Path(match), folder_of(Path(match).relative_to(self.address))

    def read(self, name: str, most: int) -> bytes:
        """The first `most` bytes of a file; from any thread.

        Raises:
            ImageError: the archive does not give it.
        """
        place = self._places[name]
        try:
            if place.archive.suffix.lower() == ".tar":
                with open_regular(place.archive) as file:
                    file.seek(place.offset)
                    # In a tar file the next one follows at once.
                    return file.read(most - 1)
            with self._zip(place.archive).open(place.member) as member:
                return member.read(most)
        except _DAMAGED as error:
            reason = str(error) or type(error).__name__
            raise ImageError(f"cannot be read from {place.archive}: {reason}") from error

    def tidy(self) -> None:
        """Close what is open."""
        self._zip.cache_clear()


def are(images: str) -> bool:
    """Whether this is an archive, or a pattern that finds nothing else.

    Raises:
        PetsegError: it is, and a compressed one.
    """
    path = Path(images)
    if path.is_file() or glob.has_magic(images):
        _refuse_compressed(images)
    if path.exists():
        return path.is_file() and path.suffix.lower() in SUFFIXES
    found = False
    # One by one: a pattern that finds millions of photos has an answer at the first.
    for one in glob.iglob(images, recursive=True) if glob.has_magic(images) else ():  # noqa: PTH207 - the pattern may be absolute
        if Path(one).suffix.lower() not in SUFFIXES:
            return False
        found = True
    return found


def in_store(images: str) -> bool:
    """Whether this is an archive in a store, or a pattern of such, as far as its name tells.

    A chain of fsspec's, with `::`, is what it says: it reads archives in its own way.

    Raises:
        PetsegError: it is, and a compressed one.
    """
    if not is_address(images) or "::" in images:
        return False
    _refuse_compressed(images)
    return images.lower().endswith(SUFFIXES)


def folder_of(archive: PurePath) -> str:
    """Of several archives, what stands before the names of this one's members."""
    return f"{archive.with_suffix('').as_posix()}/"


def photos_here(images: str) -> Path | None:
    """The folder on this machine that names of photos are relative to.

    Args:
        images: as `BatchConfig.images`.

    Returns:
        None where photos lie in a store or in archives, and where there is nothing.
    """
    if is_address(images) or are(images):
        return None
    if not Path(images).exists() and not glob.has_magic(images):
        return None
    folder = sources.root(images)
    return folder if folder.is_dir() else None


def _refuse_compressed(images: str) -> None:
    if images.lower().endswith(_COMPRESSED):
        raise PetsegError(
            f"{shown(images)} is compressed as a whole, and nothing can be read from its middle: "
            "unpack it to a .tar (gunzip, bunzip2, unxz or zstd -d), or to a folder"
        )


def _members(archive: Path) -> Iterator[tuple[str, Entry, int]]:
    """Name and entry of each file, and in a tar file where its bytes begin."""
    return _in_tar(archive) if archive.suffix.lower() == ".tar" else _in_zip(archive)


def _in_zip(archive: Path) -> Iterator[tuple[str, Entry, int]]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            # Not `is_dir`, which takes for granted that there is a name.
            if info.filename.endswith("/"):
                continue
            try:
                # Without a time zone: wherever it is read, the number is the same.
                seconds = calendar.timegm((*info.date_time, 0, 0, 0))
            except ValueError:
                seconds = 0  # some programs leave it empty, and there is no month 0
            yield info.filename, Entry(info.file_size, seconds * 10**9), 0


def _in_tar(archive: Path) -> Iterator[tuple[str, Entry, int]]:
    files: dict[str, tuple[Entry, int]] = {}
    # Without compression alone: with it nothing in the middle could be read.
    with open_regular(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.isdir():
                continue
            name = member.name.removeprefix("./")
            if member.islnk():
                # A second name of a file that came before.
                target = files.get(member.linkname.removeprefix("./"))
                entry, offset = target or (Entry(0, 0, "a link to no file before it"), 0)
            else:
                entry, offset = _entry(member), member.offset_data
            files[name] = entry, offset
            yield name, entry, offset
        # The module takes a damaged header for the end, which has to be a block of zeros.
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"expected a file's header at byte {tar.offset}, found none")


def _entry(member: tarfile.TarInfo) -> Entry:
    problem = None
    if member.issym():
        problem = "a symbolic link: pack the file itself, with tar's --dereference"
    elif not member.isreg() or member.size < 0:
        problem = "not a regular file"
    elif member.sparse is not None:
        problem = "packed without the holes in it: pack it anew, without tar's --sparse"
    return Entry(member.size, int(possible_time(member.mtime) * 1e9), problem)
