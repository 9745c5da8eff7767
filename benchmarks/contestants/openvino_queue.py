"""OpenVINO's own runtime as its guide has it for throughput, without petseg's engine.

An AsyncInferQueue with the throughput hint; threads read photos and write masks around it (Pillow,
NumPy and zlib let go of Python's lock where the work is).  Timed: from before the first photo is
read until the last mask is written.
https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference.html
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from contestant import Ready, Task, compete, openvino_model
from numpy.typing import NDArray
from PIL import Image

from petseg.classes import ids_to_values
from petseg.modelfile import signature
from petseg.system.machine import usable_cores

BILINEAR = Image.Resampling.BILINEAR
# Photos that are in memory at once, for each core.
AHEAD = 8


def load(task: Task) -> Ready:
    about = signature.read(task.model)
    values = ids_to_values(about.classes)
    compiled, precision = openvino_model(task)
    import openvino

    def read(photo: Path) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        image = Image.open(photo).convert("RGB")
        return np.asarray(image.resize((about.size, about.size), BILINEAR))[None], image.size

    def write(mask: Path, planes: NDArray[np.uint8], size: tuple[int, int]) -> None:
        scores = Image.fromarray(planes.transpose(1, 2, 0)).resize(size, BILINEAR)
        Image.fromarray(values[np.argmax(scores, axis=-1)]).save(mask, compress_level=1)

    def work(photos: list[Path], masks: Path) -> float:
        started = time.perf_counter()
        requests = openvino.AsyncInferQueue(compiled)
        with ThreadPoolExecutor(usable_cores()) as threads:
            writing: list[Future[None]] = []

            def done(request: Any, about_photo: tuple[Path, tuple[int, int]]) -> None:
                photo, size = about_photo
                planes = request.get_output_tensor().data[0].copy()
                writing.append(threads.submit(write, masks / f"{photo.stem}.png", planes, size))

            requests.set_callback(done)
            ahead = AHEAD * usable_cores()
            reading = [threads.submit(read, photo) for photo in photos[:ahead]]
            for number, photo in enumerate(photos):
                if number + ahead < len(photos):
                    reading.append(threads.submit(read, photos[number + ahead]))
                pixels, size = reading[number].result()
                reading[number] = None  # type: ignore[call-overload]
                requests.start_async(pixels, (photo, size))
            requests.wait_all()
            for future in writing:
                future.result()
        return time.perf_counter() - started

    return Ready(work, "openvino", precision)


if __name__ == "__main__":
    compete(load)
