"""What a model file says about itself, and whether it is still what it was.

The signature is JSON in the ONNX file's metadata under one key, so that `petseg-batch` needs that
file and nothing else.  It is read here from the file's bytes, without onnx and without a session:
a run must be able to refuse a file before it loads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petseg.classes import SegmentClass
from petseg.errors import ModelError
from petseg.modelfile import trust
from petseg.modelfile.protobuf import fields

FORMAT_VERSION = 3
METADATA_KEY = "petseg.signature"
INPUT, MASK, PROBABILITIES = "images", "mask", "probabilities"

# Far above any signature petseg writes; a file that claims more is not one of ours.
_MAX_SIGNATURE_BYTES = 1_000_000

# Fields of onnx.ModelProto and onnx.StringStringEntryProto (onnx/onnx.proto).
_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


@dataclass(frozen=True)
class Signature:
    """Everything about a model that its graph does not say.

    The graph's input is `images`, uint8 RGB (N, S, S, 3); its outputs are `mask`, class ids uint8
    (N, S, S), and `probabilities`, uint8 (N, C, S, S), where 255 is certainty.

    Attributes:
        size: S, the side of the input, pixels.
        filters: channels of the five encoder blocks.
        classes: the C classes in the order of their ids.
        precision: "float32", "float16" or "int8": how the weights are stored.
        resize_filter: the filter the photo is brought to S x S with.
        decoder: the library that decoded the training images.
        layers: layer path to the names of its kernel and bias initialisers in the graph.  In an
            int8 file these are rounded, and the paths those of the graph's own convolutions.
        recipe: the training configuration.
        split_hash: SHA-256 of the names trained on ("train"), validated on ("validation") and, in
            an int8 file, calibrated on ("calibration").
        metrics: figures on the validation part, with the precision they were measured at.
        versions: the libraries that made the file.
        graph_hash: SHA-256 of the serialised graph, weights included, metadata not.
        weights_hash: SHA-256 of the trained weights, rounded to float16: one for the files of all
            precisions that were made of one network; "" in a file of an older petseg.
        parity: how close petseg-export found the file to the Keras network in float32: "images"
            compared, largest "probability_difference" of 255, share of "equal_pixels", and
            "mean_iou" of both, Keras first, or None; empty where it is not known.
    """

    size: int
    filters: tuple[int, int, int, int, int]
    classes: tuple[SegmentClass, ...]
    precision: str
    resize_filter: str
    decoder: str
    layers: dict[str, tuple[str, str]]
    recipe: dict[str, Any]
    split_hash: dict[str, str]
    metrics: dict[str, Any]
    versions: dict[str, str]
    graph_hash: str
    weights_hash: str = ""
    parity: dict[str, Any] = field(default_factory=dict)

    @property
    def accuracy_cost(self) -> str | None:
        """What the file's rounding was measured to cost, for people; None where it is not known."""
        if not self.parity:
            return None
        changed = f"{1 - self.parity['equal_pixels']:.2%} of mask pixels differ from float32"
        if self.parity["mean_iou"] is None:
            return f"{changed} ({self.parity['images']} photos, when it was made)"
        full, own = self.parity["mean_iou"]
        return (
            f"{changed}, mIoU {100 * (own - full):+.2f} points ({self.parity['images']} photos, "
            "when it was made)"
        )

    def to_json(self) -> str:
        return json.dumps({"format_version": FORMAT_VERSION, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Signature:
        """The inverse of `to_json`.

        Raises:
            ModelError: damaged, incomplete, or of a newer format.
        """
        try:
            values = json.loads(text)
            version = values.pop("format_version")
            if not isinstance(version, int) or version < 1:
                raise ModelError(f"the signature's format version is {version!r}, not a number")
            if version > FORMAT_VERSION:
                raise ModelError(
                    f"the model has format version {version}, this petseg reads up to "
                    f"{FORMAT_VERSION}; upgrade petseg"
                )
            values["filters"] = tuple(values["filters"])
            values["classes"] = tuple(map(SegmentClass.from_json, values["classes"]))
            values["layers"] = {name: tuple(pair) for name, pair in values["layers"].items()}
            return _checked(cls(**values))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"the model's signature is damaged: {error}") from error


def _checked(found: Signature) -> Signature:
    """The signature, if its values are what the fields say: a file may hold anything.

    Raises:
        TypeError, KeyError, ValueError: they are not.
    """
    values = [item.value for item in found.classes]
    hashes = (found.graph_hash, found.weights_hash)
    texts = (found.precision, found.resize_filter, found.decoder, *hashes)
    tables = (found.layers, found.recipe, found.split_hash, found.metrics, found.versions)
    if not all(type(number) is int and number > 0 for number in (found.size, *found.filters)):
        raise ValueError("sizes are whole numbers above 0")
    if len(found.filters) != 5 or not all(len(pair) == 2 for pair in found.layers.values()):
        raise ValueError("expected 5 blocks of the encoder, and 2 initialisers a layer")
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text is none")
    if not all(isinstance(table, dict) for table in (*tables, found.parity)):
        raise TypeError("a table is none")
    if not 0 < len(values) == len(set(values)) < 256:
        raise ValueError(f"classes have values of their own, found {values}")
    # Asked for its text, it would fail where something is missing.
    str(found.accuracy_cost)
    return found


def read(path: Path) -> Signature:
    """Read a model file's signature and check it against the graph.

    Raises:
        ModelError: no such file, no ONNX file, no signature, a newer format, a graph that is not
            the one the signature was written for, or what no model needs (see `trust`).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    try:
        return parse(data)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def parse(data: bytes) -> Signature:
    """`read` for a model file's bytes."""
    graph: memoryview | None = None
    text: str | None = None
    try:
        trust.check(memoryview(data))
        for number, value in fields(memoryview(data)):
            if number == _MODEL_GRAPH:
                graph = value
            elif number == _MODEL_METADATA:
                entry = {key: bytes(part) for key, part in fields(value)}
                if entry.get(_ENTRY_KEY) == METADATA_KEY.encode():
                    found = entry.get(_ENTRY_VALUE, b"")
                    if len(found) > _MAX_SIGNATURE_BYTES:
                        raise ModelError(f"a signature of {len(found)} bytes is not petseg's")
                    text = found.decode()
    except (IndexError, ValueError) as error:
        raise ModelError(f"not an ONNX file, or a truncated one: {error}") from error
    if graph is None:
        raise ModelError("not an ONNX file: it holds no graph")
    if text is None:
        raise ModelError(
            "the model has no petseg signature; petseg-batch runs files made by petseg-export"
        )
    signature = Signature.from_json(text)
    if hash_graph(graph) != signature.graph_hash:
        raise ModelError(
            "graph and weights are not those the signature was written for: the file is damaged "
            "or was edited; export it again with petseg-export"
        )
    return signature


def hash_graph(graph: bytes | memoryview) -> str:
    """SHA-256 of a serialised onnx.GraphProto, as stored in a model's signature."""
    return hashlib.sha256(graph).hexdigest()


def to_metadata(signature: Signature) -> Mapping[str, str]:
    """The metadata entry to write into the ONNX file."""
    return {METADATA_KEY: signature.to_json()}
