"""petseg-export: the file computes what the network computes, says what it is, or is not there."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from petseg.classes import PET_CLASSES, SegmentClass
from petseg.data import dataset
from petseg.errors import DatasetError, ModelError
from petseg.modelfile import signature
from petseg.network import weights
from petseg.network.model import Architecture, Connect, build_segmenter, preprocess
from petseg.training.recipes import ARTICLE, SCRATCH, Stage, TrainConfig
from petseg.training.runs import RunFolder
from petseg_export import parity, trained
from petseg_export.cli import main
from petseg_export.convert import Precision, convert, export

FILTERS = (4, 4, 8, 8, 8)
TINY = Architecture(64, filters=FILTERS)
# Nobody's five encoder blocks look like this: every layer can be told by its shape.
ODD = Architecture(32, classes=5, filters=(2, 3, 4, 5, 6))
METRICS = {"part": "validation", "mean_iou": 0.25, "precision": "mixed_bfloat16"}


def draw_weights(network: keras.Model, seed: int = 0) -> keras.Model:
    """Give a network weights under which no layer's output is all zeros."""
    random = np.random.default_rng(seed)
    for layer in weights.convolutions(network).values():
        kernel, bias = layer.get_weights()
        layer.set_weights(
            [
                random.normal(0, np.sqrt(2 / (9 * kernel.shape[2])), kernel.shape),
                random.normal(0, 0.1, bias.shape),
            ]
        )
    return network


def write_run(
    path: Path, network: keras.Model, config: TrainConfig, finished: bool = True
) -> RunFolder:
    """A run folder as training leaves it."""
    folder = RunFolder(path)
    folder.begin(config, dataset.Split(("a", "b"), ("c",)), path)
    network.save(folder.model_file)
    if finished:
        folder.keep_metrics({**METRICS, "broken": {"d": f"{path}/d.jpg is empty"}})
        folder.finish()
    return folder


def assert_same_weights(one: keras.Model, other: keras.Model) -> None:
    pairs = zip(weights.convolutions(one).items(), weights.convolutions(other).items(), strict=True)
    for (name, layer), (same_name, same_layer) in pairs:
        assert name == same_name
        for array, same in zip(layer.get_weights(), same_layer.get_weights(), strict=True):
            assert array.tobytes() == same.tobytes(), name


