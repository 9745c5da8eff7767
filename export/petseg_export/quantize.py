"""A float32 graph into int8: every convolution in integers, everything behind the logits not.

The result is a QDQ graph (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html):
activations are uint8 with one scale each, weights int8 with one scale for each output channel.
`docs/int8.md` says why each choice was made.
"""

from __future__ import annotations

import onnx
from numpy import float32
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from petseg.network.model import IMAGENET_MEANS_BGR
from petseg_export import graph, upsampling

_OPERATORS = ("Conv", "Relu", "MaxPool", "Add", "Concat", "DepthToSpace")
# A ReLU is what rounding to 0..255 does anyway; the others, with one scale, only move bytes.
_SAME_RANGE = ("Relu", "Concat", "DepthToSpace")
# A pixel less its channel's mean: known, and white is more than most photos' brightest pixel.
_INPUT_RANGE = (-max(IMAGENET_MEANS_BGR), 255.0 - min(IMAGENET_MEANS_BGR))


def quantize(
    model: onnx.ModelProto, limits: dict[str, float]
) -> tuple[onnx.ModelProto, dict[str, tuple[str, str]]]:
    """The same network in int8.

    Args:
        model: from `convert.convert`, float32; not usable afterwards.
        limits: how far each activation reaches; see `calibration.activation_limits`.

    Returns:
        The model, with the inputs and outputs of `model`; and `Signature.layers` for it: each of
        its convolutions to the names of an int8 kernel and an int32 bias.
    """
    upsampling.split_upsampling(model)
    quantizer = QDQQuantizer(
        onnx.shape_inference.infer_shapes(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, _ranges(model.graph, limits)),
        nodes_to_quantize=[],
        nodes_to_exclude=["head/DepthToSpace"],
        op_types_to_quantize=list(_OPERATORS),
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    _leave_float(quantized.graph, "head/phases")
    layers = {
        node.name: (f"{kernel}_quantized", f"{bias}_quantized")
        for node in model.graph.node
        if node.op_type == "Conv"
        for _, kernel, bias in [node.input]
    }
    graph.tidy(quantized, layers)
    onnx.checker.check_model(quantized, full_check=True)
    return quantized, layers


def _ranges(graph: onnx.GraphProto, limits: dict[str, float]) -> dict[str, TensorData]:
    """The range of every tensor that is rounded, by name."""
    ranges = {name: (0.0, limit) for name, limit in limits.items()}
    ranges["head/phases"] = (0.0, 1.0)  # rounded by nobody: see `_leave_float`
    for node in reversed(graph.node):
        if node.op_type == "Transpose":
            ranges[node.output[0]] = _INPUT_RANGE
        elif node.op_type in _SAME_RANGE and node.output[0] in ranges:
            ranges |= dict.fromkeys(node.input, ranges[node.output[0]])
    return {
        name: TensorData(lowest=float32(low), highest=float32(high))
        for name, (low, high) in ranges.items()
    }


def _leave_float(graph: onnx.GraphProto, tensor: str) -> None:
    """Take away the rounding of one tensor that QDQQuantizer rounds with its node's inputs.

    256 steps for the logits of all pixels make ties, which cost more than all else in int8.
    """
    (rounding,) = (
        node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == tensor
    )
    (back,) = (node for node in graph.node if node.input[0] == rounding.output[0])
    for node in graph.node:
        node.input[:] = [tensor if name == back.output[0] else name for name in node.input]
    graph.node.remove(rounding)
    graph.node.remove(back)
