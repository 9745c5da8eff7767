"""A transposed convolution in other words: the same sums, and nothing else in the graph changed."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from petseg_export.upsampling import merged_kernel, phase_kernels, split_upsampling


def upsampler(kernel: NDArray[np.float32], bias: NDArray[np.float32], relu: bool) -> bytes:
    """A 3x3 transposed convolution as tf2onnx writes Keras' of stride 2 and "same" padding."""
    float32 = onnx.TensorProto.FLOAT
    last = "sums" if relu else "output"
    nodes = [
        helper.make_node(
            "ConvTranspose",
            ["input", "kernel", "bias"],
            [last],
            "up",
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[0, 0, 1, 1],
        )
    ]
    if relu:
        nodes.append(helper.make_node("Relu", ["sums"], ["output"], "relu"))
    graph = helper.make_graph(
        nodes,
        "upsampler",
        [helper.make_tensor_value_info("input", float32, [None, len(kernel), None, None])],
        [helper.make_tensor_value_info("output", float32, [None] * 4)],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(bias, "bias")],
    )
    opset = helper.make_operatorsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def run(model: bytes, values: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (output,) = session.run(["output"], {"input": values})
    return output


def rewritten(model: bytes) -> onnx.ModelProto:
    proto = onnx.load_from_string(model)
    split_upsampling(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", [(1, 2, 3, 1, 1), (2, 3, 2, 5, 7), (1, 16, 8, 14, 14)])
def test_integers_come_out_equal(shape: tuple[int, ...], relu: bool) -> None:
    """Their sums are exact in float32 in any order, so that not one may differ."""
    batch, inputs, outputs, height, width = shape
    random = np.random.default_rng(sum(shape))
    kernel = random.integers(-9, 10, (inputs, outputs, 3, 3)).astype(np.float32)
    bias = random.integers(-9, 10, outputs).astype(np.float32)
    values = random.integers(-9, 10, (batch, inputs, height, width)).astype(np.float32)
    model = upsampler(kernel, bias, relu)
    expected = run(model, values)
    assert expected.shape == (batch, outputs, 2 * height, 2 * width)
    assert expected.any()
    found = run(rewritten(model).SerializeToString(), values)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("relu", [True, False])
def test_random_weights_differ_by_rounding_alone(relu: bool) -> None:
    random = np.random.default_rng(0)
    kernel = random.normal(0, 0.03, (128, 64, 3, 3)).astype(np.float32)
    bias = random.normal(0, 0.1, 64).astype(np.float32)
    values = random.normal(0, 1, (2, 128, 9, 11)).astype(np.float32)
    model = upsampler(kernel, bias, relu)
    found = run(rewritten(model).SerializeToString(), values)
    np.testing.assert_allclose(found, run(model, values), rtol=0, atol=1e-5)


def test_what_the_graph_becomes() -> None:
    kernel, bias = np.ones((2, 3, 3, 3), np.float32), np.zeros(3, np.float32)
    before_relu = rewritten(upsampler(kernel, bias, relu=True)).graph
    operators = [node.op_type for node in before_relu.node]
    assert operators == ["Conv", "Relu"] * 4 + ["Concat", "DepthToSpace"]
    assert before_relu.node[-1].output[0] == "output"
    last = rewritten(upsampler(kernel, bias, relu=False)).graph
    assert [(node.op_type, node.name) for node in last.node] == [
        ("Conv", "up"),
        ("DepthToSpace", "up/DepthToSpace"),
    ]


def test_every_tap_has_its_place() -> None:
    kernel = np.arange(2 * 3 * 9, dtype=np.float32).reshape(2, 3, 3, 3) + 1
    phases = phase_kernels(kernel)
    assert [phase.shape for phase in phases] == [
        (3, 2, 2, 2),
        (3, 2, 2, 1),
        (3, 2, 1, 2),
        (3, 2, 1, 1),
    ]
    taps = np.concatenate([phase.ravel() for phase in phases])
    np.testing.assert_array_equal(np.sort(taps), np.sort(kernel.ravel()))
    merged = merged_kernel(kernel)
    assert merged.shape == (12, 2, 2, 2)
    np.testing.assert_array_equal(np.sort(merged[merged > 0]), np.sort(kernel.ravel()))
