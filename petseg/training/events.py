"""What TensorBoard reads: the history of a run as scalars.

It is written by TensorBoard's own package, which needs no TensorFlow: runs on jax leave the same
files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from petseg.errors import MissingPackageError

# A column that says where in the run a row stands, and is no curve.
_STEP = "epoch"


def writer_class() -> Any:
    """TensorBoard's writer of events.

    Raises:
        MissingPackageError: TensorBoard is not installed.
    """
    try:
        from tensorboard.summary import Writer
    except ModuleNotFoundError as error:
        raise MissingPackageError("tensorboard", "tensorboard", "--tensorboard") from error
    return Writer


class Events:
    """A run's scalars: one for each column of the history, a value for each epoch.

    Each process of a run writes all epochs anew in place of what is there: so that each stands
    there once, whenever the run was cut off, also those trained without TensorBoard.
    """

    def __init__(self, folder: Path, history: Sequence[Mapping[str, str]]) -> None:
        """Begin the file.

        Args:
            folder: where it goes.
            history: the epochs so far.

        Raises:
            MissingPackageError: TensorBoard is not installed.
        """
        writer = writer_class()
        for path in folder.glob("events.out.tfevents.*"):
            path.unlink()
        self._writer = writer(str(folder))
        for row in history:
            self.add(row)

    def add(self, row: Mapping[str, str]) -> None:
        """Add an epoch; it is on disk when this returns."""
        for name, value in row.items():
            if name != _STEP:
                self._writer.add_scalar(name, float(value), int(row[_STEP]))
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()
