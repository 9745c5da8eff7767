"""How a network does on each breed, from that breed's own confusion matrix."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from petseg.classes import SegmentClass
from petseg.errors import DatasetError
from petseg.scoring import evaluation
from petseg.system.temporary import replacing
from petseg.system.text import cell


@dataclass(frozen=True)
class BreedScore:
    """What the samples of one breed score, as in `evaluation.Scores`; shares of 0..1.

    Attributes:
        breed: its name.
        images: how many there are.
        pixel_accuracy, mean_iou, foreground_iou: over all their pixels; nan where nothing was
            counted.
    """

    breed: str
    images: int
    pixel_accuracy: float
    mean_iou: float
    foreground_iou: float


def score(
    confusions: NDArray[np.int64],
    breeds: Sequence[str | None],
    classes: tuple[SegmentClass, ...],
) -> list[BreedScore]:
    """Score each breed, the worst mean IoU first.

    Args:
        confusions: of each sample, int64 (N, C, C), rows truth, columns prediction.
        breeds: of each sample; those of None are no part of it.
        classes: the C classes.
    """
    found = []
    for breed in {breed for breed in breeds if breed is not None}:
        own = confusions[[breed == other for other in breeds]]
        figures = evaluation.scores(own.sum(axis=0), classes)
        found.append(
            BreedScore(
                breed,
                len(own),
                figures.pixel_accuracy,
                figures.mean_iou,
                figures.foreground_iou,
            )
        )
    return sorted(found, key=lambda item: (item.mean_iou, item.breed))


def write(path: Path, found: Sequence[BreedScore]) -> None:
    """Write a row a breed as CSV, in the order that is given."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, [field.name for field in fields(BreedScore)])
        writer.writeheader()
        writer.writerows({**asdict(item), "breed": cell(item.breed)} for item in found)


def read(path: Path) -> list[BreedScore]:
    """What `write` wrote; nothing where there is no file.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                BreedScore(
                    row["breed"],
                    int(row["images"]),
                    *(
                        float(row[name])
                        for name in ("pixel_accuracy", "mean_iou", "foreground_iou")
                    ),
                )
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        return []
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"cannot read {path}: {error!r}; remove it") from error
