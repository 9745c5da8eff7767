"""Optimisers for a run that calls `fit` once an epoch, and the course of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from petseg.training.recipes import Stage, TrainConfig


class _Epochwise:
    """What a run that calls `fit` once an epoch needs of an optimiser."""

    def build(self, variables: Sequence[Any]) -> None:
        # Biases and normalisation's scale and shift have no scale of their own to be decayed to.
        # Set here and not by who makes the optimiser: one that is loaded has it, too.
        vectors = [variable for variable in variables if len(variable.shape) < 2]
        self.exclude_from_weight_decay(var_list=vectors)  # type: ignore[attr-defined]
        super().build(variables)  # type: ignore[misc]

    # On several devices each has the gradients of its share, and TensorFlow's optimiser would clip
    # these before it adds them up.  What is to be clipped is their sum, as on one device.

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        if _replicas(self) > 1:
            return grads
        return super()._clip_gradients(grads)  # type: ignore[misc, no-any-return]

    def _all_reduce_sum_gradients(self, grads_and_vars: list[Any]) -> list[Any]:
        summed = super()._all_reduce_sum_gradients(grads_and_vars)  # type: ignore[misc]
        if _replicas(self) == 1:
            return summed  # type: ignore[no-any-return]
        grads, variables = zip(*summed, strict=True)
        return list(zip(super()._clip_gradients(list(grads)), variables, strict=True))  # type: ignore[misc]

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Nothing: Keras would overwrite the weights with their average at the end of a `fit`."""


def _replicas(optimizer: Any) -> int:
    """Devices that share a batch; what jax shares out it adds up itself."""
    strategy = getattr(optimizer, "_distribution_strategy", None)
    return 1 if strategy is None else int(strategy.num_replicas_in_sync)


@keras.saving.register_keras_serializable(package="petseg")
class Adam(_Epochwise, keras.optimizers.Adam):  # type: ignore[misc]
    """Keras' Adam, for one `fit` an epoch."""


@keras.saving.register_keras_serializable(package="petseg")
class AdamW(_Epochwise, keras.optimizers.AdamW):  # type: ignore[misc]
    """Keras' AdamW, for one `fit` an epoch; only kernels decay."""


def build_optimizer(config: TrainConfig, stage: Stage, steps: int) -> keras.optimizers.Optimizer:
    """The optimiser of a stage of so many steps, new."""
    rate: float | keras.optimizers.schedules.LearningRateSchedule = stage.learning_rate
    if config.schedule == "cosine":
        warmup = min(config.warmup_steps, steps // 10)
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else stage.learning_rate,
            decay_steps=steps - warmup,
            warmup_target=stage.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    options: dict[str, Any] = {"global_clipnorm": config.clip_norm}
    if config.ema_momentum:
        options |= {"use_ema": True, "ema_momentum": config.ema_momentum}
    if config.optimizer == "adamw":
        return AdamW(rate, weight_decay=config.weight_decay, **options)
    return Adam(rate, **options)
