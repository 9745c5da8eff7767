"""The ONNX graph tf2onnx makes of a segmenter: which node is which layer, weights, names."""

from __future__ import annotations

import keras
import numpy as np
import onnx
from onnx import numpy_helper

from petseg import weights
from petseg.errors import ModelError

_OPERATORS = {"Conv2D": "Conv", "Conv2DTranspose": "ConvTranspose"}


def name_layers(model: onnx.ModelProto, network: keras.Model) -> None:
    """Give each convolution's node the path of the layer that it is.

    Every convolution needs the one before it, so ONNX's topological order and that of the forward
    pass are the same and no two can be taken for each other, however alike their weights are.

    Raises:
        ModelError: the graph's convolutions or their weights are not the network's.
    """
    layers = weights.convolutions(network)
    nodes = [node for node in model.graph.node if node.op_type in _OPERATORS.values()]
    if len(nodes) != len(layers):
        raise ModelError(f"tf2onnx made {len(nodes)} convolutions of {len(layers)}")
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node, (path, layer) in zip(nodes, layers.items(), strict=True):
        kernel, bias = layer.get_weights()
        found = [numpy_helper.to_array(stored[name]) for name in node.input[1:]]
        if len(found) == 1 and not bias.any():
            # tf2onnx leaves out a bias that is zero everywhere.
            found.append(bias)
        expected = [weights.to_onnx(kernel), bias]
        same = len(found) == 2 and all(map(np.array_equal, found, expected))
        if node.op_type != _OPERATORS[type(layer).__name__] or not same:
            raise ModelError(f"tf2onnx made something else of the layer {path}")
        node.name = path


def store_weights(
    model: onnx.ModelProto, network: keras.Model, dtype: type[np.floating]
) -> dict[str, tuple[str, str]]:
    """Give the nodes that `name_layers` named the network's weights, under the layers' names.

    tf2onnx keeps equal weights of several layers once and leaves out zeros, and the conversion to
    float16 moves what is too small for it away from zero.  Here all are as they are in Keras, or
    rounded to the nearest float16.

    Returns:
        Layer path to the names of its kernel and bias initialisers.
    """
    names = {}
    nodes = {node.name: node for node in model.graph.node}
    for path, layer in weights.convolutions(network).items():
        kernel, bias = layer.get_weights()
        names[path] = (f"{path}/kernel", f"{path}/bias")
        # A weight beyond float16 becomes infinite, and the comparison with Keras refuses the file.
        with np.errstate(over="ignore"):
            arrays = (weights.to_onnx(kernel).astype(dtype), bias.astype(dtype))
        del nodes[path].input[1:]
        nodes[path].input.extend(names[path])
        model.graph.initializer.extend(map(numpy_helper.from_array, arrays, names[path]))
    return names


def tidy(model: onnx.ModelProto, layers: dict[str, tuple[str, str]]) -> None:
    """Make a graph depend on the network alone, so that the same network has the same hash.

    The batch dimension is called `batch`.  Names that tf2onnx counts up from one conversion to the
    next are replaced, and what the graph does not use is left out.

    Args:
        model: changed in place.
        layers: from `store_weights`; these names stay.
    """
    graph = model.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    kept = {name for pair in layers.values() for name in pair}
    names = {name: name for name in kept}
    names |= {value.name: value.name for value in (*graph.input, *graph.output)}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    used: list[onnx.TensorProto] = []
    for index, node in enumerate(graph.node):
        if node.name not in layers:
            node.name = f"{node.op_type}_{index}"
        for name in node.input:
            if name in stored:
                tensor = stored.pop(name)
                tensor.name = names.setdefault(name, f"constant_{len(used)}")
                used.append(tensor)
        for name in node.output:
            names.setdefault(name, f"{node.name}/output")
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    del graph.initializer[:]
    graph.initializer.extend(used)
    # Shapes that the conversion to float16 inferred, with other names for the batch dimension.
    del graph.value_info[:]
    graph.name = "petseg"
    graph.doc_string = ""
    opsets = [opset for opset in model.opset_import if not opset.domain]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
