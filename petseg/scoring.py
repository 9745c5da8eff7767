"""Score a folder of masks against a folder of trimaps."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from petseg import evaluation
from petseg.classes import PET_CLASSES, SegmentClass, values_to_ids
from petseg.dataset import read_trimap, stem
from petseg.errors import DatasetError, ImageError
from petseg.masks import RESERVED

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
    files and masks/petseg/ are passed over.

    Args:
        masks: predicted masks, 8-bit greyscale PNGs with the classes' values.
        trimaps: ground truth, likewise.
        names: what to compare; without it the two folders must hold the same names.
        classes: what the values mean.

    Raises:
        DatasetError: a folder is missing or empty, a name is on one side only, a file cannot be
            read or holds other values, or a mask and its trimap differ in size.
    """
    mask_names = {name for name in _names(masks) if not name.startswith(f"{RESERVED}/")}
    chosen = _match(masks, mask_names, trimaps, _names(trimaps), names)
    table = values_to_ids(classes)

    def compare(name: str) -> evaluation.Confusion | str:
        """The confusion matrix of one image, or what is wrong with it."""
        try:
            truth = read_trimap(trimaps / f"{name}.png", table)
            mask = read_trimap(masks / f"{name}.png", table)
        except ImageError as error:
            return str(error)
        if mask.shape != truth.shape:
            return (
                f"{name}: the mask is {mask.shape[1]}x{mask.shape[0]}, "
                f"its trimap {truth.shape[1]}x{truth.shape[0]}"
            )
        return evaluation.confusion_matrix(truth, mask, len(classes))

    total = np.zeros((len(classes), len(classes)), np.int64)
    problems = []
    with ThreadPoolExecutor() as pool:
        results = pool.map(compare, chosen)
        for result in tqdm(results, total=len(chosen), desc="comparing", unit="mask"):
            if isinstance(result, str):
                problems.append(result)
            else:
                total += result
    if problems:
        raise DatasetError(f"cannot score {_first(problems, 'pair')}")
    return FolderScores(len(chosen), total, evaluation.scores(total, classes))


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder}")
    relative = (path.relative_to(folder) for path in folder.rglob("*.png"))
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
