"""A folder in a store, through fsspec: listed, read, written, and asked again where that helps.

https://filesystem-spec.readthedocs.io
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import threading
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from petseg.errors import MissingPackageError, PetsegError, StoreError
from petseg.masks.reading import RESERVED
from petseg.photos.addresses import shown
from petseg.remote import kinds
from petseg.remote.asking import Asking, reason
from petseg.remote.kinds import CONNECTIONS
from petseg.remote.times import mtime_ns

# What a store says when bytes of an empty file are asked for.
_EMPTY = {"InvalidRange", 416}


class Entry(NamedTuple):
    """A file as a listing tells it: bytes, `times.mtime_ns`, and why it cannot be read, if so."""

    size: int
    mtime_ns: int
    problem: str | None = None


class Photos(Protocol):
    """Where photos can be had from; see `Store`, and `archives.Archives`."""

    address: str
    root: str
    retries: int
    connections: int
    closing: threading.Event

    def find(self, pattern: bool = False) -> dict[str, Entry]: ...

    def read(self, name: str, most: int) -> bytes: ...

    def tidy(self) -> None: ...


class Masks(Photos, Protocol):
    """Where masks go to, as well; see `Store`, and `packer.Packer`."""

    def put(self, name: str, data: bytes, replace: bool) -> None: ...

    def remove(self, name: str) -> None: ...


class Store(Asking):
    """A folder in a store; names are relative to it, with forward slashes.

    See `Asking` for how requests are made.
    """

    def __init__(self, address: str) -> None:
        """Nothing is asked of the store yet.

        Raises:
            MissingPackageError: fsspec, or what it needs for this kind of store, is not installed.
            PetsegError: there is no such kind of store, it cannot be reached, or it would give
                wrong bytes.
        """
        kinds.refuse(address)
        super().__init__(shown(address.rstrip("/")))
        self._folders: set[str] = set()
        self._temporary = f"{RESERVED}/tmp-{secrets.token_hex(4)}"
        scheme = kinds.links(address)[0]
        try:
            import fsspec
        except ImportError as error:
            raise MissingPackageError("fsspec", "remote", f"reading {self.address}") from error
        options: dict[str, Any] = {"skip_instance_cache": True}
        if scheme in ("s3", "s3a"):
            # What a user has set for fsspec comes first.  Requests are made again here, and
            # counted, whatever the store.
            ours = {"max_pool_connections": CONNECTIONS, "retries": {"total_max_attempts": 1}}
            theirs = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
            options["config_kwargs"] = ours | theirs
        try:
            self.fs, self.root = fsspec.url_to_fs(address, **options)
        except ImportError as error:
            if scheme in kinds.PACKAGES:
                purpose = f"reading {self.address}"
                raise MissingPackageError(kinds.PACKAGES[scheme], "remote", purpose) from error
            raise PetsegError(f"cannot use {self.address}: {error}") from error
        # Some connect at once, and raise what their library does.
        except Exception as error:
            raise PetsegError(f"cannot use {self.address}: {reason(error)}") from error
        self.root = self.root.rstrip("/")
        self._protocols = kinds.protocols(self.fs)
        self.one_put = bool(self._protocols & kinds.ONE_PUT)
        self._conditional = bool(self._protocols & kinds.CONDITIONAL)
        self.connections = kinds.connections(self.fs)

    def path(self, name: str) -> str:
        """What fsspec calls this file."""
        return f"{self.root}/{name}" if name else str(self.root)

    def find(self, pattern: bool = False) -> dict[str, Entry]:
        """All files below, by name, in the order of names; from one listing, which comes in pages.

        Args:
            pattern: the address may hold `*`, `?` and `[]`; names are relative to what is before.

        Raises:
            FileNotFoundError: there is no such bucket, say; a folder that is not there is empty.
            PermissionError: it may not be listed.
            StoreError: the store does not answer.
        """
        from fsspec import AbstractFileSystem

        options: dict[str, Any] = {"detail": True}
        if type(self.fs).find is AbstractFileSystem.find and not pattern:
            options["on_error"] = "raise"  # it would leave out folders that cannot be read
        self.fs.invalidate_cache()
        list_all = self.fs.glob if pattern else self.fs.find
        try:
            found = self.ask(lambda: list_all(self.root, **options))
            # It keeps every entry, and `exists` would answer out of it hours later.
            self.fs.invalidate_cache()
        except FileNotFoundError:
            if self.one_put:
                raise
            return {}
        if pattern:
            magic = min(place for mark in "*?[" if (place := self.root.find(mark)) >= 0)
            self._rise(self.root[:magic].rpartition("/")[0])
        self._one_by_one()
        files = {}
        for path, told in sorted(found.items()):
            info = told
            # A web server's listing tells no sizes.
            if not told or (told["type"] == "file" and told["size"] is None):
                info = self.ask(lambda path=path: self.fs.info(path))  # type: ignore[misc]
            if info["type"] == "file" and not path.endswith("/"):
                if path == self.root:  # a single file
                    self._rise(path.rpartition("/")[0])
                    return {path.rpartition("/")[2]: Entry(info["size"] or 0, mtime_ns(info))}
                name = path.removeprefix(f"{self.root}/")
                files[name] = Entry(info["size"] or 0, mtime_ns(info))
        return files

    def begin(self, root: str) -> None:
        """Be what another one of this address was when it had listed it, without a listing."""
        self._rise(root)
        self._one_by_one()

    def _one_by_one(self) -> None:
        # From here on requests are small, and are made again one by one.
        if "s3" in self._protocols:
            self.fs.retries = 1

    def entry(self, name: str) -> Entry | None:
        """A single file, without a listing; None where it is a folder.  Raises as `ask`."""
        info = self.ask(lambda: self.fs.info(self.path(name)))
        is_file = info["type"] == "file"
        return Entry(info["size"] or 0, mtime_ns(info)) if is_file else None

    def read(self, name: str, most: int) -> bytes:
        """The first `most` bytes of a file, or all where it has no more."""
        # With both ends no size is asked for first.
        path = self.path(name)
        try:
            return bytes(self.ask(lambda: self.fs.cat_file(path, start=0, end=most)))
        except StoreError as error:
            if kinds.told(error.__cause__) in _EMPTY:
                return b""
            raise

    def fetch(self, name: str, target: Path) -> None:
        """A whole file, however large, into one on this machine."""
        self.ask(lambda: self.fs.get_file(self.path(name), str(target)))

    def put(self, name: str, data: bytes, replace: bool) -> None:
        """Put a file there, whole or not at all.

        Args:
            name: of the file.
            data: its content.
            replace: whether one that is there is replaced.

        Raises:
            FileExistsError: one is there, and not to be replaced.
            FileNotFoundError: there is no such bucket, say.
            PermissionError: it may not be written.
            ImageError: no file there can have this name.
            StoreError: the store does not answer.
        """
        path = self.path(name)
        if self._conditional and not replace:
            try:
                self.ask(lambda: self.fs.pipe_file(path, data, mode="create"))
            except StoreError as error:
                if getattr(error.__cause__, "errno", None) != errno.ENOSYS:
                    raise
                self._conditional = False  # it speaks S3, but not this word of it
            else:
                return
        if not replace and self.ask(lambda: self._exists(path)):
            raise FileExistsError(errno.EEXIST, "there is a file already", path)
        if self.one_put:
            self.ask(lambda: self.fs.pipe_file(path, data))
            return
        part = self.path(f"{self._temporary}/{threading.get_ident()}.part")
        self._make_folder(part)
        self._make_folder(path)
        self.ask(lambda: self._write(part, data, path))

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""
        with contextlib.suppress(FileNotFoundError):
            self.ask(lambda: self.fs.rm_file(self.path(name)))

    def tidy(self) -> None:
        """Remove what only half-written files were for."""
        folder = self.path(self._temporary)
        if folder in self._folders:
            with contextlib.suppress(OSError, StoreError):
                self.ask(lambda: self.fs.rm(folder, recursive=True))

    def _rise(self, root: str) -> None:
        """Be the store of a folder above, in which a file or a pattern was named."""
        if self.address.endswith(self.root):
            self.address = self.address.removesuffix(self.root) + root
        self.root = root

    def _exists(self, path: str) -> bool:
        self.fs.invalidate_cache()  # of an earlier look at the folder, some would answer
        try:
            # `exists` would take a connection that dies for a file that is not there.
            self.fs.info(path)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno == errno.ENOENT:
                return False
            raise
        return True

    def _write(self, part: str, data: bytes, path: str) -> None:
        # One request: whether a move was made whose answer is lost, nothing tells.
        self.fs.pipe_file(part, data)
        self.fs.mv(part, path)

    def _make_folder(self, path: str) -> None:
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            self.ask(lambda: self.fs.makedirs(folder, exist_ok=True))
            self._folders.add(folder)
