"""A network that takes no time and still sees the photo: its scores are the photo's colours.

Where red is strongest a mask says pet, where green is background, and where blue is border.  So a
mask is a photo's own, to be told from every other's, and known without petseg.  Black is as little
of each as there is: no network gives every class a probability of 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from petseg.classes import PET_CLASSES
from petseg.modelfile import signature
from petseg.modelfile.signature import Signature
from petseg.photos import imageio, transforms

SIDE = 64


def write_model(path: Path) -> Path:
    """The network as a petseg ONNX file, input 64 x 64; returns `path`."""
    bytes_, ids = TensorProto.UINT8, TensorProto.INT64
    images = helper.make_tensor_value_info(signature.INPUT, bytes_, ["N", SIDE, SIDE, 3])
    scores = helper.make_tensor_value_info(signature.PROBABILITIES, bytes_, ["N", 3, SIDE, SIDE])
    mask = helper.make_tensor_value_info(signature.MASK, bytes_, ["N", SIDE, SIDE])
    nodes = [
        helper.make_node("Transpose", [images.name], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Clip", ["planes", "least"], [scores.name]),
        helper.make_node("ArgMax", [scores.name], ["ids"], axis=1, keepdims=0),
        helper.make_node("Cast", ["ids"], [mask.name], to=bytes_),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [images],
        [mask, scores],
        [helper.make_tensor("least", bytes_, [], [1])],
        value_info=[helper.make_tensor_value_info("ids", ids, ["N", SIDE, SIDE])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    about = Signature(
        size=SIDE,
        filters=(1, 1, 1, 1, 1),
        classes=PET_CLASSES,
        precision="float32",
        resize_filter=transforms.RESIZE_FILTER,
        decoder=imageio.DECODER,
        layers={},
        recipe={},
        split_hash={},
        metrics={},
        versions={"onnx": onnx.__version__},
        graph_hash=signature.hash_graph(model.graph.SerializeToString()),
    )
    helper.set_model_props(model, signature.to_metadata(about))
    path.write_bytes(model.SerializeToString())
    return path


class ColourSession:
    """The same without onnxruntime, whose own memory would hide what petseg's does."""

    provider, precision, streams, batch_size = "cpu", "float32", 1, 8
    batch_sizes = (8,)
    padded: list[int] | None = None

    def __init__(self) -> None:
        self.notes: list[str] = []

    def open_stream(self) -> ColourSession:
        return self

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.maximum(images.transpose(0, 3, 1, 2), 1)
