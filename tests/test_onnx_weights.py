"""Weights read back from a petseg ONNX file."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petseg.errors import DatasetError, ModelError
from petseg.modelfile import signature
from petseg.modelfile.signature import Signature
from petseg.network import weights
from petseg.network.model import Architecture, build_segmenter

FILTERS = (4, 4, 8, 8, 8)

side = st.integers(1, 5)


def without_signature(model: Path, target: Path) -> Path:
    proto = onnx.load(model)
    del proto.metadata_props[:]
    onnx.save(proto, target)
    return target


def with_layers(model: Path, target: Path, layers: dict[str, tuple[str, str]]) -> Path:
    """The same file, whose signature names other initialisers."""
    about = dataclasses.replace(signature.read(model), layers=layers)
    proto = onnx.load(model)
    onnx.helper.set_model_props(proto, dict(signature.to_metadata(about)))
    onnx.save(proto, target)
    return target


@given(st.tuples(side, side, side, side))
def test_from_onnx_undoes_to_onnx(shape: tuple[int, ...]) -> None:
    kernel = np.random.default_rng(0).normal(size=shape)
    height, width, inputs, outputs = shape
    stored = weights.to_onnx(kernel)
    assert stored.shape == (outputs, inputs, height, width)
    np.testing.assert_array_equal(weights.from_onnx(stored), kernel)


def test_read_onnx_gives_the_weights_bit_for_bit(tiny_keras: Path, tiny_model: Path) -> None:
    about, arrays = weights.read_onnx(tiny_model)
    assert isinstance(about, Signature)
    assert (about.size, about.filters) == (64, FILTERS)
    layers = weights.convolutions(keras.models.load_model(tiny_keras))
    assert list(arrays) == list(layers)
    for name, layer in layers.items():
        for array, expected in zip(arrays[name], layer.get_weights(), strict=True):
            assert array.dtype == np.float32
            assert array.tobytes() == expected.tobytes(), name


def test_load_start_fills_a_network_of_another_size(tiny_keras: Path, tiny_model: Path) -> None:
    network = build_segmenter(Architecture(32, filters=FILTERS))
    said = str(weights.load_start(network, tiny_model, 0))
    assert str(tiny_model) in said
    expected = keras.models.load_model(tiny_keras).get_weights()
    for array, other in zip(network.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        (Architecture(64, filters=(4, 4, 8, 8, 16)), "block5_conv1 has the shapes"),
        (Architecture(64, classes=5, filters=(4, 4, 8, 8, 16)), "block5_conv1 has the shapes"),
    ],
)
def test_load_start_refuses_another_shape_and_sets_nothing(
    architecture: Architecture, words: str, tiny_model: Path
) -> None:
    network = build_segmenter(architecture)
    before = network.get_weights()
    with pytest.raises(DatasetError, match=rf"cannot start from .*tiny\.onnx.*{words}"):
        weights.load_start(network, tiny_model, 0)
    for array, other in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, other)


def test_load_start_refuses_a_foreign_file(tiny_model: Path, tmp_path: Path) -> None:
    network = build_segmenter(Architecture(32, filters=FILTERS))
    with pytest.raises(DatasetError, match=r"cannot start from .*foreign\.onnx.*no petseg signat"):
        weights.load_start(network, without_signature(tiny_model, tmp_path / "foreign.onnx"), 0)
    with pytest.raises(DatasetError, match=r"cannot start from .*none\.onnx: it does not exist"):
        weights.load_start(network, tmp_path / "none.onnx", 0)


def test_missing_initialiser(tiny_model: Path, tmp_path: Path) -> None:
    path = with_layers(tiny_model, tmp_path / "odd.onnx", {"head": ("head/kernel", "head/none")})
    with pytest.raises(ModelError, match=r"odd\.onnx: head has no weights head/none"):
        weights.read_onnx(path)


def test_unknown_layer(tiny_model: Path, tmp_path: Path) -> None:
    layers = {**signature.read(tiny_model).layers, "tail": ("head/kernel", "head/bias")}
    path = with_layers(tiny_model, tmp_path / "odd.onnx", layers)
    network = build_segmenter(Architecture(32, filters=FILTERS))
    with pytest.raises(ModelError, match=r"odd\.onnx does not fit the network: tail has"):
        weights.assign(network, weights.read_onnx(path)[1], path)


def test_onnx_is_not_installed(tiny_model: Path) -> None:
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from pathlib import Path; from petseg import errors; from petseg.network import weights\n"
        "try: weights.read_onnx(Path(sys.argv[1]))\n"
        "except errors.MissingPackageError as error: print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tiny_model)], capture_output=True, text=True, check=True
    ).stdout
    assert "pip install 'petseg[train]'" in said
