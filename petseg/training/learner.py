"""The network as it learns: built, started, compiled, and loaded again."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from petseg.errors import DatasetError, first_line
from petseg.network import weight_files, weights
from petseg.network.model import BREED, HEAD, Architecture, build_segmenter, with_breeds
from petseg.training.losses import PixelAccuracy, SegmentationLoss
from petseg.training.optimization import build_optimizer
from petseg.training.recipes import Stage, TrainConfig

# Keras' own, where no average of the weights says how long statistics are to be averaged.
_NORMALIZATION_MOMENTUM = 0.99


def on_gpu() -> bool:
    """Whether the backend computes on a GPU."""
    if keras.backend.backend() == "torch":
        # Keras lists no devices for torch.
        return bool(importlib.import_module("torch").cuda.is_available())
    # Of all devices: jax raises where a kind that is asked for is not there.
    return any(device.startswith("gpu") for device in keras.distribution.list_devices())


@contextmanager
def policy(name: str) -> Iterator[None]:
    """Keras' dtype policy for what is built inside."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def architecture(config: TrainConfig, size: int) -> Architecture:
    """The network that a run keeps, at one of its sizes."""
    return Architecture(size, len(config.classes), config.filters)


def build_learner(config: TrainConfig, size: int, breeds: int) -> keras.Model:
    """The network with all that training adds, new; its policy is the one in force.

    Input: preprocessed pixels, float (N, S, S, 3).  Output: log-probabilities float32
    (N, S, S, C), or with breeds (see `model.with_breeds`) a dictionary of them and of the breeds'
    logits.

    Args:
        config: of the run.
        size: S, pixels.
        breeds: how many are told apart; 0 for none.
    """
    momentum = None
    if config.normalize:
        # As slow as the weights' average: then they are, to first order, its statistics.
        momentum = config.ema_momentum or _NORMALIZATION_MOMENTUM
    # Log-probabilities: the logarithm of a softmax in float32 has no gradient left where the
    # network is quite sure and wrong.
    model = build_segmenter(architecture(config, size), momentum, activation="log_softmax")
    if breeds:
        model = with_breeds(model, breeds)
    model.get_layer("encoder").trainable = config.train_encoder
    return model


def start(
    model: keras.Model, config: TrainConfig, size: int, images: NDArray[np.float32]
) -> weights.Start:
    """Give a new learner the weights its run starts from.

    A normalised network with given weights begins as the function these weights compute: scale
    and shift of their layers undo the normalisation by the statistics of `images`.

    Args:
        model: from `build_learner`; changed in place.
        config: of the run.
        size: S, pixels.
        images: preprocessed training images, float32 (N, S, S, 3).

    Raises:
        DatasetError: the weights cannot be read, or do not fit the network.
    """
    with policy("float32"):
        network = build_segmenter(architecture(config, size))
    if config.init is not None:
        origin = weights.load_start(network, Path(config.init), config.seed)
    else:
        origin = weights.initialize(
            network, config.encoder_weights, images, config.seed, config.normalize
        )
    arrays = weights.learnt(network)
    for name, layer in weights.convolutions(model).items():
        if hasattr(layer, "start"):
            kernel, bias = arrays[name]
            layer.start(kernel, bias if name in origin.given else None)
        else:
            layer.set_weights(arrays[name])
    if config.normalize:
        model(images, training=False)
    return origin


def compile_learner(model: keras.Model, config: TrainConfig, stage: Stage, steps: int) -> None:
    """Make a learner ready for a stage of so many steps."""
    loss: Any = SegmentationLoss(config.dice_weight, config.boundary_weight, config.label_smoothing)
    metrics: Any = [PixelAccuracy(name="accuracy")]
    loss_weights = None
    if isinstance(model.output, dict):
        loss = {HEAD: loss, BREED: keras.losses.CategoricalCrossentropy(from_logits=True)}
        metrics = {HEAD: metrics}
        loss_weights = {HEAD: 1.0, BREED: config.breed_weight}
    model.compile(
        optimizer=build_optimizer(config, stage, steps),
        loss=loss,
        loss_weights=loss_weights,
        metrics=metrics,
        # XLA, but for TensorFlow on a CPU, whose own kernels are faster, and on several devices,
        # where it cannot; kept as "auto" in a checkpoint, which may go on elsewhere.
        jit_compile="auto",
    )
    # Else the first step makes the optimiser's variables, and TensorFlow traces it twice.
    model.optimizer.build(model.trainable_variables)


def load(checkpoint: Path, precision: str) -> keras.Model:
    """A learner as a checkpoint holds it, optimiser included.

    Args:
        checkpoint: a .keras file of a run.
        precision: Keras' dtype policy for the run that goes on.

    Raises:
        DatasetError: the file cannot be read.
    """
    try:
        # A loaded model's own policy, which decides whether its loss is scaled, is the one in
        # force and not the stored one.
        with policy(precision):
            return keras.models.load_model(checkpoint)
    except weight_files.LOAD_ERRORS as error:
        raise DatasetError(
            f"cannot go on from {checkpoint}: {first_line(error)}; begin the run "
            "again in another folder"
        ) from error
