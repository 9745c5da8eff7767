"""Imports point one way only, read from the code; and what a batch run really loads."""

from __future__ import annotations

import ast
import functools
import graphlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PACKAGES = {"petseg": ROOT / "petseg", "petseg_export": ROOT / "export" / "petseg_export"}

# The package's own file is the door to `petseg.library`: it names what it holds, and loads it when
# somebody asks (tests/test_library.py).  What modules take of it is the version.
DOOR = "petseg"


def _layers() -> tuple[str, ...]:
    """The table of docs/architecture.md, from the ground up.

    A module imports from its own folder, and from rows below.  A package's name stands for all in
    it, but `petseg`, which is on the ground, for its own file alone.
    """
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^```\n(petseg_export\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    rows = [
        " ".join(name if name in PACKAGES else f"petseg.{name}" for name in row.split())
        for row in reversed(table.splitlines())
    ]
    return (f"{DOOR} {rows[0]}", *rows[1:])


LAYERS = _layers()
# Which modules may name a package, late imports and those for types alone included.
USERS = {
    "keras": "petseg.network petseg.data.batches petseg.training petseg_export",
    "tensorflow": "petseg.training.trainer petseg.training.spread petseg_export",
    "tf2onnx": "petseg_export",
    "onnx": "petseg.network.weights petseg_export",
    "onnxruntime": "petseg.runtime petseg_export",
    "openvino": "petseg.runtime.openvino",
    "pycocotools": "petseg.formats.coco",
    "pyarrow": "petseg.formats.parquet petseg.photos.lists",
    "ray": "petseg.engines.ray petseg.engines.nodes petseg.engines.ray_cluster",
    "tensorboard": "petseg.training.events",
    "fsspec": "petseg.remote.store",
    "jinja2": "petseg.pages.html",
    "matplotlib": "petseg.training.plots petseg.pages.charts",
}
TRAINING_ONLY = {"keras", "tensorflow", "tf2onnx", "onnx"}
# What `--version` looks at: it is shown in place of the command's work, not beside it.
ASIDE = ("petseg.cli.common", "petseg.doctor")


def _modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for file in folder.rglob("*.py"):
            parts = [package, *file.relative_to(folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


MODULES = _modules()


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Everything the module imports anywhere in it: our modules in full, others' packages."""
    if module == DOOR:
        return frozenset()
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return frozenset(_named(tree)) - {module}


def _named(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name if alias.name in MODULES else alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            assert node.module is not None
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.module not in MODULES:
                yield node.module.split(".")[0]
            elif not all(member in MODULES for member in members):
                yield node.module
            yield from (member for member in members if member in MODULES)


def _reachable(module: str, aside: tuple[str, str] = ("", "")) -> set[str]:
    """All that a module imports, and what that imports; not by an import that stands aside."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            found = _imports(name) if name in MODULES else frozenset[str]()
            waiting.extend(found - {aside[1]} if name == aside[0] else found)
    return seen


def _within(module: str, name: str) -> bool:
    return module == name or (name != "petseg" and module.startswith(f"{name}."))


def _place(module: str) -> tuple[int, str]:
    """A module's row in `LAYERS`, and the name there that it belongs to."""
    places = [
        (row, name)
        for row, names in enumerate(LAYERS)
        for name in names.split()
        if _within(module, name)
    ]
    assert len(places) == 1, f"{module} is new: give it a place in LAYERS"
    return places[0]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    place = _place(module)
    level = {name: _place(name) for name in _imports(module) & MODULES.keys()}
    assert not [name for name, there in level.items() if there != place and there[0] >= place[0]]


def test_imports_run_in_no_circle() -> None:
    graph = {module: _imports(module) & MODULES.keys() for module in MODULES}
    assert set(graphlib.TopologicalSorter(graph).static_order()) == set(MODULES)


def test_petseg_never_imports_petseg_export() -> None:
    for module in MODULES:
        if not _within(module, "petseg_export"):
            assert not any(_within(name, "petseg_export") for name in _imports(module)), module


@pytest.mark.parametrize("package", USERS)
def test_a_package_is_used_where_it_belongs(package: str) -> None:
    users = {module for module in MODULES if package in _imports(module)}
    strangers = {
        user for user in users if not any(_within(user, name) for name in USERS[package].split())
    }
    assert not strangers


def test_keras_and_onnxruntime_meet_only_in_petseg_export() -> None:
    meeting = {
        module for module in MODULES if {"keras", "onnxruntime"} <= _reachable(module, ASIDE)
    }
    assert meeting
    assert all(_within(module, "petseg_export") for module in meeting), meeting


@pytest.mark.parametrize("command", ["batch", "doctor", "eval", "main", "report"])
def test_commands_of_the_base_install_reach_no_training_package(command: str) -> None:
    assert not _reachable(f"petseg.cli.{command}") & TRAINING_ONLY


def test_a_batch_run_loads_no_training_package(tiny_model: Path, tmp_path: Path) -> None:
    """In its workers neither: each package is replaced by one that leaves a trace when loaded."""
    loaded = tmp_path / "loaded"
    for package in TRAINING_ONLY:
        trap = tmp_path / "traps" / f"{package}.py"
        trap.parent.mkdir(exist_ok=True)
        trap.write_text(
            f"with open({str(loaded)!r}, 'a') as file: file.write({package!r})\n"
            f"raise ImportError('petseg-batch loads {package}')\n"
        )
    images = tmp_path / "images"
    images.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (50, 70, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    command = [
        *(sys.executable, "-c", "from petseg.cli.batch import main; main()"),
        *(str(images), str(tmp_path / "masks"), "--model", str(tiny_model)),
    ]
    path = os.pathsep.join([str(tmp_path / "traps"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "masks").glob("*.png"))) == 4
    assert not loaded.exists(), loaded.read_text()
    # The trap works.
    trial = [sys.executable, "-c", "import keras"]
    assert subprocess.run(trial, env=environment, capture_output=True, check=False).returncode
    assert loaded.read_text() == "keras"


@pytest.mark.parametrize("command", ["batch", "doctor", "eval", "main", "report"])
def test_a_command_starts_without_loading_a_training_package(command: str) -> None:
    code = f"import sys, petseg.cli.{command}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in done.stdout.split()} & TRAINING_ONLY


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_stays_readable_in_one_sitting(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 300
