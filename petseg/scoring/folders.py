"""Score a folder of masks against a folder of trimaps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from petseg.classes import PET_CLASSES, SegmentClass, values_to_ids
from petseg.data.dataset import read_trimap, stem
from petseg.errors import DatasetError, ImageError
from petseg.masks import packs
from petseg.masks.packs import Member
from petseg.masks.reading import RESERVED, decode, load
from petseg.scoring import evaluation

_NAMED = 5


@dataclass(frozen=True)
class FolderScores:
    """What a folder of masks is worth.

    Attributes:
        images: masks compared.
        confusion: int64 (C, C), rows truth, columns prediction, over all pixels of all images.
        scores: the figures of that one matrix.
    """

    images: int
    confusion: evaluation.Confusion
    scores: evaluation.Scores


def score_folders(
    masks: Path,
    trimaps: Path,
    names: Sequence[str] | None = None,
    classes: tuple[SegmentClass, ...] = PET_CLASSES,
) -> FolderScores:
    """Compare every mask with the trimap of the same name, pixel by pixel.

    A name is a path below the folder without `.png`: masks/a/x.png meets trimaps/a/x.png.  Hidden
    files and masks/petseg/ are passed over.  Masks may be packed (see `packs`).

    Args:
        masks: predicted masks, 8-bit greyscale PNGs with the classes' values.
        trimaps: ground truth, likewise.
        names: what to compare; without it the two folders must hold the same names.
        classes: what the values mean.

    Raises:
        DatasetError: a folder is missing or empty, a name is on one side only, a file cannot be
            read or holds other values, or a mask and its trimap differ in size.
        PetsegError: a tar file of masks is damaged.
    """
    pairs = Pairs.find(masks, trimaps, names, classes)
    total = np.zeros((len(classes), len(classes)), np.int64)
    for _, confusion in pairs.confusions():
        total += confusion
    return FolderScores(len(pairs.names), total, evaluation.scores(total, classes))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Masks and the trimaps of the same names.

    Attributes:
        masks, trimaps: the two folders.
        packed: masks that lie in tar files, by their path below the folder.
        names: paths below both folders without `.png`, sorted.
        classes: what the values mean.
    """

    masks: Path
    trimaps: Path
    packed: Mapping[str, Member]
    names: tuple[str, ...]
    classes: tuple[SegmentClass, ...]

    @classmethod
    def find(
        cls,
        masks: Path,
        trimaps: Path,
        names: Sequence[str] | None = None,
        classes: tuple[SegmentClass, ...] = PET_CLASSES,
    ) -> Pairs:
        """Which masks have which trimaps; arguments and errors as of `score_folders`."""
        packed = packs.index(masks)
        mask_names = {name for name in _names(masks, packed) if not name.startswith(f"{RESERVED}/")}
        chosen = _match(masks, mask_names, trimaps, _names(trimaps), names)
        return cls(masks, trimaps, packed, tuple(chosen), classes)

    def mask_bytes(self, name: str) -> bytes:
        """The mask as it lies there.

        Raises:
            ImageError: it cannot be read.
        """
        path = self.masks / f"{name}.png"
        try:
            return load(path, self.packed.get(f"{name}.png"))[0]
        except OSError as error:
            raise ImageError(f"cannot read {path}: {error.strerror}") from error

    def read(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Class ids of the trimap and of the mask, uint8 (H, W) each.

        Raises:
            ImageError: one of them cannot be read, holds other values, or they differ in size.
        """
        table = values_to_ids(self.classes)
        truth = read_trimap(self.trimaps / f"{name}.png", table)
        mask = decode(self.mask_bytes(name), table, self.masks / f"{name}.png")
        if mask.shape != truth.shape:
            raise ImageError(
                f"{name}: the mask is {mask.shape[1]}x{mask.shape[0]}, "
                f"its trimap {truth.shape[1]}x{truth.shape[0]}"
            )
        return truth, mask

    def confusions(self) -> Iterator[tuple[str, evaluation.Confusion]]:
        """Each name and its confusion matrix, int64 (C, C), in the order of names.

        Raises:
            DatasetError: some pairs cannot be compared; raised at the end, to name them together.
        """

        def compare(name: str) -> evaluation.Confusion | str:
            """The matrix, or what is wrong."""
            try:
                truth, mask = self.read(name)
            except ImageError as error:
                return str(error)
            return evaluation.confusion_matrix(truth, mask, len(self.classes))

        problems = []
        with ThreadPoolExecutor() as pool:
            results = zip(self.names, pool.map(compare, self.names), strict=True)
            for name, result in tqdm(
                results, total=len(self.names), desc="comparing", unit="mask", disable=None
            ):
                if isinstance(result, str):
                    problems.append(result)
                else:
                    yield name, result
        if problems:
            raise DatasetError(f"cannot score {_first(problems, 'pair')}")


def _names(folder: Path, packed: Iterable[str] = ()) -> set[str]:
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder}")
    files = (path.relative_to(folder) for path in folder.rglob("*.png"))
    relative = itertools.chain(files, map(PurePosixPath, packed))
    return {
        path.with_suffix("").as_posix()
        for path in relative
        if not any(part.startswith(".") for part in path.parts)
    }


def _match(
    masks: Path,
    mask_names: set[str],
    trimaps: Path,
    trimap_names: set[str],
    names: Sequence[str] | None,
) -> list[str]:
    for folder, there in ((masks, mask_names), (trimaps, trimap_names)):
        if not there:
            raise DatasetError(f"there are no .png files in {folder}")
    # A list may name photos; where masks have full names (`x.jpg.png`), these are theirs as well.
    both = mask_names | trimap_names
    wanted = both if names is None else {name if name in both else stem(name) for name in names}
    problems = [
        f"{_first(sorted(wanted - there), 'name')} without a {what} in {folder}"
        for what, folder, there in (("mask", masks, mask_names), ("trimap", trimaps, trimap_names))
        if wanted - there
    ]
    if problems:
        hint = "" if names is not None else "; --list FILE names what to compare"
        raise DatasetError("; ".join(problems) + hint)
    return sorted(wanted)


def _first(items: Sequence[str], unit: str) -> str:
    more = "; ..." if len(items) > _NAMED else ""
    plural = "" if len(items) == 1 else "s"
    return f"{len(items)} {unit}{plural} ({'; '.join(items[:_NAMED])}{more})"