def run_session(model: bytes, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return tuple(session.run(["mask", "probabilities"], {"images": images}))


def petseg_export(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def no_file(tmp_path: Path) -> Path:
    """A target in an empty folder; when the test is over, the folder must still be empty."""
    folder = tmp_path / "empty"
    folder.mkdir()
    yield folder / "model.onnx"
    assert not list(folder.iterdir())


# What the file is


def test_inputs_outputs_and_opset(tiny_model: Path) -> None:
    proto = onnx.load(tiny_model)
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]

    def described(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[int, list[int | str]]]:
        return {
            value.name: (
                value.type.tensor_type.elem_type,
                [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
            )
            for value in values
        }

    uint8 = onnx.TensorProto.UINT8
    assert described(proto.graph.input) == {"images": (uint8, ["batch", 64, 64, 3])}
    assert described(proto.graph.output) == {
        "mask": (uint8, ["batch", 64, 64]),
        "probabilities": (uint8, ["batch", 3, 64, 64]),
    }


@pytest.mark.parametrize("count", [1, 3])
def test_computes_what_keras_computes_in_any_batch(
    count: int, tiny_keras: Path, tiny_model: Path
) -> None:
    images = parity.draw_images(64, count, seed=11)
    expected = keras.models.load_model(tiny_keras).predict_on_batch(preprocess(images))
    mask, probabilities = run_session(tiny_model.read_bytes(), images)
    assert mask.dtype == probabilities.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1, 2}
    assert np.mean(mask == expected.argmax(axis=-1)) >= 0.9999
    planes = 255 * expected.transpose(0, 3, 1, 2)
    # Rounded, not cut off.
    assert np.abs(probabilities - planes).max() <= 0.51


def test_red_and_blue_are_not_alike(tiny_model: Path) -> None:
    images = parity.draw_images(64, 4, seed=12)
    model = tiny_model.read_bytes()
    mask, _ = run_session(model, images)
    other, _ = run_session(model, np.ascontiguousarray(images[..., ::-1]))
    assert np.mean(mask == other) < 0.9


def test_the_graph_is_plain(tiny_model: Path) -> None:
    """No operator of onnxruntime's own, nothing left over, one Transpose, no tf2onnx names."""
    graph = onnx.load(tiny_model).graph
    assert {node.domain for node in graph.node} == {""}
    operators = [node.op_type for node in graph.node]
    counts = {name: operators.count(name) for name in ("Conv", "ConvTranspose", "Transpose", "Add")}
    assert counts == {"Conv": 17, "ConvTranspose": 5, "Transpose": 1, "Add": 3}
    used = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= used
    assert not graph.value_info
    text = onnx.printer.to_text(graph)
    assert "unk__" not in text
    assert "ReadVariableOp" not in text


def test_constants_are_folded(tiny_model: Path) -> None:
    """Every node depends on the images."""
    graph = onnx.load(tiny_model).graph
    known = {value.name for value in graph.input}
    for node in graph.node:
        assert known & set(node.input), f"{node.name} computes the same for every image"
        known |= set(node.output)


def test_the_mask_alone_needs_no_softmax(tiny_model: Path) -> None:
    alone = onnx.utils.Extractor(onnx.load(tiny_model)).extract_model(["images"], ["mask"])
    operators = {node.op_type for node in alone.graph.node}
    assert "ConvTranspose" in operators
    assert "Softmax" not in operators
    images = parity.draw_images(64, 4, seed=13)
    session = onnxruntime.InferenceSession(
        alone.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (mask,) = session.run(None, {"images": images})
    assert (mask == run_session(tiny_model.read_bytes(), images)[0]).all()


# Weights


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_round_trip_is_exact(precision: Precision, tmp_path: Path) -> None:
    network = draw_weights(build_segmenter(TINY))
    # What float16 cannot hold: too small for it, and halfway between two of its numbers.
    kernel, bias = network.get_layer("head").get_weights()
    kernel.flat[:4] = [1e-9, -1e-9, -0.0, 1 + 2**-11]
    network.get_layer("head").set_weights([kernel, bias])
    network.save(tmp_path / "model.keras")
    export(tmp_path / "model.keras", tmp_path / "model.onnx", precision)
    again = trained.load(tmp_path / "model.onnx").network
    for name, layer in weights.convolutions(network).items():
        layer.set_weights(
            [array.astype(precision).astype(np.float32) for array in layer.get_weights()]
        )
        assert np.any(layer.get_weights()[1]), name
    assert_same_weights(again, network)


def test_equal_and_zero_weights_stay_apart(tmp_path: Path) -> None:
    """tf2onnx keeps equal weights once and leaves out zeros; the file has every layer's own."""
    network = build_segmenter(TINY)
    for layer in weights.convolutions(network).values():
        kernel, bias = layer.get_weights()
        layer.set_weights([np.full_like(kernel, 0.01), np.zeros_like(bias)])
    model, layers = convert(network, TINY, "float32")
    names = [name for pair in layers.values() for name in pair]
    assert len(set(names)) == 44
    stored = {tensor.name for tensor in model.graph.initializer}
    assert set(names) <= stored
    pictures = parity.Pictures(parity.draw_images(64))
    parity.check(parity.compare(network, model.SerializeToString(), pictures), "float32")
    # A change of one layer's weights in the file changes that layer in Keras, and no other.
    for tensor in model.graph.initializer:
        if tensor.name == layers["block3_conv2"][1]:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones(8, np.float32), tensor.name))
    nodes = {node.name: node for node in model.graph.node}
    changed = [name for name, pair in layers.items() if set(pair) & set(nodes[name].input)]
    assert changed == list(weights.convolutions(network))
    assert [name for name in nodes if layers["block3_conv2"][1] in nodes[name].input] == [
        "block3_conv2"
    ]


@settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # Making a failing example smaller takes minutes here.
    phases=set(Phase) - {Phase.shrink},
)
@given(
    size=st.sampled_from([32, 64, 96]),
    classes=st.integers(2, 6),
    filters=st.tuples(*[st.integers(1, 6)] * 5),
    seed=st.integers(0, 99),
)
@example(size=32, classes=2, filters=(1, 1, 1, 1, 2), seed=0)
def test_every_architecture_converts(
    size: int, classes: int, filters: tuple[int, int, int, int, int], seed: int
) -> None:
    architecture = Architecture(size, classes, filters)
    network = draw_weights(build_segmenter(architecture), seed)
    model, layers = convert(network, architecture, "float32")
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, layer in weights.convolutions(network).items():
        kernel, bias = (onnx.numpy_helper.to_array(stored[part]) for part in layers[name])
        expected = layer.get_weights()
        np.testing.assert_array_equal(weights.from_onnx(kernel), expected[0])
        np.testing.assert_array_equal(bias, expected[1])
    pictures = parity.Pictures(parity.draw_images(size, 8, seed))
    found = parity.compare(network, model.SerializeToString(), pictures)
    assert found.probability_difference <= 1
    # Of so few pixels one may lie between two classes.
    assert found.equal_pixels >= 0.999


