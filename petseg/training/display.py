"""What a run shows of itself while it goes on: pictures, a page, and scalars for TensorBoard.

`curves.png`; `predictions.png`, photo | true mask | predicted mask of the newest network, and
`predictions/`, the same photos after each epoch; `confusion.png` at the end; `report.html`, which
needs none of them beside it; and with TensorBoard `tensorboard/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from petseg.data.pixels import Prepared
from petseg.errors import DatasetError
from petseg.scoring.evaluation import Confusion
from petseg.training import page as page
from petseg.training import plots, strips
from petseg.training.events import Events
from petseg.training.progress import say
from petseg.training.recipes import TrainConfig
from petseg.training.runs import Row, RunFolder

# Photos that are shown after each epoch: the first of the validation part.
_SHOWN = slice(6)

# RGB uint8 (N, S, S, 3) to class ids (N, S, S).
Predict = Callable[[NDArray[np.uint8]], NDArray[np.integer]]


class Display:
    """Writes what is to be looked at into a run's folder; a context manager."""

    def __init__(self, config: TrainConfig, folder: RunFolder, tensorboard: bool) -> None:
        """Begin where the run stands.

        Args:
            config: of the run.
            folder: of the run.
            tensorboard: whether TensorBoard's files are written, too.

        Raises:
            MissingPackageError: TensorBoard is not installed.
            DatasetError: the run's history cannot be read.
        """
        self.classes = config.classes
        self.folder = folder
        self.events: Events | None = None
        if tensorboard:
            self.events = Events(folder.path / "tensorboard", folder.history())

    def predictions(self, epoch: int, size: int, samples: Prepared, predict: Predict) -> None:
        """Show what the network makes of the first samples.

        Args:
            epoch: the one that has ended, counted from 1.
            size: S, of the network's input, pixels.
            samples: the validation part.
            predict: the network.
        """
        strips.write_samples(
            self.folder.pictures, *samples.at(_SHOWN, strips.SIDE), classes=self.classes
        )
        images, truth = samples.at(_SHOWN, size)
        predicted = predict(images).astype(np.uint8)
        strips.write_epoch(self.folder.pictures, epoch, predicted, self.classes)
        path = self.folder.path / "predictions.png"
        plots.predictions(images, truth, predicted, self.classes, path)

    def epoch(self, history: Sequence[Row]) -> None:
        """Show how the run goes; its last row is the epoch that has ended."""
        plots.curves(history, self.folder.path / "curves.png")
        if self.events is not None:
            self.events.add(history[-1])
        self._write_page()

    def end(self, history: Sequence[Row], confusion: Confusion) -> None:
        """Show how the network scores; the run's folder holds its metrics by now."""
        # Once more: the last epoch may have been cut off behind its checkpoint.
        plots.curves(history, self.folder.path / "curves.png")
        plots.confusion(confusion, self.classes, self.folder.path / "confusion.png")
        self._write_page()

    def _write_page(self) -> None:
        """A page that cannot be made ends no run of hours: `petseg report` makes it later."""
        try:
            page.write(self.folder)
        except (DatasetError, OSError) as error:
            say(f"no {page.NAME}: {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.events is not None:
            self.events.close()
