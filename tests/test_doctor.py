"""What petseg doctor finds on machines of each kind, and how it survives what it looks for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from machines import BOTH, CUDA_13, DRIVER, GPU, machine

from petseg import doctor
from petseg.cli.doctor import main
from petseg.doctor import EXTRAS, Finding
from petseg.system.machine import usable_cores

ROOT = Path(__file__).parents[1]
NONE = "none that make the network faster"


def examine() -> dict[str, Finding]:
    findings = doctor.examine()
    found = {finding.what: finding for finding in findings}
    assert len(found) == len(findings)
    assert all(finding.what and finding.found for finding in findings)
    return found


@pytest.mark.parametrize(
    ("packages", "options", "what", "words", "command"),
    [
        (
            BOTH,
            {"libraries": CUDA_13},
            "onnxruntime",
            "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
        ),
        (
            {"onnxruntime": "1.32.0"},
            {"providers": ("CPUExecutionProvider",), "libraries": (DRIVER,)},
            "CUDA",
            "onnxruntime 1.32.0 has no CUDA",
            "pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
        ),
        (
            GPU,
            {"libraries": (DRIVER,)},
            "CUDA",
            "libcublas.so.13 is missing",
            "pip install 'petseg[cuda13]'",
        ),
        (
            GPU,
            {"libraries": (DRIVER, "libcudnn.so.9"), "version": "1.26.0"},
            "CUDA",
            "libcublas.so.12 is missing",
            "pip install 'petseg[cuda12]'",
        ),
        (
            GPU,
            {"libraries": CUDA_13[:2]},
            "CUDA",
            "libcudnn.so.9 is missing",
            "pip install 'petseg[cuda13]'",
        ),
        (
            GPU,
            {"libraries": CUDA_13, "cuda": (12, 4)},
            "CUDA",
            "the NVIDIA driver is for CUDA 12.4 and older",
            "pip install 'petseg[cuda12]'",
        ),
        (
            GPU,
            {"libraries": ("nvcuda.dll", "cublas64_13.dll"), "system": "win32"},
            "CUDA",
            "cudnn64_9.dll is missing",
            "pip install 'petseg[cuda13]'",
        ),
        (GPU, {"cards": 2}, "NVIDIA GPU", "cards in this machine (2) and no driver", ""),
        (
            GPU,
            {"libraries": CUDA_13, "gpus": 0, "cards": 1},
            "NVIDIA GPU",
            "cards in this machine (1) and the driver shows none",
            "",
        ),
    ],
)
def test_what_is_wrong(
    packages: dict[str, str],
    options: dict[str, Any],
    what: str,
    words: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    machine(monkeypatch, packages, **options)
    (wrong,) = [finding for finding in examine().values() if finding.problem]
    assert wrong.what == what
    assert words in wrong.problem
    assert wrong.command == command

    shown = CliRunner().invoke(main, [])
    assert shown.exit_code == 1
    told = shown.stdout.partition("\n1 problem\n")[2].splitlines()
    assert told == [f"{what}: {wrong.problem}", *([f"    {command}"] if command else [])]
    assert shown.stderr == ""


def test_a_gpu_and_all_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, {**GPU, "openvino": "2026.4.1"}, libraries=CUDA_13)
    found = examine()
    assert not [finding for finding in found.values() if finding.problem]
    assert found["NVIDIA GPU"].found == "A card"
    assert found["NVIDIA driver"].found == "580.1, for CUDA 13.0 and older"
    words = "onnxruntime needs CUDA 13, libcublas.so.13 found, libcudnn.so.9 found"
    assert found["CUDA"].found == words
    assert found["onnxruntime"].found == "onnxruntime-gpu 1.31.1"
    assert found["--provider auto"].found == "cuda (it is there)"
    assert found["[openvino]"] == Finding("[openvino]", "openvino 2026.4.1")


def test_no_gpu_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, {"onnxruntime": "1.32.0"}, providers=("CPUExecutionProvider",))
    found = examine()
    assert found["NVIDIA GPU"] == Finding("NVIDIA GPU", "no driver")
    assert not {"NVIDIA driver", "CUDA"} & found.keys()
    assert CliRunner().invoke(main, []).exit_code == 0
    # A driver without a card, as in an image made for GPUs.
    machine(monkeypatch, GPU, libraries=CUDA_13, gpus=0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert examine()["NVIDIA GPU"] == Finding("NVIDIA GPU", "none")
    # Somebody wants it so.
    machine(monkeypatch, GPU, libraries=CUDA_13, gpus=0, cards=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    hidden = Finding("NVIDIA GPU", "hidden by CUDA_VISIBLE_DEVICES=-1")
    assert examine()["NVIDIA GPU"] == hidden


@pytest.mark.parametrize(
    ("lines", "name", "features"),
    [
        # In the order of what is looked for, without those that change nothing here.
        (
            "model name\t: A server's\nflags\t\t: fpu sse avx512_bf16 avx2 ht avx512f",
            "A server's",
            "avx2 avx512f avx512_bf16",
        ),
        ("model name : An old one\nflags : fpu sse avx", "An old one", NONE),
        ("Features\t: fp asimd asimddp crc32 i8mm", "an Arm", "asimd asimddp i8mm"),
    ],
)
def test_what_the_processor_can_do(
    lines: str, name: str, features: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(monkeypatch, GPU)
    monkeypatch.setattr("platform.processor", lambda: "an Arm")
    # The first of several processors tells.
    second = (
        "\n\nprocessor : 1\nFeatures : sve\n" if "Features" in lines else "\nflags : amx_int8\n"
    )
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{lines}{second}")
    monkeypatch.setattr("petseg.system.machine._CPUINFO", tmp_path / "cpuinfo")
    found = examine()
    assert found["processor"].found.startswith(f"{name}, ")
    assert found["its features"].found == features
    # Where it cannot be read, nothing is said of it.
    monkeypatch.setattr("petseg.system.machine._CPUINFO", tmp_path / "nowhere")
    assert "its features" not in examine()


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        (["max 100000"], 8),
        (["250000 100000"], 3),
        (["900000 100000"], 8),
        (["no numbers"], 8),
        (["-1", "100000"], 8),
        (["200000", "100000"], 2),
    ],
)
def test_a_containers_share_of_the_processor_is_heeded(
    limits: list[str], cores: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = [tmp_path / str(number) for number in range(len(limits))]
    for file, text in zip(files, limits, strict=True):
        file.write_text(f"{text}\n")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    quotas = (tuple(map(str, files)), ("/nowhere/quota", "/nowhere/period"))
    monkeypatch.setattr("petseg.system.machine._QUOTAS", quotas)
    assert usable_cores() == cores


def test_what_is_optional_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, {**GPU, "pyarrow": "26.0"})
    found = examine()
    assert found["[formats]"] == Finding(
        "[formats]",
        "pyarrow 26.0; pycocotools not installed (--format coco and parquet)",
        command="pip install 'petseg[formats]'",
    )
    for extra in EXTRAS:
        assert found[f"[{extra}]"].command == f"pip install 'petseg[{extra}]'"
        assert not found[f"[{extra}]"].problem
    shown = CliRunner().invoke(main, [])
    assert shown.exit_code == 0
    assert "not installed (photos in HEIC): pip install 'petseg[heif]'\n" in shown.stdout
    assert shown.stdout.endswith("\n\nall well\n")


def test_the_extras_are_those_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"]
    assert EXTRAS.keys() == declared.keys() - {"cuda12", "cuda13", "train-cuda"}
    for extra, (packages, _) in EXTRAS.items():
        names = {re.split(r"[<>=\[;]", one)[0] for one in declared[extra]} - {"petseg"}
        assert names == set(packages)


def test_no_room_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LEAST_BYTES", 1 << 60)
    full = examine()["temporary files"]
    assert "GB free in " in full.found
    assert "set TMPDIR to another folder" in full.problem

    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert "No usable temporary directory" in examine()["temporary files"].problem


def test_json_is_all_of_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, GPU, libraries=(DRIVER,))
    shown = CliRunner().invoke(main, ["--json"])
    told = json.loads(shown.stdout)
    assert (shown.exit_code, told["exit_code"], told["problems"]) == (1, 1, 1)
    found = {each["what"]: each for each in told["findings"]}
    assert found["CUDA"]["command"] == "pip install 'petseg[cuda13]'"
    assert found["petseg"] == {
        "what": "petseg",
        "found": doctor.petseg.__version__,
        "problem": "",
        "command": "",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "raise ImportError('libnothing.so: cannot open shared object file')",
            "libnothing.so: can",
        ),
        # What pip leaves where two packages owned one folder and one is removed.
        ("", "module 'onnxruntime' has no attribute"),
    ],
)
def test_an_onnxruntime_that_is_broken(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(content)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", "from petseg.cli.doctor import main; main()", "--json"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    found = {each["what"]: each for each in json.loads(done.stdout)["findings"]}
    assert words in found["onnxruntime"]["problem"]
    assert found["onnxruntime"]["command"].startswith("pip install --force-reinstall onnxruntime")
    assert found["--provider auto"]["found"].startswith("none (onnxruntime cannot be loaded: ")


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, {})
    monkeypatch.setattr(doctor, "_broken", lambda: "No module named 'onnxruntime'")
    wrong = examine()["onnxruntime"]
    assert wrong.found == "not installed"
    assert wrong.command == "pip install onnxruntime-gpu"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert examine()["onnxruntime"].command == "pip install onnxruntime"
    assert "onnxruntime not installed" in doctor.versions()
