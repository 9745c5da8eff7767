"""Disks that are full or fail: real ones of a few kilobytes, and errors that are injected.

Errors that no small disk gives, EIO say, come from a library that is loaded before libc and stands
between the command and it: what petseg does with them is all real.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Calls on files whose path holds $FAIL_IN give the error $FAIL_WITH, those named in $FAIL_CALLS,
# once there have been $FAIL_AFTER of them in a process.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fails(const char *call, const char *path) {
    static int calls;
    const char *in = getenv("FAIL_IN"), *which = getenv("FAIL_CALLS");
    if (!in || !which || !path || !strstr(path, in) || !strstr(which, call)) return 0;
    if (__sync_fetch_and_add(&calls, 1) < atoi(getenv("FAIL_AFTER"))) return 0;
    errno = atoi(getenv("FAIL_WITH"));
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                           \
        va_list more;                                                       \
        va_start(more, flags);                                              \
        mode_t mode = va_arg(more, mode_t);                                 \
        va_end(more);                                                       \
        if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && fails("open", path)) \
            return -1;                                                      \
        return NEXT(name)(path, flags, mode);                               \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int file, const void *data, size_t size) {
    char link[64], path[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    if (readlink(link, path, sizeof path - 1) > 0 && fails("write", path)) {
        /* As a disk does that has room for a part. */
        int error = errno;
        if (size > 1) NEXT(write)(file, data, size / 2);
        errno = error;
        return -1;
    }
    return NEXT(write)(file, data, size);
}

int rename(const char *from, const char *to) {
    return fails("rename", to) ? -1 : NEXT(rename)(from, to);
}

int mkdir(const char *path, mode_t mode) {
    return fails("mkdir", path) ? -1 : NEXT(mkdir)(path, mode);
}
"""


def failing(where: str | Path, calls: str, code: int, after: int) -> dict[str, str]:
    """The environment of a command some of whose calls fail.

    Args:
        where: a part of the paths whose calls fail.
        calls: which, of "open" (for writing), "write", "rename" and "mkdir".
        code: the error, of `errno`.
        after: so many go well before, in each process.
    """
    return os.environ | {
        "LD_PRELOAD": str(_library()),
        "FAIL_IN": str(where),
        "FAIL_CALLS": calls,
        "FAIL_WITH": str(code),
        "FAIL_AFTER": str(after),
    }


@functools.cache
def _library() -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("errors are injected by a library for Linux, which takes a C compiler")
    folder = Path(tempfile.mkdtemp(prefix="petseg-failing-"))
    source, library = folder / "failing.c", folder / "failing.so"
    source.write_text(_SOURCE)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


@contextlib.contextmanager
def small_disk(place: Path, options: str) -> Iterator[None]:
    """A file system in memory at `place`, of the size that `options` say (tmpfs(5))."""
    place.mkdir()
    remount(place, options, new=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def remount(place: Path, options: str, new: bool = False) -> None:
    """Make it larger, or read-only; or make it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may mount a file system, on Linux")
    what = ["-t", "tmpfs", "-o", options] if new else ["-o", f"remount,{options}"]
    done = subprocess.run(
        ["mount", *what, "tmpfs", str(place)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted: {done.stderr}")


FULL, QUOTA, BROKEN, READ_ONLY = errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS
