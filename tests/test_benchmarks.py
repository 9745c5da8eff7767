"""The scripts in `benchmarks/` beside bench.py: that they run, and that their sums are right."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from batching import save_photos
from click.testing import CliRunner
from PIL import Image

from petseg.errors import PetsegError
from petseg.runtime.openvino import shared_core
from petseg.system.machine import Lack, usable_cores

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


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_what_a_session_executes(
    provider: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = _module("session_profile", monkeypatch)
    done = CliRunner().invoke(
        profile.main, [str(tiny_model), str(tiny_model), "--provider", provider, "--json"]
    )
    assert done.exit_code == 0, done.output
    (kinds,) = json.loads(done.stdout).values()
    # 17 convolutions and 5 transposed ones, under whatever name.
    assert sum(count for kind, (count, _) in kinds.items() if "Conv" in kind.split()[0]) >= 22
    assert all(milliseconds >= 0 for _, milliseconds in kinds.values())
    assert "| all |" in done.stderr


def test_changes_to_the_graph(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = _module("graph_steps", monkeypatch)
    graphs, size = steps.build(tiny_model)
    steps.write(graphs, tmp_path / "graphs")
    kept = {path.stem: path.read_bytes() for path in (tmp_path / "graphs").iterdir()}
    assert len(kept) == 6
    assert kept["float32 as exported"] == graphs["float32"]["as exported"]
    kinds = _module("session_profile", monkeypatch).in_onnxruntime(
        tmp_path / "graphs" / "float16 opset 18.onnx"
    )
    assert kinds["Conv"][0] == 17
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    found = steps.sessions(graphs)
    assert len(found) == 6
    for session, runs in found.items():
        assert next(iter(runs)) == "as exported"
        assert len(runs) == 3
        if session.startswith("onnxruntime, stored in float32"):
            expected, *others = (run(images)[0].astype(int) for run in runs.values())
            # The same sums in another order.
            for other in others:
                assert (np.abs(other - expected) > 1).mean() < 1e-3
        ratios = steps.compare(runs, images, 1)
        assert ratios["as exported"] == 1
        assert min(ratios.values()) > 0


def test_ways_to_calibrate(pets: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrations = _module("calibrations", monkeypatch)
    options = ["--model", str(tiny_model), "--photos", "2", "--calibrated", "4", "--json"]
    done = CliRunner().invoke(calibrations.main, [str(pets), *options])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 6
    for row in found.values():
        assert 0.5 < row["equal_pixels"] <= 1
        assert abs(row["mean_iou_points"]) < 30


def test_packing() -> None:
    found = _run("packing.py", "--count", 40, "--shards", 15)
    assert sorted(found) == ["append", "find", "read the record"]
    assert all(microseconds > 0 for microseconds in found.values())


def test_cores(tiny_model: Path) -> None:
    """On the smallest scale; how much the cores really reach is no test's question."""
    options = ("--model", tiny_model, "--only", "float32", "--count", 16, "--drawn", 4)
    found = _run("cores.py", *options, "--rounds", 1, "--seconds", 0.01)
    assert (found["precision"], found["provider"]) == ("float32", "cpu")
    assert found["share"] == pytest.approx(found["images_per_second"] / found["allowed"])
    cores = found["allowed"] * (found["bare_seconds"] + found["host_seconds"])
    assert cores == pytest.approx(usable_cores())
    assert 0 < found["batch_seconds"] < 1
    sweep = found["sweep"]
    assert all(row["streams"] * row["threads"] == usable_cores() for row in sweep)
    assert {row["batch"] for row in sweep} == {1, 2, 4, 8}
    best = max(
        (row for row in sweep if not row["spinning"]), key=lambda row: row["images_per_second"]
    )
    assert (found["bare_rate"], found["bare_seconds"]) == (
        best["images_per_second"],
        best["core_seconds"],
    )