def test_the_same_network_gives_the_same_file(
    tiny_keras: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Whatever was converted before in this process, and from the .onnx as from the .keras file."""
    export(tiny_keras, tmp_path / "again.onnx")
    export(tiny_model, tmp_path / "from.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == tiny_model.read_bytes()
    assert (tmp_path / "from.onnx").read_bytes() == tiny_model.read_bytes()


def test_gpus_are_hidden_and_what_a_killed_export_left_is_swept(
    tiny_keras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden: list[tuple[list[object], str]] = []
    monkeypatch.setattr(
        tf.config, "set_visible_devices", lambda devices, kind: hidden.append((devices, kind))
    )
    left = tmp_path / ".partial-0123abcd-model.onnx"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    export(tiny_keras, tmp_path / "model.onnx")
    assert hidden == [([], "GPU")]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_float16_file(tiny_keras: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = export(tiny_keras, tmp_path / "half.onnx", "float16")
    model = onnx.load(result.path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    graph = model.graph
    types = {tensor.data_type for tensor in graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types
    assert onnx.TensorProto.FLOAT not in types
    assert "unk__" not in onnx.printer.to_text(graph)
    assert not graph.value_info
    assert result.signature.precision == "float16"
    assert result.signature.graph_hash != signature.read(tiny_model).graph_hash
    images = parity.draw_images(64, seed=13)
    mask, probabilities = run_session(result.path.read_bytes(), images)
    full_mask, full_probabilities = run_session(tiny_model.read_bytes(), images)
    assert np.mean(mask == full_mask) >= 0.999
    assert not np.array_equal(probabilities, full_probabilities)


# What the file says


def test_the_cpu_provider_computes_float16_as_it_does_float32(
    tiny_keras: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Relu and the convolution before it are one node in both, once onnxruntime has optimised."""
    export(tiny_keras, tmp_path / "half.onnx", "float16")
    found = []
    for path in (tiny_model, tmp_path / "half.onnx"):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{path.stem}-optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
        found.append(Counter(node.op_type for node in graph.node))
    full, half = found
    assert half["Max"] == 0, "Relu was taken apart"
    assert half["Conv"] == full["Conv"] > 0
    assert half["Relu"] == full["Relu"]


def test_signature_of_a_run_and_of_what_is_made_from_it(tmp_path: Path) -> None:
    classes = tuple(SegmentClass(f"c{i}", 10 * i, (i, i, i), i < 2) for i in range(5))
    config = dataclasses.replace(
        SCRATCH,
        stages=(Stage(32, 1, 1e-3),),
        encoder_weights=str(tmp_path / "vgg.npz"),
        classes=classes,
        filters=ODD.filters,
    )
    folder = write_run(tmp_path / "run", draw_weights(build_segmenter(ODD)), config)
    about = export(folder.path, tmp_path / "model.onnx").signature
    assert about == signature.read(tmp_path / "model.onnx")
    assert (about.size, about.filters, about.classes) == (32, ODD.filters, classes)
    assert (about.precision, about.resize_filter, about.decoder) == (
        "float32",
        "bilinear",
        "pillow",
    )
    assert about.metrics == METRICS
    assert about.split_hash == json.loads(folder.config_file.read_text())["split_hash"]
    # The recipe is the run's, but for folders of the machine it ran on.
    named = dataclasses.replace(config, encoder_weights="vgg.npz")
    assert TrainConfig.from_json(about.recipe) == named
    assert str(tmp_path) not in about.to_json()
    assert set(about.versions) == {"petseg", "keras", "tensorflow", "tf2onnx", "onnx"}

    half = export(tmp_path / "model.onnx", tmp_path / "half.onnx", "float16").signature
    assert half == dataclasses.replace(
        about, precision="float16", graph_hash=half.graph_hash, parity=half.parity
    )
    assert half.parity["images"] == 32


def test_the_newest_finished_run_is_taken(tmp_path: Path) -> None:
    network = build_segmenter(TINY)
    for age, (name, finished) in enumerate([("b", True), ("c", True), ("a", True), ("d", False)]):
        folder = write_run(tmp_path / name, network, ARTICLE, finished)
        if finished:
            os.utime(folder.metrics_file, (1000 + age, 1000 + age))
    assert trained.newest_run(tmp_path) == tmp_path / "a"


def test_a_mixed_precision_model_is_exported_in_float32(tmp_path: Path) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = draw_weights(build_segmenter(TINY))
        network.get_layer("encoder").trainable = False
        network.save(tmp_path / "mixed.keras")
    finally:
        keras.config.set_dtype_policy(before)
    loaded = trained.load(tmp_path / "mixed.keras").network
    assert loaded.get_layer("connect_1").compute_dtype == "float32"
    assert loaded.get_layer("encoder").get_layer("block1_conv1").compute_dtype == "float32"
    assert_same_weights(loaded, network)
    assert export(tmp_path / "mixed.keras", tmp_path / "model.onnx").parity.equal_pixels >= 0.9999


# What is refused


def other_activation() -> keras.Model:
    """A segmenter in layers and shapes, but not in what it computes."""
    network = build_segmenter(TINY)
    network.get_layer("head").activation = keras.activations.sigmoid
    return network


def other_connections() -> keras.Model:
    """The same layers, one of them skipped."""
    network = build_segmenter(Architecture(64, filters=(8, 8, 8, 8, 8)))
    inputs = network.inputs[0]
    _, level4, level3, pooled = network.get_layer("encoder")(inputs)
    x = network.get_layer("connect_1")(pooled)
    x = network.get_layer("add_1")([x, x])
    x = network.get_layer("connect_2")(x)
    x = network.get_layer("add_2")([x, level4])
    x = network.get_layer("connect_3")(x)
    x = network.get_layer("add_3")([x, level3])
    return keras.Model(
        inputs, network.get_layer("head")(network.get_layer("connect_4")(x)), name="segmenter"
    )


def classifier() -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])


def one_layer() -> keras.Model:
    inputs = keras.Input((64, 64, 3))
    return keras.Model(inputs, Connect(3)(inputs))


def oblong() -> keras.Model:
    inputs = keras.Input((64, 32, 3))
    return keras.Model(inputs, keras.layers.Conv2D(3, 1, name="encoder")(inputs))


@pytest.mark.parametrize(
    "build", [other_activation, other_connections, classifier, one_layer, oblong]
)
def test_refuses_what_is_no_segmenter(
    build: Callable[[], keras.Model], tmp_path: Path, no_file: Path
) -> None:
    build().save(tmp_path / "other.keras")
    with pytest.raises(ModelError, match=r"other\.keras is not a petseg segmenter"):
        export(tmp_path / "other.keras", no_file)


