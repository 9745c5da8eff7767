"""A model file's signature: written and read back, and every damage noticed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petseg import signature
from petseg.classes import PET_CLASSES, SegmentClass
from petseg.errors import ModelError
from petseg.signature import Signature

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
    """Damage outside of graph and signature may pass; what is accepted has the same graph."""
    data = bytearray(tiny_model.read_bytes())
    data[int(share * len(data))] ^= 1 << bit
    try:
        about = signature.parse(bytes(data))
    except ModelError:
        return
    graph = onnx.load_from_string(bytes(data)).graph.SerializeToString()
    assert signature.hash_graph(graph) == about.graph_hash


@from_tiny
@given(st.binary(max_size=200))
def test_no_bytes_cause_another_error(data: bytes) -> None:
    with pytest.raises(ModelError):
        signature.parse(data)


def test_a_file_of_the_first_format_is_read() -> None:
    values = json.loads(ABOUT.to_json())
    del values["parity"]
    assert Signature.from_json(json.dumps({**values, "format_version": 1})) == ABOUT


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
