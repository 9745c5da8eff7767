"""A real Ray cluster of two nodes on this machine, photos for it, and petseg-batch as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BATCH = (sys.executable, "-c", "from petseg.cli.batch import main; main()")

# Puts code behind the loading of petseg.steps, wherever Python starts.
PATCH = """
import importlib.util, os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "petseg.steps":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            patch(module)
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Finder())
"""

# A file with the node's name, while the worker holds a batch that is not written.
TELL = """
def patch(steps):
    write = steps.write
    def tell(*arguments):
        import time
        ray = sys.modules.get("ray")
        if ray and ray.is_initialized():
            name = os.path.join({folder!r}, ray.get_runtime_context().get_node_id())
            if not os.path.exists(name):
                open(name, "w").close()
                time.sleep(2)
        return write(*arguments)
    steps.write = tell
"""


def start_with(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every Python that is started from here load `code`, a PATCH's, first."""
    (folder / "sitecustomize.py").write_text(PATCH + code)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


@contextmanager
def two_nodes(patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of two cores each; the second may be lost."""
    from ray.cluster_utils import Cluster

    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    small = {"num_cpus": 2, "object_store_memory": 200_000_000}
    made: Any = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    made.add_node(**small)
    try:
        yield made
    finally:
        made.shutdown()


def draw(folder: Path, number: int, width: int, height: int) -> None:
    """Photos that differ, some of them in folders, and their names not all in ASCII."""
    random = np.random.default_rng(0)
    for index in range(number):
        pixels = random.integers(0, 256, (6, 8, 3), np.uint8)
        photo = folder / ("a" if index % 3 else "b ü") / f"{index}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(photo)


def batch(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*BATCH, *map(str, arguments), "--json"]
    # A cluster's workers find the modules where the driver does.
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def masks(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*.png")
        if "petseg" not in file.relative_to(folder).parts
    }
