"""Locks on files, which end with the process that holds them, however it ends."""

from __future__ import annotations

import sys
from typing import IO, Any


def lock(file: IO[Any]) -> bool:
    """Lock a file, as long as it is open, against every other process that asks.

    Args:
        file: open for writing: NFS locks no other (flock(2)).

    Returns:
        Whether it is locked.  Some network file systems have no locks, and Windows no fcntl.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True
