"""What may be anything: a pipe or a device is refused, never waited for; a time may be no time."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

# What a file system says of a name that it cannot take; other file systems take others.
BAD_NAME = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}

# Times further from 1970 than this, in seconds, no file here could have; it is the year 2242.
_MOST_SECONDS = 1 << 33

_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class NotRegularError(OSError):
    """A folder, a pipe, a socket or a device lies where a file was expected."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EINVAL, "not a regular file", path)


def possible_time(seconds: float) -> float:
    """A time that an archive tells, seconds since 1970; 0 for one that no file here could have."""
    # It may be "nan", of which no comparison holds.
    return seconds if abs(seconds) < _MOST_SECONDS else 0


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading bytes.

    Raises:
        NotRegularError: something else lies there.
        OSError: it cannot be opened.
    """
    return open(path, "rb", opener=_open)


def _open(path: str, flags: int) -> int:
    # Looked at first, because to open a device may be to do something with it; and once more when
    # it is open, because something else may lie there by then.
    _check(os.stat(path), path)  # noqa: PTH116 - a Path for each of millions is slow
    try:
        # A pipe that nobody writes to would be waited for without this flag.
        descriptor = os.open(path, _READ | getattr(os, "O_NONBLOCK", 0))
    except BlockingIOError:
        # A process that has a lease on it, a file server say, is asked to let go (fcntl(2),
        # "Leases"), which has to be waited for.
        descriptor = os.open(path, _READ)
    try:
        _check(os.fstat(descriptor), path)
    except NotRegularError:
        os.close(descriptor)
        raise
    return descriptor


def _check(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError(path)