def test_what_the_cores_allow_is_taken_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = _module("cores", monkeypatch)

    def one(slow: float, fast: float, host: float, rate: float) -> dict[str, Any]:
        def setting(batch: int, seconds: float, spinning: bool) -> dict[str, Any]:
            figures = {"images_per_second": 2 / seconds, "core_seconds": seconds, "rest": 0.0}
            fixed = {"batch": batch, "streams": 1, "threads": 2, "spinning": spinning}
            return {**fixed, **figures}

        stages = {name: {"busy_core_seconds": 4.0} for name in ("read", "infer", "write")}
        done = {"counts": {"done": 10}, "batch_size": 4, "workers": 2}
        return {
            "bare": [setting(1, slow, False), setting(4, fast, False), setting(4, 0.01, True)],
            "host_seconds": host,
            "batch": {"images_per_second": rate, "stages": stages, **done},
        }

    rounds = [one(0.5, 0.3, 0.1, 4.0), one(0.2, 0.3, 0.2, 4.0), one(0.5, 0.4, 0.1, 1.0)]
    found = cores.summary("float32", rounds, cores=2)
    # Batches of four are the best by their medians, in the second round, too; spinning is not.
    assert found["bare_seconds"] == pytest.approx(0.3)
    assert found["bare_rate"] == pytest.approx(2 / 0.3)
    assert found["host_seconds"] == pytest.approx(0.1)
    # The cores allow 5, 4 and 4 images a second, of which 4, 4 and 1 are reached.
    assert found["allowed"] == pytest.approx(4.0)
    assert found["share"] == pytest.approx(0.8)
    assert found["batch_seconds"] == pytest.approx(1.2)
    (row,) = cores.table([found]).splitlines()[2:]
    assert "| 80.0% | 1200.0 | 4 | 2 |" in row
    shown = cores.sweeps([found]).splitlines()[2:]
    assert [line.count("**") for line in shown] == [0, 2, 0]
    assert shown[2].startswith("| float32 | 1 x 2 | 4 | on |")


