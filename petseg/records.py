"""The record inside each mask: what made it, and whether it is still what petseg wrote.

The record is JSON in a PNG text chunk right behind the header.  There is no second book: the
rename that puts the mask in place puts its record in place, and resume reads the mask itself.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import zlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petseg.errors import ImageError
from petseg.files import open_regular
from petseg.png import CHUNK_END, CHUNK_HEAD, HEADER_BYTES, SIGNATURE, chunk

KEYWORD = b"petseg"
RECORD_VERSION = 1

# Far above any record petseg writes.
_MAX_RECORD_BYTES = 65536
# Far above any mask petseg writes: a byte a pixel before it is packed, and photos have no more
# than `--max-pixels`, 250 million unless told.
_MAX_MASK_BYTES = 1 << 31
# Where a mask's text chunk says what it is, behind the PNG's signature, its header and a length.
_KIND = slice(37, 48)


@dataclass(frozen=True)
class ImageIdentity:
    """Which photo a mask was made from.

    Attributes:
        size: bytes of the file.
        mtime_ns: its modification time, nanoseconds since 1970.
        sha256: of its content, hexadecimal.
    """

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Maker:
    """What turned the photo into the mask, as far as it decides the pixels or the name.

    Attributes:
        model: the model's graph hash.
        transform: `transforms.TRANSFORM`.
        size: "source" or "model": the size of the mask.
        names: "stem" or "full": how the mask is named.
    """

    model: str
    transform: str
    size: str
    names: str


@dataclass(frozen=True)
class Record:
    """What stands in a mask.  Nothing in it differs from run to run.

    Attributes:
        image: the photo.
        maker: model, transform and options; another one makes another mask.
        provider, precision: what the model ran on; recorded, not compared.
        class_pixels: pixels of each class, by class id.
        confidence: mean over the network's pixels of the largest probability, 0..1.
        pixels_sha256: of the mask's values on disk, row by row, one byte each.
        data_crc32: of the compressed pixel data; equal means equal pixels, at no cost.
    """

    image: ImageIdentity
    maker: Maker
    provider: str
    precision: str
    class_pixels: tuple[int, ...]
    confidence: float
    pixels_sha256: str
    data_crc32: int

    def to_json(self) -> str:
        values = {"version": RECORD_VERSION, **dataclasses.asdict(self)}
        return json.dumps(values, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """The inverse of `to_json`; raises ValueError where it is not a record."""
        try:
            values: dict[str, Any] = json.loads(text)
            if values.pop("version") != RECORD_VERSION:
                raise ValueError("a record of another version")
            return cls(
                image=ImageIdentity(**values.pop("image")),
                maker=Maker(**values.pop("maker")),
                class_pixels=tuple(values.pop("class_pixels")),
                **values,
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a record: {error}") from error


class MaskState(Enum):
    """What lies where a mask is to be written."""

    ABSENT = "absent"
    OURS = "ours"  # petseg's, every pixel as written
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
    return _walk(png).data_crc32


def hash_pixels(values: NDArray[np.uint8]) -> str:
    """SHA-256 of a mask's values (H, W) as they stand on disk."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def inspect(path: Path) -> tuple[MaskState, Record | None]:
    """Tell what lies at a mask's place, and its record where there is one.

    Raises:
        OSError: its folder may not be looked into.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_MASK_BYTES + 1)
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
    if len(data) > _MAX_MASK_BYTES:
        return MaskState.FOREIGN, None
    chunks = _walk(data, strict=False)
    if chunks.record is None:
        begun = not chunks.whole and _begins_as_ours(data)
        return (MaskState.CUT if begun else MaskState.FOREIGN), None
    if not chunks.whole:
        return MaskState.CUT, chunks.record
    if chunks.data_crc32 == chunks.record.data_crc32:
        return MaskState.OURS, chunks.record
    # Another program may have packed the same pixels anew.
    same = _decoded_hash(data) == chunks.record.pixels_sha256
    return (MaskState.OURS if same else MaskState.FOREIGN), chunks.record


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


def _decoded_hash(data: bytes) -> str | None:
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return hash_pixels(np.asarray(image)) if image.mode == "L" else None
    except (OSError, SyntaxError, ValueError, ImageError):
        return None


@dataclass
class _Chunks:
    record: Record | None = None
    data_crc32: int = 0
    whole: bool = False


def _walk(data: bytes, strict: bool = True) -> _Chunks:
    """Read a PNG's chunks: our record, a checksum of the pixel data, and whether it is whole."""
    found = _Chunks()
    if not data.startswith(SIGNATURE):
        if strict:
            raise ValueError("not a PNG")
        return found
    view = memoryview(data)
    position = len(SIGNATURE)
    while position + CHUNK_HEAD.size <= len(data):
        length, kind = CHUNK_HEAD.unpack_from(data, position)
        start = position + CHUNK_HEAD.size
        end = start + length
        if end + CHUNK_END.size > len(data):
            break
        if CHUNK_END.unpack_from(data, end)[0] != zlib.crc32(view[position + 4 : end]):
            break
        if kind == b"IDAT":
            found.data_crc32 = zlib.crc32(view[start:end], found.data_crc32)
        elif kind == b"tEXt" and length <= _MAX_RECORD_BYTES:
            found.record = _record(bytes(view[start:end])) or found.record
        elif kind == b"IEND":
            found.whole = True
            break
        position = end + CHUNK_END.size
    if strict and not found.whole:
        raise ValueError("a truncated PNG")
    return found


def _record(text: bytes) -> Record | None:
    keyword, _, value = text.partition(b"\x00")
    if keyword != KEYWORD:
        return None
    try:
        return Record.from_json(value.decode("ascii"))
    except ValueError:
        return None
