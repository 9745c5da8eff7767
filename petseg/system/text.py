"""File names and messages as text to be shown or compared: they may hold all but a null byte."""

from __future__ import annotations

import unicodedata


def as_text(name: str) -> str:
    r"""A file name as text that every program can read; bytes that are no UTF-8 become `\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def cell(name: str) -> str:
    """A file name as a cell of a CSV file: the same path, and nothing that a spreadsheet computes.

    What begins a formula: https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"./{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def caseless(name: str) -> bytes:
    """A file name as bytes that are equal for names which some file system takes for one.

    File systems may ignore case and Unicode form: the Unicode Standard, section 3.13, canonical
    caseless matching.
    """
    folded = unicodedata.normalize("NFD", name).casefold()
    return unicodedata.normalize("NFD", folded).encode("utf-8", "surrogateescape")


def shortened(text: str, most: int) -> str:
    """At most so many characters: of a longer text its begin and its end, where names differ."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[: half - 1]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"


def printable(text: str) -> str:
    """Text as one line of a terminal can show it: what file names may hold could steer it."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
