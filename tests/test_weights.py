from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from petseg import model, weights
from petseg.errors import DatasetError

TINY = model.Architecture(64, filters=(4, 8, 8, 16, 16))
ENCODER = [
    f"block{block}_conv{conv}"
    for block, depth in enumerate(model.VGG16_DEPTHS, start=1)
    for conv in range(1, depth + 1)
]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    found: np.ndarray = model.preprocess(pixels)
    return found


def test_every_layer_with_a_kernel_has_a_path() -> None:
    network = model.build_segmenter(TINY)
    found = weights.convolutions(network)
    parts = [f"connect_{index}/{part}" for index in range(1, 5) for part in ("upsample", "refine")]
    assert list(found) == [*ENCODER, *parts, "head"]
    assert sum(layer.count_params() for layer in found.values()) == network.count_params()


def test_drawn_encoder_layers_have_unit_rms(images: np.ndarray) -> None:
    network = model.build_segmenter(TINY)
    said = str(weights.initialize(network, "none", images, seed=1))
    assert said.startswith("drawn: block1_conv1, block1_conv2,")
    encoder = network.get_layer("encoder")
    outputs = [encoder.get_layer(name).output for name in ENCODER]
    for name, output in zip(ENCODER, keras.Model(encoder.inputs[0], outputs)(images), strict=True):
        rms = float(np.sqrt(np.mean(np.square(output))))
        assert rms == pytest.approx(1, abs=1e-3), name


def test_what_decodes_is_drawn_he_normal(images: np.ndarray) -> None:
    network = model.build_segmenter(model.Architecture(32, filters=(4, 8, 32, 32, 32)))
    weights.initialize(network, "none", images[:, :32, :32], seed=1)
    for name, inputs in (("connect_1/upsample", 32), ("connect_4/refine", 8)):
        kernel, bias = weights.convolutions(network)[name].get_weights()
        assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * inputs)), rel=0.1)
        assert not bias.any()


def test_the_seed_decides(images: np.ndarray) -> None:
    networks = [model.build_segmenter(TINY) for _ in range(3)]
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        weights.initialize(network, "none", images, seed)
    first, again, other = (network.get_weights() for network in networks)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_a_file_may_hold_some_layers(images: np.ndarray, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    kernel = random.normal(0, 0.01, (3, 3, 3, 4)).astype(np.float32)
    bias = random.normal(0, 1, 4).astype(np.float32)
    path = tmp_path / "some.npz"
    np.savez(path, **{"block1_conv1/kernel": kernel, "block1_conv1/bias": bias})
    network = model.build_segmenter(TINY)
    said = str(weights.initialize(network, str(path), images, seed=1))
    assert said.startswith(f"loaded from {path}: block1_conv1; drawn: block1_conv2, ")
    found = weights.convolutions(network)["block1_conv1"].get_weights()
    np.testing.assert_array_equal(found[0], kernel)
    np.testing.assert_array_equal(found[1], bias)


def test_weights_that_do_not_fit_are_refused(images: np.ndarray, tmp_path: Path) -> None:
    network = model.build_segmenter(TINY)
    path = tmp_path / "weights.npz"
    np.savez(path, **{"block9/kernel": np.zeros(1), "block9/bias": np.zeros(1)})
    with pytest.raises(DatasetError, match="weights for block9, which the network lacks"):
        weights.initialize(network, str(path), images, 0)
    np.savez(
        path, **{"block1_conv1/kernel": np.zeros((3, 3, 3, 64)), "block1_conv1/bias": [0] * 64}
    )
    with pytest.raises(DatasetError, match="block1_conv1 has the shapes"):
        weights.initialize(network, str(path), images, 0)
    path.write_bytes(b"no archive")
    with pytest.raises(DatasetError, match="cannot read encoder weights"):
        weights.check(str(path), None)
    with pytest.raises(DatasetError, match="cannot start from nowhere: it does not exist"):
        weights.check("none", "nowhere")


def test_a_start_from_a_run_or_a_file(tmp_path: Path) -> None:
    source = model.build_segmenter(TINY)
    source.save(tmp_path / "model.keras")
    for start in (tmp_path, tmp_path / "model.keras"):
        network = model.build_segmenter(TINY)
        assert str(weights.load_start(network, start)) == f"started from {tmp_path / 'model.keras'}"
        for found, expected in zip(network.get_weights(), source.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)
    other = model.build_segmenter(model.Architecture(64, filters=(4, 4, 4, 4, 4)))
    with pytest.raises(DatasetError, match="cannot start from"):
        weights.load_start(other, tmp_path)
    with pytest.raises(DatasetError, match="cannot start from"):
        weights.load_start(other, tmp_path / "missing.keras")


def test_imagenet_weights_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise Exception("URL fetch failure on https://example.org: None -- no network")

    monkeypatch.setattr(keras.applications, "VGG16", fail)
    with pytest.raises(DatasetError, match=r"cannot be downloaded .* --encoder-weights FILE\.npz"):
        weights.check("imagenet", None)
