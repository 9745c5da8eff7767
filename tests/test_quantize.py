"""An int8 file: what is in integers, how close it is, what it says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from batching import invoke, save_photos
from click.testing import CliRunner
from onnx import numpy_helper

from petseg.data.dataset import hash_names
from petseg.errors import ModelError, ProviderError
from petseg.modelfile import signature
from petseg.network import weights
from petseg.planning import config
from petseg.runtime import open_session
from petseg.runtime.openvino import shared_core
from petseg.system import machine
from petseg_export import calibration, parity, trained
from petseg_export.cli import main
from petseg_export.convert import export

# What OpenVINO's CPU plug-in calls them.
CONVOLUTIONS = ("Convolution", "Deconvolution")


@pytest.fixture(scope="session")
def int8_model(tiny_keras: Path, pets: Path) -> Path:
    """`tiny_keras` in int8, calibrated on `pets`, through the command."""
    path = tiny_keras.with_name("int8.onnx")
    arguments = ["--from", tiny_keras, "--precision", "int8", "--calibration", pets]
    result = CliRunner().invoke(main, [str(path), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "0.1 MB, int8" in result.stderr
    assert "24 images, largest probability difference" in result.stderr
    return path


def test_every_convolution_is_given_rounded_inputs(int8_model: Path) -> None:
    graph = onnx.load(int8_model).graph
    onnx.checker.check_model(onnx.load(int8_model), full_check=True)
    assert {node.domain for node in graph.node} == {""}
    operators = [node.op_type for node in graph.node]
    # 17, 4 x 4 in place of the upsampling, and the head.
    assert operators.count("Conv") == 34
    assert "ConvTranspose" not in operators
    assert "Relu" not in operators
    made_by = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        values, kernel, bias = (made_by[name] for name in node.input)
        assert {values.op_type, kernel.op_type, bias.op_type} == {"DequantizeLinear"}
        assert made_by[values.input[0]].op_type == "QuantizeLinear"
        rounded = numpy_helper.to_array(stored[kernel.input[0]])
        scales = numpy_helper.to_array(stored[kernel.input[1]])
        assert rounded.dtype == np.int8
        assert scales.shape == rounded.shape[:1], "one scale for each output channel"
        assert numpy_helper.to_array(stored[bias.input[0]]).dtype == np.int32
        zero = numpy_helper.to_array(stored[values.input[2]])
        assert zero.dtype == np.uint8
        # Behind a ReLU zero is exact and no step is spent below it.
        assert (zero == 0) == (node.name != "block1_conv1"), node.name
    # The logits are not rounded.
    between = next(node for node in graph.node if node.op_type == "Softmax")
    assert made_by[between.input[0]].op_type == "DepthToSpace"


def test_what_only_moves_bytes_does_not_round_again(int8_model: Path) -> None:
    graph = onnx.load(int8_model).graph
    made_by = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    rounds = {node.input[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    moving = [node for node in graph.node if node.op_type in ("Concat", "DepthToSpace", "MaxPool")]
    inner = [node for node in moving if node.output[0] in rounds]
    # All but the head's.
    assert (len(moving), len(inner)) == (4 + 5 + 5, 4 + 4 + 5)
    for node in inner:
        scales = [stored[made_by[name].input[1]] for name in node.input]
        scales.append(stored[rounds[node.output[0]].input[1]])
        assert len({float(scale) for scale in scales}) == 1, node.name


def test_the_cpu_provider_computes_in_integers(
    int8_model: Path, tmp_path: Path, tiny_model: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(
        int8_model.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    session.run(None, {"images": parity.draw_images(64, 2)})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [event["args"]["op_name"] for event in events if event.get("cat") == "Node"]
    assert ran.count("QLinearConv") == 33
    # The head, whose output stays float.
    assert sum(name in ("Conv", "FusedConv", "ConvTranspose") for name in ran) == 1


def test_close_to_keras_in_any_batch(tiny_keras: Path, int8_model: Path, pets: Path) -> None:
    network = trained.load(tiny_keras).network
    images = calibration.read_photos(pets, 64).images
    found = parity.compare(network, int8_model.read_bytes(), parity.Pictures(images))
    parity.check(found, "int8")
    assert found.equal_pixels < 1
    session = open_session(int8_model, signature.read(int8_model), "cpu", "int8", batch_size=8)
    assert session.precision == "int8"
    stream = session.open_stream()
    together = stream.run(images[:5])
    for image, planes in zip(images[:5], together, strict=True):
        np.testing.assert_array_equal(stream.run(image[np.newaxis])[0], planes)


def test_openvino_runs_it(int8_model: Path, pets: Path) -> None:
    about = signature.read(int8_model)
    images = calibration.read_photos(pets, 64).images
    reference = open_session(int8_model, about, "cpu").open_stream().run(images)
    session = open_session(int8_model, about, "openvino")
    assert (session.provider, session.precision) == ("openvino", "int8")
    found = session.open_stream().run(images)
    equal = found.argmax(axis=1) == reference.argmax(axis=1)
    assert equal.mean() > 0.97


def test_openvino_computes_in_integers(int8_model: Path) -> None:
    """What it runs is not what the file says: convolutions may be widened to float32."""
    if not {"avx512_vnni", "avx_vnni"} & machine.cpu_flags():
        pytest.skip("this processor has no VNNI")
    runtime = shared_core().compile_model(str(int8_model), "CPU").get_runtime_model()
    ran = [node.get_rt_info() for node in runtime.get_ordered_ops()]
    precisions = [
        info["runtimePrecision"].astype(str)
        for info in ran
        if info["layerType"].astype(str) in CONVOLUTIONS
    ]
    assert precisions == 34 * ["u8"]


def package_has(monkeypatch: pytest.MonkeyPatch, full: Path, int8: Path) -> None:
    def packaged(precision: str = "auto") -> Path:
        return int8 if precision == "int8" else full

    monkeypatch.setattr(config, "packaged", packaged)


def test_the_packages_int8_model_is_taken_and_says_what_it_costs(
    tiny_model: Path, int8_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photos(tmp_path / "images", 3)
    package_has(monkeypatch, tiny_model, int8_model)
    monkeypatch.chdir(tmp_path)
    options = ("--precision", "int8", "--provider", "cpu", "--check", "--json")
    found = invoke("images", "masks", *options)
    assert found.code == 0, found.err
    assert f"model: {int8_model} (from the package)" in found.err
    cost = signature.read(int8_model).accuracy_cost
    assert cost is not None
    assert cost.endswith("of mask pixels differ from float32 (24 photos, when it was made)")
    assert f"int8: {cost}" in found.stats["notes"]
    assert f"int8: {cost}" in found.err
    assert "check: int8 on cpu: " in found.err
    assert found.stats["equal_to_float32"] > 0.9


def test_what_cannot_be_compared_is_refused_before_it_is_loaded(
    tiny_model: Path, int8_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's model is not the one that this int8 file was made from."""
    save_photos(tmp_path / "images", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("petseg.runtime.open_session", pytest.fail)
    found = invoke("images", "masks", "--model", int8_model, "--check")
    assert found.code == 1
    assert "holds int8 weights alone, and the package's model is not the one" in found.err
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_it_is_not_computed_in_another_precision(provider: str, int8_model: Path) -> None:
    about = signature.read(int8_model)
    with pytest.raises(ProviderError, match="computes a file stored in int8 in int8"):
        open_session(int8_model, about, provider, "float32")


def test_what_the_file_says(tiny_model: Path, int8_model: Path, pets: Path) -> None:
    about = signature.read(int8_model)
    assert about.precision == "int8"
    full = signature.read(tiny_model)
    assert about.graph_hash != full.graph_hash
    # It was made of the same network.
    assert about.weights_hash == full.weights_hash != ""
    names = calibration.read_photos(pets, 64).names
    assert about.split_hash == {"calibration": hash_names(names)}
    assert "onnxruntime" in about.versions
    stored = {tensor.name: tensor for tensor in onnx.load(int8_model).graph.initializer}
    assert len(about.layers) == 34
    for kernel, bias in about.layers.values():
        assert stored[kernel].data_type == onnx.TensorProto.INT8
        assert stored[bias].data_type == onnx.TensorProto.INT32


def test_the_same_photos_give_the_same_file(
    tiny_model: Path, int8_model: Path, pets: Path, tmp_path: Path
) -> None:
    """From the .onnx as from the .keras file."""
    export(tiny_model, tmp_path / "again.onnx", "int8", calibration_photos=pets)
    assert (tmp_path / "again.onnx").read_bytes() == int8_model.read_bytes()


def test_weights_cannot_be_had_back(int8_model: Path, tmp_path: Path) -> None:
    for precision in ("float32", "float16"):
        with pytest.raises(ModelError, match=r"int8\.onnx holds weights rounded to int8"):
            export(int8_model, tmp_path / "model.onnx", precision)
    with pytest.raises(ModelError, match="give the one it was made from"):
        weights.read_onnx(int8_model)
    assert not list(tmp_path.iterdir())


def test_out_of_bounds_means_no_file(tiny_keras: Path, pets: Path, tmp_path: Path) -> None:
    """One weight so large that all others of its channel round to zero."""
    network = trained.load(tiny_keras).network
    layer = network.get_layer("connect_4").refine
    kernel, bias = layer.get_weights()
    kernel[0, 0, 0, :] = 500 * np.abs(kernel).max()
    layer.set_weights([kernel, bias])
    network.save(tmp_path / "odd.keras")
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"int8 file does not compute.*nothing was written"):
        export(tmp_path / "odd.keras", tmp_path / "out" / "m.onnx", "int8", calibration_photos=pets)
    assert not list((tmp_path / "out").iterdir())


def test_int8_and_photos_go_together(tiny_model: Path, pets: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs photos to calibrate on"):
        export(tiny_model, tmp_path / "m.onnx", "int8")
    with pytest.raises(ValueError, match="needs photos to calibrate on"):
        export(tiny_model, tmp_path / "m.onnx", "float32", calibration_photos=pets)
