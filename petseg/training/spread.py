"""Training on several devices: the network on each of them, and every batch shared out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import keras

from petseg.errors import PetsegError

Scope = Callable[[], AbstractContextManager[Any]]


def scope(numbers: tuple[int, ...]) -> Scope:
    """What a network has to be made and trained in to be on these devices.

    On TensorFlow that is a MirroredStrategy, on jax a Keras DataParallel.  Each device gets its
    share of every batch, and the gradients are averaged: one step is what it is on one device, but
    for rounding, and for batch normalisation, which sees each share by itself.

    Args:
        numbers: of GPUs, or of the backend's CPU devices where there is no GPU; empty for what the
            backend takes by itself.

    Raises:
        PetsegError: there is no such device, or the backend cannot share out batches.
    """
    if not numbers:
        return contextlib.nullcontext
    backend = keras.backend.backend()
    if backend == "tensorflow":
        # The one place where training calls it: Keras 3 has no such distribution of its own there.
        import tensorflow as tf

        gpus = tf.config.list_logical_devices("GPU")
        there = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
        strategy: Scope = tf.distribute.MirroredStrategy(_chosen(numbers, there)).scope
        return strategy
    if backend == "jax":
        there = [str(name) for name in keras.distribution.list_devices()]
        chosen = _chosen(numbers, there)
        parallel: Scope = keras.distribution.DataParallel(
            devices=chosen, auto_shard_dataset=False
        ).scope
        return parallel
    raise PetsegError(
        f"--devices shares batches out with the tensorflow and jax backends, this is {backend}: "
        "set KERAS_BACKEND, or leave --devices out"
    )


def check(batch_size: int, devices: int) -> None:
    """Refuse batches that the devices cannot share equally.

    Raises:
        PetsegError: with a size that they can.
    """
    if devices and batch_size % devices:
        raise PetsegError(
            f"{devices} devices cannot share batches of {batch_size} equally: "
            f"--batch-size {batch_size + devices - batch_size % devices}, or another number of "
            "--devices"
        )


def _chosen(numbers: tuple[int, ...], there: list[str]) -> list[str]:
    if missing := [number for number in numbers if not 0 <= number < len(there)]:
        raise PetsegError(
            f"--devices names {missing[0]}, and there are 0 to {len(there) - 1}: {', '.join(there)}"
        )
    if len(set(numbers)) < len(numbers):
        raise PetsegError(f"--devices names a device twice: {numbers}")
    return [there[number] for number in numbers]
