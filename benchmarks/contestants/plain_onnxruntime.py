"""A plain onnxruntime loop: Pillow, `session.run`, save, one photo after the other.

Timed: from before the first photo is read until the last mask is written.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from contestant import Ready, Task, compete, onnx_session
from PIL import Image

from petseg.classes import ids_to_values
from petseg.modelfile import signature

BILINEAR = Image.Resampling.BILINEAR


def load(task: Task) -> Ready:
    about = signature.read(task.model)
    values = ids_to_values(about.classes)
    session, provider = onnx_session(task)

    def work(photos: list[Path], masks: Path) -> float:
        started = time.perf_counter()
        for photo in photos:
            image = Image.open(photo).convert("RGB")
            pixels = np.asarray(image.resize((about.size, about.size), BILINEAR))
            (planes,) = session.run(["probabilities"], {"images": pixels[None]})
            # Three classes pass for three colours, so that one call enlarges them all.
            scores = Image.fromarray(planes[0].transpose(1, 2, 0)).resize(image.size, BILINEAR)
            ids = np.argmax(scores, axis=-1)
            Image.fromarray(values[ids]).save(masks / f"{photo.stem}.png")
        return time.perf_counter() - started

    return Ready(work, provider, task.precision)


if __name__ == "__main__":
    compete(load)
