"""Weights averaged over training, as Keras' optimisers keep them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


def _steps(optimizer: keras.optimizers.Optimizer) -> int:
    # A variable that lies on several devices is no number to Python.
    return int(ops.convert_to_numpy(optimizer.iterations))


def averaged_weights(model: keras.Model) -> list[NDArray[np.float32]]:
    """`model.get_weights()` with the optimiser's averages in place of what they are averages of.

    Weights that nothing trains, and all of them where there is no average, are taken as they are.
    """
    optimizer = getattr(model, "optimizer", None)
    # Under mixed_float16 Keras wraps the optimiser in one that scales losses.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    averages: dict[int, Any] = {}
    # Before the first step the averages are 0.
    if optimizer is not None and optimizer.use_ema and _steps(optimizer) > 0:
        averages = {
            id(variable): average
            for variable, average in zip(
                optimizer._trainable_variables,
                optimizer._model_variables_moving_average,
                strict=True,
            )
        }
    return [
        np.asarray(ops.convert_to_numpy(averages.get(id(weight), weight)), np.float32)
        for weight in model.weights
    ]
