"""OpenVINO's own runtime alone, asynchronous, on pixels held in memory: a ceiling.

Timed: from the first request until all are done, from uint8 pixels to uint8 probabilities.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from contestant import Ready, Task, compete, openvino_model, read_pixels, write_masks

from petseg.modelfile import signature


def load(task: Task) -> Ready:
    about = signature.read(task.model)
    compiled, precision = openvino_model(task)
    import openvino

    def work(photos: list[Path], masks: Path) -> float:
        pixels = read_pixels(photos, about.size)
        size = about.size
        probabilities = np.empty((len(photos), len(about.classes), size, size), np.uint8)

        def done(request: Any, number: int) -> None:
            probabilities[number] = request.get_output_tensor().data[0]

        started = time.perf_counter()
        requests = openvino.AsyncInferQueue(compiled)
        requests.set_callback(done)
        for number in range(len(photos)):
            requests.start_async(pixels[number : number + 1], number)
        requests.wait_all()
        seconds = time.perf_counter() - started
        write_masks(probabilities, about.classes, photos, masks)
        return seconds

    return Ready(work, "openvino", precision)


if __name__ == "__main__":
    compete(load)
