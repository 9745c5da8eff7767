"""What petseg knows of fsspec's kinds of file system: how they are put to, and by how many threads.

fsspec says of none of them whether threads may share it.
"""

from __future__ import annotations

from typing import Any

from petseg.errors import PetsegError
from petseg.photos.addresses import shown

# How many requests one store may get at once.
CONNECTIONS = 64
# Object stores: a put replaces the whole object at once or not at all.  Elsewhere, over SFTP say,
# a file that is being written can be seen, and gets its name when it is whole.
CONDITIONAL = {"s3", "s3a", "gs", "gcs", "memory"}
ONE_PUT = CONDITIONAL | {"abfs", "abfss", "az", "oci", "oss"}
# Beside those that are asynchronous, which work in one thread of their own: each request has a
# file or a connection of its own, or waits for its turn, as in a zip file.
_SHARED = ONE_PUT | {"file", "local", "smb", "zip"}
# Asynchronous in name: they pass requests on to another file system, which need not be.
_PASSING_ON = {"dir", "generic", "reference", "async_wrapper", "asyncwrapper"}
# What petseg's own packages have to bring.
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}


def links(address: str) -> list[str]:
    """The schemes of an address, from the first on: of `zip://::s3://bucket/x.zip`, zip and s3."""
    return [link.partition("://")[0] for link in address.split("::")]


def refuse(address: str) -> None:
    """Refuse what would be read, but wrongly.

    Raises:
        PetsegError: a link of the chain is fsspec's tar, whose one open file all threads would
            move, so that a photo's bytes would be another's.
    """
    if "tar" in links(address):
        archive = shown(address.rpartition("::")[2])
        raise PetsegError(
            f"{shown(address)}: fsspec's tar:// gives wrong bytes to threads that read at the same "
            f"time; name the archive itself, {archive}, or a copy of it on this machine"
        )


def protocols(fs: Any) -> set[str]:
    """The schemes that a file system goes by."""
    found = fs.protocol
    return {found} if isinstance(found, str) else set(found)


def connections(fs: Any) -> int:
    """How many requests a file system may get at once.

    One, where it is not known that threads may share it: those of FTP, SFTP and others have a
    single connection, on which an answer meets whoever listens, or nobody.
    """
    names = protocols(fs)
    # Of the class: what caches passes on the attributes of what it caches.
    asynchronous = getattr(type(fs), "async_impl", False) and not names & _PASSING_ON
    return CONNECTIONS if asynchronous or names & _SHARED else 1


def told(error: BaseException | None) -> str | int | None:
    """The error's code in the store's words: Google's, or S3's behind what s3fs makes of it."""
    # Other libraries have an object of that name, which is an answer over HTTP.
    response = getattr(getattr(error, "__cause__", None), "response", None)
    words = response.get("Error", {}) if isinstance(response, dict) else {}
    code: str | int | None = words.get("Code") or getattr(error, "code", None)
    return code
