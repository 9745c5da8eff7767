"""Is CUDA there, for onnxruntime?  What is missing is named, with what to do about it."""

from __future__ import annotations

import contextlib
import ctypes
import sys

import onnxruntime as ort

from petseg.machine import ONNXRUNTIME_PACKAGES, package_versions


def problem() -> str | None:
    """What is missing for CUDA, and what to do about it; None where nothing is."""
    found = package_versions(*ONNXRUNTIME_PACKAGES)
    packages = [f"{name} {version}" for name, version in found.items()]
    if len(packages) > 1:
        return (
            f"{' and '.join(packages)} are both installed and overwrite each other; "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
        )
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return f"{packages[0] if packages else 'onnxruntime'} has no CUDA; install onnxruntime-gpu"
    driver = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    if not _loads(driver):
        return f"no NVIDIA driver ({driver} cannot be loaded)"
    if not _visible_gpus(driver):
        return "the NVIDIA driver shows no GPU (see nvidia-smi and CUDA_VISIBLE_DEVICES)"
    # From 1.27 on onnxruntime-gpu is built for CUDA 13, before that for CUDA 12.
    major = 13 if tuple(map(int, ort.__version__.split(".")[:2])) >= (1, 27) else 12
    # It prints what it cannot load; stdout is for results.
    with contextlib.redirect_stdout(sys.stderr):
        ort.preload_dlls()
    for library in (f"libcublas.so.{major}", "libcudnn.so.9"):
        if sys.platform == "linux" and not _loads(library):
            return f"{library} is missing; pip install 'petseg[cuda{major}]'"
    return None


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _visible_gpus(driver: str) -> int:
    """What the CUDA driver counts; CUDA_VISIBLE_DEVICES may hide some or all."""
    cuda = ctypes.CDLL(driver)
    count = ctypes.c_int(0)
    # CUDA_SUCCESS is 0 (CUDA driver API, cuInit and cuDeviceGetCount).
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
