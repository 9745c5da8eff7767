"""Files whose reading never ends, for real."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

# The part of FUSE's protocol that a file system of one file needs: linux/fuse.h, version 7.31.
_GETATTR, _OPEN, _READ, _INIT = 3, 14, 15, 26
_HEAD = struct.Struct("=IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
_ANSWER = struct.Struct("=IiQ")
_NOT_IMPLEMENTED = -38
# Requests that have no answer: FORGET, INTERRUPT, BATCH_FORGET; and the one that shall have none.
_SILENT = (2, 36, 42, _READ)
# umount2(2): to end what waits for an answer, and to go although somebody is there.
_FORCE, _DETACH = 1, 2


@contextlib.contextmanager
def leased(path: Path) -> Iterator[None]:
    """A process that wants to open the file waits for us to give a lease back (fcntl(2)).

    Linux does not wait for ever, but for 45 seconds, unless told otherwise.
    """
    if sys.platform != "linux":
        pytest.skip("leases are Linux's")
    import fcntl
    import signal

    handler = signal.signal(signal.SIGIO, signal.SIG_IGN)
    with path.open("r+b") as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"this file system has no leases: {error}")
        yield
    signal.signal(signal.SIGIO, handler)


@contextlib.contextmanager
def dead_mount(path: Path, size: int) -> Iterator[None]:
    """Mount a file of `size` bytes at `path`, whose content is asked for and never comes.

    As from a network share that is gone: not even SIGKILL ends a process that waits for it.
    """
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=100644,user_id={os.getuid()},group_id={os.getgid()}"
    place = os.fsencode(path)
    if libc.mount(b"petseg", place, b"fuse", 0, options.encode()):
        os.close(device)
        pytest.skip(f"nothing can be mounted: {os.strerror(ctypes.get_errno())}")
    server = threading.Thread(target=_serve, args=(device, size))
    server.start()
    try:
        yield
    finally:
        libc.umount2(place, _FORCE)
        libc.umount2(place, _DETACH)
        server.join()
        os.close(device)


def _serve(device: int, size: int) -> None:
    while True:
        try:
            request = os.read(device, 1 << 17)
        except OSError:
            return  # unmounted
        _, opcode, unique, *_ = _HEAD.unpack_from(request)
        error, answer = 0, b""
        if opcode == _INIT:
            answer = struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0)
        elif opcode == _GETATTR:
            times = (0, 0, 0, 0, 0, 0)
            answer = struct.pack("=QII", 3600, 0, 0)
            answer += struct.pack("=QQQQQQIIIIIIIIII", 1, size, 1, *times, 0o100644, 1, *[0] * 5)
        elif opcode == _OPEN:
            answer = struct.pack("=QII", 1, 0, 0)
        elif opcode in _SILENT:
            continue
        else:
            error = _NOT_IMPLEMENTED
        os.write(device, _ANSWER.pack(_ANSWER.size + len(answer), error, unique) + answer)
