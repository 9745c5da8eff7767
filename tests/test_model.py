from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from petseg.network.model import Architecture, Connect, build_segmenter, preprocess, table

TINY = Architecture(64, filters=(4, 4, 8, 8, 8))

# As the article's summary prints it, and under it the totals with a frozen encoder.
TABLE = """\
| layer | output shape | parameters | connected to |
|---|---|---|---|
| input | 224, 224, 3 | 0 | |
| encoder (VGG16) | 14, 14, 512; 28, 28, 512; 56, 56, 256; 7, 7, 512 | 14,714,688 | input |
| connect_1 | 14, 14, 512 | 4,719,616 | block5_pool |
| add_1 | 14, 14, 512 | 0 | connect_1, block5_conv3 |
| connect_2 | 28, 28, 512 | 4,719,616 | add_1 |
| add_2 | 28, 28, 512 | 0 | connect_2, block4_conv3 |
| connect_3 | 56, 56, 256 | 1,769,984 | add_2 |
| add_3 | 56, 56, 256 | 0 | connect_3, block3_conv3 |
| connect_4 | 112, 112, 128 | 442,624 | add_3 |
| head (transposed convolution, 3x3, stride 2, softmax) | 224, 224, 3 | 3,459 | connect_4 |

Total 26,369,987; trainable 11,655,299; not trainable 14,714,688."""


def test_the_network_is_the_articles() -> None:
    model = build_segmenter()
    model.get_layer("encoder").trainable = False
    assert table(model) == TABLE
    model.get_layer("encoder").trainable = True
    assert "trainable 26,369,987; not trainable 0." in table(model)


def test_connect_is_relu_after_each_of_two_convolutions() -> None:
    connect = Connect(5)
    inputs = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    found = connect(inputs)
    assert tuple(found.shape) == (2, 8, 8, 5)
    assert connect.compute_output_shape((2, 4, 4, 3)) == (2, 8, 8, 5)
    kernel, bias = connect.upsample.weights
    expected = ops.relu(ops.conv_transpose(inputs, kernel, 2, "same") + bias)
    kernel, bias = connect.refine.weights
    expected = ops.relu(ops.conv(expected, kernel, 1, "same") + bias)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert ops.convert_to_numpy(found).min() == 0


def test_saved_and_loaded_it_is_the_same_network(tmp_path: Path) -> None:
    model = build_segmenter(TINY)
    model.get_layer("encoder").trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.get_layer("connect_1"), Connect)
    assert isinstance(loaded.get_layer("encoder"), keras.Model)
    assert table(loaded) == table(model)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    probabilities = model.predict_on_batch(images)
    np.testing.assert_array_equal(loaded.predict_on_batch(images), probabilities)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-6)


def test_probabilities_stay_float32_under_a_mixed_policy() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_segmenter(TINY)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.outputs[0].dtype == "float32"
    assert model.get_layer("connect_2").refine.compute_dtype == "bfloat16"


def test_preprocessing_is_vgg16s() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    found = preprocess(images)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    expected = keras.applications.vgg16.preprocess_input(images.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    tensor = preprocess(ops.convert_to_tensor(images))
    assert keras.backend.standardize_dtype(tensor.dtype) == "float32"
    np.testing.assert_array_equal(ops.convert_to_numpy(tensor), found)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 100}, "multiple of 32, not 100"),
        ({"classes": 1}, "at least 2 classes"),
        ({"filters": (4, 4, 4, 4)}, "five positive numbers"),
    ],
)
def test_an_architecture_is_checked(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(**values)


TWO_STEPS = """
import sys
import keras, numpy as np
from petseg.network.model import Architecture, build_segmenter, preprocess

model = build_segmenter(Architecture(64, filters=(4, 4, 8, 8, 8)))
with np.load(sys.argv[1]) as file:
    model.set_weights([file[f"arr_{index}"] for index in range(len(file.files))])
model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
random = np.random.default_rng(0)
images = preprocess(random.integers(0, 256, (4, 64, 64, 3), np.uint8))
trimaps = random.integers(0, 3, (4, 64, 64), np.uint8)
print(keras.backend.backend(), *(float(model.train_on_batch(images, trimaps)) for _ in range(2)))
"""


@pytest.mark.jax
def test_a_training_step_is_the_same_on_jax(tmp_path: Path) -> None:
    weights = tmp_path / "weights.npz"
    np.savez(weights, *build_segmenter(TINY).get_weights())
    losses = {}
    for backend in ("tensorflow", "jax"):
        found = subprocess.run(
            [sys.executable, "-c", TWO_STEPS, str(weights)],
            env={**os.environ, "KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
            check=True,
        )
        name, *numbers = found.stdout.split()
        assert name == backend
        losses[backend] = [float(number) for number in numbers]
    # The second loss follows from the first step's gradients.
    assert losses["jax"] == pytest.approx(losses["tensorflow"], rel=1e-5)
    assert losses["jax"][0] != losses["jax"][1]
