"""The ONNX graph tf2onnx makes of a segmenter: which node is which layer, weights, names."""

from __future__ import annotations

import hashlib

import keras
import numpy as np
import onnx
from onnx import numpy_helper

from petseg.errors import ModelError
from petseg.network import weights

_OPERATORS = {"Conv2D": "Conv", "Conv2DTranspose": "ConvTranspose"}


def name_layers(model: onnx.ModelProto, network: keras.Model) -> None:
    """Give each convolution's node the path of the layer that it is.

    Every convolution needs the one before it, so ONNX's topological order is that of the forward
    pass; and as the kernels were drawn, no two of them are equal.

    Args:
        model: as tf2onnx made it; changed in place.
        network: the untrained network that it was made of.

    Raises:
        ModelError: the graph's convolutions are not the network's.
    """
    layers = weights.convolutions(network)
    nodes = [node for node in model.graph.node if node.op_type in _OPERATORS.values()]
    if len(nodes) != len(layers):
        raise ModelError(f"tf2onnx made {len(nodes)} convolutions of {len(layers)}")
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node, (path, layer) in zip(nodes, layers.items(), strict=True):
        kernel = weights.to_onnx(layer.get_weights()[0])
        found = [numpy_helper.to_array(stored[name]) for name in node.input[1:]]
        same = len(found) == 1 and np.array_equal(found[0], kernel)
        if node.op_type != _OPERATORS[type(layer).__name__] or not same:
            raise ModelError(f"tf2onnx made something else of the layer {path}")
        node.name = path


def store_weights(
    model: onnx.ModelProto, network: keras.Model, dtype: type[np.floating]
) -> dict[str, tuple[str, str]]:
    """Give the nodes that `name_layers` named a network's weights, under the layers' names.

    Args:
        model: changed in place.
        network: the trained network.
        dtype: float16 stores each weight rounded to the nearest one.

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


def hash_weights(network: keras.Model) -> str:
    """SHA-256 of a network's weights, rounded to float16, which no precision's file changes."""
    found = hashlib.sha256()
    for path, layer in weights.convolutions(network).items():
        found.update(path.encode())
        with np.errstate(over="ignore"):
            for array in layer.get_weights():
                found.update(array.astype("<f2").tobytes())
    return found.hexdigest()


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
