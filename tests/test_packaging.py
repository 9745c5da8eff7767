"""What is built and installed: the wheel's exact contents, its commands, and the lock's sources."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import petseg

ROOT = Path(__file__).parents[1]
COMMANDS = ("petseg", "petseg-train", "petseg-export", "petseg-batch", "petseg-eval")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist as `pip install` would, with the hatchling that is here."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that holds the wheel, with this one's packages behind its own.

    Of petseg this one holds but a pointer (it is installed in place), and pointers are not followed
    from there: what is imported is the wheel's, and so are the entry points.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [_program(folder, "python"), "-m", "pip", "--isolated", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    packages = sysconfig.get_path("purelib", "venv", {"base": str(folder)})
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(packages) / "others.pth").write_text("\n".join(others))
    return folder


def _program(environment: Path, name: str) -> str:
    scripts = sysconfig.get_path("scripts", "venv", {"base": str(environment)})
    return str(Path(scripts) / name)


def _run(*command: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        command,
        cwd=Path(command[0]).parent,  # away from the sources
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel: Path) -> None:
    info = f"petseg-{petseg.__version__}.dist-info"
    expected = {
        *(f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")),
        *(f"{info}/licenses/{name}" for name in ("LICENSE", "NOTICE")),
    }
    for package in (ROOT / "petseg", ROOT / "export" / "petseg_export"):
        for file in package.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                expected.add(file.relative_to(package.parent).as_posix())
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert sorted(names) == sorted(expected)
    assert {name.split("/")[0] for name in names} == {"petseg", "petseg_export", info}
    assert {"petseg/assets/petseg.onnx", "petseg/py.typed", "petseg_export/py.typed"} <= set(names)
    assert {Path(name).suffix for name in names if not name.startswith(info)} <= {
        ".py",
        ".typed",
        ".onnx",
        ".md",
        ".html",
        ".css",
        ".js",
    }


def test_the_installed_wheel_imports(installed: Path) -> None:
    code = "import petseg, petseg_export; print(petseg.__file__); print(petseg_export.__file__)"
    for line in _run(_program(installed, "python"), "-c", code).splitlines():
        assert Path(line).is_relative_to(installed), line


@pytest.mark.parametrize("command", COMMANDS)
def test_the_installed_wheel_has_the_command(installed: Path, command: str) -> None:
    assert "Usage:" in _run(_program(installed, command), "--help")


def test_every_command_is_also_a_command_of_petseg(installed: Path) -> None:
    joined = _run(_program(installed, "petseg"), "--help")
    for command in (*COMMANDS[1:], "doctor", "report"):
        assert re.search(rf"^  {command.removeprefix('petseg-')} ", joined, re.MULTILINE), joined


def test_the_commands_are_those_declared() -> None:
    assert set(PROJECT["project"]["scripts"]) == set(COMMANDS)


@pytest.fixture(scope="module")
def locked() -> list[dict[str, Any]]:
    packages: list[dict[str, Any]] = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return packages


def test_the_lock_names_public_places_only(locked: list[dict[str, Any]]) -> None:
    for package in locked:
        if package["name"] == "petseg":
            assert package["source"] == {"editable": "."}
            continue
        assert package["source"] == {"registry": "https://pypi.org/simple"}
        files = [*package.get("wheels", ()), *filter(None, [package.get("sdist")])]
        assert files
        for file in files:
            assert file["url"].startswith("https://files.pythonhosted.org/packages/")


def test_the_base_install_is_not_held_back_to_cuda_12(locked: list[dict[str, Any]]) -> None:
    (project,) = (package for package in locked if package["name"] == "petseg")
    versions = {
        item["version"]
        for item in project["dependencies"]
        if item["name"] == "onnxruntime-gpu"
        and "extra != 'extra-6-petseg-cuda12'" in item["marker"]
    }
    assert len(versions) == 1
    assert [int(part) for part in versions.pop().split(".")] >= [1, 31, 1]
    (cuda12,) = project["optional-dependencies"]["cuda12"]
    assert [int(part) for part in cuda12["version"].split(".")] < [1, 27]
