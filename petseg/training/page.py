"""`report.html` of a training run: what it is, how it goes, and what its network scores."""

from __future__ import annotations

import datetime
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from petseg.data.dataset import hash_names
from petseg.errors import DatasetError
from petseg.pages import charts, html
from petseg.pages.charts import Chart
from petseg.scoring import breeds
from petseg.scoring.evaluation import Confusion, Scores, row_shares, scores
from petseg.training import strips
from petseg.training.recipes import TrainConfig
from petseg.training.runs import Row, RunFolder

NAME = "report.html"

# Epochs whose masks are shown, and samples that were left out.
_MOST_EPOCHS, _MOST_BROKEN = 6, 50

# Columns of the history that are drawn together, and their names.
_LOSSES = {"loss": "training", "val_loss": "validation"}
_SHARES = {
    "accuracy": "accuracy, training",
    "val_accuracy": "accuracy, validation",
    "val_mean_iou": "mean IoU, validation",
}


@dataclass(frozen=True)
class Result:
    """What a run's metrics say of its network, on the validation part.

    Attributes:
        images: samples.
        size: of the network's input, pixels.
        precision: Keras' dtype policy.
        confusion: int64 (C, C), rows truth, columns prediction.
        shares: what became of the pixels of each class, (C, C), rows that sum to 1.
        scores: the figures of that matrix.
        broken: name to reason, for every sample that was left out.
    """

    images: int
    size: int
    precision: str
    confusion: Confusion
    shares: NDArray[np.float64]
    scores: Scores
    broken: dict[str, str]

    @property
    def first_broken(self) -> list[tuple[str, str]]:
        """Those that a page shows."""
        return list(self.broken.items())[:_MOST_BROKEN]


@dataclass(frozen=True)
class Strip:
    """A row of small pictures, side by side in one."""

    name: str
    address: str
    alt: str


def write(run: RunFolder, path: Path | None = None) -> Path:
    """Write the page; where the run still goes on, as far as it has come.

    Args:
        run: the run.
        path: where the page goes; without it into the run's folder.

    Returns:
        That path.

    Raises:
        DatasetError: a file of the run cannot be read.
        OSError: the page cannot be written.
    """
    path = path or run.path / NAME
    config, history = run.config(), run.history()
    result = _result(run, config)
    place = shlex.quote(str(run.path))
    html.write(
        path,
        "training.html",
        title=f"petseg: {run.path.resolve().name}",
        made=datetime.datetime.now(datetime.UTC),
        folder=str(run.path),
        config=config,
        history=history,
        seconds_trained=sum(float(row["seconds"]) for row in history),
        result=result,
        charts=_charts(history),
        breeds=breeds.read(run.breeds_file),
        strips=list(_strips(run.pictures, int(history[-1]["epoch"]) if history else 0)),
        data=_data(run, config),
        start=_start(config),
        options=_options(config),
        commands=[f"petseg-train --resume --out {place}"]
        if result is None
        else [f"petseg-export model.onnx --from {place}", "petseg-batch photos/ masks/"],
    )
    return path


def _result(run: RunFolder, config: TrainConfig) -> Result | None:
    metrics = run.metrics()
    if metrics is None:
        return None
    try:
        confusion = np.array(metrics["confusion"], np.int64)
        return Result(
            int(metrics["images"]),
            int(metrics["size"]),
            str(metrics["precision"]),
            confusion,
            row_shares(confusion),
            scores(confusion, config.classes),
            dict(metrics["broken"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{run.metrics_file} does not hold the metrics of a run: {error!r}"
        ) from error


def _charts(history: Sequence[Row]) -> list[Chart]:
    if not history:
        return []
    epochs = [int(row["epoch"]) for row in history]

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in history]

    def drawn(title: str, names: dict[str, str], words: str) -> Chart:
        values = {text: column(name) for name, text in names.items()}
        return Chart(title, charts.lines(epochs, values, "epoch", f"chart: {title}"), words)

    losses, ious, rates = column("val_loss"), column("val_mean_iou"), column("learning_rate")
    # Without those of a run that has lost its way: they are no numbers.
    lowest = min(range(len(losses)), key=lambda place: _or(losses[place], math.inf))
    highest = max(range(len(ious)), key=lambda place: _or(ious[place], -math.inf))
    return [
        drawn(
            "Cross-entropy, nats per pixel",
            _LOSSES,
            f"On the validation part lowest after epoch {epochs[lowest]}, {losses[lowest]:.4f}; "
            f"after the last {losses[-1]:.4f}. The loss of training may hold more than "
            "cross-entropy.",
        ),
        drawn(
            "Accuracy and mean IoU",
            _SHARES,
            f"Mean IoU highest after epoch {epochs[highest]}, {ious[highest]:.4f}; "
            f"after the last {ious[-1]:.4f}.",
        ),
        drawn(
            "Learning rate",
            {"learning_rate": "learning rate"},
            f"At the end of each epoch; {rates[0]:.3g} after the first, {rates[-1]:.3g} after the "
            "last.",
        ),
    ]


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def _strips(folder: Path, done: int) -> Iterator[Strip]:
    """The rows of pictures, from the photos to the newest masks; none for older versions' runs."""
    shown = strips.epochs(folder, _MOST_EPOCHS, done)
    if not shown:
        return
    rows = [
        ("photo", folder / strips.PHOTOS, "image/jpeg", "photos of the validation part"),
        ("true mask", folder / strips.TRUTH, "image/png", "their true masks"),
    ]
    for epoch, path in shown.items():
        alt = f"predicted masks after epoch {epoch}"
        rows.append((f"epoch {epoch}", path, "image/png", alt))
    for name, path, kind, alt in rows:
        try:
            yield Strip(name, html.data_address(kind, path.read_bytes()), alt)
        except OSError as error:
            raise DatasetError(f"cannot read {path}: {error.strerror}; remove {folder}") from error


def _data(run: RunFolder, config: TrainConfig) -> dict[str, str]:
    folder, split = run.data(), run.split()
    limited = "" if config.limit is None else f", limited to {html.number(config.limit)}"
    return {
        "folder": "not known" if folder is None else str(folder),
        "split": f"{config.split}{limited}, seed {config.seed}",
        "to train on": f"{html.number(len(split.train))} images",
        "to validate on": f"{html.number(len(split.validation))} images",
        "hash of training names": hash_names(split.train),
        "hash of validation names": hash_names(split.validation),
    }


def _start(config: TrainConfig) -> dict[str, str]:
    """What a run is, in few words."""
    return {
        "recipe": config.recipe,
        "started from": config.init or f"encoder's weights: {config.encoder_weights}",
        "encoder": "trained" if config.train_encoder else "frozen",
        "optimizer": f"{config.optimizer}, schedule {config.schedule}",
        "augmentation": "none" if config.augmentation is None else "on",
        "precision": config.precision,
    }


def _options(config: TrainConfig) -> dict[str, str]:
    values = config.to_json()
    values["augmentation"] = ", ".join(
        f"{name} {value}" for name, value in (values["augmentation"] or {}).items()
    )
    values["classes"] = ", ".join(item.name for item in config.classes)
    values["filters"] = ", ".join(map(str, config.filters))
    del values["stages"]
    return {
        name.replace("_", " "): str(value)
        for name, value in values.items()
        if value is not None and value != ""
    }
