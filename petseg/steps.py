"""What happens to one image, as functions: read, infer, write; derive, where a mask is there.

Nothing else knows how it is done.  An engine calls `read` and `write` where it likes, in worker
processes say, and `infer` where the session is.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from petseg import segmentation
from petseg.classes import SegmentClass, values_to_ids
from petseg.errors import ImageError, PetsegError
from petseg.formats.catalog import INDEX, PICTURES, Picture
from petseg.masks import reading, records
from petseg.masks.record import ImageIdentity, Maker, Record
from petseg.masks.records import MaskState
from petseg.masks.segmented import Segmented
from petseg.photos import imageio, transforms
from petseg.system.files import open_regular
from petseg.system.temporary import put

if TYPE_CHECKING:
    # Workers read and write; they have no use for onnxruntime.
    from petseg.runtime import Stream


@dataclass(frozen=True)
class Job:
    """What is the same for every image of a run.

    Attributes:
        masks: the folder of masks.
        temporary: a folder on the same file system that this run has for itself.
        model_size: side of the network's input, pixels.
        classes: the model's classes.
        maker: model, transform and options, for the records.
        provider, precision: what the session runs on, for the records.
        formats: names of the pictures beside the mask, of `catalog.PICTURES`.
        max_pixels: larger images are refused.
        replace_any: whether anybody's mask is replaced.
    """

    masks: Path
    temporary: Path
    model_size: int
    classes: tuple[SegmentClass, ...]
    maker: Maker
    provider: str
    precision: str
    formats: tuple[str, ...]
    max_pixels: int
    replace_any: bool

    @property
    def side(self) -> int | None:
        """Of masks of the network's size, pixels; None where they are of the photo's."""
        return None if self.maker.size == "source" else self.model_size


class Photo(NamedTuple):
    """What `write` has to know of a photo whose pixels are gone.

    Attributes:
        path: where it lies.
        height, width: upright, pixels.
        size, mtime_ns, sha256: of the file, as in `record.ImageIdentity`.
        padded: see `record.Record`; known once it has been through the network.
    """

    path: str
    height: int
    width: int
    size: int
    mtime_ns: int
    sha256: str
    padded: int | None = None

    @property
    def identity(self) -> ImageIdentity:
        """For the record."""
        name = os.path.basename(self.path)  # noqa: PTH119 - a Path for each of millions is slow
        return ImageIdentity(name, self.size, self.mtime_ns, self.sha256)


class MaskKeptError(PetsegError):
    """Somebody's mask appeared at this place after the run was planned; it was left alone."""


def identify(path: str, max_pixels: int) -> tuple[ImageIdentity, bytes]:
    """A photo's identity and its bytes.

    Args:
        path: the photo.
        max_pixels: a file too large for any image of so many pixels is not read.

    Raises:
        ImageError: it cannot be read, is too large, or is being written to.
    """
    limit = imageio.max_bytes(max_pixels)
    try:
        with open_regular(path) as file:
            before = os.fstat(file.fileno())
            if before.st_size > limit:
                raise ImageError(
                    f"the file is {before.st_size} bytes, over the limit of {limit} for images of "
                    f"{max_pixels} pixels; raise --max-pixels if the file can be trusted"
                )
            data = file.read(before.st_size + 1)
            status = os.fstat(file.fileno())
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
    was, size = before.st_mtime_ns, len(data)
    if not size == status.st_size == before.st_size or was != status.st_mtime_ns:
        raise ImageError("the file changed while it was read")
    name = os.path.basename(path)  # noqa: PTH119 - as above
    return ImageIdentity(name, size, was, hashlib.sha256(data).hexdigest()), data


def read(path: str, pixels: NDArray[np.uint8], max_pixels: int) -> Photo:
    """Decode a photo and put what the network sees of it into `pixels`.

    Args:
        path: the photo.
        pixels: uint8 (S, S, 3), filled with RGB.
        max_pixels: larger images are refused.

    Raises:
        ImageError: the photo cannot be read.
    """
    side = len(pixels)
    identity, data = identify(path, max_pixels)
    image, (height, width) = imageio.decode_reduced(data, side, max_pixels)
    pixels[:] = transforms.to_model(image, side)
    return Photo(path, height, width, identity.size, identity.mtime_ns, identity.sha256)


