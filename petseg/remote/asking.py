"""Requests to a store: in turns where it wants them so, and again where that helps."""

from __future__ import annotations

import contextlib
import errno
import random
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from petseg.errors import ImageError, StoreError
from petseg.photos.addresses import shown
from petseg.remote import kinds
from petseg.remote.kinds import CONNECTIONS

T = TypeVar("T")

# Seconds until a request is made again; each by half as much more or less, so that many that were
# refused together do not come back together.
_WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
# What asking again does not change.
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError)
_FINAL_NUMBERS = {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOTDIR}
_BAD_NAME = {errno.ENAMETOOLONG, errno.EILSEQ}


class Asking:
    """What makes requests to one store, from any thread.

    Attributes:
        address: the store's, for messages: without a password.
        retries: requests that were made again, because the store was busy or a connection died.
        closing: once set, nothing is asked again.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.retries = 0
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self.connections = CONNECTIONS

    @property
    def connections(self) -> int:
        """How many requests the store may get at once; others wait for their turn."""
        return self._connections

    @connections.setter
    def connections(self, most: int) -> None:
        self._connections = most
        self._turn: contextlib.AbstractContextManager[Any] = (
            threading.Lock() if most == 1 else contextlib.nullcontext()
        )

    def ask(self, request: Callable[[], T]) -> T:
        """Make a request, and again where the store is busy or the connection died.

        Raises:
            FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError: asking again
                would change nothing.
            ImageError: no file there can have the name that is asked for.
            StoreError: nor does it help.
        """
        for wait in (*_WAITS, None):
            try:
                with self._turn:
                    return request()
            except _FINAL:
                raise
            # fsspec says nothing about what its file systems raise: each has its library's own.
            except Exception as error:
                if kinds.told(error) == "PreconditionFailed":
                    raise FileExistsError(errno.EEXIST, "there is a file already") from error
                # gcsfs has no class of its own for it.
                if kinds.told(error) == 403 or str(error).startswith("Forbidden"):
                    raise PermissionError(errno.EACCES, str(error)) from error
                if isinstance(error, UnicodeError) or getattr(error, "errno", None) in _BAD_NAME:
                    raise ImageError(f"the store takes no such name: {error}") from error
                final = getattr(error, "errno", None) in _FINAL_NUMBERS
                final = final or "Credentials" in type(error).__name__
                if final or wait is None or self.closing.is_set():
                    raise StoreError(f"{self.address}: {reason(error)}") from error
            with self._lock:
                self.retries += 1
            self.closing.wait(wait * random.uniform(0.5, 1.5))
        raise AssertionError("the last time returns or raises")


def reason(error: Exception) -> str:
    """What an error says, in a line."""
    return shown(f"{type(error).__name__}: {error}" if str(error) else repr(error))
