"""NVIDIA's GPUs and driver, asked themselves: without onnxruntime, which may be what is broken."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

# Linux' view of the PCI bus; vendor and class as in https://pci-ids.ucw.cz: 03xx is a display.
_PCI = Path("/sys/bus/pci/devices")
_VENDOR, _DISPLAY = "0x10de", "0x03"


def driver() -> str:
    """The driver's library, as this system names it."""
    return "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def loads(library: str) -> bool:
    """Whether a library is there, where onnxruntime would look for it, and can be loaded."""
    try:
        # On Windows Python would not look in PATH, where CUDA's own installer puts its folders.
        ctypes.CDLL(library, winmode=0)
    except OSError:
        return False
    return True


def gpu_count() -> int:
    """GPUs the driver shows, 0 without a driver; CUDA_VISIBLE_DEVICES may hide some or all."""
    count = ctypes.c_int(0)
    cuda = _driver()
    # CUDA_SUCCESS is 0 (CUDA driver API, cuInit and cuDeviceGetCount).
    if cuda is None or cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def gpu_name(number: int) -> str:
    """What a GPU is called, by CUDA's number of it; nvidia-smi's is another.  Empty for none."""
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
    cuda = _driver()
    if (
        cuda is None
        or cuda.cuInit(0) != 0
        or cuda.cuDeviceGet(ctypes.byref(device), number) != 0
        or cuda.cuDeviceGetName(name, len(name), device) != 0
    ):
        return ""
    return name.value.decode(errors="replace")


def cuda_version() -> tuple[int, int] | None:
    """The newest CUDA that the driver can run, major and minor; None where it does not say."""
    version = ctypes.c_int(0)
    cuda = _driver()
    if cuda is None or cuda.cuDriverGetVersion(ctypes.byref(version)) != 0 or not version.value:
        return None
    # 1000 * major + 10 * minor (CUDA driver API, cuDriverGetVersion).
    return version.value // 1000, version.value % 1000 // 10


def cards() -> int:
    """GPUs on the PCI bus, whether or not there is a driver; 0 where that cannot be seen."""
    return sum(
        _text(device / "vendor") == _VENDOR and _text(device / "class").startswith(_DISPLAY)
        for device in (_PCI.iterdir() if _PCI.is_dir() else ())
    )


def smi(field: str) -> list[str]:
    """What nvidia-smi tells of each GPU, a line each; none where there is no GPU or no driver.

    Args:
        field: as `nvidia-smi --help-query-gpu` lists them.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    result = subprocess.run(
        ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return [] if result.returncode else result.stdout.splitlines()


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(driver())
    except OSError:
        return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
