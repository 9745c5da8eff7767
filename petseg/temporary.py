"""Where half-written files lie, so that whatever has its real name is whole."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from petseg.errors import PetsegError
from petseg.locks import lock

PARTIAL = ".partial-"

_PREFIX = "tmp-"
# Held by the process that a temporary folder belongs to.
_LOCK = "lock"
# Where no lock can tell whether somebody is at work, what is older than this is nobody's: a run
# that works puts files there all the time.
_ABANDONED_SECONDS = 24 * 3600


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to, which then takes the place of `path`: that is whole or as it was."""
    # Nobody else's, on whatever machine; the ending stays: some writers choose the format by it.
    temporary = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
            folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{_host()}-", dir=parent))
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
            if _old(file):
                file.unlink()


def _abandoned(folder: Path) -> bool:
    # Some network file systems keep their locks to each machine: a lock that is free says
    # something about this machine's processes alone.
    host = folder.name.removeprefix(_PREFIX).rpartition("-")[0]
    try:
        with (folder / _LOCK).open("r+b") as file:
            return (lock(file) and host == _host()) or _old(folder)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return _old(folder)


def _old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _ABANDONED_SECONDS


def _host() -> str:
    return socket.gethostname().replace("/", "_")
