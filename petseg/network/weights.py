"""Weights for a network: given, read back from a model, or drawn so that it trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from petseg.errors import DatasetError, MissingPackageError, ModelError, first_line
from petseg.modelfile import signature
from petseg.modelfile.signature import Signature
from petseg.network import weight_files

if TYPE_CHECKING:
    import keras

# `model.HEAD`, which cannot be had without Keras.
_HEAD = "head"


@dataclass(frozen=True)
class Start:
    """Where a network's first weights come from, by layer path (see `convolutions`).

    Attributes:
        source: file or name of the weights.
        given: layers whose weights come from there.
        drawn: all others.
    """

    source: str
    given: tuple[str, ...]
    drawn: tuple[str, ...]

    def __str__(self) -> str:
        if not self.drawn:
            return f"started from {self.source}"
        loaded = f"loaded from {self.source}: {', '.join(self.given)}; " if self.given else ""
        return f"{loaded}drawn: {', '.join(self.drawn)}"


def convolutions(model: keras.Model) -> dict[str, keras.Layer]:
    """Every convolution, normalised or not, by its path, in the order of the forward pass.

    `block1_conv1`, ..., `connect_1/upsample`, `connect_1/refine`, ..., `head`.
    """
    found: dict[str, keras.Layer] = {}
    encoder = model.get_layer("encoder")
    for layer in encoder.layers:
        if layer.weights:
            found[layer.name] = layer
    for layer in model.layers:
        if layer is encoder or not layer.weights or len(layer.output.shape) != 4:
            continue
        if hasattr(layer, "upsample"):
            found[f"{layer.name}/upsample"] = layer.upsample
            found[f"{layer.name}/refine"] = layer.refine
        else:
            found[layer.name] = layer
    return found


def check(encoder_weights: str, init: str | None) -> None:
    """Raise at once what a run would otherwise raise after all its photos were decoded.

    Raises:
        DatasetError: the weights cannot be downloaded or read.
    """
    if init is None:
        weight_files.read_encoder(encoder_weights)
    else:
        _read_start(_start_file(Path(init)))


def initialize(
    model: keras.Model,
    encoder_weights: str,
    images: NDArray[np.float32],
    seed: int,
    normalized: bool = False,
) -> Start:
    """Fill a new network with the weights a run starts from.

    Layers that no weights are given for are drawn He-normal (He et al. 2015), and those of the
    encoder are then scaled, one after the other, until each one's output has unit RMS on `images`
    (layer-sequential unit variance, Mishkin and Matas 2016).  Without that, thirteen layers
    of freshly drawn weights behind trained ones do not train.

    For a network that is to be normalised the given layers are scaled instead, kernel and bias, so
    that each one's output is what it was but for a factor.  Normalised layers have unit scale by
    themselves, and those of the decoder would be drowned where outputs of the encoder, which come
    in the hundreds, are added to theirs.

    Args:
        model: from `model.build_segmenter`; changed in place.
        encoder_weights: "imagenet", "none", or the path of an .npz file with keys such as
            `block1_conv1/kernel` (HWIO) and `block1_conv1/bias`.
        images: preprocessed training images, float32 (N, S, S, 3).
        seed: of the drawn weights.
        normalized: whether the network is to be normalised.

    Raises:
        DatasetError: the weights cannot be downloaded or read, or do not fit the network.
    """
    layers = convolutions(model)
    given = weight_files.read_encoder(encoder_weights)
    unknown = sorted(set(given) - set(layers))
    if unknown:
        raise DatasetError(
            f"{encoder_weights} has weights for {', '.join(unknown)}, which the network lacks"
        )
    for name, arrays in given.items():
        expected = [tuple(weight.shape) for weight in layers[name].weights]
        found = [array.shape for array in arrays]
        if expected != found:
            raise DatasetError(
                f"{encoder_weights}: {name} has the shapes {found}, expected {expected}"
            )
        layers[name].set_weights(arrays)
    drawn = [name for name in layers if name not in given]
    random = np.random.default_rng(seed)
    for name in drawn:
        layers[name].set_weights(_draw_he_normal(layers[name], random))
    scaled = given if normalized else drawn
    _scale_to_unit_rms(model, [name for name in scaled if name.startswith("block")], images)
    return Start(encoder_weights, tuple(given), tuple(drawn))


def _draw_he_normal(layer: Any, random: np.random.Generator) -> list[NDArray[np.float32]]:
    kernel, bias = layer.weights
    # Conv2D kernels are HWIO; Conv2DTranspose kernels are HWOI.
    transposed = type(layer).__name__ == "Conv2DTranspose"
    inputs = kernel.shape[3] if transposed else kernel.shape[2]
    deviation = np.sqrt(2.0 / (kernel.shape[0] * kernel.shape[1] * inputs))
    draw = random.normal(0.0, deviation, tuple(kernel.shape)).astype(np.float32)
    return [draw, np.zeros(tuple(bias.shape), np.float32)]


def _scale_to_unit_rms(model: keras.Model, names: list[str], images: NDArray[np.float32]) -> None:
    import keras

    encoder = model.get_layer("encoder")
    # Of what comes in, against what it was; max pooling and ReLU pass it on.
    factor = 1.0
    for name in names:
        layer = encoder.get_layer(name)
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, bias * factor])
        probe = keras.Model(encoder.inputs[0], layer.output)
        output = np.asarray(
            keras.ops.convert_to_numpy(probe(images, training=False)), dtype=np.float32
        )
        rms = float(np.sqrt(np.mean(np.square(output))))
        if rms > 0:
            factor /= rms
            layer.set_weights([kernel / rms, bias * factor])


def load_start(model: keras.Model, path: Path, seed: int) -> Start:
    """Fill a network with the weights of a run folder, a .keras file or a petseg .onnx file.

    A checkpoint of a run gives what the run would have kept (see `learnt`).  Where the file tells
    another number of classes apart, the head is drawn by `seed`, and all before it is taken over.

    Raises:
        DatasetError: there is no such model, or it is of another shape.
    """
    file = _start_file(path)
    arrays = _read_start(file)
    head = convolutions(model)[_HEAD]
    drawn: tuple[str, ...] = ()
    if _HEAD in arrays and arrays[_HEAD][1].shape != tuple(head.weights[1].shape):
        drawn = (_HEAD,)
        arrays[_HEAD] = _draw_he_normal(head, np.random.default_rng(seed))
    try:
        assign(model, arrays, file)
    except ModelError as error:
        raise DatasetError(f"cannot start from {file}: {error}") from error
    return Start(str(file), tuple(name for name in arrays if name not in drawn), drawn)


def _start_file(path: Path) -> Path:
    return path / "model.keras" if path.is_dir() else path


def _read_start(file: Path) -> dict[str, list[NDArray[np.float32]]]:
    import keras

    if not file.exists():
        raise DatasetError(f"cannot start from {file}: it does not exist")
    try:
        if file.suffix == ".onnx":
            return read_onnx(file)[1]
        return learnt(keras.models.load_model(file))
    # AttributeError: a model without an encoder, or of other layers.
    except (*weight_files.LOAD_ERRORS, AttributeError, ModelError) as error:
        raise DatasetError(f"cannot start from {file}: {first_line(error)}") from error


def learnt(model: keras.Model) -> dict[str, list[NDArray[np.float32]]]:
    """What is kept of a network's training: layer path to kernel and bias.

    Averages stand for what the optimiser averaged, normalisation is folded into the kernels, and
    what was only needed for training is left out.
    """
    from petseg.network.averages import averaged_weights

    values = dict(zip(map(id, model.weights), averaged_weights(model), strict=True))
    found = {}
    for name, layer in convolutions(model).items():
        own = [values[id(weight)] for weight in layer.weights]
        found[name] = layer.folded(own) if hasattr(layer, "folded") else own
    return found


def to_onnx(kernel: NDArray[Any]) -> NDArray[Any]:
    """A kernel in ONNX's order of axes: Conv2D's HWIO as OIHW, Conv2DTranspose's HWOI as IOHW."""
    return kernel.transpose(3, 2, 0, 1)


