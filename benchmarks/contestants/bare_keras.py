"""Keras `predict` alone, batch 8, on preprocessed pixels held in memory: a ceiling.

Timed: `predict`, from float32 pixels to float32 probabilities.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from contestant import BATCH, Ready, Task, compete, keras_network, read_pixels, write_masks


def load(task: Task) -> Ready:
    model, provider = keras_network(task)
    from petseg.network.model import preprocess

    def work(photos: list[Path], masks: Path) -> float:
        pixels = preprocess(read_pixels(photos, model.architecture.size))
        started = time.perf_counter()
        probabilities = model.network.predict(pixels, batch_size=BATCH, verbose=0)
        seconds = time.perf_counter() - started
        planes = np.rint(255 * probabilities).astype(np.uint8).transpose(0, 3, 1, 2)
        write_masks(planes, model.classes, photos, masks)
        return seconds

    return Ready(work, provider, task.precision)


if __name__ == "__main__":
    compete(load)
