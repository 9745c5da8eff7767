"""petseg-batch as a user to whom permissions apply, whoever runs the tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from batching import command

import petseg

NOBODY = 65534


def python_for_all(options: dict[str, Any]) -> str:
    """A Python of this version that another user may run; this one may lie in somebody's home."""
    for python in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        with contextlib.suppress(OSError):
            probe = [python, "-c", "import petseg.batch.run"]
            if subprocess.run(probe, check=False, capture_output=True, **options).returncode == 0:
                return python
    pytest.skip("another user may run no Python that has petseg's packages")


def as_nobody(folder: Path, *arguments: str | Path) -> tuple[int, str, str]:
    """petseg-batch as a user who is not root, to whom permissions apply."""
    if os.geteuid() != 0:
        found = command(*arguments, cwd=folder)
        return found.code, found.out, found.err
    home = folder / "home"
    home.mkdir(exist_ok=True)
    os.chown(home, NOBODY, NOBODY)
    packages = [sysconfig.get_path("purelib"), str(Path(petseg.__file__).parents[1])]
    options = {
        "user": NOBODY,
        "group": NOBODY,
        "extra_groups": [],
        "cwd": folder,
        "env": {"HOME": str(home), "PATH": os.defpath, "PYTHONPATH": os.pathsep.join(packages)},
    }
    found = command(*arguments, python=python_for_all(options), **options)
    return found.code, found.out, found.err


def give(path: Path) -> None:
    """Let that user own a path."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
