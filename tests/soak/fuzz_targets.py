"""What the fuzzer runs: each of petseg's own parsers, on bytes, and what must hold of its result.

A target returns, or raises what its parser is documented to raise; everything else is a finding.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petseg import dataset, masks, png, records, signature, sources
from petseg.classes import PET_CLASSES, SegmentClass, ids_to_values, values_to_ids
from petseg.errors import DatasetError, ModelError, PetsegError
from petseg.formats import index
from petseg.formats.segmented import Segmented
from petseg.record import Box, ImageIdentity, Maker, Record
from petseg.records import MaskState
from petseg.signature import Signature
from soak import colours
from soak.mutants import repaired

FOLDER = Path(tempfile.gettempdir())


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        run: gives it bytes and looks at what comes of them.
        seeds: real files to begin with.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def model_file(data: bytes) -> None:
    """`signature.parse`: a whole model file."""
    try:
        found = signature.parse(data)
    except ModelError:
        return
    _check_signature(found)


def signature_text(data: bytes) -> None:
    """`Signature.from_json`, without a file around it."""
    try:
        found = Signature.from_json(data.decode("utf-8", "replace"))
    except ModelError:
        return
    _check_signature(found)


def _check_signature(found: Signature) -> None:
    again = Signature.from_json(found.to_json())
    # nan, which JSON can hold in Python, equals nothing.
    assert again.to_json() == found.to_json()
    assert found.size > 0
    assert len(found.filters) == 5
    assert "/".join((found.precision, found.resize_filter, found.decoder, found.graph_hash))
    _check_classes(found.classes)
    assert found.accuracy_cost is None or "%" in found.accuracy_cost


def class_values(data: bytes) -> None:
    """`SegmentClass` and the look-up tables made of several."""
    try:
        items = json.loads(data)
        found = tuple(SegmentClass(**item) for item in items)
    except (ValueError, TypeError, RecursionError):
        return
    if 0 < len(found) < 256 and len({item.value for item in found}) == len(found):
        _check_classes(found)


def _check_classes(classes: tuple[SegmentClass, ...]) -> None:
    values, ids = ids_to_values(classes), values_to_ids(classes)
    assert len(values) == len(classes)
    np.testing.assert_array_equal(ids[values], np.arange(len(classes)))
    assert (ids != 255).sum() == len(classes)


def mask_file(data: bytes) -> None:
    """`records.judge`, `png.chunks` and what tables ask of a mask; also with checksums that fit."""
    for png_data in (data, repaired(data)):
        size = sum(len(content) + 12 for _, content in png.chunks(png_data))
        assert size <= len(png_data)
        state, record = records.judge(png_data, max_pixels=10_000)
        assert state is not MaskState.ABSENT
        assert (record is not None) or state is not MaskState.OURS
        if record is not None:
            _check_record(record)
            assert records._walk(png_data).seal is not None
        path = FOLDER / f"petseg-fuzz-{id(FOLDER)}.png"
        path.write_bytes(png_data)
        found = masks._read(
            path, path.name, PET_CLASSES, values_to_ids(PET_CLASSES), {}, True, 10_000
        )
        if found is not None:
            _check_told(found)
    path.unlink()


def record_text(data: bytes) -> None:
    """`Record.from_json`, without a PNG around it."""
    try:
        found = Record.from_json(data.decode("ascii", "replace"))
    except ValueError:
        return
    _check_record(found)


def _check_record(found: Record) -> None:
    assert Record.from_json(found.to_json()) == found
    numbers = (found.height, found.width, found.image.size, *found.class_pixels, *(found.box or ()))
    assert all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
    assert 0 <= found.confidence <= 1
    assert 0 <= found.uncertain <= 1
    assert sum(found.class_pixels) > 0
    texts = (found.image.name, found.image.sha256, *dataclasses.astuple(found.maker))
    assert all(isinstance(text, str) for text in texts)
    assert "/" not in found.image.name


def _check_told(found: masks.MaskFile) -> None:
    """What tables compute of a mask."""
    assert found.ids is not None
    assert sum(count / sum(found.class_pixels) for count in found.class_pixels) > 0.99
    assert found.height * found.width <= 10_000


def training_list(data: bytes) -> None:
    """`dataset.read_list`, and what is made of its names."""
    path = FOLDER / f"petseg-fuzz-{id(FOLDER)}.txt"
    path.write_bytes(data)
    try:
        names = dataset.read_list(path)
    except DatasetError:
        return
    finally:
        path.unlink()
    assert names
    for name in names:
        assert name.strip() == name != ""
        assert "\0" not in name
        assert dataset.stem(name)
    assert len(dataset.hash_names(names)) == 64


def photo_list(data: bytes) -> None:
    """`sources.find` with a list."""
    path = FOLDER / f"petseg-fuzz-{id(FOLDER)}.list"
    path.write_bytes(data)
    try:
        found = list(sources.find(str(FOLDER), path))
    except PetsegError:
        return
    finally:
        path.unlink()
    names = [source.name for source in found]
    for name in names:
        assert name
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert "\0" not in name


def example_mask() -> bytes:
    """A mask as petseg writes it."""
    ids = (np.arange(120).reshape(10, 12) % 3).astype(np.uint8)
    data = index.encode(Segmented(ids, PET_CLASSES))
    record = Record(
        image=ImageIdentity("x.jpg", 1234, 1_700_000_000_123_456_789, "ab" * 32),
        maker=Maker("cd" * 32, "transform/1", "source", "stem"),
        height=10,
        width=12,
        provider="cpu",
        precision="float32",
        class_pixels=(40, 40, 40),
        box=Box(0, 0, 12, 10),
        confidence=0.75,
        uncertain=0.25,
        pixels_sha256=records.hash_pixels(index.to_values(ids, PET_CLASSES)),
        data_crc32=records.data_crc32(data),
    )
    return records.embed(data, record)


def _model() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return colours.write_model(Path(folder) / "colours.onnx").read_bytes()


def _record() -> str:
    _, record = records.judge(example_mask())
    assert record is not None
    return record.to_json()


def _classes() -> Any:
    return [dataclasses.asdict(item) for item in PET_CLASSES]


_LISTS = [
    b"#Image CLASS-ID SPECIES BREED ID\nAbyssinian_1 1 1 1\nyorkshire_2 37 2 25\n",
    b"a/x.jpg\ny y.webp\r\n\xef\xbb\xbfz.PNG\n\n",
    "\N{CAT FACE}.jpg\n../up.png\n/root.png\n".encode(),
]

TARGETS = {
    "model-file": Target(model_file, lambda: [_model()]),
    "signature": Target(
        signature_text, lambda: [signature.parse(_model()).to_json().encode(), b'{"a":[1e9]}']
    ),
    "classes": Target(class_values, lambda: [json.dumps(_classes()).encode()]),
    "mask-file": Target(mask_file, lambda: [example_mask(), example_mask()[:200]]),
    "record": Target(record_text, lambda: [_record().encode()]),
    "training-list": Target(training_list, lambda: _LISTS),
    "photo-list": Target(photo_list, lambda: _LISTS),
}