def from_onnx(kernel: NDArray[Any]) -> NDArray[Any]:
    """The inverse of `to_onnx`."""
    return kernel.transpose(2, 3, 1, 0)


def read_onnx(path: Path) -> tuple[Signature, dict[str, list[NDArray[np.float32]]]]:
    """What a file that petseg-export wrote says about itself, and its weights, bit for bit.

    Returns:
        The signature, and layer path (see `convolutions`) to kernel and bias in Keras' order of
        axes; float16 weights come as the same values in float32.

    Raises:
        ModelError: no petseg file, damaged, of a newer format, or an int8 file: the weights it
            was made from cannot be had back from it.
        MissingPackageError: onnx is not installed.
    """
    about = signature.read(path)
    if about.precision == "int8":
        raise ModelError(
            f"{path} holds weights rounded to int8, from which the network cannot be rebuilt; "
            "expected a float32 or float16 file: give the one it was made from"
        )
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingPackageError("onnx", "train", "reading weights from an ONNX file") from error

    stored = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    arrays = {}
    for name, (kernel, bias) in about.layers.items():
        missing = {kernel, bias} - set(stored)
        if missing:
            raise ModelError(f"{path}: {name} has no weights {', '.join(sorted(missing))}")
        pair = [onnx.numpy_helper.to_array(stored[part]) for part in (kernel, bias)]
        arrays[name] = [from_onnx(pair[0]).astype(np.float32), pair[1].astype(np.float32)]
    return about, arrays


def assign(model: keras.Model, arrays: dict[str, list[NDArray[np.float32]]], path: Path) -> None:
    """Set every layer's weights to those that `path` holds.

    Raises:
        ModelError: other layers or shapes than the network's; nothing was set.
    """
    layers = convolutions(model)
    expected = {
        name: [tuple(part.shape) for part in layer.weights] for name, layer in layers.items()
    }
    found = {name: [part.shape for part in pair] for name, pair in arrays.items()}
    different = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    if different:
        first = different[0]
        raise ModelError(
            f"{path} does not fit the network: {first} has the shapes {found.get(first)}, "
            f"expected {expected.get(first)}"
        )
    for name, layer in layers.items():
        layer.set_weights(arrays[name])
