"""Files of classes: what is read, and what is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from petseg.classes import PET_CLASSES, SegmentClass
from petseg.data import class_file
from petseg.errors import DatasetError

HEADER = "name,value,color,foreground\n"
TEXT = (
    HEADER + "tabby cat,7,#e6553c,yes\ndog,10,#3ca06e,yes\nfloor,0,#2d5087,no\nrim,255,#FACD50,no\n"
)
FOUR = (
    SegmentClass("tabby cat", 7, (230, 85, 60), foreground=True),
    SegmentClass("dog", 10, (60, 160, 110), foreground=True),
    SegmentClass("floor", 0, (45, 80, 135), foreground=False),
    SegmentClass("rim", 255, (250, 205, 80), foreground=False),
)


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        # As Excel saves it, and with lines and spaces that people leave.
        b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace(",", " , ").replace("\n", "\n\n").encode(),
        TEXT.replace("tabby cat", '"tabby cat"').encode(),
    ],
)
def test_classes_are_read(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_bytes(data)
    assert class_file.read(path) == FOUR


def test_a_model_names_its_classes(tiny_model: Path) -> None:
    assert class_file.read(tiny_model) == PET_CLASSES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a first line name,value,color,foreground, found nothing"),
        ("cat\ndog\n", "expected a first line name,value,color,foreground, found cat"),
        (HEADER, "expected 2 to 255 classes, a line each, found 0"),
        (HEADER + "cat,1,#e6553c,yes\n", "expected 2 to 255 classes, a line each, found 1"),
        (HEADER + "cat,1,#e6553c\n", "line 2: expected name,value,color,foreground, found 3"),
        (HEADER + "cat,256,#e6553c,yes\n", "line 2: class cat: value 256 is outside 0..255"),
        (HEADER + "cat,one,#e6553c,yes\n", "line 2: expected a value from 0 to 255, found 'one'"),
        (HEADER + "cat,-1,#e6553c,yes\n", "line 2: expected a value from 0 to 255, found '-1'"),
        (HEADER + "cat,1,red,yes\n", "line 2: expected a color like #e6553c, found 'red'"),
        (HEADER + "cat,1,#e6553c,maybe\n", "line 2: expected foreground yes or no, found 'maybe'"),
        (HEADER + ",1,#e6553c,yes\n", "line 2: a class needs a name"),
        (TEXT + "dog,11,#000000,no\n", "two classes have the name dog; each needs its own"),
        (TEXT + "bird,10,#000000,no\n", "two classes have the value 10; each needs its own"),
        (TEXT.replace("yes", "no"), "no class is foreground"),
        (HEADER + 'cat,1,"#e6553c,yes\n', "line 2: "),
    ],
)
def test_what_is_no_file_of_classes(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(DatasetError) as caught:
        class_file.read(path)
    assert str(caught.value).startswith(f"{path}: {words}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot read the classes in .*: No such file"):
        class_file.read(tmp_path / "none.csv")
    (tmp_path / "large.csv").write_bytes(b"a" * 65537)
    with pytest.raises(DatasetError, match="larger than any file of classes"):
        class_file.read(tmp_path / "large.csv")
    (tmp_path / "bytes.csv").write_bytes(b"name\xff\xff")
    with pytest.raises(DatasetError, match=r"bytes\.csv: .*decode"):
        class_file.read(tmp_path / "bytes.csv")
