"""Where half-written files lie, so that whatever has its real name is whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from petseg.errors import PetsegError

PARTIAL = ".partial-"

_PREFIX = "tmp-"
# Another machine's processes cannot be seen from here; what is older than this is nobody's.
_ABANDONED_SECONDS = 24 * 3600


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to, which then takes the place of `path`: that is whole or as it was."""
    # The ending stays: some writers choose the format by it.
    temporary = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A fresh folder in `parent`, removed at the end, after folders of dead processes.

    It lies on the masks' own file system, so that a rename out of it is atomic.

    Raises:
        PetsegError: `parent` cannot be written to.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        sweep(parent)
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{_host()}-{os.getpid()}-", dir=parent))
    except OSError as error:
        raise PetsegError(f"cannot write to {parent}: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove temporary folders whose process is gone."""
    for folder in parent.glob(f"{_PREFIX}*"):
        host, _, rest = folder.name.removeprefix(_PREFIX).rpartition("-")[0].rpartition("-")
        with contextlib.suppress(OSError):
            old = time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS
            if (host == _host() and rest.isdecimal() and not _alive(int(rest))) or old:
                shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    return socket.gethostname().replace("/", "_")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
