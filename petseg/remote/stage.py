"""Where photos and masks lie on this machine, on their way from a store and to one."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from petseg.errors import ImageError, PetsegError
from petseg.photos.addresses import shown
from petseg.remote.store import Entry
from petseg.system.files import BAD_NAME
from petseg.system.temporary import temporary_folder


class Stage:
    """A folder of the run's own: photos below `photos/`, masks as they will lie below `masks/`.

    Attributes:
        masks: the folder of masks on their way.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.masks, self._photos = folder, folder / "masks", folder / "photos"
        self.masks.mkdir()
        self._photos.mkdir()
        self._numbers = itertools.count()
        self._addresses: dict[str, str] = {}

    def stands_for(self, path: Path, address: str) -> None:
        """People are told the address where a path begins with this one; without a password."""
        self._addresses[str(path)] = address

    def shown(self, text: str) -> str:
        """A line for people: addresses in place of what is here for a while, and no passwords."""
        for path, address in self._addresses.items():
            text = text.replace(path, address)
        return shown(text)

    def write_photo(self, name: str, data: bytes, entry: Entry) -> str:
        """Put a photo down with the name and the time that it has in its store.

        What reads it finds the photo's identity as if it lay there; and resume compares that with
        the store's next listing.

        Returns:
            Its path, in a folder of its own.

        Raises:
            ImageError: no file here can have its name, or its time.
            PetsegError: it cannot be written: the disk is full, say.
        """
        path = self._photos / str(next(self._numbers)) / name.rpartition("/")[2]
        # Not with its parents: a fetch that comes after the run would make the stage anew.
        self._write(path, data, parents=False)
        try:
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
        except (OSError, OverflowError) as error:
            raise ImageError(
                f"no file here can have the time that its store tells: {error}"
            ) from error
        return str(path)

    def remove_photo(self, path: str) -> None:
        with contextlib.suppress(OSError):
            Path(path).unlink()
            Path(path).parent.rmdir()

    def write_mask(self, name: str, data: bytes) -> None:
        """Put a mask down that a format is to be made of; raises as `write_photo`."""
        self._write(self.masks / name, data, parents=True)

    def size(self, names: Iterable[str]) -> int:
        """Bytes of those of these masks and pictures that are here."""
        found = 0
        for name in names:
            with contextlib.suppress(OSError):
                found += (self.masks / name).stat().st_size
        return found

    def read(self, name: str) -> bytes:
        """A mask."""
        return (self.masks / name).read_bytes()

    def take(self, name: str) -> bytes | None:
        """A picture, which then is no longer here; None where it was not made."""
        try:
            data = self.read(name)
        except FileNotFoundError:
            return None
        self.remove_mask(name)
        return data

    def remove_mask(self, name: str) -> None:
        """Remove a mask or a picture, and the folders that it was the last one in."""
        path = self.masks / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for folder in path.relative_to(self.masks).parents[:-1]:
                (self.masks / folder).rmdir()

    def _write(self, path: Path, data: bytes, parents: bool) -> None:
        try:
            path.parent.mkdir(parents=parents, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            if error.errno in BAD_NAME:
                raise ImageError(f"no file here can have its name: {error.strerror}") from error
            raise PetsegError(
                f"cannot write {error.filename}: {error.strerror}; photos from a store lie there "
                "for a while: TMPDIR names another folder"
            ) from error


@contextmanager
def open_stage() -> Iterator[Stage]:
    """A stage below the system's folder for temporary files (TMPDIR), removed at the end.

    What runs that were killed left there is removed first.

    Raises:
        PetsegError: it cannot be written to, or the folder in it is somebody else's.
    """
    owner = os.getuid() if hasattr(os, "getuid") else None
    user = getpass.getuser() if owner is None else owner
    parent = Path(tempfile.gettempdir()) / f"petseg-{user}"
    try:
        parent.mkdir(mode=0o700, exist_ok=True)
        # Everybody may write to /tmp: whoever owns the folder could put other photos there.
        status = parent.lstat()
    except OSError as error:
        raise PetsegError(f"cannot write to {parent}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or owner not in (None, status.st_uid):
        raise PetsegError(f"{parent} is somebody else's; TMPDIR names another folder for it")
    with temporary_folder(parent) as folder:
        yield Stage(folder)
