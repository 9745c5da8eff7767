"""The network: a VGG16 encoder whose features are met, level by level, on the way back up.

The architecture is that of the article "TensorFlow 2.0 semantic segmentation, Oxford-IIIT Pet,
part 2"; the encoder is VGG16 (Simonyan and Zisserman 2014, configuration D) without its dense
layers.  Only Keras 3 is used, so the same network runs on its tensorflow, jax and torch backends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from petseg.network.normalization import Normalized

# Channel means of the ImageNet training images in BGR order, 0..255, as subtracted by the Caffe
# VGG16 release and by keras.applications.vgg16.preprocess_input.
IMAGENET_MEANS_BGR = (103.939, 116.779, 123.68)

# Convolutions in each of VGG16's five blocks; every block ends in a 2x2 max pooling.
VGG16_DEPTHS = (2, 2, 3, 3, 3)
VGG16_FILTERS = (64, 128, 256, 512, 512)

# Outputs of the network as it is trained: the class of each pixel, and the breed of the pet.
HEAD, BREED = "head", "breed"


@dataclass(frozen=True)
class Architecture:
    """What tells one segmenter from another; stored in every run and every model file.

    Attributes:
        size: side of the square input, in pixels; a multiple of 32.
        classes: number of classes the network tells apart.
        filters: channels of the five encoder blocks.  VGG16's are the default; tests use fewer.
    """

    size: int = 224
    classes: int = 3
    filters: tuple[int, int, int, int, int] = VGG16_FILTERS

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 32:
            raise ValueError(f"input size must be a positive multiple of 32, not {self.size}")
        if self.classes < 2:
            raise ValueError(f"a segmenter needs at least 2 classes, not {self.classes}")
        if len(self.filters) != 5 or min(self.filters) < 1:
            raise ValueError(f"filters must be five positive numbers, not {self.filters}")


def _convolution(
    kind: type[layers.Layer],
    filters: int,
    name: str,
    normalization: float | None,
    dtype: Any = None,
    **options: Any,
) -> layers.Layer:
    """A 3x3 convolution with "same" padding and ReLU, normalised or not."""
    options = {"filters": filters, "kernel_size": 3, "padding": "same", "dtype": dtype, **options}
    if normalization is None:
        return kind(activation="relu", name=name, **options)
    inner = kind(use_bias=False, name="convolution", **options)
    return Normalized(inner, normalization, dtype=dtype, name=name)


@keras.saving.register_keras_serializable(package="petseg")
class Connect(layers.Layer):  # type: ignore[misc]
    """Twice the resolution: a 3x3 transposed convolution of stride 2, then a 3x3 convolution.

    Both use "same" padding and ReLU.  Input (N, H, W, C), output (N, 2H, 2W, filters).
    """

    def __init__(
        self, filters: int, normalization: float | None = None, **layer_options: Any
    ) -> None:
        super().__init__(**layer_options)
        self.filters = filters
        self.normalization = normalization
        # Sub-layers do not inherit a policy given to this layer, so it is handed on.
        policy = self.dtype_policy
        self.upsample = _convolution(
            layers.Conv2DTranspose, filters, "upsample", normalization, policy, strides=2
        )
        self.refine = _convolution(layers.Conv2D, filters, "refine", normalization, policy)

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.upsample.build(input_shape)
        self.refine.build(self.upsample.compute_output_shape(input_shape))
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        return self.refine(self.upsample(inputs))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(self.upsample.compute_output_shape(input_shape))

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "filters": self.filters}
        # Left out where there is none: so the network that is kept is described as it always was.
        if self.normalization is not None:
            config["normalization"] = self.normalization
        return config


def build_encoder(architecture: Architecture, normalization: float | None = None) -> keras.Model:
    """VGG16 without its dense layers, layer names as in keras.applications.

    Input (N, S, S, 3); outputs `block5_conv3` (N, S/16, S/16, C5), `block4_conv3`
    (N, S/8, S/8, C4), `block3_conv3` (N, S/4, S/4, C3) and `block5_pool` (N, S/32, S/32, C5).
    """
    inputs = keras.Input((architecture.size, architecture.size, 3), name="image")
    features = {}
    x = inputs
    for block, (depth, filters) in enumerate(
        zip(VGG16_DEPTHS, architecture.filters, strict=True), start=1
    ):
        for conv in range(1, depth + 1):
            name = f"block{block}_conv{conv}"
            x = _convolution(layers.Conv2D, filters, name, normalization)(x)
            features[name] = x
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    outputs = [features["block5_conv3"], features["block4_conv3"], features["block3_conv3"], x]
    return keras.Model(inputs, outputs, name="encoder")


def build_segmenter(
    architecture: Architecture | None = None,
    normalization: float | None = None,
    activation: str = "softmax",
) -> keras.Model:
    """The whole network, with random weights.

    Input: preprocessed pixels (see `preprocess`), float (N, S, S, 3).
    Output: probabilities float32 (N, S, S, classes), which sum to 1 over the last axis.

    Args:
        architecture: of the network.
        normalization: momentum of the running statistics of a network to be trained with batch
            normalisation behind every convolution but the head; None builds the network itself.
        activation: of the head; "log_softmax" gives the logarithms of the probabilities, "linear"
            the logits.
    """
    architecture = architecture or Architecture()
    inputs = keras.Input((architecture.size, architecture.size, 3), name="input")
    level5, level4, level3, pooled = build_encoder(architecture, normalization)(inputs)
    _, filters2, filters3, filters4, filters5 = architecture.filters
    x = Connect(filters5, normalization, name="connect_1")(pooled)
    x = layers.Add(name="add_1")([x, level5])
    x = Connect(filters4, normalization, name="connect_2")(x)
    x = layers.Add(name="add_2")([x, level4])
    x = Connect(filters3, normalization, name="connect_3")(x)
    x = layers.Add(name="add_3")([x, level3])
    x = Connect(filters2, normalization, name="connect_4")(x)
    # Probabilities stay float32 under a mixed policy: bfloat16 has only 8 bits of precision.
    outputs = layers.Conv2DTranspose(
        architecture.classes,
        3,
        strides=2,
        padding="same",
        activation=activation,
        dtype="float32",
        name=HEAD,
    )(x)
    return keras.Model(inputs, outputs, name="segmenter")


def with_breeds(segmenter: keras.Model, breeds: int) -> keras.Model:
    """A segmenter that also tells breeds, from the mean of what its encoder's last layer sees.

    Outputs: a dictionary of `HEAD`, the segmenter's, and `BREED`, logits float32 (N, breeds).
    """
    pooled = segmenter.get_layer("connect_1").input
    features = layers.GlobalAveragePooling2D(dtype="float32", name="breed_features")(pooled)
    # All breeds alike at first.  A network that begins with weights of its own has features of any
    # size, and a drawn head, sure and wrong, would have torn them down.
    logits = layers.Dense(breeds, kernel_initializer="zeros", dtype="float32", name=BREED)(features)
    return keras.Model(
        segmenter.input, {HEAD: segmenter.output, BREED: logits}, name=segmenter.name
    )


def preprocess(images: Any) -> Any:
    """RGB pixels 0..255 (N, H, W, 3) to what VGG16 was trained on: BGR, ImageNet means taken off.

    A numpy array stays one, so that data loading threads leave the backend alone; a Keras tensor
    (tensorflow and jax: torch cannot slice backwards) stays a tensor.  float32, the same shape.
    """
    subtract = np.subtract if isinstance(images, np.ndarray) else ops.subtract
    return subtract(images[..., ::-1], np.asarray(IMAGENET_MEANS_BGR, np.float32))


def table(model: keras.Model) -> str:
    """A segmenter's layers as a Markdown table, and under it its parameters' three totals."""
    rows = []
    for entry in model.get_config()["layers"]:
        layer = model.get_layer(entry["name"])
        shapes = "; ".join(", ".join(map(str, tensor.shape[1:])) for tensor in _outputs(layer))
        inputs = ", ".join(
            _output_name(model.get_layer(name), index)
            for name, index in _sources(entry["inbound_nodes"])
        )
        rows.append(
            f"| {_describe(layer)} | {shapes} | {layer.count_params():,} | {inputs}".rstrip() + " |"
        )
    total = model.count_params()
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return "\n".join(
        [
            "| layer | output shape | parameters | connected to |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Total {total:,}; trainable {trainable:,}; not trainable {total - trainable:,}.",
        ]
    )


def _outputs(layer: keras.Layer) -> list[Any]:
    return layer.outputs if isinstance(layer, keras.Model) else [layer.output]


def _sources(nodes: Any) -> Iterator[tuple[str, int]]:
    """Layer name and output index of every tensor in the `inbound_nodes` of a model's config."""
    if isinstance(nodes, dict):
        if "keras_history" in nodes:
            name, _, index = nodes["keras_history"]
            yield name, index
        for value in nodes.values():
            yield from _sources(value)
    elif isinstance(nodes, list | tuple):
        for value in nodes:
            yield from _sources(value)


def _output_name(layer: keras.Layer, index: int) -> str:
    """What a layer's output is called: a nested model's by the layer inside that makes it."""
    if isinstance(layer, keras.Model):
        return str(layer.output_names[index])
    return str(layer.name)


def _describe(layer: keras.Layer) -> str:
    if isinstance(layer, keras.Model):
        return f"{layer.name} (VGG16)"
    if isinstance(layer, layers.Conv2DTranspose):
        height, width = layer.kernel_size
        return (
            f"{layer.name} (transposed convolution, {height}x{width}, stride {layer.strides[0]}, "
            f"{layer.activation.__name__})"
        )
    return str(layer.name)
