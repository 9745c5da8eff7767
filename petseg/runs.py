"""A run's folder: what lies in it, and how each file is written so that a kill leaves it whole.

`config.json` (what is computed, where from), `split.json` (on which images), `history.csv` (a row
an epoch), `checkpoint-NNNN.keras` (to go on from; removed at the end), `model.keras`,
`curves.png`, `predictions.png`, and last `metrics.json`: a run that has it is finished.
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from petseg.dataset import Split, hash_names
from petseg.errors import DatasetError
from petseg.recipes import TrainConfig

HISTORY_FIELDS = (
    "epoch",
    "size",
    "learning_rate",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "val_mean_iou",
    "seconds",
    "images_per_second",
)
_PARTIAL = ".partial-"

Row = Mapping[str, str]


@dataclass(frozen=True)
class RunFolder:
    """Reads and writes the files of the run in `path`."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.json"

    @property
    def model_file(self) -> Path:
        return self.path / "model.keras"

    @property
    def pixels(self) -> Path:
        """Folder for decoded pixels; it lives only as long as the process."""
        return self.path / "pixels"

    @property
    def begun(self) -> bool:
        return self.config_file.exists()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do; a checkpoint beside the metrics is still to be removed."""
        return self.metrics_file.exists() and self.checkpoint()[0] is None

    def begin(self, config: TrainConfig, split: Split, data: Path) -> None:
        """Write what the run is; `config.json` comes last and makes the folder a run."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json(self.path / "split.json", asdict(split))
        values = {
            **config.to_json(),
            "data": str(data.resolve()),
            "split_hash": {
                "train": hash_names(split.train),
                "validation": hash_names(split.validation),
            },
        }
        self.write_json(self.config_file, values)

    def config(self) -> TrainConfig:
        """The configuration the run was begun with.

        Raises:
            DatasetError: there is none, or it is not one.
        """
        try:
            return TrainConfig.from_json(self._read_json(self.config_file))
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{self.config_file} is not a run's configuration: {error!r}"
            ) from error

    def data(self) -> Path | None:
        """The data set the run was begun with, or None if it does not say."""
        data = self._read_json(self.config_file).get("data")
        return None if data is None else Path(data)

    def split(self) -> Split:
        """The names the run trains and validates on.

        Raises:
            DatasetError: they cannot be read.
        """
        path = self.path / "split.json"
        try:
            return Split(**{part: tuple(names) for part, names in self._read_json(path).items()})
        except TypeError as error:
            raise DatasetError(f"{path} is not a run's split: {error}") from error

    def checkpoint(self) -> tuple[Path | None, int]:
        """The newest checkpoint and how many epochs it holds; (None, 0) before the first."""
        found = sorted(self.path.glob("checkpoint-*.keras"))
        if not found:
            return None, 0
        return found[-1], int(found[-1].stem.rpartition("-")[2])

    def keep_epoch(
        self, history: Sequence[Row], save: Callable[[Path], None], checkpoint: bool = True
    ) -> None:
        """Write the history, then the checkpoint of its last row, then remove older ones.

        The checkpoint is what counts: killed before it is there, the run goes on from the one
        before, and the row that has none is written again.
        """
        with _replacing(self.path / "history.csv") as temporary:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, HISTORY_FIELDS)
                writer.writeheader()
                writer.writerows(history)
        path = self.path / f"checkpoint-{len(history):04d}.keras"
        with _replacing(path) as temporary:
            save(temporary)
        self.remove_checkpoints(keep=path)

    def history(self) -> list[Row]:
        """A row an epoch, up to the newest checkpoint.

        Raises:
            DatasetError: it cannot be read or lacks an epoch.
        """
        done = self.checkpoint()[1]
        path = self.path / "history.csv"
        rows: list[Row] = []
        if done:
            try:
                with path.open(newline="", encoding="utf-8") as file:
                    rows = list(csv.DictReader(file))[:done]
            except (OSError, csv.Error) as error:
                raise DatasetError(f"cannot read {path}: {error}") from error
        if [row.get("epoch") for row in rows] != [str(epoch + 1) for epoch in range(done)]:
            raise DatasetError(f"{path} lacks some of the {done} epochs the checkpoint holds")
        return rows
