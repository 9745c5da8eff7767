"""Oxford-IIIT Pet, downloaded once from its official address into the user's cache."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from petseg.errors import DatasetError

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30
_RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True)
class Archive:
    """A .tar.gz that holds one folder.

    Attributes:
        url: where it comes from.
        md5: of the file, in hex.
        folder: what it holds.
    """

    url: str
    md5: str
    folder: str


# https://www.robots.ox.ac.uk/~vgg/data/pets/; the checksums are those torchvision lists
# (torchvision/datasets/oxford_iiit_pet.py).
ARCHIVES = (
    Archive(
        "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
        "5c4f3ee8e5d25df40f4fd59a7f44e54c",
        "images",
    ),
    Archive(
        "https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz",
        "95a8c909bbe2e81eed6a22bccdf3f68f",
        "annotations",
    ),
)


def cache_folder() -> Path:
    """Where downloads are kept: petseg/ in XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "petseg"


def oxford_iiit_pet(root: Path | None = None, archives: Sequence[Archive] = ARCHIVES) -> Path:
    """The data set's folder, downloaded and unpacked where it is not there yet.

    A download that broke off goes on where it stopped.

    Args:
        root: where the data set goes; by default oxford-iiit-pet/ in `cache_folder`.
        archives: what it is made of.

    Raises:
        DatasetError: no network, a wrong checksum, a damaged archive, or no room on the disk.
    """
    root = root or cache_folder() / "oxford-iiit-pet"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for archive in archives:
            # The folder is renamed into place when it is whole.
            if not (root / archive.folder).is_dir():
                file = root / archive.url.rpartition("/")[2]
                _fetch(archive, file)
                _unpack(archive, file)
    except OSError as error:
        raise DatasetError(f"cannot keep the data set in {root}: {error}") from error
    return root


def _fetch(archive: Archive, file: Path) -> None:
    """Download to `file`, going on with what a broken download left."""
    if file.exists():
        return
    partial = file.with_name(f"{file.name}.part")
    # A log gets this line, and no bar.
    tqdm.write(f"downloading {archive.url}", file=sys.stderr)
    try:
        _download(archive.url, partial)
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DatasetError(
            f"cannot download {archive.url} ({reason}); run the same command again to go on, or "
            "get images.tar.gz and annotations.tar.gz on another machine, unpack both into one "
            "folder, and name it with --data DIR or PETSEG_DATA"
        ) from error
    with partial.open("rb") as data:
        found = hashlib.file_digest(data, "md5").hexdigest()
    if found != archive.md5:
        partial.unlink()
        raise DatasetError(
            f"{archive.url} has the MD5 checksum {found}, expected {archive.md5}; the download "
            "was removed: run the same command again"
        )
    partial.replace(file)


def _download(url: str, partial: Path) -> None:
    there = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if there and error.code == _RANGE_NOT_SATISFIABLE:
            return  # all of it is there
        raise
    with response:
        resumed = response.status == http.client.PARTIAL_CONTENT
        start = there if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with (
            partial.open("ab" if resumed else "wb") as file,
            tqdm(
                total=total,
                initial=start,
                desc=url.rpartition("/")[2],
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                disable=None,
            ) as bar,
        ):
            for chunk in _received(response):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and partial.stat().st_size < total:
            raise ConnectionError(f"the connection closed after {partial.stat().st_size} bytes")


def _received(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What comes.  An OSError on the way, ssl.SSLError say, is the network's and not the disk's."""
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except OSError as error:
        raise ConnectionError(f"the connection broke off: {error}") from error


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Only files, and only below `folder` (tarfile's own filters came with Python 3.11.4)."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise tarfile.TarError(f"{member.name} lies outside the archive's folder")
    content = tar.extractfile(member) if member.isfile() else None
    if content is not None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with content, target.open("wb") as file:
            shutil.copyfileobj(content, file)


def _unpack(archive: Archive, file: Path) -> None:
    unpacked = file.with_name(f"{archive.folder}.unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        with tarfile.open(file) as tar:
            for member in tar:
                _unpack_member(tar, member, unpacked)
        (unpacked / archive.folder).replace(file.with_name(archive.folder))
    except (tarfile.TarError, EOFError, FileNotFoundError) as error:
        raise DatasetError(
            f"cannot unpack {file}: {error}; remove it and run the same command again"
        ) from error
    shutil.rmtree(unpacked)
    file.unlink()
