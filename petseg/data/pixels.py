"""Samples decoded once and kept as pixels of one size: no epoch waits for a decoder."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from petseg.classes import SegmentClass, values_to_ids
from petseg.data.dataset import read_sample
from petseg.errors import DatasetError, ImageError
from petseg.photos import transforms

# More than this share of unusable samples means that something is wrong with the data set.
MAX_BROKEN_SHARE = 0.05
_BYTES_PER_PIXEL = 4


@dataclass(frozen=True)
class Prepared:
    """Decoded samples of one size, in the order they were named.

    Attributes:
        names: N names.
        images: RGB uint8 (N, S, S, 3), held in a file and paged in by the operating system.
        trimaps: class ids uint8 (N, S, S), likewise.
        broken: name to reason, for every sample that was left out.
    """

    names: tuple[str, ...]
    images: NDArray[np.uint8]
    trimaps: NDArray[np.uint8]
    broken: dict[str, str]

    def at(self, chosen: slice, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Some of the samples at another size: uint8 (B, size, size, 3) and (B, size, size)."""
        images = [transforms.to_model(image, size) for image in self.images[chosen]]
        trimaps = [transforms.trimap_to_model(trimap, size) for trimap in self.trimaps[chosen]]
        return np.stack(images), np.stack(trimaps)


def prepare(
    root: Path,
    parts: Mapping[str, Sequence[str]],
    classes: tuple[SegmentClass, ...],
    size: int,
    cache: Path,
) -> dict[str, Prepared]:
    """Decode every sample of a run, squash it to size x size, and keep the pixels in `cache`.

    Samples that cannot be used are named on stderr and left out.

    Args:
        root: folder in Oxford's layout.
        parts: samples to read, at least one each, by what the part is called: that names its pixel
            files and its progress bar.
        classes: what the trimaps' values mean.
        size: side, pixels.
        cache: folder for the pixel files; they are written anew.

    Returns:
        The samples of each part.

    Raises:
        DatasetError: more than `MAX_BROKEN_SHARE` of all samples cannot be used, or the disk has
            no room for the pixels.
    """
    cache.mkdir(parents=True, exist_ok=True)
    count = sum(map(len, parts.values()))
    _check_room(cache, count * size * size * _BYTES_PER_PIXEL)
    table = values_to_ids(classes)
    broken: dict[str, str] = {}

    def leave_out(name: str, error: ImageError) -> None:
        broken[name] = str(error)
        tqdm.write(f"left out {name}: {error}", file=sys.stderr)
        # Of the whole run: one of the few that are validated on is soon a large share of them.
        if len(broken) > MAX_BROKEN_SHARE * count:
            raise DatasetError(
                f"{len(broken)} samples in {root} cannot be used, more than {MAX_BROKEN_SHARE:.0%} "
                f"of all {count}; the last: {name}: {error}"
            ) from error

    def read(label: str, names: Sequence[str]) -> Prepared:
        images = _pixel_file(cache / f"{label}-images.npy", (len(names), size, size, 3))
        trimaps = _pixel_file(cache / f"{label}-trimaps.npy", (len(names), size, size))
        good: list[str] = []
        for name in tqdm(
            names, desc=f"reading {label}", unit="image", mininterval=1.0, disable=None
        ):
            try:
                image, trimap = read_sample(root, name, table)
            except ImageError as error:
                leave_out(name, error)
                continue
            images[len(good)] = transforms.to_model(image, size)
            trimaps[len(good)] = transforms.trimap_to_model(trimap, size)
            good.append(name)
        own = {name: broken[name] for name in names if name in broken}
        return Prepared(tuple(good), images[: len(good)], trimaps[: len(good)], own)

    return {label: read(label, names) for label, names in parts.items()}


def _check_room(folder: Path, needed: int) -> None:
    """A mapped file is given its disk space only when pixels are written, too late for an error."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DatasetError(
            f"the decoded pixels need {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB "
            "are free; choose another disk with --out"
        )


def _pixel_file(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.uint8, shape=shape
    )
    return array
