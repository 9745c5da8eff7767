"""The session alone, setting by setting: bare_session.py MODEL PROVIDER PRECISION SECONDS BATCHES.

cores.py and roofline.py start it in a process of its own, so that its processor time is the
session's and nobody else's.  Pixels and probabilities stay in memory; JSON goes to stdout.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petseg.modelfile import signature
from petseg.modelfile.signature import INPUT, PROBABILITIES
from petseg.runtime.openvino import has_bfloat16, shared_core
from petseg.system import machine

BATCHES = (1, 2, 4, 8)
# How long a session is watched that has nothing to do: one that spins is at work all the same.
REST_SECONDS = 0.05

Run = Callable[[NDArray[np.uint8]], object]


@dataclass(frozen=True)
class Setting:
    """How a session shares out the cores.

    Attributes:
        batch: images of a run.
        streams: runs at the same time.
        threads: that each of them is shared out among.
        spinning: whether a thread that waits for others keeps its core; onnxruntime's alone can.
    """

    batch: int
    streams: int
    threads: int
    spinning: bool = False


def measured(
    model: Path, provider: str, precision: str, seconds: float, batches: tuple[int, ...] = BATCHES
) -> list[dict[str, Any]]:
    """What `sweep` finds, in a process of its own."""
    command = (sys.executable, __file__, model, provider, precision, seconds, *batches)
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def fastest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of the best setting; one with spinning is there to be compared with, no more."""
    return max(
        (row for row in rows if not row["spinning"]), key=lambda row: row["images_per_second"]
    )


def sweep(
    model: Path, provider: str, precision: str, seconds: float, batches: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Every setting that uses all cores; last, on onnxruntime, the best shared one with spinning.

    Args:
        model: a petseg ONNX file.
        provider: "cpu" or "openvino".
        precision: "float32", "bfloat16" or "int8".
        seconds: that each setting is measured for, at least; a run that has begun is finished.
        batches: to try.

    Returns:
        A row a setting: its fields, "images_per_second", "core_seconds" an image, and "rest",
        cores that stayed busy just behind the runs.
    """
    cores = machine.usable_cores()
    streams = [count for count in range(1, cores + 1) if cores % count == 0]
    settings = [Setting(batch, count, cores // count) for count in streams for batch in batches]
    rows = [measure(model, provider, precision, setting, seconds) for setting in settings]
    if provider == "cpu" and cores > 1:
        best = fastest([row for row in rows if row["streams"] == 1])
        spinning = Setting(best["batch"], 1, cores, spinning=True)
        rows.append(measure(model, provider, precision, spinning, seconds))
    return rows


def measure(
    model: Path, provider: str, precision: str, setting: Setting, seconds: float
) -> dict[str, Any]:
    """One setting, all its streams at once."""
    size = signature.read(model).size
    images = np.random.default_rng(0).integers(
        0, 256, (setting.batch, size, size, 3), dtype=np.uint8
    )
    if provider == "openvino":
        runs = openvino_runs(model, precision, setting, images)
    else:
        runs = [onnxruntime_run(model, setting)] * setting.streams

    def stream(run: Run) -> int:
        count = 0
        while not count or time.perf_counter() - began < seconds:
            run(images)
            count += len(images)
        return count

    with ThreadPoolExecutor(setting.streams) as threads:
        # The first run of a shape prepares it.
        list(threads.map(lambda run: run(images), runs))
        began, busy = time.perf_counter(), time.process_time()
        count = sum(threads.map(stream, runs))
        wall, busy = time.perf_counter() - began, time.process_time() - busy
        resting = time.process_time()
        time.sleep(REST_SECONDS)
        rest = (time.process_time() - resting) / REST_SECONDS
    return {
        **asdict(setting),
        "images_per_second": count / wall,
        "core_seconds": busy / count,
        "rest": rest,
    }


def onnxruntime_run(model: Path, setting: Setting) -> Run:
    """A session of onnxruntime's CPU provider, which any number of threads may run."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = setting.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(setting.spinning)))
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([PROBABILITIES], {INPUT: images})


def openvino_runs(
    model: Path, precision: str, setting: Setting, images: NDArray[np.uint8]
) -> list[Run]:
    """A request of OpenVINO's for each stream."""
    import openvino

    core = shared_core()
    network = core.read_model(model)
    network = openvino.Model([network.output(PROBABILITIES)], network.get_parameters())
    network.reshape(list(images.shape))
    # As petseg-batch has it: what is not int8 in an int8 file is in bfloat16, if it can be.
    bfloat16 = precision != "float32" and has_bfloat16(core)
    config = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": setting.streams,
        "INFERENCE_NUM_THREADS": setting.streams * setting.threads,
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(network, "CPU", config)
    requests = [compiled.create_infer_request() for _ in range(setting.streams)]
    # The arguments of a lambda are bound now, its free names would be the last of the loop.
    return [lambda pixels, request=request: request.infer([pixels]) for request in requests]


if __name__ == "__main__":
    file, on, computed, limit, *sizes = sys.argv[1:]
    print(json.dumps(sweep(Path(file), on, computed, float(limit), tuple(map(int, sizes)))))
