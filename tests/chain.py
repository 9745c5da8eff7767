"""The commands, each as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_COMMANDS = {
    "train": "from petseg.cli.train import main; main()",
    "export": "from petseg_export.cli import main; main()",
    "batch": "from petseg.cli.batch import main; main()",
    "eval": "from petseg.cli.eval import main; main()",
    "report": "from petseg.cli.report import main; main()",
}


def run(folder: Path, command: str, *arguments: str | Path) -> str:
    """Run a command in `folder`; returns its standard output."""
    done = subprocess.run(
        [sys.executable, "-c", _COMMANDS[command], *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
