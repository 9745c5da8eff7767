"""Where half-written files lie, so that whatever has its real name is whole."""

from __future__ import annotations

import contextlib
import glob
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from petseg.errors import PetsegError
from petseg.system.locks import lock

PARTIAL = ".partial-"

_PREFIX = "tmp-"
# Held by the process that a temporary folder belongs to.
_LOCK = "lock"
# Where no lock can tell whether somebody is at work, what is older than this is nobody's: a run
# that works puts files there all the time.
_ABANDONED_SECONDS = 24 * 3600
# A file that has just been made, or written, may have no lock although somebody is at work.
_UNLOCKED_SECONDS = 10
# How often a folder is made again that was removed before a file could be put there.
_TIMES = 100


@contextlib.contextmanager
def replacing(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """A name to write to, which then takes the place of `path`: that is whole or as it was.

    Args:
        path: what is to be written.
        temporary: a `temporary_folder` on the same file system, where what a process that is killed
            leaves is swept; without it the name is one beside `path`.
    """
    # Nobody else's, on whatever machine; the ending stays: some writers choose the format by it.
    name = f"{PARTIAL}{secrets.token_hex(4)}-{path.name}"
    part = path.with_name(name) if temporary is None else temporary / name
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes, temporary: Path | None = None) -> None:
    """Write a file as with `replacing`, and leave nothing, also where no run sweeps.

    Without a temporary folder, what processes that are gone left half-written of this one file is
    removed before.
    """
    if temporary is not None:
        with replacing(path, temporary) as part:
            part.write_bytes(content)
        return
    for left in path.parent.glob(f"{PARTIAL}{'[0-9a-f]' * 8}-{glob.escape(path.name)}"):
        # An error says that a process is at it, too: it holds the lock.
        with contextlib.suppress(OSError):
            with left.open("r+b") as file:
                # Between its making and its lock, and again before it is renamed, it has none.
                abandoned = _age(left) > _UNLOCKED_SECONDS and (lock(file) or old(left))
            if abandoned:
                left.unlink()
    with replacing(path) as part, part.open("wb") as file:
        with contextlib.suppress(BlockingIOError):
            lock(file)
        file.write(content)


def put(target: Path, data: bytes, temporary: Path) -> None:
    """Write a file that is whole or not there, and the folders above it.

    Args:
        target: where it goes.
        data: its content.
        temporary: a `temporary_folder` on the same file system.

    Raises:
        OSError: the file system refuses; nothing is left.
    """
    # Several machines may write here, whose process numbers meet.
    part = temporary / f"{secrets.token_hex(8)}.part"
    try:
        part.write_bytes(data)
        for again in range(_TIMES, -1, -1):
            try:
                # Its folder is nearly always there: made where putting the file failed.
                if again < _TIMES:
                    target.parent.mkdir(parents=True, exist_ok=True)
                part.replace(target)
            except (FileNotFoundError, FileExistsError):
                # Where masks go on to a store, folders are removed when they have become empty.
                if not again or not part.exists():
                    raise
            else:
                return
    except OSError:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A fresh folder in `parent`, removed at the end, after what dead processes left there.

    It lies on the masks' own file system, so that a rename out of it is atomic.

    Raises:
        PetsegError: `parent` cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            sweep(parent)
            folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{host()}-", dir=parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            file = stack.enter_context((folder / "claim").open("wb"))
            # A lock that nobody holds says that its process is gone: it gets that name when held.
            if lock(file):
                (folder / "claim").rename(folder / _LOCK)
        except OSError as error:
            raise PetsegError(f"cannot write to {parent}: {error.strerror}") from error
        yield folder


def sweep(parent: Path) -> None:
    """Remove what processes that are gone left half-written."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if _abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
    for file in parent.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):
            if old(file):
                file.unlink()


def _abandoned(folder: Path) -> bool:
    # Some network file systems keep their locks to each machine: a lock that is free says
    # something about this machine's processes alone.
    owner = folder.name.removeprefix(_PREFIX).rpartition("-")[0]
    try:
        with (folder / _LOCK).open("r+b") as file:
            return (lock(file) and owner == host()) or old(folder)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return old(folder)


def old(path: Path) -> bool:
    """Whether a file or folder is nobody's, as far as its time tells."""
    return _age(path) > _ABANDONED_SECONDS


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def host() -> str:
    """What this machine is called, as a part of file names."""
    return socket.gethostname().replace("/", "_")