def test_refuses_classes_without_names(tmp_path: Path, no_file: Path) -> None:
    build_segmenter(ODD).save(tmp_path / "five.keras")
    with pytest.raises(ModelError, match=r"five\.keras tells 5 classes apart and does not name"):
        export(tmp_path / "five.keras", no_file)
    folder = write_run(tmp_path / "run", build_segmenter(ODD), ARTICLE)
    with pytest.raises(ModelError, match=r"tells 5 classes apart.*names 3"):
        export(folder.path, no_file)


def test_refuses_files_that_are_no_models(tmp_path: Path, no_file: Path) -> None:
    for name, words in {
        "none.keras": "there is no model",
        "text.keras": "not a Keras model that petseg can load",
        "cut.keras": "not a Keras model that petseg can load",
        "text.onnx": "not an ONNX file",
        "model.h5": "expected a run folder, a .keras or an .onnx file",
    }.items():
        path = tmp_path / name
        if name.startswith("cut"):
            build_segmenter(TINY).save(path)
            path.write_bytes(path.read_bytes()[:-500])
        elif not name.startswith("none"):
            path.write_text("hello")
        with pytest.raises(ModelError, match=words) as caught:
            export(path, no_file)
        assert str(path) in str(caught.value)


def test_refuses_a_foreign_onnx_file(tiny_model: Path, tmp_path: Path, no_file: Path) -> None:
    proto = onnx.load(tiny_model)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match=r"foreign\.onnx: the model has no petseg signature"):
        export(tmp_path / "foreign.onnx", no_file)


def test_refuses_damaged_and_unfinished_runs(tmp_path: Path, no_file: Path) -> None:
    folder = write_run(tmp_path / "run", build_segmenter(TINY), ARTICLE)
    folder.config_file.write_text("{}")
    with pytest.raises(DatasetError, match=r"config\.json is not a run's configuration"):
        export(folder.path, no_file)
    folder.metrics_file.unlink()
    with pytest.raises(ModelError, match=r"not a finished run: it has no metrics\.json"):
        export(folder.path, no_file)


def test_out_of_bounds_means_no_file(tmp_path: Path, no_file: Path) -> None:
    """A weight that float16 cannot hold."""
    network = draw_weights(build_segmenter(TINY))
    kernel, bias = network.get_layer("head").get_weights()
    network.get_layer("head").set_weights([kernel * 1e6, bias])
    network.save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match=r"float16 file does not compute.*nothing was written"):
        export(tmp_path / "model.keras", no_file, "float16")


def test_a_file_in_place_survives_a_refusal(tmp_path: Path, tiny_model: Path) -> None:
    target = tmp_path / "model.onnx"
    shutil.copy(tiny_model, target)
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(ModelError):
        export(tmp_path / "text.keras", target)
    assert target.read_bytes() == tiny_model.read_bytes()
    with pytest.raises(ModelError, match="would replace the model it is made from"):
        export(target, target, "float16")
    assert target.read_bytes() == tiny_model.read_bytes()


