"""File names and messages as text that can be shown: they may hold anything but a null byte."""

from __future__ import annotations


def as_text(name: str) -> str:
    r"""A file name as text that every program can read; bytes that are no UTF-8 become `\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """Text as one line of a terminal can show it: what file names may hold could steer it."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
