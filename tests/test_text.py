from __future__ import annotations

import os

import pytest

from petseg.system.text import as_text, cell, printable, shortened


def test_names_that_are_no_utf_8() -> None:
    assert as_text("caf\u00e9.jpg") == "caf\u00e9.jpg"
    assert as_text("d\udcff.jpg") == r"d\xff.jpg"


def test_what_steers_a_terminal_or_turns_text_around_is_spelled_out() -> None:
    assert printable("plain caf\u00e9.jpg") == "plain caf\u00e9.jpg"
    assert printable("a\x1b[2Jb\nc") == r"a\x1b[2Jb\nc"
    assert printable("a\u202egpj.exe") == r"a\u202egpj.exe"


@pytest.mark.parametrize("name", ["=HYPERLINK(1).jpg", "+1.jpg", "-1.jpg", "@x.jpg", "\tx.jpg"])
def test_a_name_is_no_formula_in_a_table_and_the_same_path(name: str) -> None:
    assert cell(name) == f"./{name}"
    assert os.path.normpath(cell(name)) == name
    assert cell(f"a/{name}") == f"a/{name}"


def test_a_long_text_keeps_its_begin_and_its_end() -> None:
    assert shortened("photos/a.jpg", 12) == "photos/a.jpg"
    assert shortened("photos/long.jpg", 12) == "photo\N{HORIZONTAL ELLIPSIS}ng.jpg"
    assert len(shortened("x" * 1000, 500)) == 500
