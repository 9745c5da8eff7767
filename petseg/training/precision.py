"""What training computes in, where nobody says."""

from __future__ import annotations

from petseg.system.machine import cpu_flags, gpu_capabilities
from petseg.training.recipes import Precision

# The first generation of NVIDIA GPUs with bfloat16 is Ampere, compute capability 8.0.
_BFLOAT16_CAPABILITY = 8.0


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