def infer(stream: Stream, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A batch through the network: uint8 RGB (N, S, S, 3) to probabilities uint8 (N, C, S, S)."""
    return stream.run(images)


def write(name: str, photo: Photo, probabilities: NDArray[np.uint8], job: Job) -> Record:
    """Write a photo's mask in every format, each one whole or not at all, the mask itself last.

    Args:
        name: of the mask, relative to `job.masks`, with suffix.
        photo: from `read`.
        probabilities: uint8 (C, S, S), 255 is certainty.
        job: the run.

    Returns:
        The record in the mask.

    Raises:
        MaskKeptError: a mask that is not to be replaced lies there.
        ImageError: the scores are no probabilities; or a format wants the photo again, which is
            another now, or cannot be drawn.
        OSError: the file system refuses.
    """
    target = job.masks / name
    _check_place(target, job)
    found = segmentation.segment(probabilities, photo.height, photo.width, job.classes, job.side)
    photographed = None
    if _on_photo(job.formats):
        photographed = read_again(photo, job.side, job.max_pixels)
    segmented = Segmented(found.ids, job.classes, photographed, probabilities)
    packed, record = found.pack(
        photo.identity, job.maker, job.provider, job.precision, photo.padded
    )
    drawn = {
        picture.name: picture.encode(segmented)
        for picture in PICTURES.values()
        if picture.name in job.formats
    }
    # All of that takes its time, in which a person may have saved a mask.
    before = _check_place(target, job)
    for picture in PICTURES.values():
        beside = extra_path(job.masks, picture, name)
        if picture.name in drawn:
            put(beside, drawn[picture.name], job.temporary)
        elif record != before:
            # One of an earlier mask would pass for this one's.
            beside.unlink(missing_ok=True)
    put(target, packed, job.temporary)
    return record


def derive(name: str, path: str, formats: tuple[str, ...], job: Job) -> None:
    """Write formats of a mask that is there already, whoever made it, without the network.

    Args:
        name: of the mask, relative to `job.masks`, with suffix.
        path: its photo.
        formats: of `catalog.PICTURES`.
        job: the run.

    Raises:
        MaskKeptError: what lies there is no mask.
        ImageError: the mask or the photo cannot be read, or they differ in size.
        OSError: the file system refuses.
    """
    target = job.masks / name
    try:
        data = records.read_bytes(target)
    except OSError as error:
        raise ImageError(f"its mask cannot be read: {error.strerror}") from error
    try:
        ids = reading.decode(data, values_to_ids(job.classes), target, job.max_pixels)
    except ImageError as error:
        raise MaskKeptError(str(error)) from error
    pixels = None
    if _on_photo(formats):
        pixels = _decode(identify(path, job.max_pixels)[1], job.side, job.max_pixels)
        if pixels.shape[:2] != ids.shape:
            raise ImageError(
                f"its mask {target} is {ids.shape[1]}x{ids.shape[0]} pixels, the photo "
                f"{pixels.shape[1]}x{pixels.shape[0]}: they cannot be laid over each other"
            )
    segmented = Segmented(ids, job.classes, pixels)
    for chosen in formats:
        beside = extra_path(job.masks, PICTURES[chosen], name)
        put(beside, PICTURES[chosen].encode(segmented), job.temporary)


def read_again(photo: Photo, side: int | None, max_pixels: int) -> NDArray[np.uint8]:
    """A photo's pixels once more, to draw on.

    They are decoded a second time, because keeping them while the network works would take memory
    that depends on the photos.

    Args:
        photo: from `read`.
        side: of its mask where that is of the network's size, pixels; None for the photo's own.
        max_pixels: larger images are refused.

    Returns:
        RGB uint8 (H, W, 3), of the mask's size.

    Raises:
        ImageError: the photo cannot be read, or is another now.
    """
    identity, data = identify(photo.path, max_pixels)
    if identity.sha256 != photo.sha256:
        raise ImageError("the file changed since its mask was made")
    return _decode(data, side, max_pixels)


def _decode(data: bytes, side: int | None, max_pixels: int) -> NDArray[np.uint8]:
    """A photo at its mask's size, RGB uint8 (H, W, 3)."""
    if side is None:
        return imageio.decode(data, max_pixels)
    image, _ = imageio.decode_reduced(data, side, max_pixels)
    return transforms.to_model(image, side)


def _on_photo(formats: tuple[str, ...]) -> bool:
    """Whether one of them is drawn on the photo."""
    return any(PICTURES[chosen].needs_photo for chosen in formats)


def mask_name(name: str, names: str) -> str:
    """`a/x.jpg` to `a/x.png` ("stem") or `a/x.jpg.png` ("full"): a function of the name alone."""
    folder, slash, file = name.rpartition("/")
    stem = file if names == "full" else os.path.splitext(file)[0]  # noqa: PTH122 - as above
    return f"{folder}{slash}{stem}{INDEX.suffix}"


def extra_path(folder: Path, picture: Picture, name: str) -> Path:
    """Where a picture of the mask `name` lies: `masks/petseg/color/a/x.png`."""
    beside = folder / reading.RESERVED / picture.name
    return beside / (name.removesuffix(INDEX.suffix) + picture.suffix)


def _check_place(target: Path, job: Job) -> Record | None:
    """The plan saw this place free or to be replaced; somebody may have worked there since.

    Returns the record of a mask of petseg's that lies there.
    """
    state, record = records.inspect(target, job.max_pixels)
    if state is MaskState.FOREIGN and not job.replace_any:
        raise MaskKeptError(f"{target} was not made by petseg, or was changed since")
    return record if state is MaskState.OURS else None
