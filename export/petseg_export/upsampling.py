"""A transposed convolution of stride 2 as convolutions and a depth-to-space: the same sums.

A 3x3 transposed convolution of stride 2 and "same" padding puts input i times tap k at output
2i + k (Dumoulin and Visin 2016, https://arxiv.org/abs/1603.07285).  Along one axis that is

    output[2j]     = input[j - 1] tap[2] + input[j] tap[0]
    output[2j + 1] = input[j] tap[1]

so each of the four phases, even or odd row, even or odd column, is a convolution of stride 1 with
some of the nine taps, and a depth-to-space puts the phases between each other.  Nothing is
multiplied by zero, and none of the weights is stored twice.

It is there for int8: onnxruntime's CPU provider has no transposed convolution in int8, and turns
the whole layer back to float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
# The taps of an even and of an odd phase along one axis, in the order of the inputs they meet.
_TAPS = ([2, 0], [1])


def phase_kernels(kernel: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    """A transposed convolution's kernel as those of its four phases.

    Args:
        kernel: (I, O, 3, 3), ONNX's order for ConvTranspose.

    Returns:
        (O, I, 2 or 1, 2 or 1), ONNX's order for Conv, for the output's even rows and even columns,
        even and odd, odd and even, odd and odd.
    """
    swapped = kernel.transpose(1, 0, 2, 3)
    return [
        np.ascontiguousarray(swapped[:, :, _TAPS[row]][..., _TAPS[column]])
        for row, column in _PHASES
    ]


def merged_kernel(kernel: NDArray[np.floating]) -> NDArray[np.floating]:
    """The four phases as one convolution's kernel (4 O, I, 2, 2); the missing taps are zeros."""
    padded = [
        np.pad(phase, ((0, 0), (0, 0), (row, 0), (column, 0)))
        for phase, (row, column) in zip(phase_kernels(kernel), _PHASES, strict=True)
    ]
    return np.concatenate(padded)


def split_upsampling(model: onnx.ModelProto) -> None:
    """Replace every transposed convolution of a segmenter.

    One before a ReLU becomes four convolutions, each with its ReLU, whose outputs are joined.  The
    head has few outputs and becomes one convolution with zeros in its kernel: four would take
    longer.  The tensors that other nodes read keep their names.

    Args:
        model: from `convert.convert`; changed in place.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    relus = {node.input[0]: node for node in graph.node if node.op_type == "Relu"}
    nodes: list[onnx.NodeProto] = []
    for node in list(graph.node):
        if node.op_type == "ConvTranspose":
            kernel, bias = (numpy_helper.to_array(stored[name]) for name in node.input[1:])
            relu = relus.get(node.output[0])
            if relu is None:
                nodes += _merged(graph, node, kernel, bias)
            else:
                nodes += _split(graph, node, relu, kernel, bias)
        elif not (node.op_type == "Relu" and _upsamples(graph, node.input[0])):
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _upsamples(graph: onnx.GraphProto, tensor: str) -> bool:
    return any(node.op_type == "ConvTranspose" and tensor in node.output for node in graph.node)


def _split(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    relu: onnx.NodeProto,
    kernel: NDArray[np.floating],
    bias: NDArray[np.floating],
) -> Iterator[onnx.NodeProto]:
    outputs = []
    for (row, column), phase in zip(_PHASES, phase_kernels(kernel), strict=True):
        name = f"{node.name}/phase_{row}{column}"
        weights = _store(graph, name, phase, bias)
        yield _convolution(name, node.input[0], weights, f"{name}/sum", (1 - row, 1 - column))
        yield helper.make_node("Relu", [f"{name}/sum"], [f"{name}/relu"], f"{name}/Relu")
        outputs.append(f"{name}/relu")
    joined = f"{node.name}/phases"
    yield helper.make_node("Concat", outputs, [joined], f"{node.name}/Concat", axis=1)
    yield _interleave(node, joined, relu.output[0])


def _merged(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    kernel: NDArray[np.floating],
    bias: NDArray[np.floating],
) -> Iterator[onnx.NodeProto]:
    phases = f"{node.name}/phases"
    weights = _store(graph, phases, merged_kernel(kernel), np.tile(bias, len(_PHASES)))
    yield _convolution(node.name, node.input[0], weights, phases, (1, 1))
    yield _interleave(node, phases, node.output[0])


def _store(graph: onnx.GraphProto, name: str, *arrays: NDArray[np.floating]) -> list[str]:
    names = [f"{name}/kernel", f"{name}/bias"]
    graph.initializer.extend(map(numpy_helper.from_array, arrays, names))
    return names


def _convolution(
    name: str, source: str, weights: list[str], output: str, padding: tuple[int, int]
) -> onnx.NodeProto:
    """Padded above and on the left alone, so that input j - 1 of the first row is a zero."""
    return helper.make_node("Conv", [source, *weights], [output], name, pads=[*padding, 0, 0])


def _interleave(node: onnx.NodeProto, phases: str, output: str) -> onnx.NodeProto:
    return helper.make_node(
        "DepthToSpace", [phases], [output], f"{node.name}/DepthToSpace", blocksize=2, mode="DCR"
    )
