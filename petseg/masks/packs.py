"""Shards of masks: tar files in a folder of masks, `masks-000000.tar` and on, and what they hold.

They are plain tar files (POSIX.1-2001, "pax Interchange Format"), as WebDataset's.  One that a run
is still at, or was when it was killed, ends in `.part` and counts as far as its members are whole.
Where a name is in several, the highest number counts; within one, the last member, as in any tar.
"""

from __future__ import annotations

import contextlib
import os
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from petseg.errors import PetsegError
from petseg.photos.addresses import stays_below
from petseg.system.files import open_regular, possible_time

_NAME = re.compile(r"masks-([0-9]{6,})(?:\.tar|\.(.+)-[0-9a-f]{8}\.part)")


class Pack(NamedTuple):
    """A tar file of masks.

    Attributes:
        number: its own.
        path: where it lies.
        host: of the run that is at it, or was; None where it is ended.
    """

    number: int
    path: Path
    host: str | None


class Member(NamedTuple):
    """Where a mask lies.

    Attributes:
        pack: the tar file, under the name that it had when it was looked at.
        offset, size: of the mask in it, bytes.
        mtime_ns: when it was put there, nanoseconds since 1970; tar files tell whole seconds.
        inode: the tar file's number in its file system; None while it is written here.
    """

    pack: Path
    offset: int
    size: int
    mtime_ns: int
    inode: int | None = None


@dataclass
class Contents:
    """What one tar file holds.

    Attributes:
        members: masks by name, the last of each.
        count: whole members, whatever they are.
        end: where the last of them ends, bytes.
        damaged: whether something else follows than the end of a tar file.
    """

    members: dict[str, Member] = field(default_factory=dict)
    count: int = 0
    end: int = 0
    damaged: bool = False


def tar_name(number: int) -> str:
    """The name of one that is ended."""
    return f"masks-{number:06}.tar"


def part_name(number: int, host: str, token: str) -> str:
    """The name of one that a run on `host` is at; `token` is eight hexadecimal digits."""
    return f"masks-{number:06}.{host}-{token}.part"


def number_of(path: Path) -> int:
    """The number of one of these."""
    match = _NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def is_name(name: str) -> bool:
    """Whether a file of this name, without folders, is one of these."""
    return _NAME.fullmatch(name) is not None


def find(folder: Path) -> list[Pack]:
    """All of a folder, in the order in which they count; none where there is no such folder.

    Raises:
        OSError: the folder cannot be looked into.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a Path for each of millions is slow
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = filter(None, map(_NAME.fullmatch, names))
    return sorted(Pack(int(match[1]), folder / match[0], match[2]) for match in matches)


def index(folder: Path) -> dict[str, Member]:
    """All masks in a folder's tar files, by name, the one that counts of each.

    Raises:
        PetsegError: one of them is damaged or cannot be read.
    """
    found: dict[str, Member] = {}
    try:
        for pack in find(folder):
            contents = look(pack.path)
            if contents.damaged and pack.host is None:
                raise PetsegError(
                    f"{pack.path} is damaged: a tar file is expected, and behind its first "
                    f"{contents.count} members, at byte {contents.end}, is something else; restore "
                    "it, or move it away and have its masks made again"
                )
            found |= contents.members
    except OSError as error:
        raise PetsegError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    return found


def look(path: Path) -> Contents:
    """Read a tar file as far as its members are whole.

    It may come from anywhere: links and names that lead elsewhere are no masks.

    Raises:
        OSError: it cannot be read.
    """
    found = Contents()
    with _opened(path) as file:
        status = os.fstat(file.fileno())
        size, inode = status.st_size, status.st_ino
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                # The place behind a member whose size is wrong may even lie before it.
                while (member := tar.next()) and found.end < tar.offset <= size:
                    # It would keep them all.
                    tar.members.clear()  # type: ignore[attr-defined]
                    found.end, found.count = tar.offset, found.count + 1
                    name = member.name.removeprefix("./")
                    plain = member.isreg() and member.sparse is None and member.size >= 0
                    if plain and name.endswith(".png") and stays_below(name):
                        made = int(possible_time(member.mtime)) * 10**9
                        place = Member(path, member.offset_data, member.size, made, inode)
                        found.members[name] = place
        # What begins to be a member and is none: a pax header of numbers that are none, say.
        except (tarfile.TarError, ValueError, OverflowError, RecursionError):
            pass
        file.seek(found.end)
        found.damaged = any(file.read(tarfile.BLOCKSIZE))
    return found


def read(member: Member, most: int) -> bytes:
    """The first `most` bytes of a mask, or all where it has no more.

    Raises:
        OSError: they cannot be read.
    """
    with _opened(member.pack, member.inode) as file:
        file.seek(member.offset)
        return file.read(min(most, member.size))


def _opened(path: Path, inode: int | None = None) -> BinaryIO:
    """Open a tar file that may have been ended since, or taken over, and has another name then.

    Args:
        path: where it was.
        inode: its number in the file system, if known: two runs may have had one number of
            petseg's, and one of them has got another.
    """
    try:
        return open_regular(path)
    except FileNotFoundError:
        number = path.name.partition(".")[0]
        for pack in find(path.parent):
            with contextlib.suppress(FileNotFoundError):
                if inode is None:
                    same = pack.path.name.partition(".")[0] == number
                else:
                    same = pack.path.stat().st_ino == inode
                if same:
                    return open_regular(pack.path)
        raise
