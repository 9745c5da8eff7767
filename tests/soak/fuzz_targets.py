"""What the fuzzer runs: each of petseg's own parsers, on bytes, and what must hold of its result.

A target returns, or raises what its parser is documented to raise; everything else is a finding.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petseg.classes import PET_CLASSES, SegmentClass, ids_to_values, values_to_ids
from petseg.data import class_file, dataset
from petseg.errors import DatasetError, ImageError, ModelError, PetsegError
from petseg.formats import index
from petseg.masks import png, reading, records
from petseg.masks.record import Box, ImageIdentity, Maker, Record
from petseg.masks.records import MaskState
from petseg.masks.segmented import Segmented
from petseg.modelfile import signature
from petseg.modelfile.signature import Signature
from petseg.photos import lists, sources
from petseg.remote.archives import SUFFIXES, Archives
from soak import colours
from soak.mutation import repaired


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        run: gives it bytes and looks at what comes of them.
        seeds: real files to begin with.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


@contextlib.contextmanager
def written(data: bytes, suffix: str) -> Iterator[Path]:
    """A file that holds these bytes, for parsers that want one; it is gone when they are done."""
    with tempfile.NamedTemporaryFile(prefix="petseg-fuzz-", suffix=suffix) as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


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


def class_file_text(data: bytes) -> None:
    """`class_file.parse`: the classes of somebody's own masks."""
    try:
        found = class_file.parse(data.decode("utf-8", "replace"))
    except ValueError:
        return
    assert len({item.name for item in found}) == len(found) > 1
    _check_classes(found)


def _check_classes(classes: tuple[SegmentClass, ...]) -> None:
    values, ids = ids_to_values(classes), values_to_ids(classes)
    assert len(values) == len(classes)
    np.testing.assert_array_equal(ids[values], np.arange(len(classes)))
    assert (ids != 255).sum() == len(classes)


def mask_file(data: bytes) -> None:
    """`records.judge`, `png.chunks` and what tables ask of a mask; also with checksums that fit."""
    for png_data in (data, repaired(data)):
        size = sum(len(part.data) + 12 for part in png.chunks(png_data))
        assert size <= len(png_data)
        state, record = records.judge(png_data, max_pixels=10_000)
        assert state is not MaskState.ABSENT
        assert (record is not None) or state is not MaskState.OURS
        if record is not None:
            _check_record(record)
            assert records._walk(png_data).seal is not None
        with written(png_data, ".png") as path:
            found = reading._read(
                path, path.name, PET_CLASSES, values_to_ids(PET_CLASSES), {}, True, 10_000
            )
        if found is not None:
            _check_told(found)


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


def _check_told(found: reading.MaskFile) -> None:
    """What tables compute of a mask."""
    assert found.ids is not None
    assert sum(count / sum(found.class_pixels) for count in found.class_pixels) > 0.99
    assert found.height * found.width <= 10_000


def training_list(data: bytes) -> None:
    """`dataset.read_list`, and what is made of its names."""
    try:
        with written(data, ".txt") as path:
            names = dataset.read_list(path)
    except DatasetError:
        return
    assert names
    for name in names:
        assert name.strip() == name != ""
        assert "\0" not in name
        assert dataset.stem(name)
    assert len(dataset.hash_names(names)) == 64


def photo_list(data: bytes) -> None:
    """`sources.find` with a list."""
    try:
        with written(data, ".list") as path:
            found = list(sources.find(str(path.parent), path))
    except PetsegError:
        return
    names = [source.name for source in found]
    for name in names:
        assert name
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert "\0" not in name


def list_table(data: bytes) -> None:
    """`lists.read_table` with a list of JSON lines."""
    try:
        with written(data, ".jsonl") as path:
            found = list(lists.read_table(path))
    except PetsegError:
        return
    lines = [place.removeprefix("line ") for place, _ in found]
    assert lines == sorted(set(lines), key=int)
    for _, name in found:
        assert name
        assert b"\0" not in os.fsencode(name)


def archive(data: bytes) -> None:
    """`Archives`, listed and read, as if the bytes were of each kind."""
    for suffix in SUFFIXES:
        with written(data, suffix) as path:
            found = Archives(str(path))
            try:
                for name, entry in found.find().items():
                    assert isinstance(name, str)
                    assert abs(entry.mtime_ns) < 1 << 63
                    if entry.problem is None:
                        assert entry.size >= 0
                        _read_member(found, name, min(entry.size, 1000) + 1)
            except PetsegError:
                continue
            finally:
                found.tidy()


def _read_member(found: Archives, name: str, most: int) -> None:
    with contextlib.suppress(ImageError):
        assert len(found.read(name, most)) <= most


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


def _zip() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for way in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            packed.writestr(f"a/{way} \N{CAT FACE}.jpg", b"bytes of a photo" * 9, way)
    return data.getvalue()


def _tar(form: int) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as packed:
        for number, kind in enumerate((tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE)):
            member = tarfile.TarInfo(f"./{number}{'long' * 30 * (number == 1)}.jpg")
            member.type, member.linkname, member.mtime = kind, "./0.jpg", 1_700_000_000.5  # type: ignore[assignment]
            member.size = 100 if kind == tarfile.REGTYPE else 0
            packed.addfile(member, io.BytesIO(bytes(100)))
    # Two blocks of zeros end it; the module adds more.
    return data.getvalue().rstrip(b"\0") + bytes(1024)


_LISTS = [
    b"#Image CLASS-ID SPECIES BREED ID\nAbyssinian_1 1 1 1\nyorkshire_2 37 2 25\n",
    b"a/x.jpg\ny y.webp\r\n\xef\xbb\xbfz.PNG\n\n",
    "\N{CAT FACE}.jpg\n../up.png\n/root.png\n".encode(),
]
_TABLES = [
    b'{"path": "a/x.jpg", "width": 3}\n\n{"image": "y.webp"}\r\n',
    b'\xef\xbb\xbf{"file_name": "\\ud83d\\udc31.jpg"}\n{"path": "\\udcff.jpg"}',
]

TARGETS = {
    "model-file": Target(model_file, lambda: [_model()]),
    "signature": Target(
        signature_text, lambda: [signature.parse(_model()).to_json().encode(), b'{"a":[1e9]}']
    ),
    "classes": Target(class_values, lambda: [json.dumps(_classes()).encode()]),
    "class-file": Target(
        class_file_text,
        lambda: [b"name,value,color,foreground\ncat,1,#e6553c,yes\nsea,2,#2d5087,no"],
    ),
    "mask-file": Target(mask_file, lambda: [example_mask(), example_mask()[:200]]),
    "record": Target(record_text, lambda: [_record().encode()]),
    "training-list": Target(training_list, lambda: _LISTS),
    "photo-list": Target(photo_list, lambda: _LISTS),
    "list-table": Target(list_table, lambda: _TABLES),
    "archive": Target(
        archive, lambda: [_zip(), _tar(tarfile.PAX_FORMAT), _tar(tarfile.GNU_FORMAT)]
    ),
}
