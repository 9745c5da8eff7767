"""The progress bar of one training epoch."""

from __future__ import annotations

from typing import Any, Self

import keras
from tqdm import tqdm


class EpochProgress(keras.callbacks.Callback):  # type: ignore[misc]
    """A tqdm bar that counts images, so that it shows images per second and the time left.

    Leaving its `with` block closes the bar, also where the epoch is interrupted.
    """

    def __init__(self, epoch: int, epochs: int, steps: int, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.bar = tqdm(
            total=steps * batch_size,
            desc=f"epoch {epoch + 1}/{epochs}",
            unit="image",
            leave=False,
            mininterval=1.0,
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if logs:
            self.bar.set_postfix(
                {name: f"{logs[name]:.4f}" for name in ("loss", "accuracy")}, refresh=False
            )
        self.bar.update(self.batch_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
