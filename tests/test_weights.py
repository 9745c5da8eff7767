from __future__ import annotations

import dataclasses
import http.client
import io
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from petseg.errors import DatasetError
from petseg.network import model, weight_files, weights

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


def test_for_normalisation_given_layers_are_scaled_and_change_nothing_else(
    images: np.ndarray, tmp_path: Path
) -> None:
    random = np.random.default_rng(3)
    source = model.build_segmenter(TINY)
    weights.initialize(source, "none", images, seed=1)
    arrays = {}
    # As ImageNet's: outputs in the hundreds.
    for name in ENCODER[:4]:
        kernel, bias = source.get_layer("encoder").get_layer(name).get_weights()
        arrays |= {f"{name}/kernel": 5 * kernel, f"{name}/bias": random.normal(0, 9, bias.shape)}
    np.savez(tmp_path / "some.npz", **arrays)
    outputs = []
    for normalized in (False, True):
        network = model.build_segmenter(TINY)
        path = str(tmp_path / "some.npz")
        weights.initialize(network, path, images, seed=1, normalized=normalized)
        encoder = network.get_layer("encoder")
        layers = [encoder.get_layer(name).output for name in ENCODER[:4]]
        outputs.append(keras.Model(encoder.inputs[0], layers)(images))
    for name, plain, scaled in zip(ENCODER, *map(list, outputs), strict=False):
        before, after = np.asarray(plain), np.asarray(scaled)
        factor = np.sqrt(np.mean(np.square(before)))
        assert factor > 3
        np.testing.assert_allclose(after, before / factor, atol=1e-3, err_msg=name)


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
    with pytest.raises(DatasetError, match="cannot start from nowhere: it does not exist"):
        weights.check("none", "nowhere")


