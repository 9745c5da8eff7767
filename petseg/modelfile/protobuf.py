"""Protobuf messages, read field by field from bytes, without a library that knows them.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


def fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of a message, in file order; others are passed over.

    Raises:
        IndexError, ValueError: this is no message, or a truncated one.
    """
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        # Other readers cut larger tags to 32 bits, and would see another field.
        if not 0 < number < 1 << 29:
            raise ValueError(f"field number {number}")
        if wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        elif wire_type == _LENGTH_DELIMITED:
            length, position = _varint(data, position)
            yield number, data[position : position + length]
            position += length
        else:
            raise ValueError(f"wire type {wire_type}")
        if position > len(data):
            raise ValueError("a field reaches beyond the end")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than 10 bytes")
