"""A store in memory that can be watched, slowed down and broken, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

# What a request is told of: "find", "read", "get" of a whole file, or "put", and a path.
Fault = Callable[[str, str], None]


class Watched(MemoryFileSystem):  # type: ignore[misc]
    """fsspec's memory file system; every request is noted and goes through `fault` first."""

    cachable = False
    requests: ClassVar[list[tuple[str, str]]] = []
    fault: ClassVar[Fault | None] = None
    lock = threading.Lock()

    def _request(self, verb: str, path: str) -> None:
        with self.lock:
            Watched.requests.append((verb, path))
        if Watched.fault is not None:
            Watched.fault(verb, path)

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        self._request("find", path)
        return super().find(path, *args, **options)

    def cat_file(self, path: str, *args: Any, **options: Any) -> Any:
        self._request("read", path)
        return super().cat_file(path, *args, **options)

    def get_file(self, rpath: str, *args: Any, **options: Any) -> Any:
        self._request("get", rpath)
        return super().get_file(rpath, *args, **options)

    def pipe_file(self, path: str, *args: Any, **options: Any) -> Any:
        self._request("put", path)
        return super().pipe_file(path, *args, **options)


@contextmanager
def watched() -> Iterator[type[Watched]]:
    """`memory://` is a `Watched`, and empty."""
    before = MemoryFileSystem.store, MemoryFileSystem.pseudo_dirs
    MemoryFileSystem.store, MemoryFileSystem.pseudo_dirs = {}, [""]
    Watched.requests, Watched.fault = [], None
    fsspec.register_implementation("memory", Watched, clobber=True)
    try:
        yield Watched
    finally:
        fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)
        MemoryFileSystem.store, MemoryFileSystem.pseudo_dirs = before
        Watched.fault = None


def at(path: str, failing: Callable[[], None], verb: str = "read") -> Fault:
    """A fault that meets one path alone."""

    def fault(found_verb: str, found: str) -> None:
        if (found_verb, found) == (verb, path):
            failing()

    return fault


def failing(times: int, error: Exception) -> Callable[[], None]:
    """Fails so many times, and then no more."""
    left = [times]

    def fail() -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return fail