def test_targets_that_cannot_be_written(tiny_keras: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        export(tiny_keras, tmp_path / "none" / "model.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelError, match=r"cannot write .*folder\.onnx: Is a directory"):
        export(tiny_keras, tmp_path / "folder.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.onnx"]


# Parity


def test_parity_counts_what_differs(tiny_keras: Path, tiny_model: Path) -> None:
    network = keras.models.load_model(tiny_keras)
    images = parity.draw_images(64)
    mask, _ = run_session(tiny_model.read_bytes(), images)
    # The masks of the file are the truth.
    pictures = parity.Pictures(images, mask)
    found = parity.compare(network, tiny_model.read_bytes(), pictures)
    assert found.images == 32
    assert found.mean_iou == pytest.approx((1, 1), abs=1e-3)
    assert found.probability_difference <= 1
    assert found.equal_pixels >= 0.9999
    # One class exchanged for another: the masks agree where the third class is.
    kernel, bias = network.get_layer("head").get_weights()
    order = [1, 0, 2]
    network.get_layer("head").set_weights([kernel[:, :, order], bias[order]])
    found = parity.compare(network, tiny_model.read_bytes(), pictures)
    assert found.equal_pixels == pytest.approx(np.mean(mask == 2), abs=1e-3)
    assert found.probability_difference > 100
    assert found.mean_iou == pytest.approx((1 / 3, 1), abs=1e-3)
    assert "mean IoU 1.0000 where Keras has 0.33" in str(found)


@pytest.mark.parametrize(
    ("precision", "difference", "share", "lost", "fine"),
    [
        ("float32", 1, 0.9999, None, True),
        ("float32", 2, 1.0, None, False),
        ("float32", 0, 0.99989, None, False),
        ("float32", 0, 1.0, 0.0006, False),
        ("float16", 99, 0.999, None, True),
        ("float16", 99, 0.999, 0.0004, True),
        ("float16", 0, 1.0, 0.0006, False),
        ("float16", 0, 0.99899, None, False),
        ("int8", 99, 0.951, 0.0029, True),
        ("int8", 99, 0.949, 0.0, False),
        ("int8", 0, 1.0, 0.0031, False),
    ],
)
def test_bounds(
    precision: str, difference: int, share: float, lost: float | None, fine: bool
) -> None:
    found = parity.Parity(32, difference, share, None if lost is None else (0.7, 0.7 - lost))
    if fine:
        parity.check(found, precision)
    else:
        with pytest.raises(ModelError, match="does not compute what the Keras network computes"):
            parity.check(found, precision)


def test_drawn_images_differ_and_are_no_noise() -> None:
    images = parity.draw_images(64)
    assert images.shape == (32, 64, 64, 3)
    np.testing.assert_array_equal(images, parity.draw_images(64))
    assert len({image.tobytes() for image in images}) == 32
    steps = np.abs(np.diff(images.astype(int), axis=2)).mean(axis=(1, 2, 3))
    # Noise has a mean step of 85 from pixel to pixel; an even picture has none.
    assert steps.min() > 0.2
    assert steps.max() < 20


def data_set(root: Path, count: int) -> Path:
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    names = [f"cat_{i}" for i in range(count)]
    (root / "annotations" / "trainval.txt").write_text("".join(f"{name} 1 1 1\n" for name in names))
    for name, image in zip(names, parity.draw_images(48, count, seed=3), strict=True):
        Image.fromarray(image).resize((60, 48)).save(root / "images" / f"{name}.jpg")
    return root


def test_photos_of_a_data_set(tmp_path: Path) -> None:
    root = data_set(tmp_path / "pets", 34)
    (root / "images" / "cat_0.jpg").write_bytes(b"")
    (root / "images" / "cat_1.jpg").unlink()
    pictures = parity.read_pictures(root, 32, PET_CLASSES)
    assert pictures.images.shape == (32, 32, 32, 3)
    assert pictures.trimaps is None
    assert len({image.tobytes() for image in pictures.images}) == 32
    (root / "images" / "cat_2.jpg").unlink()
    with pytest.raises(DatasetError, match="31 photos that can be read; 32 are compared"):
        parity.read_pictures(root, 32, PET_CLASSES)
    with pytest.raises(DatasetError, match="not in Oxford-IIIT Pet's layout"):
        parity.read_pictures(tmp_path, 32, PET_CLASSES)
    # Named ones, and as many as are asked for.
    some = parity.read_pictures(root, 32, PET_CLASSES, ["cat_9", "cat_4", "cat_9", "cat_5"], 2)
    np.testing.assert_array_equal(some.images, pictures.images[[7, 2]])


def test_trimaps_of_a_data_set(tmp_path: Path) -> None:
    root = data_set(tmp_path / "pets", 33)
    trimaps = root / "annotations" / "trimaps"
    trimaps.mkdir()
    for index in range(1, 33):
        Image.new("L", (60, 48), 1 + index % 3).save(trimaps / f"cat_{index}.png")
    pictures = parity.read_pictures(root, 32, PET_CLASSES)
    # The first photo has no trimap.
    assert pictures.trimaps is not None
    assert pictures.trimaps.shape == (32, 32, 32)
    assert pictures.trimaps[:, 0, 0].tolist() == [index % 3 for index in range(1, 33)]

    # A list may hold paths: the same photos and trimaps under other names.
    for folder, suffix in ((root / "images", ".jpg"), (trimaps, ".png")):
        (folder / "a b").mkdir()
        for path in folder.glob(f"cat_*{suffix}"):
            path.rename(folder / "a b" / f"{path.stem}.{'jpeg' if suffix == '.jpg' else 'png'}")
    listed = "".join(f"a b/cat_{index}.jpeg\n" for index in range(33))
    (root / "annotations" / "trainval.txt").write_text(listed)
    again = parity.read_pictures(root, 32, PET_CLASSES)
    np.testing.assert_array_equal(again.images, pictures.images)
    assert again.trimaps is not None
    np.testing.assert_array_equal(again.trimaps, pictures.trimaps)


# The command


def test_command_exports_the_newest_run(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "one", draw_weights(build_segmenter(TINY)), ARTICLE)
    root = data_set(tmp_path / "pets", 32)
    target = tmp_path / "model.onnx"
    result = petseg_export(target, "--runs", tmp_path / "runs", "--data", root, "--json")
    assert result.exit_code == 0, result.output
    about = signature.read(target)
    for words in (
        f"exporting {tmp_path / 'runs' / 'one'}",
        f"wrote {target}: 0.1 MB, float32",
        "32 images, largest probability difference",
        "% of mask pixels equal",
        about.graph_hash,
        f"next: petseg-batch images/ masks/ --model {target}",
    ):
        assert words in result.stderr
    assert about.recipe["recipe"] == "article"

    told = json.loads(result.stdout)
    assert told.pop("parity") == about.parity
    assert told == {
        "model": str(target),
        "from": str(tmp_path / "runs" / "one"),
        "bytes": target.stat().st_size,
        "precision": "float32",
        "graph_hash": about.graph_hash,
    }


def test_command_says_what_is_wrong(tiny_keras: Path, tmp_path: Path, no_file: Path) -> None:
    nothing = petseg_export(no_file, "--runs", tmp_path)
    assert nothing.exit_code == 1
    assert "there is no finished run" in nothing.stderr
    assert "petseg-train" in nothing.stderr

    few = petseg_export(no_file, "--from", tiny_keras, "--data", data_set(tmp_path / "few", 2))
    assert few.exit_code == 1
    assert "32 are compared" in few.stderr

    fewer = petseg_export(no_file, "--from", tiny_keras, "--compared", 31)
    assert fewer.exit_code == 2
    assert "31 is not in the range x>=32" in fewer.stderr

    other = petseg_export(no_file.with_suffix(".keras"), "--from", tiny_keras)
    assert other.exit_code == 2
    assert "does not end in .onnx" in other.stderr

    uncalibrated = petseg_export(no_file, "--precision", "int8")
    assert uncalibrated.exit_code == 2
    assert "--precision int8 needs --calibration DIR" in uncalibrated.stderr
    needless = petseg_export(no_file, "--calibration", tmp_path)
    assert needless.exit_code == 2
    assert "--calibration is for --precision int8, not float32" in needless.stderr


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("package", ["keras", "tensorflow"])
def test_missing_packages_are_named(package: str, no_file: Path) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from petseg_export.cli import main; main(sys.argv[1:])"
    )
    result = python(code, str(no_file))
    assert result.returncode == 1
    assert f"needs the package {package}, which is not installed" in result.stderr
    assert "pip install 'petseg[export]'" in result.stderr


def test_the_command_alone_loads_no_tensorflow() -> None:
    """`petseg --help` asks every command for its help."""
    code = (
        "import sys, petseg_export, petseg_export.cli\n"
        "print(sorted({'tensorflow', 'keras', 'onnx', 'tf2onnx'} & set(sys.modules)))\n"
        "try: petseg_export.nothing\n"
        "except AttributeError: print('no such name')"
    )
    assert python(code).stdout.splitlines() == ["[]", "no such name"]
