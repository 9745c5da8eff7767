"""What the contestants share: their arguments, the line they print, and steps two of them take.

A contestant is a script.  bench.py starts it in a process of its own with photos, an empty folder
for masks, a model and a provider; on stdout it prints one line of JSON, `say`'s or `skip`'s.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from petseg.classes import SegmentClass, ids_to_values
from petseg.errors import MissingPackageError
from petseg.modelfile import signature
from petseg.photos import imageio, transforms

if TYPE_CHECKING:
    import onnxruntime

    from petseg_export.trained import Trained

T = TypeVar("T")

# "tf32" and "float16" on CUDA alone.
PRECISIONS = ("float32", "tf32", "float16", "bfloat16", "int8")
# The article's; and how many photos, about, are done before the clock starts.
BATCH = 8
# What may be missing, and what brings it.
EXPORT = ("tensorflow", "keras", "onnx", "tf2onnx", "petseg_export")
INSTALL = {
    **dict.fromkeys(EXPORT, "pip install 'petseg[export]'"),
    "openvino": "pip install 'petseg[openvino]'",
    "torch": "pip install torch",
}


@dataclass(frozen=True)
class Task:
    """What a contestant has to do.

    Attributes:
        photos: a folder of nothing but photos, `00000.jpg` and so on.
        masks: an empty folder for `00000.png` and so on, each of its photo's size.
        model: a petseg ONNX file, the weights of all contestants.
        provider: "cpu", "cuda" or "openvino".
        precision: what to compute in: one of `PRECISIONS`.
        started: `time.time()` when the process was started.
    """

    photos: Path
    masks: Path
    model: Path
    provider: str
    precision: str
    started: float


@dataclass(frozen=True)
class Ready:
    """A contestant whose model is loaded.

    Attributes:
        work: writes the masks of some photos into a folder, and returns the seconds that count.
        provider: what it computes on.
        precision: what it computes in.
    """

    work: Callable[[list[Path], Path], float]
    provider: str
    precision: str


def arguments() -> Task:
    """The task, from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--provider", choices=("cpu", "cuda", "openvino"), default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--started", type=float, default=time.time())
    return Task(**vars(parser.parse_args()))


class UnableError(Exception):
    """A contestant computes with what this machine has not; the message says with what."""


def attempt(load: Callable[[Task], T], task: Task) -> T | None:
    """What `load` returns; None, and it is printed why, where the contestant cannot take part."""
    try:
        return load(task)
    except (MissingPackageError, UnableError) as error:
        skip(str(error))
    except ModuleNotFoundError as error:
        if error.name not in INSTALL:
            raise
        skip(f"{error.name} is not installed: {INSTALL[error.name]}")
    return None


def compete(load: Callable[[Task], Ready]) -> None:
    """Load, warm up on a few photos, then do them all against the clock."""
    task = arguments()
    ready = attempt(load, task)
    if ready is None:
        return None
    loaded = time.time()
    photos = sorted(task.photos.iterdir())
    with tempfile.TemporaryDirectory() as scratch:
        # A full batch, and one like the last: no new shape will meet the clock.
        ready.work(photos[: BATCH + len(photos) % BATCH], Path(scratch))
    warm = time.time()
    seconds = ready.work(photos, task.masks)
    return say(
        seconds=seconds,
        start_up_seconds=loaded - task.started,
        warm_up_seconds=warm - loaded,
        provider=ready.provider,
        precision=ready.precision,
    )


def say(
    seconds: float, start_up_seconds: float, warm_up_seconds: float, provider: str, precision: str
) -> None:
    """Print the outcome: the seconds that count, those that do not, and what it was computed on."""
    print(json.dumps(locals()), flush=True)


def skip(reason: str) -> None:
    """Print why this contestant cannot take part here."""
    print(json.dumps({"skipped": reason}), flush=True)


def keras_network(task: Task) -> tuple[Trained, str]:
    """The model rebuilt in Keras on TensorFlow; and the provider that TensorFlow uses.

    In bfloat16 it is Keras' own mixed precision: weights and output in float32.
    """
    import tensorflow as tf

    if task.provider == "cpu":
        tf.config.set_visible_devices([], "GPU")
    import keras

    from petseg.network.model import build_segmenter
    from petseg_export import trained

    on_gpu = bool(tf.config.get_visible_devices("GPU"))
    model = trained.load(task.model)
    if task.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
        network = build_segmenter(model.architecture)
        network.set_weights(model.network.get_weights())
        model = dataclasses.replace(model, network=network)
    return model, "cuda" if on_gpu else "cpu"


def onnx_session(task: Task) -> tuple[onnxruntime.InferenceSession, str]:
    """The model in onnxruntime with its default settings and all cores; and the provider it got.

    On CUDA a file is computed in what it is stored in, in TF32 where the task says so.
    """
    import onnxruntime as ort

    from petseg.system.machine import usable_cores

    options = ort.SessionOptions()
    # The default counts the machine's cores, not those that this process may use.
    options.intra_op_num_threads = usable_cores()
    wanted: Any = f"{task.provider.upper()}ExecutionProvider"
    if task.provider == "cuda":
        ort.preload_dlls()
        wanted = (wanted, {"use_tf32": str(int(task.precision == "tf32"))})
    session = ort.InferenceSession(task.model, options, providers=[wanted])
    return session, session.get_providers()[0].removesuffix("ExecutionProvider").lower()


def has_bfloat16(core: Any) -> bool:
    """As `petseg.runtime.openvino` asks it, which would bring onnxruntime along."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def openvino_core(task: Task) -> Any:
    """OpenVINO, on a processor that computes in what the task says.

    Raises:
        UnableError: bfloat16, which the processor has not.
    """
    import openvino

    core = openvino.Core()
    if task.precision == "bfloat16" and not has_bfloat16(core):
        raise UnableError("this processor has no bfloat16 arithmetic")
    return core


def openvino_model(task: Task) -> tuple[Any, str]:
    """The model compiled by OpenVINO for throughput, one image a request; and its precision."""
    core = openvino_core(task)
    import openvino

    about = signature.read(task.model)
    network = core.read_model(task.model)
    network = openvino.Model([network.output("probabilities")], network.get_parameters())
    network.reshape([1, about.size, about.size, 3])
    # As petseg-batch has it: what is not int8 in an int8 file is in bfloat16, too, if it can be.
    bfloat16 = task.precision != "float32" and has_bfloat16(core)
    config = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
    }
    return core.compile_model(network, "CPU", config), task.precision


def read_pixels(photos: list[Path], size: int) -> NDArray[np.uint8]:
    """Photos as the network sees them, RGB uint8 (N, S, S, 3)."""
    return np.stack(
        [
            transforms.to_model(imageio.decode_reduced(photo.read_bytes(), size)[0], size)
            for photo in photos
        ]
    )


def write_masks(
    probabilities: NDArray[np.uint8],
    classes: tuple[SegmentClass, ...],
    photos: list[Path],
    masks: Path,
) -> None:
    """Masks of the photos' sizes from probabilities uint8 (N, C, S, S), as petseg-batch makes them.

    For the contestants without reading and writing: after the clock has stopped, so that their
    masks can be compared, too.
    """
    for photo, planes in zip(photos, probabilities, strict=True):
        with Image.open(photo) as image:
            width, height = image.size
        ids = transforms.to_source(planes, height, width)
        Image.fromarray(ids_to_values(classes)[ids]).save(masks / f"{photo.stem}.png")
