"""What int8 needs to know of a network's activations, from photos like those it will see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from petseg.data import dataset
from petseg.errors import DatasetError, ImageError
from petseg.modelfile.signature import INPUT
from petseg.photos import imageio, sources, transforms
from petseg.system.machine import usable_cores

# More photos than the most do not change the ranges; fewer than the least leave them to chance.
MOST, LEAST = 100, 16
_BATCH = 4


@dataclass(frozen=True)
class Photos:
    """What a network is calibrated on.

    Attributes:
        names: N file names below the folder they were found in.
        images: RGB uint8 (N, S, S, 3).
    """

    names: tuple[str, ...]
    images: NDArray[np.uint8]


def read_photos(root: Path, size: int) -> Photos:
    """At most 100 photos of a folder, spread evenly over their sorted names.

    In Oxford-IIIT Pet's layout they are taken from `annotations/trainval.txt`, so that nothing is
    chosen by the test list.  Photos that cannot be read are passed over.

    Args:
        root: folder in Oxford's layout, or any folder of photos.
        size: S, pixels.

    Raises:
        DatasetError: no such folder, no trainval.txt beside other lists, or fewer than 16 photos
            that can be read.
    """
    paths = _listed(root)
    chosen = np.linspace(0, len(paths) - 1, min(MOST, len(paths))).round().astype(int)
    names, images = [], []
    for path in (paths[index] for index in chosen):
        try:
            photo, _ = imageio.decode_reduced(path.read_bytes(), size)
        except (OSError, ImageError):
            continue
        names.append(path.relative_to(root).as_posix())
        images.append(transforms.to_model(photo, size))
    if len(images) < LEAST:
        raise DatasetError(
            f"{root} has {len(images)} photos that can be read; at least {LEAST} are needed to "
            "calibrate int8"
        )
    return Photos(tuple(names), np.stack(images))


def _listed(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root} to take calibration photos from")
    annotations = root / "annotations"
    if not annotations.is_dir():
        found = [source for source in sources.find(str(root)) if source.is_image]
        return sorted(Path(source.path) for source in found if source.problem is None)
    trainval = annotations / "trainval.txt"
    if not trainval.exists():
        raise DatasetError(
            f"calibration photos are those of {trainval}, which does not exist; name a folder "
            "with that list, or a plain folder of photos"
        )
    names = sorted(set(dataset.read_list(trainval)))
    return [dataset.image_path(root, name) for name in names]


def activation_limits(model: onnx.ModelProto, images: NDArray[np.uint8]) -> dict[str, float]:
    """How large the output of every ReLU and every addition gets: the mean, over the images, of an
    image's largest value.

    The largest of all images would be one pixel's; the mean cuts off a few such pixels and leaves
    the others finer steps.  (onnxruntime's MinMaxCalibrater with `moving_average` computes the same
    from a graph without optimisation, with the least values too, which are all zero here.)

    Args:
        model: from `convert.convert`, float32.
        images: RGB uint8 (N, S, S, 3).

    Returns:
        Tensor name to limit, at least 0.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph = probe.graph
    tensors = [node.output[0] for node in graph.node if node.op_type in ("Relu", "Add")]
    graph.initializer.append(numpy_helper.from_array(np.array([1, 2, 3]), "limit/axes"))
    del graph.output[:]
    for tensor in tensors:
        limit = f"{tensor}/limit"
        graph.node.append(
            helper.make_node("ReduceMax", [tensor, "limit/axes"], [limit], limit, keepdims=0)
        )
        graph.output.append(helper.make_tensor_value_info(limit, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = [
        session.run(None, {INPUT: images[first : first + _BATCH]})
        for first in range(0, len(images), _BATCH)
    ]
    return {
        tensor: float(np.concatenate([batch[index] for batch in found]).mean())
        for index, tensor in enumerate(tensors)
    }
