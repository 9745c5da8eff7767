"""Every format by its name: how it is written, what it is made from, what must be installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from petseg.errors import MissingPackageError
from petseg.formats import alpha, binary, color, index, overlay
from petseg.masks.segmented import Segmented


@dataclass(frozen=True)
class Picture:
    """A format of one file a photo.

    Attributes:
        name: as in `--format`, and the folder's name in `masks/petseg/`.
        suffix: of the files.
        encode: to the bytes of a file.
        needs_photo: whether it is drawn on the photo, which then is decoded once more.
        needs_network: whether it cannot be made from the mask that the network left.
    """

    name: str
    suffix: str
    encode: Callable[[Segmented], bytes]
    needs_photo: bool = False
    needs_network: bool = False


# The mask itself: always written, in `masks/`, because it carries the record.
INDEX = Picture("index", ".png", index.encode)
# Written beside it when asked for, each in a folder of its own.
PICTURES = {
    picture.name: picture
    for picture in (
        Picture("color", ".png", color.encode),
        Picture("binary", ".png", binary.encode),
        Picture("alpha", ".png", alpha.encode, needs_photo=True, needs_network=True),
        Picture("overlay", ".jpg", overlay.encode, needs_photo=True),
    )
}
# One file for the whole folder of masks, made anew at the end of a run; and what writes it.
TABLES = {"coco": "pycocotools", "parquet": "pyarrow"}
NAMES = (INDEX.name, *PICTURES, *TABLES)


def check_packages(formats: Iterable[str]) -> None:
    """See that all that the formats need is installed, without loading it.

    Raises:
        MissingPackageError: with the command that installs it.
    """
    for name in formats:
        if name in TABLES and find_spec(TABLES[name]) is None:
            raise MissingPackageError(TABLES[name], "formats", f"--format {name}")
