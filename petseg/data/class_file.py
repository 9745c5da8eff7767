"""Files of classes: what somebody's own masks tell apart.

    name,value,color,foreground
    cat,1,#e6553c,yes
    dog,2,#3ca06e,yes
    floor,3,#2d5087,no

A line's position is the class' id.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from petseg.classes import IGNORED, SegmentClass
from petseg.errors import DatasetError
from petseg.modelfile import signature

COLUMNS = ("name", "value", "color", "foreground")
_MAX_BYTES = 65536
_ANSWERS = {"yes": True, "no": False}


def read(path: Path) -> tuple[SegmentClass, ...]:
    """The classes that a file names: a CSV file as above, or a petseg model's own (`.onnx`).

    Raises:
        DatasetError: it cannot be read, or a line is no class.
        ModelError: no model of petseg's.
    """
    if path.suffix == ".onnx":
        return signature.read(path).classes
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise DatasetError(f"cannot read the classes in {path}: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise DatasetError(f"{path} is larger than any file of classes, {_MAX_BYTES} bytes")
    try:
        return parse(data.decode("utf-8-sig"))
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error


def parse(text: str) -> tuple[SegmentClass, ...]:
    """The classes in the text of a CSV file; raises ValueError where it holds none."""
    rows = csv.reader(text.splitlines(), strict=True)
    try:
        lines = [(rows.line_num, [cell.strip() for cell in row]) for row in rows if any(row)]
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from error
    header = lines[0][1] if lines else []
    if header != list(COLUMNS):
        raise ValueError(
            f"expected a first line {','.join(COLUMNS)}, found {','.join(header) or 'nothing'}"
        )
    found = tuple(_class(number, row) for number, row in lines[1:])
    if not 2 <= len(found) <= IGNORED:
        raise ValueError(f"expected 2 to {IGNORED} classes, a line each, found {len(found)}")
    for what in ("name", "value"):
        told = [getattr(item, what) for item in found]
        twice = {one for one in told if told.count(one) > 1}
        if twice:
            raise ValueError(f"two classes have the {what} {min(twice)}; each needs its own")
    if not any(item.foreground for item in found):
        raise ValueError("no class is foreground; write yes for those that are looked for")
    return found


def _class(number: int, row: list[str]) -> SegmentClass:
    if len(row) != len(COLUMNS):
        raise ValueError(f"line {number}: expected {','.join(COLUMNS)}, found {len(row)} columns")
    name, value, color, foreground = row
    if not re.fullmatch("[0-9]{1,3}", value):
        raise ValueError(f"line {number}: expected a value from 0 to 255, found {value!r}")
    if not re.fullmatch("#[0-9a-fA-F]{6}", color):
        raise ValueError(f"line {number}: expected a color like #e6553c, found {color!r}")
    if foreground not in _ANSWERS:
        raise ValueError(f"line {number}: expected foreground yes or no, found {foreground!r}")
    red, green, blue = bytes.fromhex(color[1:])
    try:
        return SegmentClass(name, int(value), (red, green, blue), _ANSWERS[foreground])
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
