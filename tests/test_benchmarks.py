"""The scripts in `benchmarks/` beside bench.py: that they run, and that their sums are right."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from petseg.errors import PetsegError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def _module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


def _run(script: str, *arguments: str | Path) -> dict[str, float]:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found[0] if isinstance(found, list) else found


def test_the_drawn_probabilities_hold_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = _module("host", monkeypatch).draw_probabilities(64)
    assert scores.shape == (3, 64, 64)
    shares = np.bincount(scores.argmax(axis=0).ravel(), minlength=3) / 64**2
    assert 0.2 < shares[0] < 0.6
    assert 0.03 < shares[2] < 0.2


def test_saturation() -> None:
    found = _run("saturation.py", "--count", 64, "--drawn", 8, "--workers", 1)
    assert found["rate"] == 5000
    assert 0 < found["images_per_second"] < 5000
    for part in ("host_seconds", "worker_seconds", "parent_seconds"):
        assert 0 < found[part] < 1


def test_memory(tmp_path: Path) -> None:
    options = ("--count", 300, "--drawn", 8, "--bad", 0.01, "--out", tmp_path / "curves.png")
    found = _run("memory.py", *options)
    assert (found["masks"], found["failed"], found["left"]) == (297, 3, 0)
    # At the end the workers may be gone already.
    assert 1 <= found["processes at most in the last third"] < 50
    assert 1 <= found["threads at most in the last third"] < 200
    assert 3 < found["handles at most in the last third"] < 500
    assert 20 < found["peak memory of the last third, MB"] < 2000
    assert 0 < found["microseconds a mask to find it in place"] < 100_000
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (800, 500)


def test_growth_and_slowing_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = _module("memory", monkeypatch)
    rows = [
        {"seconds": float(t), "done": 10.0 * t - t * t / 100, "memory": 1e8 + 1e6 * t, "plan": 0.0}
        | {"handles": 40.0 + t, "processes": 5.0, "threads": 9.0}
        for t in range(91)
    ]
    found = memory.describe(rows, [{**rows[-1], "plan": 0.0819}])
    assert found["peak memory of the first third, MB"] == 130
    assert found["peak memory of the last third, MB"] == 190
    assert found["handles at most in the first third"] == 40 + 30
    assert found["handles at most in the last third"] == 40 + 90
    assert found["images/s of the first third"] > found["images/s of the last third"] > 8
    assert found["microseconds a mask to find it in place"] == pytest.approx(100, abs=0.1)


def test_settings_of_a_gpu_in_dry(
    tiny_keras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `bench.py --gpu` does, on the CPU provider: every setting is measured once."""
    import onnxruntime

    from petseg_export.convert import export

    gpu = _module("gpu", monkeypatch)
    monkeypatch.setattr(gpu, "BATCHES", (1, 3))
    monkeypatch.setattr(gpu, "SECONDS", 0.01)
    about = export(tiny_keras, tmp_path / "half.onnx", "float16").signature
    found = gpu.report(tmp_path / "half.onnx", about, "cpu")
    rows = found["settings"]
    assert len(rows) == 3 * (4 + 2 * 2)
    assert all(row["images_per_second"] > 0 for row in rows)
    assert {row["precision"] for row in rows} == {"float32", "tf32", "float16"}
    assert len(list(gpu.table(found))) == 4 + len(rows)

    gpu.widen(tmp_path / "half.onnx", tmp_path / "wide.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    half, wide = (
        onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]).run(
            ["probabilities"], {"images": pixels}
        )[0]
        for name in ("half.onnx", "wide.onnx")
    )
    assert np.abs(half.astype(int) - wide).max() <= 1
    with pytest.raises(PetsegError, match="takes a file stored in float16"):
        gpu.report(tmp_path / "half.onnx", dataclasses.replace(about, precision="int8"), "cpu")


def test_operations_are_those_of_the_network(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted again from the file: every kernel meets every pixel of the side it belongs to."""
    import onnx
    from onnx import shape_inference

    from petseg import signature

    roofline = _module("roofline", monkeypatch)
    about = signature.read(tiny_model)
    graph = shape_inference.infer_shapes(onnx.load(tiny_model)).graph
    sides = {
        value.name: value.type.tensor_type.shape.dim[2].dim_value
        for value in graph.value_info
        if len(value.type.tensor_type.shape.dim) == 4
    }
    kernels = {tensor.name: tensor.dims for tensor in graph.initializer}
    expected = 0
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            pixels = sides[node.output[0] if node.op_type == "Conv" else node.input[0]] ** 2
            expected += 2 * pixels * int(np.prod(kernels[node.input[1]]))
    found = roofline.count_operations(about.size, about.filters, len(about.classes))
    assert found == expected
    # VGG16 and its decoder at 224 px: facts of the article's network.
    assert roofline.count_operations(224, (64, 128, 256, 512, 512), 3) == pytest.approx(
        48e9, rel=0.01
    )
