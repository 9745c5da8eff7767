"""What the tests share: one small model file, exported once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

TINY_SIZE = 64
TINY_FILTERS = (4, 4, 8, 8, 8)


@pytest.fixture(scope="session")
def tiny_keras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .keras file of a small segmenter with drawn weights whose masks hold all three classes."""
    import keras
    import numpy as np

    from petseg import model, weights
    from petseg_export.parity import draw_images

    network = model.build_segmenter(model.Architecture(TINY_SIZE, filters=TINY_FILTERS))
    pixels = keras.ops.convert_to_numpy(model.preprocess(draw_images(TINY_SIZE, seed=1)))
    weights.initialize(network, "none", pixels, seed=5)
    random = np.random.default_rng(5)
    for layer in weights.convolutions(network).values():
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, random.normal(0, 0.1, bias.shape).astype(np.float32)])
    # Centre and scale the logits, or one class would win everywhere.
    head = network.get_layer("head")
    head.activation = keras.activations.linear
    logits = network.predict_on_batch(pixels)
    head.activation = keras.activations.softmax
    kernel, bias = head.get_weights()
    scale = 2.0 / logits.std()
    head.set_weights([kernel * scale, (bias - np.median(logits, axis=(0, 1, 2))) * scale])
    path = tmp_path_factory.mktemp("tiny") / "tiny.keras"
    network.save(path)
    return path


@pytest.fixture(scope="session")
def tiny_model(tiny_keras: Path) -> Path:
    """`tiny_keras` as a float32 petseg ONNX file: size 64, classes pet, background, border."""
    from petseg_export.convert import export

    path = tiny_keras.with_name("tiny.onnx")
    export(tiny_keras, path)
    return path
