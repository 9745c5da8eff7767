"""Memory that several processes see, and that is gone when the last of them is, however it ends."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from multiprocessing import shared_memory
from typing import Any


class SharedBuffer:
    """A block of bytes to hand to a child process among its arguments.

    On Linux it is an anonymous file: nothing has to clean up after a SIGKILL.  Elsewhere it is a
    named block of `multiprocessing.shared_memory`.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._block: shared_memory.SharedMemory | None = None
        if sys.platform == "linux":
            self._fd = os.memfd_create("petseg")
            os.ftruncate(self._fd, size)
            self._map = mmap.mmap(self._fd, size)
        else:
            self._block = shared_memory.SharedMemory(create=True, size=size)

    @property
    def memory(self) -> memoryview:
        """The bytes, writable, in every process that holds the buffer."""
        if self._block is not None:
            assert self._block.buf is not None
            return self._block.buf[: self.size]
        return memoryview(self._map)

    def close(self) -> None:
        """Let go of the memory; the process that made a named block removes it, too."""
        # Arrays that still look into it keep the mapping until they are gone.
        with contextlib.suppress(BufferError):
            (self._map if self._block is None else self._block).close()
        if self._block is None:
            os.close(self._fd)
        else:
            self._block.unlink()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._block is not None:
            return _attach_block, (self._block, self.size)
        from multiprocessing.reduction import DupFd

        return _attach_fd, (DupFd(self._fd), self.size)


def _attach_fd(duplicate: Any, size: int) -> SharedBuffer:
    buffer = SharedBuffer.__new__(SharedBuffer)
    buffer.size, buffer._block, buffer._fd = size, None, duplicate.detach()
    buffer._map = mmap.mmap(buffer._fd, size)
    return buffer


def _attach_block(block: shared_memory.SharedMemory, size: int) -> SharedBuffer:
    buffer = SharedBuffer.__new__(SharedBuffer)
    buffer.size, buffer._block = size, block
    return buffer
