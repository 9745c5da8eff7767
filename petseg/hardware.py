"""What this machine is: its processor, its GPUs, and what they compute fast in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from petseg.recipes import Precision

# The first generation of NVIDIA GPUs with bfloat16 is Ampere, compute capability 8.0.
_BFLOAT16_CAPABILITY = 8.0


def cpu_flags() -> frozenset[str]:
    """The processor's features as Linux names them; empty where they cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def gpu_capabilities() -> tuple[float, ...]:
    """Compute capability of each NVIDIA GPU; empty where there is none or no driver."""
    if shutil.which("nvidia-smi") is None:
        return ()
    result = subprocess.run(
        ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        return ()
    return tuple(float(line) for line in result.stdout.split())


def choose_precision(precision: Precision, on_gpu: bool) -> Precision:
    """Resolve "auto" to the Keras dtype policy that is fastest here; others are returned as is.

    Args:
        precision: what was asked for.
        on_gpu: whether the backend computes on a GPU; one that it cannot use does not count.

    Returns:
        mixed_bfloat16 on GPUs that have it, and without a GPU on processors with AMX or
        AVX512-BF16; else float32.
    """
    if precision != "auto":
        return precision
    if on_gpu:
        fast = min(gpu_capabilities(), default=0.0) >= _BFLOAT16_CAPABILITY
    else:
        fast = bool(cpu_flags() & {"amx_bf16", "avx512_bf16"})
    return "mixed_bfloat16" if fast else "float32"
