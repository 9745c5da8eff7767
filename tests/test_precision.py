from __future__ import annotations

import pytest

from petseg.training import precision


@pytest.mark.parametrize(
    ("capabilities", "flags", "on_gpu", "expected"),
    [
        ((), {"avx2", "amx_bf16"}, False, "mixed_bfloat16"),
        ((), {"avx2", "avx512_bf16"}, False, "mixed_bfloat16"),
        ((), {"avx2"}, False, "float32"),
        ((9.0, 8.0), {"avx2"}, True, "mixed_bfloat16"),
        ((9.0, 7.5), {"amx_bf16"}, True, "float32"),
        # A GPU that the backend cannot use does not count.
        ((9.0,), {"avx2"}, False, "float32"),
    ],
)
def test_auto_takes_bfloat16_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch,
    capabilities: tuple[float, ...],
    flags: set[str],
    on_gpu: bool,
    expected: str,
) -> None:
    monkeypatch.setattr(precision, "gpu_capabilities", lambda: capabilities)
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))
    assert precision.choose_precision("auto", on_gpu) == expected
    assert precision.choose_precision("float32", on_gpu) == "float32"