def test_precisions_that_cannot_be_measured_are_left_out_aloud(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = _module("cores", monkeypatch)
    monkeypatch.setattr(cores.openvino, "problem", lambda: Lack("no OpenVINO", "get it"))
    options = ["--model", str(tiny_model), "--only", "bfloat16", "--only", "int8"]
    found = CliRunner().invoke(cores.main, options)
    assert found.exit_code == 1
    assert "bfloat16: skipped: no OpenVINO; get it" in found.stderr
    assert "int8: skipped: no int8 file: name one with --int8-model" in found.stderr
    assert "error: no precision is left to measure" in found.stderr


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_bare_session_computes_what_petseg_does(
    precision: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through either library: `int8` stands for what is not asked to be in float32."""
    from petseg import runtime
    from petseg.modelfile import signature

    bare = _module("bare_session", monkeypatch)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    setting = bare.Setting(batch=2, streams=2, threads=1)
    session = runtime.open_session(tiny_model, signature.read(tiny_model), "cpu")
    expected = session.open_stream().run(images).astype(int)
    if precision == "float32":
        (found,) = bare.onnxruntime_run(tiny_model, setting)(images)
        np.testing.assert_array_equal(found, expected)
    runs = bare.openvino_runs(tiny_model, precision, setting, images)
    assert len(runs) == 2
    for run in runs:
        found = next(iter(run(images).values())).astype(int)
        # bfloat16 has 8 bits; float32 differs by rounding alone.
        assert np.abs(found - expected).max() <= (1 if precision == "float32" else 16)


def test_startup(tiny_model: Path) -> None:
    options = ("--model", tiny_model, "--rounds", 2, "--only", "cpu", "--only", "help")
    command = [sys.executable, str(BENCHMARKS / "startup.py"), *map(str, options), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: row["goal"] for name, row in found.items()} == {"cpu": 2.0, "help": 0.3}
    for row in found.values():
        assert 0 < row["least"] <= row["seconds"] <= row["most"] < 60
    # The help loads no model.
    assert found["help"]["seconds"] < found["cpu"]["seconds"]


def test_a_start_without_a_mask_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    startup = _module("startup", monkeypatch)
    (tmp_path / "photos").mkdir()
    with pytest.raises(PetsegError, match="petseg-batch on cpu ended with exit code"):
        startup.first_mask_seconds(
            tmp_path / "photos", tmp_path / "masks", "cpu", None, dict(os.environ)
        )


def test_the_way_back(
    tiny_model: Path, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wayback = _module("wayback", monkeypatch)
    folders = [str(pets / "images"), str(pets / "annotations" / "trimaps")]
    options = ["--model", str(tiny_model), "--provider", "cpu", "--limit", "3", "--json"]
    done = CliRunner().invoke(wayback.main, [*folders, *options])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == ["scores enlarged", "nearest ids"]
    for row in found.values():
        assert 0 < row["mean_iou"] < 1
        assert 0 < row["boundary_f"] < 1
        assert row["core_seconds"] > 0
    assert len(done.stderr.splitlines()) == 6

    # Of the network's own size both are the same masks.
    scores = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    same = [way(scores, 8, 8) for way in wayback.WAYS.values()]
    np.testing.assert_array_equal(*same)
    np.testing.assert_array_equal(
        wayback.nearest(scores, 16, 24), same[0].repeat(2, axis=0).repeat(3, axis=1)
    )

    other = tmp_path / "trimaps"
    other.mkdir()
    for path in sorted((pets / "annotations" / "trimaps").iterdir())[:1]:
        Image.fromarray(np.full((5, 7), 1, np.uint8)).save(other / path.name)
    done = CliRunner().invoke(wayback.main, [folders[0], str(other), *options])
    assert done.exit_code == 1
    assert "is 7x5 and its photo" in done.stderr


def test_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a small network: what is timed goes through petseg-train's own threads and queue."""
    from petseg.data.batches import TrainingBatches
    from petseg.training import recipes

    training = _module("training", monkeypatch)
    samples = training.draw(32, 5)
    assert samples.images.shape == (5, 32, 32, 3)
    assert len(np.unique(samples.trimaps)) > 1
    made: list[tuple[TrainingBatches, int]] = []
    make = TrainingBatches.__getitem__

    def watched(self: TrainingBatches, index: int) -> Any:
        made.append((self, index))
        return make(self, index)

    monkeypatch.setattr(TrainingBatches, "__getitem__", watched)
    config = dataclasses.replace(
        recipes.SCRATCH,
        stages=(recipes.Stage(32, epochs=1, learning_rate=1e-4),),
        batch_size=2,
        encoder_weights="none",
        filters=(4, 4, 8, 8, 8),
        precision="float32",
    )
    found = training.measure(samples, config, steps=7, repeats=1)
    assert found["images_per_second"] > 0
    assert found["share"] > 0
    # One batch to hold; and the seven of a `fit`, which looks at two of them before it begins.
    assert [index for _, index in made[:1]] == [0]
    assert sorted(index for _, index in made[1:]) == [0, 0, 1, 1, 2, 3, 4, 5, 6]
    used = made[-1][0]
    own = TrainingBatches(samples, 2, 32, None, (0,))
    assert (used.workers, used.max_queue_size) == (own.workers, own.max_queue_size)
    assert used.augmentation == config.augmentation


def test_latency() -> None:
    options = ("--count", 64, "--drawn", 8, "--delay", 0.1, "--rounds", 2, "--workers", 1)
    found = _run("latency.py", *options)
    assert found["delay_seconds"] == 0.1
    # Of two numbers: half of what lies between them.
    first, second = sorted(found["shares"])
    between = math.log(second / first) / 2 * found["share"]
    assert found["share_standard_error"] == pytest.approx(between)
    assert 0 < found["images_per_second"] < 5000
    # Without reading ahead each photo would take two delays, and a run all of them.
    assert found["images_per_second"] > 64 / (2 * 64 * 0.1)


def test_memory(tmp_path: Path) -> None:
    options = ("--count", 300, "--drawn", 8, "--bad", 0.01, "--out", tmp_path / "curves.png")
    found = _run("memory.py", *options)
    assert (found["masks"], found["failed"], found["left"]) == (297, 3, 0)
    # At the end the workers may be gone already.
    assert 1 <= found["processes at most in the last third"] < 50
    assert 1 <= found["threads at most in the last third"] < 200
    assert 3 < found["handles at most in the last third"] < 500
    assert 20 < found["peak memory of the last third, MB"] < 2000
    assert 0 < found["microseconds a photo to look for its mask"] < 100_000
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (800, 700)


def test_growth_and_slowing_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = _module("memory", monkeypatch)
    rows = [
        {"seconds": float(t), "done": 10.0 * t - t * t / 100, "memory": 1e8 + 1e6 * t, "plan": 0.0}
        | {"handles": 40.0 + t, "processes": 5.0, "threads": 9.0}
        for t in range(91)
    ]
    found = memory.describe(rows, [{**rows[-1], "plan": 0.0819}], 1000)
    assert found["peak memory of the first third, MB"] == 130
    assert found["peak memory of the last third, MB"] == 190
    assert found["handles at most in the first third"] == 40 + 30
    assert found["handles at most in the last third"] == 40 + 90
    assert found["images/s of the first third"] > found["images/s of the last third"] > 8
    assert found["microseconds a photo to look for its mask"] == pytest.approx(81.9)
    page = [{**rows[-1], "seconds": 90.0 + t} for t in range(1, 61)]
    behind = memory.describe([*rows, *page], rows, 1000)
    for third in ("first", "last"):
        rate = f"images/s of the {third} third"
        assert behind[rate] == pytest.approx(found[rate], rel=0.02)
    with pytest.raises(PetsegError, match="peak memory of the last third, MB 190, more than 32 be"):
        memory.steady(found)


@pytest.mark.parametrize("thing", ["memory", "handles", "processes", "threads"])
def test_growth_of_each_thing_ends_with_an_error(
    thing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = _module("memory", monkeypatch)

    def rows(grown: dict[str, float]) -> list[dict[str, float]]:
        start = {"memory": 2e8, "handles": 60.0, "processes": 5.0, "threads": 12.0}
        late = {key: start[key] + grown.get(key, 0) for key in start}
        times = [{"seconds": float(t), "done": 10.0 * t, "plan": 0.0} for t in range(1, 91)]
        return [time | (late if time["seconds"] > 60 else start) for time in times]

    within = {"memory": 31e6, "handles": 5.0}
    memory.steady(memory.describe(rows(within), rows(within), 900))
    beyond = within | {thing: within.get(thing, 0.0) + (2e6 if thing == "memory" else 1)}
    with pytest.raises(PetsegError, match=f"{thing}.* of the last|{thing} at most in the last"):
        memory.steady(memory.describe(rows(beyond), rows(beyond), 900))


def test_settings_of_a_gpu_in_dry(
    tiny_keras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `bench.py --gpu` does, on the CPU provider: every setting is measured once."""
    import onnxruntime

    from petseg.modelfile import signature
    from petseg_export.convert import export

    gpu = _module("gpu", monkeypatch)
    monkeypatch.setattr(gpu, "BATCHES", (3,))
    monkeypatch.setattr(gpu, "SECONDS", 0.01)
    about = export(tiny_keras, tmp_path / "half.onnx", "float16").signature
    (tmp_path / "made").mkdir()
    files = gpu.files(tmp_path / "half.onnx", tmp_path / "made")
    found = gpu.report(files, about, "cpu")
    rows = found["settings"]
    assert len(rows) == 3 * (3 + 2 * 2)
    assert all(row["images_per_second"] > 0 for row in rows)
    assert {row["precision"] for row in rows} == {"float32", "tf32", "float16"}
    for precision in ("float32", "tf32", "float16"):
        tried = {
            (row["nhwc"], row["graph"])
            for row in rows
            if row["precision"] == precision and row["batch"] == 3
        }
        assert tried == set(itertools.product((False, True), (False, True)))
    # Without a GPU all nodes are left to the CPU, those of the file in float32, too.
    left = found["on_the_cpu"]
    assert left.keys() == {
        f"{precision}, {layout}"
        for precision in ("float16", "float32")
        for layout in ("NCHW", "NHWC")
    }
    assert all(len(names) > 20 for names in left.values())
    assert len(list(gpu.table(found))) == len(left) + 3 + len(rows)

    assert files["float16"] == tmp_path / "half.onnx"
    assert files["tf32"] == files["float32"]
    made = signature.read(files["float32"])
    assert (made.precision, made.weights_hash) == ("float32", about.weights_hash)
    assert gpu.files(files["float32"], tmp_path) == {key: files[key] for key in ("float32", "tf32")}
    files["float32"].rename(tmp_path / "wide.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    half, wide = (
        onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]).run(
            ["probabilities"], {"images": pixels}
        )[0]
        for name in ("half.onnx", "wide.onnx")
    )
    assert np.abs(half.astype(int) - wide).max() <= 1
    with pytest.raises(PetsegError, match="takes a file stored in float16"):
        gpu.report(
            {"float32": tmp_path / "half.onnx"}, dataclasses.replace(about, precision="int8"), "cpu"
        )


def test_operations_are_those_of_the_network(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted again from the file: every kernel meets every pixel of the side it belongs to."""
    import onnx
    from onnx import shape_inference

    from petseg.modelfile import signature

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


def test_no_product_passes_for_bfloat16_without_it(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roofline = _module("roofline", monkeypatch)
    monkeypatch.setattr(roofline, "SIDE", 64)
    monkeypatch.setattr(roofline, "ROUNDS", 1)
    monkeypatch.setattr(roofline, "has_bfloat16", lambda core: False)
    options = ["--model", str(tiny_model), "--seconds", "0.01", "--json"]
    found = CliRunner().invoke(roofline.main, options)
    assert found.exit_code == 0, found.output
    values = json.loads(found.stdout)
    reached = {"float32_images_per_second", "float32_share"}
    assert values.keys() == {"gflop_per_image", "float32", "int8", *reached}
    assert min(values.values()) > 0
    share = values["float32_images_per_second"] * values["gflop_per_image"] / values["float32"]
    assert values["float32_share"] == pytest.approx(share)
    assert "| bfloat16 | this processor has none | | | |" in found.stderr
    assert "no int8 file: name one with --int8-model" in found.stderr


def test_both_libraries_compute_the_same_product(monkeypatch: pytest.MonkeyPatch) -> None:
    roofline = _module("roofline", monkeypatch)
    monkeypatch.setattr(roofline, "SIDE", 64)
    random = np.random.default_rng(0)
    left = random.uniform(0, 8, (64, 64)).astype(np.float32)
    right = random.uniform(-4, 4, (64, 64)).astype(np.float32)
    core = shared_core()
    expected = left @ right
    # One step of the grids times the other factor's typical size, and the square root of 64 terms.
    for precision, error in (("float32", 1e-3), ("int8", 2.0)):
        ours = next(iter(roofline.with_openvino(core, precision, left, right)().values()))
        assert np.abs(ours - expected).max() < error
    (theirs,) = roofline.with_onnxruntime("float32", left, right)()
    assert np.abs(theirs - expected).max() < 1e-3
    (whole,) = roofline.with_onnxruntime("int8", left, right)()
    rounded = (8 * left).astype(np.uint8).astype(int) @ (8 * right).astype(np.int8).astype(int)
    np.testing.assert_array_equal(whole, rounded)


def test_host(monkeypatch: pytest.MonkeyPatch) -> None:
    host = _module("host", monkeypatch)
    monkeypatch.setattr(host, "ROUNDS", 1)
    monkeypatch.setattr(host, "SMALL_COUNT", 1)
    monkeypatch.setattr(host, "LARGE_COUNT", 1)
    monkeypatch.setattr(host, "LARGE", (1500, 2000))
    found = CliRunner().invoke(host.main, ["--json"])
    assert found.exit_code == 0, found.output
    values = json.loads(found.stdout)
    assert list(values) == ["500x375", "4000x3000"]
    for parts in values.values():
        assert min(parts.values()) > 0
        assert len(parts) == 16
        others = parts["bytes, by zlib's own search"], parts["bytes, by Pillow"]
        assert parts["bytes of a mask"] < min(others)
    assert values["4000x3000"]["write its mask"] > values["500x375"]["write its mask"]
    assert len(found.stderr.splitlines()) == 2 + 16


def measured(**changes: object) -> dict[str, object]:
    """What overheads.py could have measured."""
    store = {"put": 0.001, "get": 0.001, "list": 5e-5, "list_bytes": 1500.0, "kept_bytes": 250.0}
    return {
        "read_seconds": [0.004] * 8,
        "infer_seconds": [0.01] * 8,
        "write_seconds": [0.002] * 8,
        "batch_size": 4,
        "start_seconds": 2.0,
        "find_seconds": 2e-5,
        "foreign_seconds": 5e-6,
        "resume_seconds": 1e-4,
        "page_seconds": 1e-5,
        "plan_bytes": 400.0,
        "foreign_bytes": 100.0,
        "base_bytes": 5e8,
        "store": store,
        **changes,
    }


def test_nodes_are_replayed_photo_by_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = _module("replay", monkeypatch)
    # The session is what is slow, or two workers are, or one.
    assert replay.find_pace(measured(), 2).images_per_second == pytest.approx(100, rel=0.01)
    fast = measured(infer_seconds=[0.0001] * 8)
    assert replay.find_pace(fast, 2).images_per_second == pytest.approx(2 / 0.006, rel=0.02)
    assert replay.find_pace(fast, 1).images_per_second == pytest.approx(1 / 0.006, rel=0.02)
    # The first batch is read by two, its four photos take the session 0.04 s, and then two write.
    (written,) = replay.replay(measured(), 2, 1, [np.random.default_rng(0)])
    assert written == pytest.approx([2 * 0.004 + 4 * 0.01 + 2 * 0.002])


def test_what_is_drawn_for_a_node_is_what_a_replay_of_all_its_photos_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replay = _module("replay", monkeypatch)
    random = np.random.default_rng(1)
    uneven = measured(
        read_seconds=random.exponential(0.004, 100).tolist(),
        infer_seconds=random.exponential(0.01, 100).tolist(),
        write_seconds=[0.002] * 100,
    )
    pace = replay.find_pace(uneven, 2)
    randoms = [np.random.default_rng(seed) for seed in range(100, 140)]
    ends = replay.replay(uneven, 2, 16 * pace.photos // 4, randoms)[:, -1]
    drawn = pace.seconds(np.full(2000, 16 * pace.photos), random)
    assert drawn.mean() == pytest.approx(ends.mean(), rel=0.01)
    # Of forty nodes: one standard error is 1 / sqrt(2 * 40), a ninth.
    assert drawn.std() == pytest.approx(ends.std(), rel=0.35)
    few = pace.seconds(np.array([pace.photos // 2]), random)
    assert few == pytest.approx(ends.mean() / 32, rel=0.1)


def test_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    plans, replay = _module("plans", monkeypatch), _module("replay", monkeypatch)
    costs = measured()
    pace = replay.find_pace(costs, 2)

    def grow(images: int, store: bool, parts: bool, **limits: float) -> Any:
        assumed = plans.Limits(**{"failures": 0.0, **limits})
        return plans.plan(costs, pace, images, plans.Way(store, parts), assumed)

    few = grow(10**6, False, False)
    assert few.nodes == 1
    assert few.hours == pytest.approx((10**6 / 100 + 20 + 2) / 3600, rel=0.01)
    assert (few.requests, few.lost, few.idle) == (0, 0, 0)
    assert max(few.over.values()) < 1
    # A photo got and a mask put for each, and a listing for each node.
    listed = grow(10**6, True, False)
    assert listed.requests == 2 * 10**6 + 1000 * listed.nodes
    assert listed.looking == pytest.approx(10**6 * (5e-5 + 5e-6 + 0.15 / 1000) / 3600)

    many = grow(10**8, False, False)
    assert 12 <= many.nodes <= 16
    assert 23 < many.hours <= 24
    assert 0 <= many.idle < 0.01
    # All others' names, and its own photos.
    assert many.looking == pytest.approx((10**8 * (5e-6 + 15e-6 / many.nodes)) / 3600, rel=0.01)
    assert many.over["files in a folder"] == 10
    assert grow(10**8, False, False, folders=100).over["files in a folder"] == 0.1
    # One machine makes the page at the end, or each part its own.
    assert many.over["the page of all masks"] == pytest.approx(10**8 * 1e-5 / 3600 / 24)
    alone = grow(10**8, False, True)
    assert "the page of all masks" not in alone.over
    assert alone.hours * alone.nodes == pytest.approx(10**8 * (0.01 + 1e-5 + 2e-5) / 3600, rel=0.01)
    failing = grow(10**8, False, False, failures=0.02)
    assert failing.lost > many.lost == 0
    assert failing.hours > 23

    # No number of nodes is enough where each has to look at every name first.
    whole = grow(10**10, True, False)
    assert whole.looking == pytest.approx(10**10 * 2.05e-4 / 3600)
    assert whole.hours > whole.looking
    memory = (5e8 + 10**10 * 1750) / 16e9
    assert whole.over["a node's memory"] == pytest.approx(memory, rel=0.01)
    assert whole.over["looking at names"] > 9
    parts = grow(10**10, True, True)
    assert 23 < parts.hours <= 24
    assert parts.over["puts a second"] == pytest.approx(10**10 / (3600 * parts.hours) / 3500)
    assert next(iter(parts.over)) == "puts a second"
    assert max(grow(10**10, True, True, prefixes=100, memory=32e9).over.values()) < 1


def test_a_node_that_hardly_lasts_is_never_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails ten times in the time that a look at all names takes."""
    plans, replay = _module("plans", monkeypatch), _module("replay", monkeypatch)
    costs = measured()
    way, limits = plans.Way(True, False), plans.Limits(failures=1.0)
    found = plans.grow(costs, replay.find_pace(costs, 2), 10**9, 200, way, limits)
    assert found.hours == np.inf
    assert found.over["time"] == np.inf
    assert "| never |" in _module("growth", monkeypatch).row(found)


def test_overheads_and_the_table_of_growth(tiny_model: Path, tmp_path: Path) -> None:
    small = ("--count", 16, "--copies", 2, "--names", 1000, "--model", tiny_model)
    found: Any = _run("overheads.py", *small, "--provider", "cpu", "--no-store", "--no-ray")
    _check_overheads(found)
    assert (found["store"], found["ray"]) == (None, None)
    (tmp_path / "overheads.json").write_text(json.dumps(found))
    plan: Any = _run("growth.py", tmp_path / "overheads.json", "--failures", 0)
    assert (plan["images"], plan["way"], plan["lost"]) == (10**6, "folders, --shard", 0)


def _check_overheads(found: Any) -> None:
    assert len(found["read_seconds"]) == 16
    assert found["files"] == 32
    # A name costs microseconds, a start seconds; of names of files, which costs more is the load's.
    assert 0 < max(found["foreign_seconds"], found["find_seconds"]) < found["start_seconds"]
    assert min(found["foreign_seconds"], found["find_seconds"]) > 0
    assert 0 < found["resume_seconds"] < 0.1
    assert 0 < found["foreign_bytes"] < found["plan_bytes"] < 10_000
    assert -0.1 < found["page_seconds"] < 1
    assert 100_000 < found["page_bytes"] < 5_000_000


@pytest.mark.scale
def test_overheads_of_a_store_and_of_ray(tiny_model: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'petseg[ray]'")
    small = ("--count", 16, "--copies", 2, "--names", 1000, "--objects", 1200)
    options = ("--model", tiny_model, "--provider", "cpu", "--ray")
    found: Any = _run("overheads.py", *small, *options)
    _check_overheads(found)
    store, cluster = found["store"], found["ray"]
    assert 0 < store["list"] < store["put"] < 0.1
    assert 0 < store["get"] < 0.1
    assert 100 < store["kept_bytes"] < store["list_bytes"] < 10_000
    assert 0 < cluster["node"] < 120
    assert 0 < cluster["head"] < 120
    assert cluster["run"] > found["start_seconds"]


def _engines(photos: Path, model: Path, *engines: str) -> list[dict[str, Any]]:
    only = [part for engine in engines for part in ("--only", engine)]
    command = [sys.executable, str(BENCHMARKS / "engines.py"), str(photos), "--json", *only]
    done = subprocess.run(
        [*command, "--limit", "5", "--model", str(model)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "all the same" in done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_engines_make_the_same_masks(tiny_model: Path, tmp_path: Path) -> None:
    save_photos(tmp_path / "photos" / "a", 3)
    save_photos(tmp_path / "photos", 3)
    local, shards = _engines(tmp_path / "photos", tiny_model, "local", "shards")
    assert [*local["masks"]] == ["000.png", "001.png", "002.png", "a/000.png", "a/001.png"]
    assert len(set(local["masks"].values())) == 5
    assert shards["masks"] == local["masks"]
    assert shards["digest"] == local["digest"]


@pytest.mark.scale
def test_ray_makes_the_same_masks(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'petseg[ray]'")
    save_photos(tmp_path / "photos", 6)
    local, ray = _engines(tmp_path / "photos", tiny_model, "local", "ray")
    assert ray["digest"] == local["digest"]


def test_masks_that_differ_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = _module("engines", monkeypatch)
    for folder, files in (("one", {"a/x.png": b"1", "y.png": b"2"}), ("other", {"y.png": b"3"})):
        for name, data in files.items():
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_bytes(data)
        (tmp_path / folder / "petseg").mkdir()
        (tmp_path / folder / "petseg" / "stats.json").write_text(folder)
    made = [engines.collect(name, 1.0, tmp_path / name) for name in ("one", "other")]
    assert made[0].digest != made[1].digest
    lines = engines.differences(*made)
    assert [line.partition(":")[0] for line in lines] == ["a/x.png", "y.png"]
    assert lines[0].endswith("other none")
    assert engines.differences(made[0], made[0]) == []
    (tmp_path / "empty").mkdir()
    with pytest.raises(PetsegError, match="empty made no mask"):
        engines.collect("empty", 1.0, tmp_path / "empty")
