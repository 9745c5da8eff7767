"""Machines of other people, faked at their edges: packages, driver, libraries, providers."""

from __future__ import annotations

import importlib.metadata
import platform

import onnxruntime as ort
import pytest

from petseg.system import nvidia

GPU = {"onnxruntime-gpu": "1.31.1"}
BOTH = {"onnxruntime": "1.32.0", **GPU}
DRIVER = "libcuda.so.1"
CUDA_13 = (DRIVER, "libcublas.so.13", "libcudnn.so.9")


def machine(
    monkeypatch: pytest.MonkeyPatch,
    packages: dict[str, str],
    providers: tuple[str, ...] = ("CUDAExecutionProvider", "CPUExecutionProvider"),
    libraries: tuple[str, ...] = (),
    version: str = "1.31.1",
    gpus: int = 1,
    cuda: tuple[int, int] | None = (13, 0),
    cards: int = 0,
    system: str = "linux",
) -> None:
    """Pretend to be on another machine.

    Args:
        monkeypatch: undoes it.
        packages: that are installed, and their versions.
        providers: that are built into onnxruntime.
        libraries: that can be loaded, the driver's among them.
        version: onnxruntime's.
        gpus: that the driver shows.
        cuda: the newest that the driver can run.
        cards: NVIDIA's, on the PCI bus.
        system: as `sys.platform`; the processor is an x86-64.
    """

    def find(name: str) -> str:
        if name in packages:
            return packages[name]
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(importlib.metadata, "version", find)
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(providers))
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("Failed to load libnothing.so"))
    monkeypatch.setattr(ort, "__version__", version)
    monkeypatch.setattr(nvidia, "loads", lambda library: library in libraries)
    monkeypatch.setattr(nvidia, "gpu_count", lambda: gpus if nvidia.loads(nvidia.driver()) else 0)
    monkeypatch.setattr(nvidia, "cuda_version", lambda: cuda)
    monkeypatch.setattr(nvidia, "cards", lambda: cards)
    monkeypatch.setattr(nvidia, "smi", {"name": ["A card"], "driver_version": ["580.1"]}.get)
