"""A run's folder: what lies in it, and how each file is written so that a kill leaves it whole.

`config.json` (what is computed, where from), `split.json` (on which images), `history.csv` (a row
an epoch), `checkpoint-NNNN.keras` (to go on from; removed at the end), what is there to be looked
at (see `display`), `model.keras`, `breeds.csv`, and last `metrics.json`: a run that has it and no
checkpoint is finished.  `.lock` is locked as long as a process is at work on it.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from petseg.data.dataset import Split, hash_names
from petseg.errors import DatasetError
from petseg.system.locks import lock
from petseg.system.temporary import PARTIAL, replacing
from petseg.training.recipes import TrainConfig

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
    def breeds_file(self) -> Path:
        return self.path / "breeds.csv"

    @property
    def pictures(self) -> Path:
        """Folder of what `strips` writes."""
        return self.path / "predictions"

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
        _write_json(self.path / "split.json", asdict(split))
        values = {
            **config.to_json(),
            "data": str(data.resolve()),
            "split_hash": {
                "train": hash_names(split.train),
                "validation": hash_names(split.validation),
            },
        }
        _write_json(self.config_file, values)

    def config(self) -> TrainConfig:
        """The configuration the run was begun with.

        Raises:
            DatasetError: there is none, or it is not one.
        """
        try:
            return TrainConfig.from_json(_read_json(self.config_file))
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{self.config_file} is not a run's configuration: {error!r}"
            ) from error

    def data(self) -> Path | None:
        """The data set the run was begun with, or None if it does not say."""
        data = _read_json(self.config_file).get("data")
        return None if data is None else Path(data)

    def split(self) -> Split:
        """The names the run trains and validates on.

        Raises:
            DatasetError: they cannot be read.
        """
        path = self.path / "split.json"
        try:
            return Split(**{part: tuple(names) for part, names in _read_json(path).items()})
        except TypeError as error:
            raise DatasetError(f"{path} is not a run's split: {error}") from error

    def checkpoint(self) -> tuple[Path | None, int]:
        """The newest checkpoint and how many epochs it holds; (None, 0) before the first."""
        found = sorted(self.path.glob("checkpoint-*.keras"))
        if not found:
            return None, 0
        return found[-1], int(found[-1].stem.rpartition("-")[2])

    def history(self) -> list[Row]:
        """A row an epoch: all of a finished run, else up to the newest checkpoint.

        Raises:
            DatasetError: the file cannot be read.
        """
        done = math.inf if self.finished else self.checkpoint()[1]
        path = self.path / "history.csv"
        if not done:
            return []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows: list[Row] = [row for row in csv.DictReader(file) if int(row["epoch"]) <= done]
            for row in rows:
                for name in HISTORY_FIELDS:
                    float(row[name])
            return rows
        except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"cannot read {path}: {error!r}") from error

    def keep_epoch(self, done: int, history: Sequence[Row], save: Callable[[Path], None]) -> None:
        """Write the history, then the checkpoint of its last row, then remove older checkpoints.

        The checkpoint is what counts: killed before it is there, the run goes on from the one
        before, and the row that has none is written again.

        Args:
            done: epochs the checkpoint holds.
            history: a row for each of them.
            save: writes the checkpoint to a path.
        """
        with (
            replacing(self.path / "history.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, HISTORY_FIELDS)
            writer.writeheader()
            writer.writerows(history)
        path = self.path / f"checkpoint-{done:04d}.keras"
        with replacing(path) as temporary:
            save(temporary)
        self._remove_checkpoints(keep=path)

    def keep_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write the metrics."""
        _write_json(self.metrics_file, metrics)

    def metrics(self) -> dict[str, Any] | None:
        """What `keep_metrics` wrote, or None if it has not yet.

        Raises:
            DatasetError: the file cannot be read.
        """
        return _read_json(self.metrics_file) if self.metrics_file.exists() else None

    def finish(self) -> None:
        """Remove the checkpoint, which makes a run that has metrics a finished one."""
        self._remove_checkpoints(keep=None)

    def sweep(self) -> None:
        """Remove what a killed process left half-written, decoded pixels included."""
        for folder in (self.path, self.pictures):
            for path in folder.glob(f"{PARTIAL}*"):
                path.unlink()
        # A system that keeps mapped files from being removed leaves them to the next sweep.
        shutil.rmtree(self.pixels, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process out of the folder, which is made if it is not there.

        The lock goes with the process.  Where there are no locks, nobody is kept out.

        Raises:
            DatasetError: another process is at work on the run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("ab") as file:
            try:
                lock(file)
            except BlockingIOError as error:
                raise DatasetError(
                    f"another process is training in {self.path}; wait for it, or stop it first"
                ) from error
            yield

    def _remove_checkpoints(self, keep: Path | None) -> None:
        for path in self.path.glob("checkpoint-*.keras"):
            if path != keep:
                path.unlink()


def fresh_folder(runs: Path, name: str) -> Path:
    """Make a folder in `runs` that nobody else has: `name`, or `name-2` where that is taken.

    Runs that begin in one second would otherwise share a folder that is named by the time.
    """
    runs.mkdir(parents=True, exist_ok=True)
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    while True:
        folder = runs / next(names)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def newest_unfinished(runs: Path) -> RunFolder:
    """The run below `runs` that was begun last and is not finished.

    Raises:
        DatasetError: there is none.
    """
    folders = [RunFolder(path.parent) for path in runs.glob("*/config.json")]
    unfinished = [folder for folder in folders if not folder.finished]
    if not unfinished:
        raise DatasetError(f"there is no unfinished run in {runs.resolve()}; name one with --out")
    return max(unfinished, key=lambda folder: folder.config_file.stat().st_mtime_ns)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise DatasetError(f"{path} holds no JSON object")
    return values
