"""What happens to one image, as three functions: read, infer, write.

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

from petseg import imageio, masks, records, transforms
from petseg.classes import SegmentClass
from petseg.errors import ImageError, PetsegError
from petseg.files import open_regular
from petseg.records import ImageIdentity, Maker, MaskState, Record

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
        formats: names of the extra formats, of `masks.EXTRA`.
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


class Photo(NamedTuple):
    """What `write` has to know of a photo whose pixels are gone.

    Attributes:
        height, width: upright, pixels.
        size, mtime_ns, sha256: of the file, as in `records.ImageIdentity`.
    """

    height: int
    width: int
    size: int
    mtime_ns: int
    sha256: str

    @property
    def identity(self) -> ImageIdentity:
        """For the record."""
        return ImageIdentity(self.size, self.mtime_ns, self.sha256)


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
    return ImageIdentity(size, was, hashlib.sha256(data).hexdigest()), data


def read(path: str, job: Job, pixels: NDArray[np.uint8]) -> Photo:
    """Decode a photo and put what the network sees of it into `pixels`.

    Args:
        path: the photo.
        job: the run.
        pixels: uint8 (S, S, 3), filled with RGB.

    Raises:
        ImageError: the photo cannot be read.
    """
    identity, data = identify(path, job.max_pixels)
    image, (height, width) = imageio.decode_reduced(data, job.model_size, job.max_pixels)
    pixels[:] = transforms.to_model(image, job.model_size)
    return Photo(height, width, identity.size, identity.mtime_ns, identity.sha256)


def infer(stream: Stream, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A batch through the network: uint8 RGB (N, S, S, 3) to probabilities uint8 (N, C, S, S)."""
    return stream.run(images)


def write(name: str, photo: Photo, probabilities: NDArray[np.uint8], job: Job) -> None:
    """Write a photo's mask in every format, each one whole or not at all, the mask itself last.

    Args:
        name: of the mask, relative to `job.masks`, with suffix.
        photo: from `read`.
        probabilities: uint8 (C, S, S), 255 is certainty.
        job: the run.

    Raises:
        MaskKeptError: a mask that is not to be replaced lies there.
        OSError: the file system refuses.
    """
    target = job.masks / name
    _check_place(target, job)
    if job.maker.size == "source":
        ids = transforms.to_source(probabilities, photo.height, photo.width)
    else:
        ids = transforms.to_source(probabilities, job.model_size, job.model_size)
    for chosen in masks.EXTRA.values():
        beside = extra_path(job.masks, chosen, name)
        if chosen.name in job.formats:
            _put(beside, chosen.encode(ids, job.classes), job.temporary)
        else:
            # One of an earlier mask would pass for this one's.
            beside.unlink(missing_ok=True)
    png = masks.encode_index(ids, job.classes)
    record = Record(
        image=photo.identity,
        maker=job.maker,
        provider=job.provider,
        precision=job.precision,
        class_pixels=tuple(int(np.count_nonzero(ids == k)) for k in range(len(job.classes))),
        confidence=round(float(probabilities.max(axis=0).mean()) / 255, 4),
        pixels_sha256=records.hash_pixels(masks.to_values(ids, job.classes)),
        data_crc32=records.data_crc32(png),
    )
    _put(target, records.embed(png, record), job.temporary)


def mask_name(name: str, names: str) -> str:
    """`a/x.jpg` to `a/x.png` ("stem") or `a/x.jpg.png` ("full"): a function of the name alone."""
    folder, slash, file = name.rpartition("/")
    stem = file if names == "full" else os.path.splitext(file)[0]  # noqa: PTH122 - as above
    return f"{folder}{slash}{stem}{masks.INDEX.suffix}"


def extra_path(folder: Path, chosen: masks.MaskFormat, name: str) -> Path:
    """Where an extra format of the mask `name` lies: `masks/petseg/color/a/x.png`."""
    beside = folder / masks.RESERVED / chosen.name
    return beside / (name.removesuffix(masks.INDEX.suffix) + chosen.suffix)


def _check_place(target: Path, job: Job) -> None:
    """The plan saw this place free or to be replaced; somebody may have worked there since."""
    if job.replace_any:
        return
    state, _ = records.inspect(target)
    if state is MaskState.FOREIGN:
        raise MaskKeptError(f"{target} was not made by petseg, or was changed since")


def _put(target: Path, data: bytes, temporary: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = temporary / f"{os.getpid()}.part"
    part.write_bytes(data)
    part.replace(target)
