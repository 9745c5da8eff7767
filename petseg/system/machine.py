"""What this machine is and has: processor, cores, memory, installed packages."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from petseg.system import nvidia

# Both own the module `onnxruntime`; installed together, one silently loses.
ONNXRUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu")

_CPUINFO = Path("/proc/cpuinfo")
# A container's limit in bytes, or "max": cgroup versions 2 and 1 (Linux, admin-guide).
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
# Its limit in microseconds of processor time, "max" or -1 for none, and of what period.
_QUOTAS = (
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


@dataclass(frozen=True)
class Lack:
    """Something that is not as it must be.

    Attributes:
        what: a phrase.
        command: what mends it, to be typed; "" where no one command does.
    """

    what: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.command}" if self.command else self.what


def usable_cores() -> int:
    """Cores this process may use; a container or `taskset` may leave fewer than there are.

    Of a container's limit that is no whole number, the next larger one.
    """
    affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    for files in _QUOTAS:
        with contextlib.suppress(OSError, ValueError):
            text = " ".join(Path(file).read_text(encoding="utf-8") for file in files)
            quota, period = map(int, text.split())
            if quota > 0:
                cores = min(cores, math.ceil(quota / period))
    return cores


def cpu_flags() -> frozenset[str]:
    """The processor's features as Linux names them; empty where they cannot be read."""
    # Arm's processors say "Features".
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def gpu_capabilities() -> tuple[float, ...]:
    """Compute capability of each NVIDIA GPU that says it; empty where there is none."""
    # Where a driver does not know it, it prints [N/A].
    return tuple(float(line) for line in nvidia.smi("compute_cap") if line[:1].isdigit())


def device_name(provider: str, numbers: tuple[int, ...] | None = None) -> str:
    """The processor's or, for "cuda", the GPUs' name; empty where it cannot be found out.

    Args:
        provider: that the network runs on.
        numbers: of the GPUs it runs on, as CUDA counts them; None for the first.
    """
    if provider == "cuda":
        names = map(nvidia.gpu_name, numbers or (0,))
        return ", ".join(dict.fromkeys(name for name in names if name))
    return _cpuinfo("model name") or platform.processor()


def package_versions(*names: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def onnxruntime_package() -> str:
    """Which of ONNXRUNTIME_PACKAGES is for this machine: the one with CUDA where it is built."""
    pc = sys.platform in ("linux", "win32") and platform.machine() in ("x86_64", "AMD64")
    return "onnxruntime-gpu" if pc else "onnxruntime"


def onnxruntime_clash() -> Lack | None:
    """Both of ONNXRUNTIME_PACKAGES at once, and how to be left with one; None where it is one."""
    found = package_versions(*ONNXRUNTIME_PACKAGES)
    if len(found) < 2:
        return None
    packages = " and ".join(f"{name} {version}" for name, version in found.items())
    return Lack(
        f"{packages} are both installed and overwrite each other",
        f"pip uninstall -y {' '.join(found)} && pip install {onnxruntime_package()}",
    )


def memory() -> int | None:
    """Bytes that this process may use: the machine's, or its container's limit; None on Windows."""
    try:
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    for file in _LIMITS:
        with contextlib.suppress(OSError, ValueError):
            most = min(most, int(Path(file).read_text(encoding="utf-8")))
    return most


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
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
