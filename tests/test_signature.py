"""A model file's signature: written and read back, and every damage noticed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petseg.classes import PET_CLASSES, SegmentClass
from petseg.errors import ModelError
from petseg.modelfile import protobuf, signature
from petseg.modelfile.signature import Signature
from petseg.runtime.onnx import OrtSession

ABOUT = Signature(
    size=64,
    filters=(4, 4, 8, 8, 8),
    classes=PET_CLASSES,
    precision="float32",
    resize_filter="bilinear",
    decoder="pillow",
    layers={"head": ("head/kernel", "head/bias")},
    recipe={"recipe": "article", "batch_size": 8},
    split_hash={"train": "a", "validation": "b"},
    metrics={"mean_iou": 0.5},
    versions={"petseg": "0.1.0"},
    graph_hash="",
    weights_hash="c",
)

byte = st.integers(0, 255)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), json_values, max_size=4)
segment_classes = st.builds(
    SegmentClass, st.text(min_size=1), byte, st.tuples(byte, byte, byte), st.booleans()
)
signatures = st.builds(
    Signature,
    size=st.integers(1),
    filters=st.tuples(*[st.integers(1)] * 5),
    classes=st.lists(segment_classes, min_size=1, unique_by=lambda item: item.value).map(tuple),
    precision=st.text(),
    resize_filter=st.text(),
    decoder=st.text(),
    layers=st.dictionaries(st.text(), st.tuples(st.text(), st.text())),
    recipe=objects,
    split_hash=st.dictionaries(st.text(), st.text()),
    metrics=objects,
    versions=st.dictionaries(st.text(), st.text()),
    graph_hash=st.text(),
    weights_hash=st.text(),
    parity=st.just({})
    | st.fixed_dictionaries(
        {
            "images": st.integers(1),
            "equal_pixels": st.floats(0, 1),
            "mean_iou": st.none() | st.lists(st.floats(0, 1), min_size=2, max_size=2),
        }
    ),
)


def changed(**values: object) -> str:
    return json.dumps({**json.loads(ABOUT.to_json()), **values})


def with_metadata(model: Path, text: str | None) -> bytes:
    """The model's bytes with another signature, or with none."""
    proto = onnx.load(model)
    del proto.metadata_props[:]
    if text is not None:
        onnx.helper.set_model_props(proto, {signature.METADATA_KEY: text})
    return proto.SerializeToString()


@given(signatures)
def test_json_gives_back_the_same_signature(about: Signature) -> None:
    assert Signature.from_json(about.to_json()) == about


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        (changed(classes=[{"name": "pet"}]), "damaged"),
        (changed(more=1), "damaged"),
        (changed(size="64"), "damaged"),
        (changed(size=-1), "damaged"),
        (changed(filters=[1, 2]), "damaged"),
        (changed(precision=32), "damaged"),
        (changed(recipe=[]), "damaged"),
        (changed(layers={"head": ["kernel"]}), "damaged"),
        (changed(classes=[]), "damaged"),
        (changed(classes=[vars(PET_CLASSES[0])] * 2), "damaged"),
        (changed(classes=[{**vars(PET_CLASSES[0]), "value": 1.5}]), "damaged"),
        (changed(parity={"images": 3}), "damaged"),
        ('{"recipe":' * 100_000, "damaged"),
        (changed(format_version="1"), "not a number"),
        (changed(format_version=0), "not a number"),
        (changed(format_version=signature.FORMAT_VERSION + 1), "upgrade petseg"),
    ],
)
def test_bad_json_is_a_model_error(text: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Signature.from_json(text)


def test_read_agrees_with_onnx(tiny_model: Path) -> None:
    about = signature.read(tiny_model)
    proto = onnx.load(tiny_model)
    (entry,) = proto.metadata_props
    assert entry.key == signature.METADATA_KEY
    assert Signature.from_json(entry.value) == about
    assert signature.hash_graph(proto.graph.SerializeToString()) == about.graph_hash


def test_metadata_is_not_part_of_the_hash(tiny_model: Path) -> None:
    about = dataclasses.replace(signature.read(tiny_model), recipe={"recipe": "another"})
    assert signature.parse(with_metadata(tiny_model, about.to_json())) == about


def test_other_weights_are_noticed(tiny_model: Path) -> None:
    proto = onnx.load(tiny_model)
    bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "head/bias")
    bias.raw_data = bytes(len(bias.raw_data))
    with pytest.raises(ModelError, match="damaged or was edited"):
        signature.parse(proto.SerializeToString())


def signed(proto: onnx.ModelProto) -> bytes:
    """A model with a signature that fits, as anybody can make one."""
    about = Signature.from_json(proto.metadata_props[0].value)
    graph_hash = signature.hash_graph(proto.graph.SerializeToString())
    proto.metadata_props[0].value = dataclasses.replace(about, graph_hash=graph_hash).to_json()
    return proto.SerializeToString()


def weights_elsewhere(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def weights_elsewhere_in_a_node(proto: onnx.ModelProto) -> None:
    node = proto.graph.node.add(op_type="Constant", output=["more"])
    attribute = node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    attribute.t.external_data.add(key="location", value="/etc/passwd")


def weights_elsewhere_in_a_branch(proto: onnx.ModelProto) -> None:
    node = proto.graph.node.add(op_type="If", input=["images"], output=["more"])
    attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
    attribute.g.initializer.add(name="w").external_data.add(key="location", value="/etc/passwd")


def another_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].domain = "com.example"


def a_function(proto: onnx.ModelProto) -> None:
    proto.functions.add(name="f", domain="com.example")


def training(proto: onnx.ModelProto) -> None:
    proto.training_info.add()


