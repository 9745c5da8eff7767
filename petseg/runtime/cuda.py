"""Is CUDA there, for onnxruntime?  What is missing is named, with what to do about it."""

from __future__ import annotations

import contextlib
import sys

import onnxruntime as ort

from petseg.system import machine, nvidia
from petseg.system.machine import ONNXRUNTIME_PACKAGES, Lack


def problem() -> Lack | None:
    """What is missing for CUDA, and what to do about it; None where nothing is."""
    clash = machine.onnxruntime_clash()
    if clash is not None:
        return clash
    package = _package()
    if not built_in():
        if machine.onnxruntime_package() != "onnxruntime-gpu":
            return Lack(f"{package} has no CUDA; onnxruntime-gpu is not built for this platform")
        # Beside the other package the new one would overwrite it, or be overwritten.
        return Lack(
            f"{package} has no CUDA",
            "pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
        )
    if not nvidia.loads(nvidia.driver()):
        return Lack(f"no NVIDIA driver ({nvidia.driver()} cannot be loaded)")
    if not nvidia.gpu_count():
        return Lack("the NVIDIA driver shows no GPU (see nvidia-smi and CUDA_VISIBLE_DEVICES)")
    major, driver = cuda_major(), nvidia.cuda_version()
    # A driver runs programs built for its own major version of CUDA and for older ones (CUDA
    # Compatibility, "minor version compatibility").
    if driver is not None and driver[0] < major:
        words = (
            f"the NVIDIA driver is for CUDA {driver[0]}.{driver[1]} and older, and {package} is "
            f"built for CUDA {major}"
        )
        if driver[0] < 12:
            return Lack(f"{words}; install a newer driver")
        return Lack(words, f"pip install 'petseg[cuda{driver[0]}]'")
    for library, there in libraries().items():
        if not there:
            return Lack(f"{library} is missing", f"pip install 'petseg[cuda{major}]'")
    return None


def built_in() -> bool:
    """Whether this onnxruntime has CUDA in it at all."""
    return "CUDAExecutionProvider" in ort.get_available_providers()


def cuda_major() -> int:
    """The major version of CUDA that this onnxruntime is built for."""
    return 13 if tuple(map(int, ort.__version__.split(".")[:2])) >= (1, 27) else 12


def libraries() -> dict[str, bool]:
    """The cuBLAS and cuDNN that this onnxruntime needs, and whether each can be loaded."""
    # It prints what it cannot load; stdout is for results.
    with contextlib.redirect_stdout(sys.stderr):
        ort.preload_dlls()
    major = cuda_major()
    if sys.platform == "win32":
        names = (f"cublas64_{major}.dll", "cudnn64_9.dll")
    else:
        names = (f"libcublas.so.{major}", "libcudnn.so.9")
    return {name: nvidia.loads(name) for name in names}


def missing(devices: tuple[int, ...]) -> str | None:
    """Which of these GPUs are not there, and what to do about it; None where all are."""
    count = nvidia.gpu_count()
    absent = [str(device) for device in devices if device >= count]
    if not absent:
        return None
    return (
        f"there is no GPU {', '.join(absent)}: the NVIDIA driver shows {count}, counted from 0 "
        "(see nvidia-smi and CUDA_VISIBLE_DEVICES)"
    )


def _package() -> str:
    """Which onnxruntime is installed, with its version."""
    found = machine.package_versions(*ONNXRUNTIME_PACKAGES)
    return next((f"{name} {version}" for name, version in found.items()), "onnxruntime")
