"""What a model file must not hold, whoever made it: it is data, and no way to anything else.

Whoever can write a model file can give it a signature that fits.  So its hash shows damage, and
this is what keeps a file from naming other files or other people's code.  The fields are those of
onnx/onnx.proto.
"""

from __future__ import annotations

from petseg.errors import ModelError
from petseg.modelfile.protobuf import fields

_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_EXTERNAL = 13

# ONNX's own operators; the empty one is the same.
_DOMAINS = (b"", b"ai.onnx")
# Graphs in attributes of nodes of graphs: petseg's have none.
_MOST_DEEP = 8
_SPARSE = "the model has sparse weights; petseg-export's are all dense"


def check(model: memoryview) -> None:
    """Refuse a model whose weights lie elsewhere, or whose operators are not ONNX's own.

    Args:
        model: a serialised onnx.ModelProto.

    Raises:
        ModelError: it has what no file of petseg-export's has.
        IndexError, ValueError: it is no such message.
    """
    graphs = 0
    for number, value in fields(model):
        if number in (_MODEL_FUNCTIONS, _MODEL_TRAINING):
            raise ModelError(
                "the model defines functions or training; petseg-export's have neither"
            )
        if number == _MODEL_GRAPH:
            graphs += 1
            _check_graph(value, 0)
    # Protobuf would join them, and the signature's hash is of one.
    if graphs > 1:
        raise ModelError(f"the model holds {graphs} graphs, expected one")


def _check_graph(graph: memoryview, depth: int) -> None:
    if depth > _MOST_DEEP:
        raise ModelError(f"the model's graph is nested more than {_MOST_DEEP} deep")
    for number, value in fields(graph):
        if number == _GRAPH_SPARSE:
            raise ModelError(_SPARSE)
        if number == _GRAPH_INITIALIZER:
            _check_tensor(value)
        elif number == _GRAPH_NODE:
            _check_node(value, depth)


def _check_node(node: memoryview, depth: int) -> None:
    operator = domain = b""
    for number, value in fields(node):
        if number == _NODE_OPERATOR:
            operator = bytes(value)
        elif number == _NODE_DOMAIN:
            domain = bytes(value)
        elif number == _NODE_ATTRIBUTE:
            for kind, part in fields(value):
                if kind in _ATTRIBUTE_TENSOR:
                    _check_tensor(part)
                elif kind in _ATTRIBUTE_GRAPH:
                    _check_graph(part, depth + 1)
                elif kind in _ATTRIBUTE_SPARSE:
                    raise ModelError(_SPARSE)
    if domain not in _DOMAINS:
        raise ModelError(
            f"the model has an operator {operator!r} of {domain!r}; petseg runs ONNX's own alone"
        )


def _check_tensor(tensor: memoryview) -> None:
    if any(number == _TENSOR_EXTERNAL for number, _ in fields(tensor)):
        raise ModelError(
            "the model has weights in another file; a petseg file holds all of its own: export it "
            "again with petseg-export"
        )
