"""Pictures of a training run: curves, confusion matrix, and image | truth | prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from petseg.classes import SegmentClass
from petseg.scoring.evaluation import Confusion, row_shares


def curves(history: Sequence[Mapping[str, str]], path: Path) -> None:
    """Loss and accuracy by epoch, training beside validation, and the learning rate, as a PNG."""
    figure = Figure(figsize=(15, 4), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [int(row["epoch"]) for row in history]
    panels = figure.subplots(1, 3)
    for axes, title, lines in (
        (panels[0], "cross-entropy, nats per pixel", ("loss", "val_loss")),
        (panels[1], "share", ("accuracy", "val_accuracy", "val_mean_iou")),
        (panels[2], "learning rate at the epoch's end", ("learning_rate",)),
    ):
        for name in lines:
            values = [float(row[name]) for row in history]
            axes.plot(epochs, values, marker="o", markersize=3, label=name)
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def predictions(
    images: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    classes: tuple[SegmentClass, ...],
    path: Path,
) -> None:
    """Rows of image | true mask | predicted mask, as in the article's evaluation, as a PNG.

    Args:
        images: RGB uint8 (N, S, S, 3).
        truth: class ids uint8 (N, S, S).
        predicted: class ids uint8 (N, S, S).
        classes: for the colours.
        path: where the PNG goes.
    """
    colors = np.array([item.color for item in classes], np.uint8)
    figure = Figure(figsize=(7.5, 2.5 * len(images)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(images), 3, squeeze=False)
    columns = ("image", "true mask", "predicted mask")
    for row, pictures in enumerate(zip(images, colors[truth], colors[predicted], strict=True)):
        for axes, picture, title in zip(grid[row], pictures, columns, strict=True):
            axes.imshow(picture)
            axes.axis("off")
            if row == 0:
                axes.set_title(title)
    figure.savefig(path, dpi=90)


def confusion(matrix: Confusion, classes: tuple[SegmentClass, ...], path: Path) -> None:
    """What became of the pixels of each class, in percent of them, as a PNG.

    Args:
        matrix: int64 (C, C), rows truth, columns prediction.
        classes: the C classes.
        path: where the PNG goes.
    """
    shares = 100 * row_shares(matrix)
    figure = Figure(figsize=(4.6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if share > 50 else "black"
        axes.text(column, row, f"{share:.1f}", ha="center", va="center", color=color)
    names = [item.name for item in classes]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("% of the true class' pixels")
    figure.savefig(path, dpi=110)
