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
from petseg.masks.png import CHUNK_END, CHUNK_HEAD, HEADER_BYTES, SIGNATURE, chunk, chunks
from petseg.masks.record import RECORD_VERSION, Record
from petseg.photos.imageio import DEFAULT_MAX_PIXELS, decode_grey
from petseg.system.files import open_regular

KEYWORD = b"petseg"

# Far above any record petseg writes.
_MAX_RECORD_BYTES = 65536
# Far above any mask petseg writes: a byte a pixel before it is packed, and photos have no more
# than `--max-pixels`, 250 million unless told.
MAX_MASK_BYTES = 1 << 31
# How every PNG ends.
_END = chunk(b"IEND", b"")
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
    CUT = "cut"  # begins as petseg's and was cut off, or was petseg's and is damaged: nobody's work
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
    if not (found.whole and found.sound):
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
        size = min(os.fstat(file.fileno()).st_size, MAX_MASK_BYTES)
        data = file.read(size + 1)
    if len(data) > MAX_MASK_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return data


def judge(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[MaskState, Record | None]:
    """`inspect` for the bytes of a file."""
    found = _walk(data)
    seal = found.seal
    # A file that is cut off lacks its end.  One that has it, and is damaged before it, was whole,
    # and may have been a person's.
    ends = found.whole or data[-12:-4] == _END[:8] or data.endswith(_END[8:])
    if seal is None:
        # A machine that loses its power may leave zeros in place of the content, or of its end.
        nobodys = not ends and _begins_as_ours(data.rstrip(b"\x00"))
        return (MaskState.CUT if nobodys else MaskState.FOREIGN), None
    if not ends:
        return MaskState.CUT, seal.record
    if not (found.whole and found.sound):
        ours = seal.data_crc32 in (found.data_crc32, found.first_data_crc32)
        return (MaskState.CUT if ours else MaskState.FOREIGN), seal.record
    # Another program may have packed the same pixels anew.
    same_data = found.data_crc32 == seal.data_crc32
    if same_data or _decoded_hash(data, max_pixels) == seal.pixels_sha256:
        return (MaskState.OTHER if seal.record is None else MaskState.OURS), seal.record
    return MaskState.FOREIGN, seal.record


def judge_head(head: bytes, size: int) -> tuple[MaskState, Record | None] | None:
    """`judge` from the first bytes of a file, where they and its length are enough.

    petseg writes the record and then all pixels in one chunk, whose length stands before it: so a
    mask of another length has been cut off or changed, and all of it has to be looked at.

    Args:
        head: the first bytes.
        size: of the whole file, bytes.

    Returns:
        None where all of the file is needed.
    """
    if len(head) >= size:
        return judge(head)
    texts = [found.data for found in chunks(head) if found.kind == b"tEXt" and found.sound]
    seal = _seal(texts[0]) if texts else None
    if seal is None:
        return None
    pixels = HEADER_BYTES + CHUNK_HEAD.size + len(texts[0]) + CHUNK_END.size
    if len(head) < pixels + CHUNK_HEAD.size:
        return None
    length, kind = CHUNK_HEAD.unpack_from(head, pixels)
    end = pixels + 2 * (CHUNK_HEAD.size + CHUNK_END.size) + length
    if kind != b"IDAT" or end != size:
        return None
    return (MaskState.OTHER if seal.record is None else MaskState.OURS), seal.record


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _begins_as_ours(data: bytes) -> bool:
    """Whether this may be the start of a mask of ours, up to a record that is not whole.

    What ends before that holds no pixel, and so nobody's work: an empty file, say.
    """
    kind = (b"tEXt" + KEYWORD + b"\x00")[: max(0, len(data) - _KIND.start)]
    return data[: len(SIGNATURE)] == SIGNATURE[: len(data)] and data[_KIND] == kind


def _decoded_hash(data: bytes, max_pixels: int) -> str | None:
    try:
        return hash_pixels(decode_grey(data, max_pixels))
    except ImageError:
        return None


@dataclass
class _Walk:
    """What stands in the chunks of a PNG.

    Attributes:
        seal: of our record; None where there is none, or it is damaged.
        data_crc32: CRC-32 of the pixel data as they are.
        first_data_crc32: what it was when they were written, where they are damaged since.
        whole: whether the last chunk is there.
        sound: whether none of them is damaged.
    """

    seal: _Seal | None = None
    data_crc32: int = 0
    first_data_crc32: int | None = None
    whole: bool = False
    sound: bool = True


def _walk(data: bytes) -> _Walk:
    """Read a PNG's chunks."""
    found = _Walk()
    for part in chunks(data):
        found.sound &= part.sound
        if part.kind == b"IDAT":
            found.data_crc32 = zlib.crc32(part.data, found.data_crc32)
            if not part.sound:
                # petseg writes all pixel data in one chunk.
                found.first_data_crc32 = part.first_data_crc32
        elif part.kind == b"tEXt" and part.sound:
            found.seal = _seal(part.data) or found.seal
        elif part.kind == b"IEND":
            found.whole = True
            break
    return found


def _seal(text: memoryview) -> _Seal | None:
    keyword, _, value = bytes(text[:_MAX_RECORD_BYTES]).partition(b"\x00")
    if keyword != KEYWORD or len(text) > _MAX_RECORD_BYTES:
        return None
    try:
        return _Seal.from_json(value.decode("ascii"))
    except ValueError:
        return None
