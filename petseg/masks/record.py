"""What stands in each mask: what made it.  `records` puts it there and finds it again."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

# 2: the photo's name and size, the foreground's box, the share of uncertain pixels.
RECORD_VERSION = 2
# The most that a PNG's header can say (its specification, section 7.1).
_MAX_SIDE = (1 << 31) - 1


class Box(NamedTuple):
    """A rectangle of whole pixels; x and y of its upper left one, counted from 0."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class ImageIdentity:
    """Which photo a mask was made from.

    Attributes:
        name: the file's own, without its folder: that is the mask's.
        size: bytes of the file.
        mtime_ns: its modification time, nanoseconds since 1970.
        sha256: of its content, hexadecimal.
    """

    name: str
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
        height, width: of the photo, upright, pixels.
        provider, precision: what the model ran on; recorded, not compared.
        class_pixels: pixels of each class, by class id.
        box: of the foreground, in the photo's pixels; None without foreground.
        confidence, uncertain: see `measures.certainty`, 0..1.
        pixels_sha256: of the mask's values on disk, row by row, one byte each.
        data_crc32: of the compressed pixel data; equal means equal pixels, at no cost.
        padded: images in the batch that the photo was computed in, empty places among them, where
            pixels depend on it (CUDA's do); None elsewhere.
    """

    image: ImageIdentity
    maker: Maker
    height: int
    width: int
    provider: str
    precision: str
    class_pixels: tuple[int, ...]
    box: Box | None
    confidence: float
    uncertain: float
    pixels_sha256: str
    data_crc32: int
    padded: int | None = None

    def to_json(self) -> str:
        # `asdict` would copy deeply, for each of millions of masks.
        values = {"version": RECORD_VERSION, **vars(self)}
        values |= {"image": vars(self.image), "maker": vars(self.maker)}
        if self.padded is None:
            del values["padded"]
        return json.dumps(values, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """The inverse of `to_json`; raises ValueError where it is not a record."""
        try:
            values: dict[str, Any] = json.loads(text)
            if values.pop("version") != RECORD_VERSION:
                raise ValueError("a record of another version")
            record = cls(
                image=ImageIdentity(**values.pop("image")),
                maker=Maker(**values.pop("maker")),
                class_pixels=tuple(values.pop("class_pixels")),
                box=None if (box := values.pop("box")) is None else Box(*box),
                **values,
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a record: {error}") from error
        if not record._is_possible():
            raise ValueError("not a record: its values are not what their names say")
        return record

    def _is_possible(self) -> bool:
        """Whether all that counts with the values, tables say, can count with them.

        A mask may come from anywhere, and hold anything.
        """
        texts = (
            *(self.image.name, self.image.sha256, self.pixels_sha256),
            *(self.provider, self.precision),
            *dataclasses.astuple(self.maker),
        )
        sides = (self.height, self.width, *(self.box or ()))
        numbers = (self.image.size, self.data_crc32, *self.class_pixels)
        return (
            all(isinstance(text, str) for text in texts)
            and _is_file_name(self.image.name)
            and all(_is_unicode(text) for text in texts[1:])
            and all(type(side) is int and 0 <= side <= _MAX_SIDE for side in sides)
            and self.height * self.width > 0
            and all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
            and type(self.image.mtime_ns) is int
            and (self.padded is None or (type(self.padded) is int and 0 < self.padded < 1 << 31))
            and sum(self.class_pixels) > 0
            and all(
                isinstance(share, int | float) and 0 <= share <= 1
                for share in (self.confidence, self.uncertain)
            )
        )


def _is_file_name(name: str) -> bool:
    """Whether a folder may hold such a file; bytes that are no UTF-8 are surrogates, as in `os`."""
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return name != "" and not {"/", "\0"} & {*name}


def _is_unicode(text: str) -> bool:
    """Whether a table can hold it: JSON may name halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
