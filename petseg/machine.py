"""What this machine is and has: processor, GPUs, cores, installed packages, memory used."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

# Both own the module `onnxruntime`; installed together, one silently loses.
ONNXRUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu")


def usable_cores() -> int:
    """Cores this process may use; a container or `taskset` may leave fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_flags() -> frozenset[str]:
    """The processor's features as Linux names them; empty where they cannot be read."""
    return frozenset(_cpuinfo("flags").split())


def gpu_capabilities() -> tuple[float, ...]:
    """Compute capability of each NVIDIA GPU that says it; empty where there is none."""
    # Where a driver does not know it, it prints [N/A].
    return tuple(float(line) for line in _nvidia_smi("compute_cap") if line[:1].isdigit())


def device_name(provider: str) -> str:
    """The processor's or, for "cuda", the GPU's name; empty where it cannot be found out."""
    if provider == "cuda":
        return next(iter(_nvidia_smi("name")), "")
    return _cpuinfo("model name") or platform.processor()


def package_versions(*names: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def peak_memory() -> int | None:
    """Largest resident size of this process so far, in bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    # Linux counts in KiB, macOS in bytes (getrusage(2) of each).
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpuinfo(key: str) -> str:
    """The first processor's line of that name in /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _nvidia_smi(field: str) -> list[str]:
    """One line a GPU; none where there is no GPU or no driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    result = subprocess.run(
        ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return [] if result.returncode else result.stdout.splitlines()
