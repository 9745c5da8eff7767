"""The record inside each mask: put there, found again, and what it says of the mask.

The record is JSON in a PNG text chunk right behind the header.  There is no second book: the
rename that puts the mask in place puts its record in place, and resume reads the mask itself.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petseg.errors import ImageError
from petseg.files import open_regular
from petseg.imageio import DEFAULT_MAX_PIXELS, decode_grey
from petseg.png import HEADER_BYTES, SIGNATURE, chunk, chunks
from petseg.record import RECORD_VERSION, Record

KEYWORD = b"petseg"

# Far above any record petseg writes.
_MAX_RECORD_BYTES = 65536
# Far above any mask petseg writes: a byte a pixel before it is packed, and photos have no more
# than `--max-pixels`, 250 million unless told.
_MAX_MASK_BYTES = 1 << 31
# Where a mask's text chunk says what it is, behind the PNG's signature, its header and a length.
_KIND = slice(37, 48)


@dataclass(frozen=True)
class _Seal:
    """What records of every version say, and the record where it is of this one."""

    pixels_sha256: str
    data_crc32: int
    record: Record | None

    @classmethod
    def from_json(cls, text: str) -> _Seal:
        """Raises ValueError where it is not a record of any version."""
        try:
            values: dict[str, Any] = json.loads(text)
            ours = values["version"] == RECORD_VERSION
            return cls(
                pixels_sha256=values["pixels_sha256"],
                data_crc32=values["data_crc32"],
                record=Record.from_json(text) if ours else None,
            )
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a record: {error}") from error


class MaskState(Enum):
    """What lies where a mask is to be written."""

    ABSENT = "absent"
    OURS = "ours"  # petseg's, every pixel as written
    OTHER = "other"  # as OURS, but its record is of another version of petseg
    CUT = "cut"  # begins as petseg's, but the file is not whole: nobody's work
    FOREIGN = "foreign"  # made or changed by someone else


def embed(png: bytes, record: Record) -> bytes:
    """Put a record into a freshly encoded PNG, behind its header."""
    text = KEYWORD + b"\x00" + record.to_json().encode("ascii")
    return b"".join((png[:HEADER_BYTES], chunk(b"tEXt", text), png[HEADER_BYTES:]))


def data_crc32(png: bytes) -> int:
    """CRC-32 over the compressed pixel data (all IDAT chunks) of a whole PNG.

    Raises:
        ValueError: not a PNG, or not whole.
    """
    found = _walk(png)
    if not found.whole:
        raise ValueError("not a whole PNG")
    return found.data_crc32


def hash_pixels(values: NDArray[np.uint8]) -> str:
    """SHA-256 of a mask's values (H, W) as they stand on disk."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def inspect(path: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[MaskState, Record | None]:
    """Tell what lies at a mask's place, and its record where there is one of this version.

    Args:
        path: the place.
        max_pixels: a mask of more is not decoded, and counts as somebody's where only that could
            show that it is petseg's.

    Raises:
        OSError: its folder may not be looked into.
    """
    try:
        return judge(read_bytes(path), max_pixels)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return MaskState.ABSENT, None  # writing it will fail, and say so
        # What is there and cannot be read is somebody's: a folder, a link that points nowhere, a
        # mask that only its owner may read.
        if _is_there(path):
            return MaskState.FOREIGN, None
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return MaskState.ABSENT, None
        raise


def read_bytes(path: Path) -> bytes:
    """The bytes of what may be a mask.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger than any mask of petseg's.
    """
    with open_regular(path) as file:
        # Room for the limit itself, made and given back for each file, takes longer than the rest.
        size = min(os.fstat(file.fileno()).st_size, _MAX_MASK_BYTES)
        data = file.read(size + 1)
    if len(data) > _MAX_MASK_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return data


def judge(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[MaskState, Record | None]:
    """`inspect` for the bytes of a file."""
    found = _walk(data)
    seal = found.seal
    if seal is None:
        begun = not found.whole and _begins_as_ours(data)
        return (MaskState.CUT if begun else MaskState.FOREIGN), None
    if not found.whole:
        return MaskState.CUT, seal.record
    # Another program may have packed the same pixels anew.
    same_data = found.data_crc32 == seal.data_crc32
    if same_data or _decoded_hash(data, max_pixels) == seal.pixels_sha256:
        return (MaskState.OTHER if seal.record is None else MaskState.OURS), seal.record
    return MaskState.FOREIGN, seal.record


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _begins_as_ours(data: bytes) -> bool:
    """Whether this may be the start of a mask of ours, up to a record that is not whole.

    What ends before that holds no pixel, and so nobody's work: an empty file, say, that a machine
    left when it lost its power.
    """
    kind = (b"tEXt" + KEYWORD + b"\x00")[: max(0, len(data) - _KIND.start)]
    return data[: len(SIGNATURE)] == SIGNATURE[: len(data)] and data[_KIND] == kind


def _decoded_hash(data: bytes, max_pixels: int) -> str | None:
    try:
        return hash_pixels(decode_grey(data, max_pixels))
    except ImageError:
        return None


@dataclass
class _Chunks:
    seal: _Seal | None = None
    data_crc32: int = 0
    whole: bool = False


def _walk(data: bytes) -> _Chunks:
    """Read a PNG's chunks: our record, a checksum of the pixel data, and whether it is whole."""
    found = _Chunks()
    for kind, content in chunks(data):
        if kind == b"IDAT":
            found.data_crc32 = zlib.crc32(content, found.data_crc32)
        elif kind == b"tEXt" and len(content) <= _MAX_RECORD_BYTES:
            found.seal = _seal(bytes(content)) or found.seal
        elif kind == b"IEND":
            found.whole = True
            break
    return found


def _seal(text: bytes) -> _Seal | None:
    keyword, _, value = text.partition(b"\x00")
    if keyword != KEYWORD:
        return None
    try:
        return _Seal.from_json(value.decode("ascii"))
    except ValueError:
        return None
