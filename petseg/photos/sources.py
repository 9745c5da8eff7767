"""Where images come from: a folder, a file, a glob, or a list of paths."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from petseg.errors import PetsegError
from petseg.photos import imageio, lists
from petseg.system.files import open_regular


@dataclass(frozen=True, slots=True)
class Source:
    """One file that was found.

    Attributes:
        path: where to open it.
        name: its path below the input, with forward slashes; the mask's name comes from it.
        is_image: whether it claims to be an image, by its name or by its first bytes.
        problem: why it cannot be read, where that is known without opening it.
        size, mtime_ns: bytes, and nanoseconds since 1970, where a store has told them; None where
            the file is to be asked.
    """

    path: str
    name: str
    is_image: bool
    problem: str | None = None
    size: int | None = None
    mtime_ns: int | None = None


Wanted = Callable[[str], bool]


def everything(name: str) -> bool:
    """Wants every file."""
    del name
    return True


def find(
    images: str,
    list_file: Path | str | None = None,
    list_key: str | None = None,
    wanted: Wanted = everything,
) -> Iterator[Source]:
    """Everything below `images`, in the order of names; or what `list_file` names there.

    Args:
        images: a folder, a file, or a glob pattern (`**` reaches into subfolders).
        list_file: paths below `images`: one a line, one of Oxford's lists, or a table that
            `lists.read_table` reads.
        list_key: what the paths are called in a table; None for the first of `lists.KEYS`.
        wanted: by their names, which files are looked at; of others nothing but the name is known,
            because to look at each of millions takes a file server its time.

    Raises:
        PetsegError: there is no such folder or file, or the pattern matches nothing.  What is
            wrong with a list shows as it is read.
    """
    if list_file is not None:
        return _from_list(Path(images), Path(list_file), list_key, wanted)
    path = Path(images)
    if path.is_dir():
        return _walk(images, "", (), wanted)
    if path.exists() or path.is_symlink():
        return iter([_source(images, path.name, wanted)])
    if glob.has_magic(images):
        return _from_glob(images, wanted)
    raise PetsegError(f"there is no folder, file or pattern {images}")


def root(images: str) -> Path:
    """The folder that names are relative to."""
    path = Path(images)
    if path.is_dir():
        return path
    if not path.exists() and glob.has_magic(images):
        parts = path.parts
        fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        return Path(*parts[:fixed])
    return path.parent


def would_find(images: str, folder: Path, names: Iterable[str]) -> str | None:
    """The first of the files `names` below `folder` that `images`, a glob, finds once it is there.

    None where it finds none of them, and where `images` is a folder or a file.
    """
    if Path(images).exists() or not glob.has_magic(images):
        return None
    base = root(images)
    try:
        above = folder.resolve().relative_to(base.resolve()).parts
    except ValueError:
        return None
    pattern = Path(images).parts[len(base.parts) :]
    return next((name for name in names if _matches(pattern, (*above, *name.split("/")))), None)


def _matches(pattern: tuple[str, ...], names: tuple[str, ...]) -> bool:
    """The rules of `glob.glob(recursive=True)`: hidden names are found by a dot alone."""
    if not pattern or not names:
        return pattern in ((), ("**",)) and not names
    part, rest = pattern[0], pattern[1:]
    hidden = names[0].startswith(".") and not part.startswith(".")
    if part == "**" and _matches(rest, names):
        return True
    if hidden or not (part == "**" or fnmatch.fnmatchcase(names[0], part)):
        return False
    return _matches(pattern if part == "**" else rest, names[1:])


def _walk(
    folder: str, prefix: str, above: tuple[tuple[int, int], ...], wanted: Wanted
) -> Iterator[Source]:
    try:
        status = os.stat(folder)  # noqa: PTH116 - a Path for each of millions is slow
        here = (status.st_dev, status.st_ino)
        if here in above:
            return  # a link to a folder that is already being walked
        with os.scandir(folder) as entries:
            names = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError as error:
        if not prefix:
            raise PetsegError(f"cannot read the folder {folder}: {error.strerror}") from error
        yield Source(folder, prefix, True, f"the folder cannot be read: {error.strerror}")
        return
    for name, is_dir in names:
        path = os.path.join(folder, name)  # noqa: PTH118 - as above
        if is_dir:
            yield from _walk(path, f"{prefix}{name}/", (*above, here), wanted)
        else:
            yield _source(path, prefix + name, wanted)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link in a circle, or into a folder that may not be entered


def _source(path: str, name: str, wanted: Wanted) -> Source:
    claims = imageio.looks_like_image(name, b"")
    if not wanted(name):
        return Source(path, name, claims)
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - as above
        if not stat.S_ISREG(mode):
            return Source(path, name, claims, "not a regular file")
        if not claims:
            with open_regular(path) as file:
                claims = imageio.looks_like_image(name, file.read(16))
    except FileNotFoundError:
        link = os.path.islink(path)  # noqa: PTH114 - as above
        return Source(path, name, claims, "a broken link" if link else "no such file")
    except OSError as error:
        return Source(path, name, claims, f"cannot be read: {error.strerror}")
    return Source(path, name, claims)


def _from_glob(pattern: str, wanted: Wanted) -> Iterator[Source]:
    base = root(pattern)
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - the pattern may be absolute
    if not found:
        raise PetsegError(f"nothing matches {pattern}")
    return (
        _source(path, Path(path).relative_to(base).as_posix(), wanted)
        for path in found
        if not Path(path).is_dir()
    )


def _from_list(
    folder: Path, list_file: Path, list_key: str | None, wanted: Wanted
) -> Iterator[Source]:
    if not folder.is_dir():
        raise PetsegError(f"{folder} is not a folder; a list's paths are looked for below it")

    def exists(name: str) -> bool:
        return os.path.exists(folder / name)  # noqa: PTH110 - Path.exists raises where a name is too long

    done: set[str] = set()
    for listed in lists.read(list_file, list_key, folder, exists):
        found = _source(str(folder / listed), listed, wanted)
        if wanted(listed):
            # What is named twice is done once.
            if listed in done:
                continue
            done.add(found.name)
        # Whoever lists a file says that it is an image.
        yield Source(found.path, found.name, True, found.problem)
