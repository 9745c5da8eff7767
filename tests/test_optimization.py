from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from petseg.network.averages import averaged_weights
from petseg.training.optimization import Adam, AdamW, build_optimizer
from petseg.training.recipes import ARTICLE, LONG, SCRATCH, Stage


def test_the_cosine_schedule_warms_up_and_ends_at_zero() -> None:
    config = dataclasses.replace(SCRATCH, warmup_steps=5)
    steps = 100
    rate = build_optimizer(config, Stage(32, 20, 1e-2), steps)._learning_rate
    rates = [float(rate(step)) for step in range(steps + 1)]
    assert rates[0] == 0
    assert rates[5] == max(rates) == pytest.approx(1e-2)
    assert rates[5 + (steps - 5) // 2] == pytest.approx(5e-3, rel=0.02)
    assert rates[steps] == pytest.approx(0, abs=1e-8)
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_optimizers_are_those_of_the_recipe() -> None:
    adamw = build_optimizer(SCRATCH, SCRATCH.stages[0], 3312)
    assert isinstance(adamw, keras.optimizers.AdamW)
    assert (adamw.weight_decay, adamw.global_clipnorm, adamw.use_ema) == (1e-4, 1.0, False)
    adam = build_optimizer(ARTICLE, ARTICLE.stages[0], 5912)
    assert type(adam) is Adam
    assert float(adam.learning_rate) == pytest.approx(1e-4)
    assert adam.global_clipnorm is None
    averaging = build_optimizer(LONG, LONG.stages[0], 100)
    assert (averaging.use_ema, averaging.ema_momentum) == (True, LONG.ema_momentum)


def line(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """A kernel and a bias of 1, which are to learn a line."""
    inputs = keras.Input((1,))
    outputs = keras.layers.Dense(1, kernel_initializer="ones", bias_initializer="ones")(inputs)
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, "mean_squared_error")
    return model


ONES = np.ones((4, 1), np.float32)


def test_the_average_is_that_of_the_weights_after_each_step(tmp_path: Path) -> None:
    model = line(AdamW(0.1, use_ema=True, ema_momentum=0.75))
    # Before the first step there is no average.
    assert [weight.tolist() for weight in averaged_weights(model)] == [[[1]], [1]]
    expected = None
    for epoch in range(4):
        # As a run does: one fit an epoch, and every other one goes on from a file.
        model.fit(ONES, -ONES, epochs=1, batch_size=4, verbose=0)
        weights = np.concatenate([weight.ravel() for weight in model.get_weights()])
        expected = weights if expected is None else 0.75 * expected + 0.25 * weights
        found = np.concatenate([weight.ravel() for weight in averaged_weights(model)])
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        if epoch:
            assert np.abs(found - weights).min() > 0.01
        if epoch % 2:
            model.save(tmp_path / "model.keras")
            model = keras.models.load_model(tmp_path / "model.keras")
            assert isinstance(model.optimizer, AdamW)


def test_only_kernels_decay(tmp_path: Path) -> None:
    model = line(AdamW(0.1, weight_decay=0.5))
    for _ in range(2):
        # Both ones give 2 everywhere: nothing is to be learnt, and only the decay is left.
        model.set_weights([np.ones((1, 1)), np.ones(1)])
        model.fit(ONES, 2 * ONES, epochs=1, verbose=0)
        kernel, bias = model.get_weights()
        assert kernel == pytest.approx(0.95)
        assert bias == 1
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
