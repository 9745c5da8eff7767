"""The onnxruntime session alone, on pixels held in memory: a ceiling.

Timed: every `session.run`, from uint8
pixels to uint8 probabilities in numpy's memory.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from contestant import Ready, Task, compete, onnx_session, read_pixels, write_masks

from petseg.modelfile import signature

BATCH_SIZES = {"cpu": 4, "cuda": 32}


def load(task: Task) -> Ready:
    about = signature.read(task.model)
    session, provider = onnx_session(task)
    size = BATCH_SIZES[provider]

    def work(photos: list[Path], masks: Path) -> float:
        pixels = read_pixels(photos, about.size)
        started = time.perf_counter()
        probabilities = [
            session.run(["probabilities"], {"images": pixels[first : first + size]})[0]
            for first in range(0, len(pixels), size)
        ]
        seconds = time.perf_counter() - started
        write_masks(np.concatenate(probabilities), about.classes, photos, masks)
        return seconds

    return Ready(work, provider, task.precision)


if __name__ == "__main__":
    compete(load)
