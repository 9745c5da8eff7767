"""`benchmarks/bench.py`, with a small model: what it counts and says, not how fast anything is."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from petseg.runtime.openvino import shared_core
from petseg.system.machine import cpu_flags

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ONNXRUNTIME = ("plain-onnxruntime", "petseg-batch", "bare-onnxruntime")
KERAS = ("article", "bare-keras")
# Those of which one run shows enough: the scripts are the same for the other precisions.
OTHERS = {
    "keras-bfloat16": ("cpu", "bfloat16"),
    "openvino-bfloat16": ("openvino", "bfloat16"),
    "petseg-batch-bfloat16": ("openvino", "bfloat16"),
    "bare-openvino-bfloat16": ("openvino", "bfloat16"),
}
# The article's class scores are not rounded to 1 of 255 before they are enlarged; and the small
# model's, of drawn weights, are nearly equal in many places.
LEAST_EQUAL = {
    "article": 0.97,
    "plain-onnxruntime": 0.97,
    "bare-keras": 0.999,
    **dict.fromkeys(OTHERS, 0.9),
}


def _command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(BENCHMARKS / "bench.py"), *map(str, arguments)]


def _bench(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command("--provider", "cpu", *arguments),
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )


def _only(*names: str) -> list[str]:
    return [part for name in names for part in ("--only", name)]


def _module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


def _tensorflow_that(raises: str, folder: Path) -> dict[str, str]:
    """An environment in which importing tensorflow raises."""
    (folder / "tensorflow.py").write_text(f"raise {raises}\n")
    path = os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", "")))
    return {"PYTHONPATH": path.rstrip(os.pathsep)}


def _check_done(values: dict[str, Any], name: str, repeats: int, count: int) -> None:
    assert values["status"] == "done", values
    rates = [run["images_per_second"] for run in values["runs"]]
    assert len(rates) == repeats
    for run, rate in zip(values["runs"], rates, strict=True):
        assert rate == pytest.approx(count / run["seconds"])
    found = values["images_per_second"]
    assert found == {"median": np.median(rates), "min": min(rates), "max": max(rates)}
    assert values["start_up_seconds"] > 0
    assert (values["warm_up_seconds"] > 0) != name.startswith("petseg-batch")
    assert (values["provider"], values["precision"]) == OTHERS.get(name, ("cpu", "float32"))
    assert values["equal_pixels"] >= LEAST_EQUAL.get(name, 1.0)
    if sys.platform == "linux":
        assert 20e6 < values["peak_memory_bytes"] < 4e9


def _check_masks(masks: Path, photos: Path) -> None:
    names = {photo.stem: photo for photo in photos.iterdir()}
    written = {path.stem: path for path in masks.glob("*.png")}
    assert written.keys() == names.keys()
    contents = set()
    for stem, path in written.items():
        with Image.open(path) as mask, Image.open(names[stem]) as photo:
            assert mask.mode == "L"
            assert mask.size == photo.size
            assert set(np.unique(mask)) == {1, 2, 3}
            contents.add(mask.tobytes())
    assert len(contents) == len(written)


def test_onnxruntime_contestants(tiny_model: Path, tmp_path: Path) -> None:
    done = _bench(
        *("--model", tiny_model, "--count", "5", "--repeats", "2", "--json"),
        *("--keep", tmp_path / "kept", *_only(*ONNXRUNTIME)),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["photos"] == {"count": 5, "from": "drawn, 500x375"}
    assert found["repeats"] == 2
    assert found["provider"] == "cpu"
    assert found["reference"] == "petseg-batch"
    assert found["baseline"] == "article"
    assert {"cpu", "cores", "system", "load_before"} <= found["machine"].keys()
    assert {"python", "petseg", "numpy", "pillow"} <= found["versions"].keys()
    assert found["model"]["path"] == str(tiny_model)
    assert tuple(found["contestants"]) == ONNXRUNTIME
    bare = found["contestants"]["bare-onnxruntime"]
    for name, values in found["contestants"].items():
        _check_done(values, name, repeats=2, count=5)
        assert values["ratio"] is None  # the article's way did not take part
        _check_masks(tmp_path / "kept/masks" / name, tmp_path / "kept/photos")
        if values["ceiling"] is not None:
            expected = np.median(
                [
                    run["images_per_second"] / other["images_per_second"]
                    for run, other in zip(values["runs"], bare["runs"], strict=True)
                ]
            )
            assert values["share_of_ceiling"] == pytest.approx(expected)
    assert bare["ceiling"] is None
    assert "| petseg-batch |" in done.stderr
    lines = [line.split(": ") for line in done.stderr.splitlines() if line.startswith("round ")]
    first, *others = ONNXRUNTIME
    # Each round begins with another one.
    assert [(said, name) for said, name, *_ in lines] == [
        *(("round 1 of 2", name) for name in ONNXRUNTIME),
        *(("round 2 of 2", name) for name in (*others, first)),
    ]


def test_all_contestants(tiny_model: Path, tmp_path: Path) -> None:
    # Elsewhere OpenVINO's are skipped.
    others = OTHERS if {"avx512_bf16", "amx_bf16"} & cpu_flags() else {}
    # The rest of onnxruntime's take part in the test above.
    competing = {*KERAS, "petseg-batch", *others}
    photos = tmp_path / "own"
    photos.mkdir()
    for number, size in enumerate(((300, 200), (120, 160))):
        _photo(size, number).save(photos / f"{number}.{'jpg' if number else 'png'}")
    done = _bench(
        *("--model", tiny_model, "--images", photos, "--repeats", "1", "--json"),
        *("--keep", tmp_path / "kept", *_only(*competing)),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["contestants"]) == competing
    assert found["photos"] == {"count": 2, "from": str(photos)}
    for name, values in found["contestants"].items():
        _check_done(values, name, repeats=1, count=2)
        _check_masks(tmp_path / "kept/masks" / name, tmp_path / "kept/photos")
        article = found["contestants"]["article"]["images_per_second"]["median"]
        assert values["ratio"] == pytest.approx(values["images_per_second"]["median"] / article)
    assert found["contestants"]["article"]["share_of_ceiling"] > 0


def test_without_tensorflow_its_contestants_are_skipped_aloud(
    tiny_model: Path, tmp_path: Path
) -> None:
    missing = "ModuleNotFoundError(\"No module named 'tensorflow'\", name='tensorflow')"
    environment = _tensorflow_that(missing, tmp_path)
    options = ("--model", tiny_model, "--count", "2", "--repeats", "2")
    done = _bench(*options, *_only(*KERAS, "plain-onnxruntime"), "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in KERAS:
        values = found["contestants"][name]
        assert values["status"] == "skipped"
        assert values["reason"] == "tensorflow is not installed: pip install 'petseg[export]'"
        assert done.stderr.count(f"{name}: skipped: tensorflow is not installed") == 1
    assert found["contestants"]["plain-onnxruntime"]["status"] == "done"
    assert found["reference"] == "plain-onnxruntime"

    alone = _bench(*options, *_only("article"), environment=environment)
    assert alone.returncode == 1
    assert "| article | skipped: tensorflow is not installed" in alone.stdout


def test_without_an_int8_file_its_contestants_are_skipped_aloud(tiny_model: Path) -> None:
    options = ("--model", tiny_model, "--count", "2", "--repeats", "1", "--json")
    done = _bench(*options, *_only("petseg-batch-int8", "plain-onnxruntime"))
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)["contestants"]["petseg-batch-int8"]
    assert values["status"] == "skipped"
    assert "no int8 file: name one with --int8-model" in values["reason"]


def _contestant(
    name: str, monkeypatch: pytest.MonkeyPatch, model: Path, provider: str, precision: str
) -> ModuleType:
    """A contestant's module, in a process whose arguments are a task's."""
    arguments = [name, "photos", "masks", str(model)]
    options = ["--provider", provider, "--precision", precision]
    monkeypatch.setattr(sys, "argv", [*arguments, *options])
    monkeypatch.syspath_prepend(str(BENCHMARKS / "contestants"))
    return importlib.import_module(name)


@pytest.mark.parametrize("name", ["bare_openvino", "openvino_queue", "petseg_batch"])
def test_without_bfloat16_openvinos_contestants_are_skipped_aloud(
    name: str,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = _contestant(name, monkeypatch, tiny_model, "openvino", "bfloat16")
    shared = importlib.import_module("contestant")
    monkeypatch.setattr(shared, "has_bfloat16", lambda core: False)
    if name == "petseg_batch":
        module.main()
    else:
        shared.compete(module.load)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"skipped": "this processor has no bfloat16 arithmetic"}


@pytest.mark.parametrize(
    ("precision", "bfloat16", "computed"),
    [("float32", True, "f32"), ("int8", False, "f32"), ("bfloat16", True, "bf16")],
)
def test_openvino_is_told_what_to_compute_in(
    precision: str,
    bfloat16: bool,
    computed: str,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import openvino

    _contestant("bare_openvino", monkeypatch, tiny_model, "openvino", precision)
    shared = importlib.import_module("contestant")
    monkeypatch.setattr(shared, "has_bfloat16", lambda core: bfloat16)
    compiled, named = shared.openvino_model(shared.arguments())
    assert named == precision
    if computed == "f32" or "BF16" in shared_core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        kind = openvino.Type.f32 if computed == "f32" else openvino.Type.bf16
        assert compiled.get_property("INFERENCE_PRECISION_HINT") == kind


@pytest.mark.parametrize("precision", ["float32", "tf32", "float16"])
def test_cuda_is_asked_for_each_precision(
    precision: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = _contestant("petseg_batch", monkeypatch, tiny_model, "cuda", precision)
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit):
        module.main()
    (command,) = commands
    for option, value in (("--provider", "cuda"), ("--precision", precision)):
        assert command[command.index(option) + 1] == value


def test_who_takes_part_where(monkeypatch: pytest.MonkeyPatch) -> None:
    lineup = _module("lineup", monkeypatch)
    on_cpu, on_cuda = (lineup.taking_part(provider) for provider in ("cpu", "cuda"))
    assert on_cpu | on_cuda == lineup.CONTESTANTS
    both = {"article", "plain-onnxruntime", "petseg-batch", "bare-keras", "bare-onnxruntime"}
    assert on_cpu.keys() & on_cuda.keys() == both
    assert {one.precision for one in on_cuda.values()} == {"float32", "tf32", "float16"}


def test_contestants_that_all_stay_out_are_named(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = _module("bench", monkeypatch)
    # As if there were a GPU.
    monkeypatch.setattr(bench.cuda, "problem", lambda: None)
    names = ("openvino-bfloat16", "petseg-batch-int8")
    found = CliRunner().invoke(bench.main, ["--model", str(tiny_model), *_only(*names)])
    assert found.exit_code == 1
    words = "error: no contestant is left: openvino-bfloat16, petseg-batch-int8 stay out on cuda; "
    assert words in found.stderr


def test_a_contestant_that_fails_is_shown_and_the_others_go_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    environment = _tensorflow_that("RuntimeError('half | installed')", tmp_path)
    done = _bench(
        *("--model", tiny_model, "--count", "2", "--repeats", "1"),
        *_only("article", "plain-onnxruntime"),
        environment=environment,
    )
    assert done.returncode == 3, done.stderr
    reason = "exit code 1: RuntimeError: half \\| installed"
    assert f"| article | failed: {reason} |" in done.stdout
    assert "Traceback" in done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| plain")]
    assert "| 100.000% | cpu, float32 |" in row
    assert len({line.replace("\\|", "").count("|") for line in done.stdout.splitlines()[-4:]}) == 1


def test_what_cannot_be_run_is_said(tiny_model: Path, tmp_path: Path) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    for arguments, words in (
        (("--model", tmp_path / "none.onnx"), "none.onnx"),
        (("--model", tiny_model, "--images", empty), "has no photo that all contestants can read"),
        (("--model", tiny_model, "--keep", full), "full is not empty"),
    ):
        done = _bench(*arguments)
        assert done.returncode == 1, arguments
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert [path.name for path in full.iterdir()] == ["mine.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_bench_that_is_ended_leaves_no_process_behind(tiny_model: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    command = _command("--model", tiny_model, "--count", "8", "--keep", kept, *_only("article"))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as bench:
        deadline = time.monotonic() + 60
        while len(_mentioning(kept)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(_mentioning(kept)) == 2  # the bench, and the article's way
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(60) == 143
    # What it has killed may take a moment to be gone.
    deadline = time.monotonic() + 30
    while _mentioning(kept) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _mentioning(kept)


def _mentioning(path: Path) -> list[str]:
    """Processes with this path among their arguments."""
    found = []
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(path).encode() in arguments.read_bytes():
                found.append(arguments.parent.name)
        except OSError:
            continue  # it has ended
    return found


def test_drawn_photos_are_seeded_and_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = _module("inputs", monkeypatch)
    drawn = []
    for name, count in (("once", 3), ("again", 2)):
        folder = tmp_path / name
        folder.mkdir()
        inputs.draw(folder, count)
        drawn.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert drawn[0][:2] == drawn[1]
    assert len(set(drawn[0])) == 3
    for path in (tmp_path / "once").iterdir():
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (500, 375))
        assert 50_000 < path.stat().st_size < 150_000


def test_photos_that_contestants_read_differently_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = _module("inputs", monkeypatch)
    own, folder = tmp_path / "own", tmp_path / "photos"
    (own / "deep").mkdir(parents=True)
    folder.mkdir()
    photo = _photo((40, 30), 0)
    photo.convert("CMYK").save(own / "a.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.save(own / "b.jpg", exif=turned)
    photo.save(own / "c.webp")
    photo.save(own / "d.jpg")
    (own / "e.jpg").write_bytes((own / "d.jpg").read_bytes()[:300])
    photo.convert("RGBA").save(own / "f.png")
    photo.convert("L").save(own / "g.png")
    (own / "notes.txt").write_text("no image")
    photo.save(own / "deep/h.jpeg")
    said: list[str] = []
    inputs.link(folder, own, None, said.append)
    taken = {path.name: path.resolve().name for path in folder.iterdir()}
    assert taken == {"00000.jpg": "d.jpg", "00001.jpg": "h.jpeg", "00002.png": "g.png"}
    (line,) = said
    for words in ("CMYK", "EXIF", "WEBP", "truncated", "RGBA"):
        assert words in line

    few = tmp_path / "few"
    few.mkdir()
    inputs.link(few, own, 1, said.append)
    assert [path.resolve().name for path in few.iterdir()] == ["d.jpg"]
    more = tmp_path / "more"
    more.mkdir()
    inputs.link(more, own, 9, said.append)
    assert said[-1].endswith("has 3 photos that can be used, fewer than 9")


def test_equal_pixels_shows_masks_that_are_wrong_missing_or_of_another_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = _module("results", monkeypatch)
    reference, masks = tmp_path / "reference", tmp_path / "masks"
    reference.mkdir()
    masks.mkdir()
    random = np.random.default_rng(3)
    for name in "abcd":
        values = random.integers(1, 4, (10, 20), dtype=np.uint8)
        Image.fromarray(values).save(reference / f"{name}.png")
        Image.fromarray(values).save(masks / f"{name}.png")
    assert results.equal_pixels(masks, reference) == 1.0
    (masks / "a.png").unlink()
    assert results.equal_pixels(masks, reference) == 0.75
    with Image.open(masks / "b.png") as mask:
        mask.crop((0, 0, 20, 9)).save(masks / "b.png")
    assert results.equal_pixels(masks, reference) == 0.5
    with Image.open(masks / "c.png") as mask:
        changed = np.array(mask)
    changed[:5] = 4
    Image.fromarray(changed).save(masks / "c.png")
    assert results.equal_pixels(masks, reference) == 0.375


def test_wrong_masks_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    results = _module("results", monkeypatch)
    assert results._equal(1.0) == "100.000%"
    assert results._equal(0.9999999) == "99.999%"
    assert results._equal(0.9) == "**wrong masks**: 90.000%"


def test_ratios_are_taken_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    results = _module("results", monkeypatch)

    def contestant(*rates: float) -> Any:
        runs = [{"images_per_second": rate} for rate in rates]
        return results.Result("one", None, runs)

    # 3, 6 and 1 times as fast; the quotient of the medians would be 6.
    assert results.ratio(contestant(12, 6, 1), contestant(4, 1, 1)) == 3
    assert results.ratio(contestant(12, 6), None) is None
    assert results.ratio(contestant(), contestant(1)) is None


def test_each_is_set_against_the_best_petseg_batch_of_its_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = _module("results", monkeypatch)

    def contestant(name: str, precision: str, *rates: float) -> Any:
        figures = {"start_up_seconds": 1.0, "warm_up_seconds": 1.0, "peak_memory_bytes": None}
        about = {"provider": "cpu", "precision": precision, **figures}
        runs = [{"images_per_second": rate, **about} for rate in rates]
        return results.Result(name, None, runs, equal_pixels=1.0)

    competing = [
        contestant("article", "float32", 6, 6),
        contestant("petseg-batch", "float32", 4, 4),
        contestant("petseg-batch-openvino", "float32", 5, 5),
        contestant("petseg-batch-int8", "int8", 20, 10),
        contestant("openvino-int8", "int8", 10, 10),
        contestant("keras-bfloat16", "bfloat16", 9, 9),
        results.Result("petseg-batch-bfloat16", None, failed="out of memory"),
    ]
    found = results.as_dict(competing, "article")
    against = {name: row.get("against_ours") for name, row in found.items()}
    assert against == {
        "article": 1.2,
        "petseg-batch": 0.8,
        "petseg-batch-openvino": 1.0,
        "petseg-batch-int8": 1.0,
        # Round by round, a half and one.
        "openvino-int8": 0.75,
        "keras-bfloat16": None,
        "petseg-batch-bfloat16": None,
    }
    head, _, *rows = results.table(found, "article", "petseg-batch").splitlines()
    assert "| against the best petseg-batch of its precision |" in head
    assert len({line.count("|") for line in (head, *rows)}) == 1
    assert "| 1.00 | 1.20 |" in rows[0]


def test_every_contestant_has_its_script_and_a_ceiling_of_its_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contestants = _module("lineup", monkeypatch).CONTESTANTS
    for name, one in contestants.items():
        assert (BENCHMARKS / "contestants" / f"{one.script}.py").exists(), name
        if one.ceiling is not None:
            ceiling = contestants[one.ceiling]
            assert (ceiling.provider, ceiling.precision) == (one.provider, one.precision), name
    ours = {(one.provider, one.precision) for name, one in contestants.items() if "petseg" in name}
    assert ours == {
        *((None, "float32"), ("cpu", "int8"), ("cuda", "tf32"), ("cuda", "float16")),
        *(("openvino", precision) for precision in ("float32", "bfloat16", "int8")),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_peak_memory_is_that_of_a_process_and_its_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes = _module("processes", monkeypatch)
    hold = "import time; data = bytearray(100_000_000); time.sleep(1.5)"
    child = (
        f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', '{hold}']); {hold}"
    )
    ended = processes.run([sys.executable, "-c", child + "; c.wait()"], os.environ)
    assert ended.code == 0, ended.stderr
    assert 200e6 < ended.peak_memory < 300e6


def _photo(size: tuple[int, int], seed: int) -> Image.Image:
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)
