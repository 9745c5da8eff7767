from __future__ import annotations

from petseg.text import as_text, printable


def test_names_that_are_no_utf_8() -> None:
    assert as_text("caf\u00e9.jpg") == "caf\u00e9.jpg"
    assert as_text("d\udcff.jpg") == r"d\xff.jpg"


def test_what_steers_a_terminal_or_turns_text_around_is_spelled_out() -> None:
    assert printable("plain caf\u00e9.jpg") == "plain caf\u00e9.jpg"
    assert printable("a\x1b[2Jb\nc") == r"a\x1b[2Jb\nc"
    assert printable("a\u202egpj.exe") == r"a\u202egpj.exe"
