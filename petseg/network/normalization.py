"""Batch normalisation while a network learns, folded into its convolutions at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray


@keras.saving.register_keras_serializable(package="petseg")
class Normalized(layers.Layer):  # type: ignore[misc]
    """A convolution without bias, batch normalisation (Ioffe and Szegedy 2015), then ReLU.

    Takes the place of a convolution with bias and ReLU: normalised by fixed statistics, it computes
    what such a convolution computes with the weights `folded` gives.  Statistics are float32 and
    computed in float32 under every policy.  Where it is not trainable, the statistics are fixed.
    """

    def __init__(self, convolution: layers.Layer, momentum: float, **options: Any) -> None:
        """Wrap a convolution.

        Args:
            convolution: Conv2D or Conv2DTranspose, without bias and activation.
            momentum: of the running statistics.
            options: Keras' own.
        """
        super().__init__(**options)
        self.convolution = convolution
        self.momentum = momentum
        # Sub-layers inherit neither a policy nor that a layer, loaded with a frozen encoder, is not
        # to be trained.
        self.normalization = layers.BatchNormalization(
            momentum=momentum,
            dtype=self.dtype_policy,
            trainable=self.trainable,
            name="normalization",
        )
        self._started_with: NDArray[np.float32] | None = None
        self._starting = False

    def build(self, input_shape: Sequence[int | None]) -> None:
        # One that was loaded with this layer is built.
        if not self.convolution.built:
            self.convolution.build(input_shape)
        self.normalization.build(self.convolution.compute_output_shape(input_shape))
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        outputs = self.convolution(inputs)
        if self._starting:
            self._measure(outputs)
        return ops.relu(self.normalization(outputs, training=training))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(self.convolution.compute_output_shape(input_shape))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "convolution": keras.saving.serialize_keras_object(self.convolution),
            "momentum": self.momentum,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Normalized:
        convolution = keras.saving.deserialize_keras_object(config["convolution"])
        return cls(**{**config, "convolution": convolution})

    def folded(self, values: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Kernel and bias of the convolution that computes the same, float32.

        Args:
            values: for this layer's weights, in their order: kernel, scale, shift, mean, variance.
        """
        kernel, gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in values)
        factor = gamma / np.sqrt(variance + self.normalization.epsilon)
        # Output channels are the last axis of Conv2D's kernels and the last but one of
        # Conv2DTranspose's.
        transposed = isinstance(self.convolution, layers.Conv2DTranspose)
        kernel = kernel * (factor[:, None] if transposed else factor)
        return [kernel.astype(np.float32), (beta - mean * factor).astype(np.float32)]

    def start(self, kernel: NDArray[np.float32], bias: NDArray[np.float32] | None) -> None:
        """Take a kernel, and measure the statistics of what it makes in the next call.

        With a bias, scale and shift are then set so that the layer computes what the convolution
        with these weights does; without one, so that its outputs have mean 0 and variance 1 before
        ReLU.
        """
        self.convolution.set_weights([kernel])
        self._started_with, self._starting = bias, True

    def _measure(self, outputs: Any) -> None:
        axes = tuple(range(len(outputs.shape) - 1))
        mean, variance = (
            ops.convert_to_numpy(part) for part in ops.moments(ops.cast(outputs, "float32"), axes)
        )
        if self._started_with is None:
            gamma, beta = np.ones_like(mean), np.zeros_like(mean)
        else:
            gamma = np.sqrt(variance + self.normalization.epsilon)
            beta = mean + self._started_with
        self.normalization.set_weights([gamma, beta, mean, variance])
        self._started_with, self._starting = None, False
