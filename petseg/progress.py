"""The progress bar of one training epoch."""

from __future__ import annotations

from typing import Any, Self

import keras
from tqdm import tqdm


def accuracy(logs: dict[str, Any]) -> Any:
    """Pixel accuracy among Keras' logs; where there are several outputs, it bears one's name."""
    return next(value for name, value in logs.items() if name.endswith("accuracy"))


class EpochProgress(keras.callbacks.Callback):  # type: ignore[misc]
    """A tqdm bar that counts images, so that it shows images per second and the time left.

    Leaving its `with` block closes the bar, also where the epoch is interrupted.
    """

    def __init__(self, epoch: int, epochs: int, images: int, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.bar = tqdm(
            total=images,
            desc=f"epoch {epoch + 1}/{epochs}",
            unit="image",
            leave=False,
            mininterval=1.0,
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if logs:
            shown = {"loss": logs["loss"], "accuracy": accuracy(logs)}
            self.bar.set_postfix(
                {name: f"{value:.4f}" for name, value in shown.items()}, refresh=False
            )
        self.bar.update(self.batch_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
