"""A tar file of masks that one run appends to, whole members alone, and that others may end."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
import tarfile
import time
from pathlib import Path
from typing import BinaryIO

from petseg.masks import packs
from petseg.masks.packs import Member, Pack
from petseg.system.locks import lock
from petseg.system.temporary import host, old

# Two blocks of zeros end a tar file.
_END = bytes(2 * tarfile.BLOCKSIZE)
# Windows renames no file that is open; elsewhere its lock keeps others off until it has its name.
_CLOSED_FIRST = sys.platform == "win32"
# What file systems without hard links say.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Part:
    """A tar file that this run appends to, alone."""

    def __init__(self, path: Path, file: BinaryIO, count: int = 0, size: int = 0) -> None:
        """Nothing is written yet.

        Args:
            path: the file.
            file: it, open for writing, unbuffered, and locked where there are locks.
            count: its members.
            size: where the last of them ends, bytes.
        """
        self.path, self.file, self.count, self.size = path, file, count, size

    def append(self, name: str, data: bytes) -> Member:
        """Add a mask, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        member = tarfile.TarInfo(name)
        member.size, member.mtime = len(data), int(time.time())
        head = member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        block = b"".join((head, data, bytes(-len(data) % tarfile.BLOCKSIZE)))
        self._write(block)
        place = Member(self.path, self.size + len(head), len(data), member.mtime * 10**9)
        self.size += len(block)
        self.count += 1
        return place

    def end(self) -> None:
        """Give it its name; one without members goes.

        Raises:
            OSError: it cannot be written.
        """
        with self.file:
            if self.count:
                self._write(_END)
                os.fsync(self.file.fileno())
            if not _CLOSED_FIRST:
                self._rename()
        if _CLOSED_FIRST:
            self._rename()

    def _rename(self) -> None:
        # Where nothing is locked, another run may have ended it by now.
        with contextlib.suppress(FileNotFoundError):
            if self.count:
                _give_number(self.path)
            else:
                self.path.unlink()

    def _write(self, data: bytes) -> None:
        """Put something behind the last member, whole or not at all."""
        try:
            # Of what failed before, something may be left.
            self.file.truncate(self.size)
            self.file.seek(self.size)
            rest = memoryview(data)
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            # Where that fails, too, whoever writes next does it.
            with contextlib.suppress(OSError):
                self.file.truncate(self.size)
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def _give_number(path: Path) -> None:
    """The name of a tar file that is ended: with its number, or, if that is taken, a later one.

    For a folder that is listed while a file in it gets another name may show neither name, and so
    two runs may have taken one number.

    Raises:
        FileNotFoundError: it is no longer there.
        OSError: it cannot be named.
    """
    number = packs.number_of(path)
    while True:
        target = path.with_name(packs.tar_name(number))
        try:
            # Never in another one's place, as a rename would.
            os.link(path, target)
            path.unlink()
            return
        except FileExistsError:
            number = max(pack.number for pack in packs.find(path.parent)) + 1
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not target.exists():
                path.rename(target)
                return
            number += 1


def create(folder: Path, number: int) -> Part | None:
    """A new tar file; None where another run was at the same in this moment.

    Of two that take a number, or one behind it, who comes second sees the other's; where both see
    one another's, both step aside.
    """
    path = folder / packs.part_name(number, host(), secrets.token_hex(4))
    file = path.open("xb", buffering=0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(file)
        # Before it was locked, a run that ends what others have left may have taken it for that.
        with contextlib.suppress(BlockingIOError):
            lock(file)
            if [pack.path for pack in packs.find(folder) if pack.number >= number] == [path]:
                stack.pop_all()
                return Part(path, file)
    path.unlink(missing_ok=True)
    return None


def take_over(pack: Pack) -> Part | None:
    """What a run has left; None where one may still be at it, or it is another user's."""
    if pack.host is None:
        return None
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(pack.path.open("r+b", buffering=0))
            ended = pack.path.with_name(packs.tar_name(pack.number))
            if ended.exists() and ended.samefile(pack.path):
                # Its run was killed before this name was gone.
                pack.path.unlink()
                return None
            # As with temporary folders: a lock that is free says something of this machine alone.
            if not (lock(file) and pack.host == host()) and not old(pack.path):
                return None
            token = secrets.token_hex(4)
            path = pack.path.with_name(packs.part_name(pack.number, host(), token))
            # Of several that want it, one succeeds.
            pack.path.rename(path)
        except (BlockingIOError, FileNotFoundError, PermissionError):
            return None
        found = packs.look(path)
        part = Part(path, file, found.count, found.end)
        stack.pop_all()
        return part
