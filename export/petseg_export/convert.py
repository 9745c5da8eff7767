"""A trained network into one ONNX file that describes itself, and proof that it computes the same.

The graph takes pixels and gives pixels: channel flip, mean subtraction, argmax and rounding are in
it, so that whoever runs it cannot do them differently.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

import petseg
from petseg.data.dataset import hash_names
from petseg.errors import ModelError
from petseg.modelfile import signature
from petseg.modelfile.signature import INPUT, MASK, PROBABILITIES, Signature
from petseg.network.model import Architecture, preprocess
from petseg.system.temporary import write_whole
from petseg_export import calibration, graph, parity, quantize, trained

# The highest opset tf2onnx 1.17 writes.
OPSET = 18
# Up to this one Relu has no function body.  With one, onnxruntime's CPU provider, which has no
# float16 kernels, takes it apart before it widens the graph to float32, and then cannot join it
# with the convolution before it: 6 % more time (benchmarks/README.md, "Last results").
FLOAT16_OPSET = 17

FloatPrecision = Literal["float32", "float16"]
Precision = Literal[FloatPrecision, "int8"]


_DTYPES: dict[FloatPrecision, type[np.floating]] = {"float32": np.float32, "float16": np.float16}


@dataclass(frozen=True)
class ExportResult:
    """An exported file.

    Attributes:
        path: where it lies.
        size: bytes.
        signature: what it says about itself.
        parity: how close it is to the Keras network in float32.
    """

    path: Path
    size: int
    signature: Signature
    parity: parity.Parity


def export(
    source: Path,
    target: Path,
    precision: Precision = "float32",
    data: Path | None = None,
    calibration_photos: Path | None = None,
    compared: int = parity.IMAGES,
) -> ExportResult:
    """Write `source` as a petseg ONNX file, if it computes what the Keras network computes.

    Args:
        source: a run folder, a .keras file, or a float .onnx file that petseg-export wrote.
        target: the .onnx file to write; replaced whole, or not touched.
        precision: how weights are stored and what the graph computes in.
        data: folder in Oxford's layout whose photos are compared, and scored where it holds their
            trimaps: of a run first those it was validated on, then those of trainval.txt.  If
            None, photos that int8 was calibrated on, or drawn pictures.
        calibration_photos: for int8, a folder as `calibration.read_photos` takes it.
        compared: so many of `data`'s.

    Raises:
        ModelError: the source cannot be exported, the target cannot be written, or the result is
            out of `parity.BOUNDS`.
        DatasetError: the source's run or `data` is damaged, or `data` holds fewer photos than are
            compared, or `calibration_photos` too few.
        ValueError: int8 without photos to calibrate on, or another precision with them.
    """
    if (precision == "int8") != (calibration_photos is not None):
        raise ValueError("int8, and int8 alone, needs photos to calibrate on")
    if not target.parent.is_dir():
        raise ModelError(f"cannot write {target}: there is no folder {target.parent}")
    if target.exists() and source.exists() and target.samefile(source):
        raise ModelError(f"{target} would replace the model it is made from; choose another name")
    hide_gpus()
    model = trained.load(source)
    size = model.architecture.size
    photos = (
        None if calibration_photos is None else calibration.read_photos(calibration_photos, size)
    )
    pictures = _to_compare(data, compared, photos, model)
    float_precision: FloatPrecision = "float16" if precision == "float16" else "float32"
    file, layers = convert(model.network, model.architecture, float_precision)
    if photos is not None:
        limits = calibration.activation_limits(file, photos.images)
        file, layers = quantize.quantize(file, limits)
    found = parity.compare(model.network, file.SerializeToString(), pictures)
    parity.check(found, precision)
    graph_hash = signature.hash_graph(file.graph.SerializeToString())
    about = dataclasses.replace(
        _describe(model, precision, layers, graph_hash, photos), parity=dataclasses.asdict(found)
    )
    onnx.helper.set_model_props(file, dict(signature.to_metadata(about)))
    content = file.SerializeToString()
    # Read as petseg-batch will read it: this also compares the hash with the graph as it is stored.
    about = signature.parse(content)
    _write(target, content)
    return ExportResult(target, len(content), about, found)


def hide_gpus() -> None:
    """Keep TensorFlow from taking all memory of every GPU for a conversion on the CPU."""
    # A RuntimeError says that TensorFlow was in use before; then it holds what it holds.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")


def convert(
    network: keras.Model, architecture: Architecture, precision: FloatPrecision
) -> tuple[onnx.ModelProto, dict[str, tuple[str, str]]]:
    """The network between pixels and pixels as an ONNX model, without a signature.

    What tf2onnx makes of weights depends on them: it keeps equal ones once, leaves out zeros, and
    joins a bias to its convolution or does not.  So it is given a network that is not trained,
    whose biases are all zero, and the trained weights are stored in what it made.

    Args:
        network: from `model.build_segmenter(architecture)`, float32.
        architecture: what the network was built from.
        precision: "float16" stores each weight rounded to the nearest float16.

    Returns:
        The model: input `images` uint8 (batch, S, S, 3) RGB, outputs `mask` uint8 (batch, S, S)
        and `probabilities` uint8 (batch, C, S, S); and `Signature.layers` for it.

    Raises:
        ModelError: tf2onnx made a graph in which the network's layers cannot be found.
    """
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"tf2onnx converts Keras on TensorFlow, not on {keras.backend.backend()}: set "
            "KERAS_BACKEND=tensorflow"
        )
    untrained = trained.build_float32(architecture, activation="linear")
    side = architecture.size
    spec = [tf.TensorSpec((None, side, side, 3), tf.uint8, name=INPUT)]

    @tf.function(input_signature=spec)  # type: ignore[untyped-decorator]
    def pixels_to_pixels(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = untrained(preprocess(images), training=False)
        planes = tf.transpose(tf.nn.softmax(logits), (0, 3, 1, 2))
        return {
            # The largest logit's class is the largest probability's: whoever asks for the mask
            # alone pays for no softmax.
            MASK: tf.cast(tf.argmax(logits, axis=-1), tf.uint8),
            PROBABILITIES: tf.cast(tf.round(255.0 * planes), tf.uint8),
        }

    model, _ = tf2onnx.convert.from_function(pixels_to_pixels, input_signature=spec, opset=OPSET)
    graph.name_layers(model, untrained)
    if precision == "float16":
        model = convert_float_to_float16(model)
        next(opset for opset in model.opset_import if not opset.domain).version = FLOAT16_OPSET
    layers = graph.store_weights(model, network, _DTYPES[precision])
    graph.tidy(model, layers)
    onnx.checker.check_model(model, full_check=True)
    return model, layers


def _to_compare(
    data: Path | None, count: int, photos: calibration.Photos | None, model: trained.Trained
) -> parity.Pictures:
    size = model.architecture.size
    if data is not None:
        return parity.read_pictures(data, size, model.classes, model.validation, count)
    if photos is not None:
        # Drawn pictures are not what the ranges were chosen for.
        return parity.Pictures(photos.images[: parity.IMAGES])
    return parity.Pictures(parity.draw_images(size))


def _describe(
    model: trained.Trained,
    precision: Precision,
    layers: dict[str, tuple[str, str]],
    graph_hash: str,
    photos: calibration.Photos | None,
) -> Signature:
    calibrated = {} if photos is None else {"calibration": hash_names(photos.names)}
    return Signature(
        size=model.architecture.size,
        filters=model.architecture.filters,
        classes=model.classes,
        precision=precision,
        resize_filter=model.resize_filter,
        decoder=model.decoder,
        layers=layers,
        recipe=model.recipe,
        split_hash=model.split_hash | calibrated,
        metrics=model.metrics,
        versions={
            "petseg": petseg.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "tf2onnx": tf2onnx.__version__,
            "onnx": onnx.__version__,
        }
        | ({} if photos is None else {"onnxruntime": onnxruntime.__version__}),
        graph_hash=graph_hash,
        weights_hash=graph.hash_weights(model.network),
    )


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror}") from error
