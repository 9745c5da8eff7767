"""Telling an address in a store, `s3://bucket/photos` say, from a path on this machine."""

from __future__ import annotations

import glob
import os
import re
import sys
from pathlib import Path

# A scheme and what follows it, as RFC 3986, section 3.1; or a chain of fsspec's: `zip::s3://...`.
# A single letter is a drive of Windows'.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")
# User and password before a host, as RFC 3986, section 3.2.1; the last @ ends them.
_PASSWORD = re.compile(r"(?<=://)([^/?#:@]*):[^/?#]*@")
# How fsspec begins paths of this machine.
_HERE = re.compile(r"(file|local)://")

# What no name of a file or folder on Windows may hold, end with, or be: "Naming Files, Paths, and
# Namespaces", learn.microsoft.com.  A colon would name a drive or a stream, CON a device.
_NOT_ON_WINDOWS = re.compile(
    r"""[\\:*?"<>|\x00-\x1f] | [. ]$ | ^(con|prn|aux|nul|(com|lpt)[0-9\xb9\xb2\xb3])\ *(\.|$)""",
    re.IGNORECASE | re.VERBOSE,
)


def is_address(place: Path | str | None) -> bool:
    """Whether this names something in a store; a Path is always of this machine."""
    return isinstance(place, str) and _ADDRESS.match(place) is not None


def is_below(inner: str, outer: str) -> bool:
    """Whether an address is another one, or lies below it."""
    return f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")


def shown(address: str) -> str:
    """An address, or a line with some in it, for people and files: without the passwords."""
    return _PASSWORD.sub(r"\1:***@", address)


def overlap(images: str, masks: str) -> bool:
    """Whether one of two places, each a path or an address, may hold what belongs to the other.

    Args:
        images: a pattern may find all that lies below what is before its first mark.
        masks: a folder.
    """
    if glob.has_magic(images):
        images = re.split(r"[*?[]", images)[0].rpartition("/")[0]
    one, other = _place(images), _place(masks)
    return is_below(one, other) or is_below(other, one)


def _place(place: str) -> str:
    """What all names of one place have in common; of a path, where its links lead."""
    here = _HERE.match(place)
    if here is None and is_address(place):
        return place
    path = place if here is None else os.path.expanduser(place[here.end() :])  # noqa: PTH111 - Path's raises
    return Path(os.path.realpath(path)).as_posix()


def stays_below(name: str) -> bool:
    """Whether a name that a store tells, put behind a folder's, stays below that folder.

    A store's names are any text; `..`, an empty part, which some systems take for the root, and
    NUL, which ends a name for the operating system, would lead elsewhere.  On Windows so would
    backslashes and drives, and other names would be another's or a device's.
    """
    parts = name.split("/")
    if sys.platform == "win32" and any(map(_NOT_ON_WINDOWS.search, parts)):
        return False
    return "\0" not in name and not any(part in ("", ".", "..") for part in parts)
