"""What is told of a whole folder of masks: made anew from the masks themselves at a run's end.

So there is nothing to tear or to merge: whatever runs, shards and machines filled the folder, and
whoever corrected masks in it, the last run to end tells of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from petseg.classes import SegmentClass
from petseg.errors import PetsegError
from petseg.formats.coco import CocoFile
from petseg.formats.parquet import ParquetFile, Seconds
from petseg.masks import reading
from petseg.masks.reading import RESERVED
from petseg.masks.review import ReviewList
from petseg.pages.survey import Survey

COCO, PARQUET, REVIEW = Path("coco/coco.json"), Path("parquet/masks.parquet"), Path("review.txt")


class _StoppedError(Exception):
    """Nobody wants to wait for the tables."""


def rebuild(
    folder: Path,
    temporary: Path,
    classes: tuple[SegmentClass, ...],
    formats: tuple[str, ...],
    review_below: float | None,
    survey: Survey | None,
    photos: Mapping[str, str],
    seconds: Seconds,
    max_pixels: int,
    stopping: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Write the tables that are asked for, each whole or as it was, in one walk over the masks.

    Args:
        folder: of masks; tables go to `folder/petseg/`.
        temporary: a folder on the same file system.
        classes: what the masks' values mean.
        formats: of `catalog.TABLES`.
        review_below: confidence below which a mask is listed in `review.txt`; None for no list.
        survey: takes every mask, for the report; None for no report.
        photos: the photo's name of masks that are a person's.
        seconds: what this run's masks took.
        max_pixels: masks that are larger and would have to be decoded are passed over.
        stopping: says whether nobody waits for them any more; then all are left as they were.

    Returns:
        Lines for people.

    Raises:
        PetsegError: they cannot be written.
    """
    reserved = folder / RESERVED
    others = reading.Others(classes)
    coco = parquet = review = None
    try:
        with ExitStack() as stack:
            if "coco" in formats:
                coco = stack.enter_context(CocoFile(reserved / COCO, temporary, classes))
            if "parquet" in formats:
                place = reserved / PARQUET
                parquet = stack.enter_context(ParquetFile(place, temporary, classes, seconds))
            if review_below is not None:
                review = stack.enter_context(ReviewList(reserved / REVIEW, temporary, review_below))
            tables = [table for table in (coco, parquet, review, survey) if table is not None]
            if tables:
                with_ids = coco is not None
                found = reading.read_all(folder, classes, photos, with_ids, max_pixels, others.add)
                for mask in found:
                    if stopping():
                        raise _StoppedError
                    for table in tables:
                        table.add(mask)
    except _StoppedError:
        return []
    except OSError as error:
        where = error.filename or reserved
        raise PetsegError(
            f"cannot write {where}: {error.strerror}; the masks are in place"
        ) from error
    notes = [str(others)] if others.count else []
    if review is not None:
        notes.append(f"{len(review)} masks to look at: see {review.path}")
        if review.unlistable:
            notes.append(f"{review.unlistable} names with a line break cannot be listed there")
    if coco is not None and coco.nameless:
        notes.append(
            f"{coco.nameless} masks carry no record, and no photo of this run is theirs: they are "
            f"not in {coco.path}"
        )
    return notes
