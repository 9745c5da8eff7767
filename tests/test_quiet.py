from __future__ import annotations

import subprocess
import sys

CODE = """
import os
from petseg.cli.quiet import quiet_import
with quiet_import():
    os.write(2, b"chatter\\n")
    {statement}
os.write(2, b"after\\n")
"""


def run(statement: str) -> str:
    code = CODE.format(statement=statement)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    ).stderr


def test_native_chatter_is_held_back() -> None:
    assert run("pass").splitlines() == ["after"]


def test_it_is_shown_where_the_import_fails() -> None:
    lines = run("import missing_package").splitlines()
    assert lines[0] == "chatter"
    assert "No module named 'missing_package'" in lines[-1]