def test_a_damaged_encoder_file_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    arrays = {"block1_conv1/kernel": np.ones((3, 3, 3, 64)), "block1_conv1/bias": np.ones(64)}
    np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    assert list(weight_files.read_encoder(str(path))) == ["block1_conv1"]
    # Cut where the list of members is, and bytes of a packed member turned over.
    bent = bytearray(whole)
    place = whole.index(b"block1_conv1/kernel.npy") + 60
    bent[place : place + 8] = bytes(byte ^ 0xFF for byte in bent[place : place + 8])
    array = io.BytesIO()
    np.save(array, np.ones(3))
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("config.json", "{}")
    damaged = {
        "cut": whole[:-30],
        "cut in the middle": whole[: len(whole) // 2],
        "bent": bytes(bent),
        "empty": b"",
        "text": b"no archive",
        "another kind of file": array.getvalue(),
        "another archive": other.getvalue(),
    }
    for data in damaged.values():
        path.write_bytes(data)
        with pytest.raises(DatasetError, match=r"cannot read encoder weights from .*: .+; expec"):
            weights.check(str(path), None)
    # A member that is no array.
    with zipfile.ZipFile(path, "w") as archive:
        for name in arrays:
            archive.writestr(name, "text")
    with pytest.raises(DatasetError, match=r"block1_conv1 has the shapes \[\(\), \(\)\]"):
        weights.initialize(model.build_segmenter(TINY), str(path), np.zeros((1, 64, 64, 3)), 0)


class Foreign(keras.layers.Layer):  # type: ignore[misc]
    """A layer that no process knows which has not made it."""


def test_a_damaged_start_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    model.build_segmenter(TINY).save(path)
    whole = path.read_bytes()
    weights.check("none", str(path))
    without = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(without, "w") as archive:
        for name in source.namelist():
            if name != "config.json":
                archive.writestr(name, source.read(name))
    # In the middle of a layer's weights.
    bent = bytearray(whole)
    bent[len(whole) // 2] ^= 0xFF
    foreign = keras.Sequential([keras.Input((4,)), Foreign()])
    foreign.save(tmp_path / "foreign.keras")
    dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    dense.save(tmp_path / "dense.keras")
    damaged = {
        "cut": whole[:-30],
        "bent": bytes(bent),
        "empty": b"",
        "text": b"no archive",
        "without its configuration": without.getvalue(),
        "of a class that nobody knows": (tmp_path / "foreign.keras").read_bytes(),
        "another network": (tmp_path / "dense.keras").read_bytes(),
    }
    for data in damaged.values():
        path.write_bytes(data)
        for start in (tmp_path, path):
            with pytest.raises(DatasetError, match=rf"cannot start from {path}: .+") as caught:
                weights.check("none", str(start))
            assert "\n" not in str(caught.value)


def test_a_start_from_a_run_or_a_file(tmp_path: Path) -> None:
    source = model.build_segmenter(TINY)
    source.save(tmp_path / "model.keras")
    for start in (tmp_path, tmp_path / "model.keras"):
        network = model.build_segmenter(TINY)
        origin = weights.load_start(network, start, 0)
        assert str(origin) == f"started from {tmp_path / 'model.keras'}"
        for found, expected in zip(network.get_weights(), source.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)
    other = model.build_segmenter(model.Architecture(64, filters=(4, 4, 4, 4, 4)))
    with pytest.raises(DatasetError, match="cannot start from"):
        weights.load_start(other, tmp_path, 0)
    with pytest.raises(DatasetError, match="cannot start from"):
        weights.load_start(other, tmp_path / "missing.keras", 0)


def test_a_start_for_other_classes_draws_the_head_alone(tmp_path: Path) -> None:
    source = model.build_segmenter(TINY)
    source.save(tmp_path / "model.keras")
    found = []
    for seed in (0, 0, 1):
        network = model.build_segmenter(dataclasses.replace(TINY, classes=4))
        origin = weights.load_start(network, tmp_path, seed)
        assert origin.drawn == ("head",)
        assert str(origin).endswith("; drawn: head")
        *taken, kernel, bias = network.get_weights()
        for array, expected in zip(taken, source.get_weights()[:-2], strict=True):
            np.testing.assert_array_equal(array, expected)
        assert (kernel.shape[2], bias.tolist()) == (4, [0, 0, 0, 0])
        found.append(kernel)
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).all()


@pytest.mark.parametrize(
    "error",
    [
        Exception("URL fetch failure on https://example.org: None -- no network"),
        ValueError("Incomplete or corrupted file detected. The md5 file hash does not match"),
        ConnectionResetError("Connection reset by peer"),
        http.client.IncompleteRead(b"", 10),
    ],
)
def test_imagenet_weights_without_a_network(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**options: object) -> None:
        raise error

    monkeypatch.setattr(keras.applications, "VGG16", fail)
    with pytest.raises(DatasetError, match=r"cannot be downloaded .* --encoder-weights FILE\.npz"):
        weights.check("imagenet", None)


def test_other_errors_of_imagenets_network_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(**options: object) -> None:
        raise ValueError("If using `weights` as `imagenet`, `classes` should be 1000")

    monkeypatch.setattr(keras.applications, "VGG16", fail)
    with pytest.raises(ValueError, match="classes"):
        weights.check("imagenet", None)


def test_imagenets_layers_are_taken(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keras' own network, with drawn weights in place of those that are downloaded."""
    original, made = keras.applications.VGG16, []

    def drawn(include_top: bool, weights: str) -> keras.Model:
        assert (include_top, weights) == (False, "imagenet")
        print("Downloading data from https://example.org")
        made.append(original(include_top=include_top, weights=None))
        return made[0]

    monkeypatch.setattr(keras.applications, "VGG16", drawn)
    network = model.build_segmenter(model.Architecture(32))
    origin = weights.initialize(network, "imagenet", images[:1, :32, :32], seed=1)
    assert origin.given == tuple(ENCODER)
    assert capsys.readouterr().out == ""
    layers = weights.convolutions(network)
    for name in ENCODER:
        expected = made[0].get_layer(name).get_weights()
        for found, given in zip(layers[name].get_weights(), expected, strict=True):
            np.testing.assert_array_equal(found, given)