def sparse_weights_in_a_node(proto: onnx.ModelProto) -> None:
    node = proto.graph.node.add(op_type="Constant", output=["more"])
    attribute = node.attribute.add(name="s", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.values.external_data.add(key="location", value="/etc/passwd")


def sparse_weights(proto: onnx.ModelProto) -> None:
    proto.graph.sparse_initializer.add()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (weights_elsewhere, "weights in another file"),
        (weights_elsewhere_in_a_node, "weights in another file"),
        (weights_elsewhere_in_a_branch, "weights in another file"),
        (another_operator, "com.example.*ONNX's own alone"),
        (a_function, "defines functions"),
        (training, "defines functions or training"),
        (sparse_weights_in_a_node, "sparse weights"),
        (sparse_weights, "sparse weights"),
    ],
)
def test_what_no_model_needs_is_refused(
    change: Callable[[onnx.ModelProto], None], words: str, tiny_model: Path
) -> None:
    proto = onnx.load(tiny_model)
    assert signature.parse(signed(proto)).size == 64
    change(proto)
    with pytest.raises(ModelError, match=words):
        signature.parse(signed(proto))


def test_two_graphs_are_refused(tiny_model: Path) -> None:
    """Protobuf joins them: what the hash does not cover would run."""
    more = onnx.ModelProto()
    more.graph.node.add(op_type="Identity", input=["images"], output=["more"])
    with pytest.raises(ModelError, match="2 graphs, expected one"):
        signature.parse(more.SerializeToString() + tiny_model.read_bytes())


def test_a_tag_that_others_would_cut_is_refused() -> None:
    """Of field 13 + 2**29 they would make field 13, the place of weights in another file."""
    tag, wide = (13 + (1 << 29)) << 3 | 2, []
    while tag > 127:
        wide.append(tag & 127 | 128)
        tag >>= 7
    with pytest.raises(ValueError, match="field number"):
        list(protobuf.fields(memoryview(bytes([*wide, tag, 1, 0]))))
    assert list(protobuf.fields(memoryview(bytes([13 << 3 | 2, 1, 0])))) == [(13, b"\0")]


def test_no_signature(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="no petseg signature"):
        signature.parse(with_metadata(tiny_model, None))


def test_newer_format_names_the_file(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "newer.onnx"
    path.write_bytes(with_metadata(tiny_model, changed(format_version=99)))
    with pytest.raises(ModelError, match=r"newer\.onnx.*format version 99.*upgrade petseg"):
        signature.read(path)


def test_oversized_signature(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="is not petseg's"):
        signature.parse(with_metadata(tiny_model, " " * 1_000_001))


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"\x89PNG\r\n\x1a\n", b"\0" * 9])
def test_not_onnx(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx: not an ONNX file"):
        signature.read(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: No such file"):
        signature.read(tmp_path / "none.onnx")


from_tiny = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200
)


@from_tiny
@given(share=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_noticed(tiny_model: Path, share: float) -> None:
    data = tiny_model.read_bytes()
    with pytest.raises(ModelError):
        signature.parse(data[: int(share * len(data))])


@from_tiny
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_no_graph_unnoticed(tiny_model: Path, share: float, bit: int) -> None:
    data = tiny_model.read_bytes()
    assert_harmless(tiny_model, data, int(share * len(data)), bit)


def test_no_bit_around_the_graph_changes_it_unnoticed(tiny_model: Path) -> None:
    """Each of the bits just before and behind the graph, where its own bounds and opset stand."""
    data = tiny_model.read_bytes()
    graph = onnx.load(tiny_model).graph.SerializeToString()
    begin = data.index(graph)
    for position in (*range(begin), *range(begin + len(graph), begin + len(graph) + 8)):
        for bit in range(8):
            assert_harmless(tiny_model, data, position, bit)


def assert_harmless(model: Path, data: bytes, position: int, bit: int) -> None:
    """A model with this bit flipped is refused, by petseg or by the runtime, or has its graph."""
    damaged = bytearray(data)
    damaged[position] ^= 1 << bit
    try:
        about = signature.parse(bytes(damaged))
    except ModelError:
        return
    # Outside of graph and signature, petseg passes over what it does not need.
    try:
        graph = onnx.load_from_string(bytes(damaged)).graph.SerializeToString()
    except DecodeError:
        path = model.with_name("damaged.onnx")
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="Protobuf parsing failed"):
            OrtSession(path, about, "cpu")
        return
    assert signature.hash_graph(graph) == about.graph_hash


@from_tiny
@given(st.binary(max_size=200))
def test_no_bytes_cause_another_error(data: bytes) -> None:
    with pytest.raises(ModelError):
        signature.parse(data)


def test_a_file_of_the_first_format_is_read() -> None:
    values = json.loads(ABOUT.to_json())
    del values["parity"], values["weights_hash"]
    found = Signature.from_json(json.dumps({**values, "format_version": 1}))
    assert found == dataclasses.replace(ABOUT, weights_hash="")


@pytest.mark.parametrize(
    ("mean_iou", "words"),
    [
        (None, "0.37% of mask pixels differ from float32 (32 photos, when it was made)"),
        (
            [0.7114, 0.711],
            "0.37% of mask pixels differ from float32, mIoU -0.04 points (32 photos, when it was "
            "made)",
        ),
    ],
)
def test_what_rounding_cost_is_said(mean_iou: list[float] | None, words: str) -> None:
    assert ABOUT.accuracy_cost is None
    parity = {"images": 32, "probability_difference": 9, "equal_pixels": 0.9963}
    about = dataclasses.replace(ABOUT, parity={**parity, "mean_iou": mean_iou})
    assert about.accuracy_cost == words
