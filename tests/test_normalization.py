from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from petseg.network import weights
from petseg.network.model import HEAD, Architecture, build_segmenter, preprocess
from petseg.network.normalization import Normalized
from petseg.training import learner
from petseg.training.recipes import LONG, TrainConfig

TINY = dataclasses.replace(LONG, filters=(4, 4, 8, 8, 8), ema_momentum=0.9)
TABLE_TOTAL = 26_369_987


def draw(count: int, seed: int, size: int = 64) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
    found: np.ndarray = preprocess(pixels)
    return found


def odd(model: keras.Model) -> keras.Model:
    """The model with drawn weights and statistics that no start or training gives."""
    random = np.random.default_rng(1)
    for layer in weights.convolutions(model).values():
        values = [random.normal(0, 0.2, weight.shape) for weight in layer.weights]
        if isinstance(layer, Normalized):
            values[1] += 1
            values[4] = np.exp(values[4])
        layer.set_weights([value.astype(np.float32) for value in values])
    return model


def folded(model: keras.Model) -> keras.Model:
    size = model.input_shape[1]
    network = build_segmenter(learner.architecture(TINY, size))
    weights.assign(network, weights.learnt(model), Path("model"))
    return network


def test_folded_it_computes_the_same() -> None:
    model = odd(learner.build_learner(TINY, 64, breeds=0))
    images = draw(4, seed=2) / 50
    expected = np.exp(model.predict_on_batch(images))
    assert expected.std() > 0.05
    np.testing.assert_allclose(folded(model).predict_on_batch(images), expected, atol=2e-5)


def test_what_is_kept_is_the_networks_and_nothing_else() -> None:
    model = learner.build_learner(dataclasses.replace(TINY, filters=LONG.filters), 32, breeds=37)
    arrays = weights.learnt(model)
    assert sum(array.size for pair in arrays.values() for array in pair) == TABLE_TOTAL
    network = build_segmenter(Architecture(32))
    assert network.count_params() == TABLE_TOTAL
    weights.assign(network, arrays, Path("model"))


@pytest.mark.parametrize("given", ["all", "some"])
def test_given_weights_begin_as_the_same_function(given: str, tmp_path: Path) -> None:
    source = odd(build_segmenter(learner.architecture(TINY, 64)))
    images = draw(4, seed=2) / 50
    config: TrainConfig
    if given == "all":
        source.save(tmp_path / "model.keras")
        config = dataclasses.replace(TINY, init=str(tmp_path))
        compared = HEAD
    else:
        arrays = {
            f"{name}/{part}": array
            for name, layer in weights.convolutions(source).items()
            if name.startswith(("block1", "block2"))
            for part, array in zip(("kernel", "bias"), layer.get_weights(), strict=True)
        }
        np.savez(tmp_path / "some.npz", **arrays)
        config = dataclasses.replace(TINY, encoder_weights=str(tmp_path / "some.npz"))
        compared = "block2_conv2"
    model = learner.build_learner(config, 64, breeds=3)
    origin = learner.start(model, config, 64, images)
    assert (not origin.drawn) == (given == "all")

    def outputs(network: keras.Model) -> np.ndarray:
        if compared == HEAD:
            found = network.predict_on_batch(images)
            return found if isinstance(found, np.ndarray) else np.exp(found[HEAD])
        encoder = network.get_layer("encoder")
        probe = keras.Model(encoder.inputs[0], encoder.get_layer(compared).output)
        return np.asarray(probe.predict_on_batch(images))

    expected = outputs(source)
    if given == "some":
        # But for a factor, see `weights.initialize`.
        expected /= np.sqrt(np.mean(np.square(expected)))
    np.testing.assert_allclose(outputs(model), expected, atol=1e-5 * np.abs(expected).max())


def test_drawn_layers_begin_normalised() -> None:
    model = learner.build_learner(TINY, 64, breeds=0)
    learner.start(model, dataclasses.replace(TINY, encoder_weights="none"), 64, draw(4, seed=2))
    for name, layer in weights.convolutions(model).items():
        if not isinstance(layer, Normalized):
            assert name == HEAD
            continue
        assert not layer._starting
        gamma, beta = (weight.numpy() for weight in layer.normalization.trainable_weights)
        assert (gamma == 1).all(), name
        assert (beta == 0).all(), name
    # The statistics are those of what each layer gets from the normalised ones before it.
    images = draw(4, seed=2)
    fixed = model.predict_on_batch(images)
    np.testing.assert_allclose(np.asarray(model(images, training=True)), fixed, atol=1e-3)


def test_statistics_move_in_training_alone_and_not_where_it_is_frozen() -> None:
    layer = Normalized(keras.layers.Conv2D(3, 3, use_bias=False), momentum=0.9)
    images = draw(2, seed=0)
    layer(images, training=False)
    mean, variance = layer.normalization.moving_mean, layer.normalization.moving_variance
    assert not mean.numpy().any()
    outputs = layer.convolution(images).numpy()
    layer(images, training=True)
    np.testing.assert_allclose(mean, 0.1 * outputs.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * outputs.var(axis=(0, 1, 2)), rtol=1e-4)
    layer.trainable = False
    before = mean.numpy()
    layer(images, training=True)
    np.testing.assert_array_equal(mean, before)


def test_statistics_are_float32_under_a_mixed_policy() -> None:
    with learner.policy("mixed_bfloat16"):
        model = learner.build_learner(TINY, 64, breeds=3)
    layer = weights.convolutions(model)["connect_1/upsample"]
    assert layer.convolution.compute_dtype == "bfloat16"
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    learner.start(model, dataclasses.replace(TINY, encoder_weights="none"), 64, draw(4, seed=2))
    # Finer than a bfloat16, whose lower half of bits is 0.
    bits = layer.normalization.moving_mean.numpy().view(np.uint32)
    assert (bits & 0xFFFF).any()
    assert all(output.dtype == "float32" for output in model.output.values())


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    model = odd(learner.build_learner(TINY, 64, breeds=3))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = draw(2, seed=0)
    for found, expected in zip(
        loaded.predict_on_batch(images).values(),
        model.predict_on_batch(images).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)
    assert loaded.get_layer("connect_1").upsample.normalization.momentum == 0.9
