"""What is asked of NVIDIA's driver, here one that is made for the purpose, and of the PCI bus."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from petseg.system import machine, nvidia


class Driver:
    """The functions of the CUDA driver API that are called; `result` is what each returns."""

    def __init__(self, version: int, count: int, result: int = 0) -> None:
        self.version, self.count, self.result = version, count, result

    def cuInit(self, flags: int) -> int:  # noqa: N802 - CUDA's name
        assert flags == 0
        return self.result

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802 - CUDA's name
        count._obj.value = self.count
        return self.result

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802 - CUDA's name
        device._obj.value = 10 + number
        return self.result if number < self.count else 101

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802 - CUDA's name
        name.value = f"card {device.value}".encode()[: size - 1]
        return self.result

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802 - CUDA's name
        version._obj.value = self.version
        return self.result


@pytest.mark.parametrize(
    ("driver", "version", "count"),
    [
        (Driver(13000, 8), (13, 0), 8),
        (Driver(12080, 1), (12, 8), 1),
        (Driver(11040, 0), (11, 4), 0),
        (Driver(0, 0), None, 0),
        (Driver(13000, 8, result=100), None, 0),
    ],
)
def test_the_driver_is_asked(
    driver: Driver, version: tuple[int, int] | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name, **how: opened.append(name) or driver)
    assert nvidia.cuda_version() == version
    assert nvidia.gpu_count() == count
    assert set(opened) == {nvidia.driver()}
    assert nvidia.loads("libsomething.so")


def test_gpus_are_called_by_cudas_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(13000, 2)
    monkeypatch.setattr(ctypes, "CDLL", lambda name, **how: driver)
    assert [nvidia.gpu_name(number) for number in range(3)] == ["card 10", "card 11", ""]
    assert machine.device_name("cuda") == "card 10"
    assert machine.device_name("cuda", (1, 0, 7)) == "card 11, card 10"
    driver.result = 100
    assert nvidia.gpu_name(0) == ""


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: str(tmp_path / "libcuda.so.1"))
    assert not nvidia.loads(nvidia.driver())
    assert (nvidia.gpu_count(), nvidia.cuda_version(), nvidia.gpu_name(0)) == (0, None, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia.smi("name") == []


def test_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "$1 $2"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert nvidia.smi("name") == ["--query-gpu=name --format=csv,noheader"]
    program.write_text("#!/bin/sh\necho has failed; exit 9\n")
    assert nvidia.smi("name") == []


def test_cards_on_the_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A display of NVIDIA's, its 3D controller and its sound, a display of Intel's, and one that
    # says nothing.
    kinds = [("0x10de", "0x030000"), ("0x10de", "0x030200"), ("0x10de", "0x040300")]
    for number, (vendor, kind) in enumerate([*kinds, ("0x8086", "0x030000")]):
        device = tmp_path / f"0000:0{number}:00.0"
        device.mkdir()
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
    (tmp_path / "0000:09:00.0").mkdir()
    monkeypatch.setattr(nvidia, "_PCI", tmp_path)
    assert nvidia.cards() == 2
    monkeypatch.setattr(nvidia, "_PCI", tmp_path / "nowhere")
    assert nvidia.cards() == 0
