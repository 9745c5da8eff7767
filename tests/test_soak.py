"""The runs that take hours, in short: that they run, and that they would notice."""

from __future__ import annotations

import dataclasses
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from batching import read_mask
from PIL import Image
from soak import colours, fuzz, fuzz_targets, kills, mutants, mutation

from petseg.engines.outcome import Outcome, Work
from petseg.masks import records
from petseg.photos import imageio

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they read Linux's /proc")


@pytest.mark.parametrize("formats", [(), ("overlay",)])
def test_mutants(formats: tuple[str, ...], tmp_path: Path) -> None:
    run = mutants.Run(tmp_path, 450, seed=1, formats=formats)
    engine = run.run()
    assert (run.settled, run.good) == (600, 150)
    assert sum(run.outcomes.values()) == 450
    assert engine.restarts == len(run.deaths) == 0
    # Neither all harmless nor all broken at once, in any format.
    for suffix in mutation.seeds():
        assert run.outcomes[f".{suffix}", "done"] > 0, suffix
        assert run.outcomes[f".{suffix}", "failed"] > 0, suffix
    assert len(run.memory) == 6
    assert 20_000_000 < min(run.memory) <= max(run.memory) < 500_000_000
    assert run.growth() < mutants.GROWTH_BYTES


def test_mutants_notice_what_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = mutants.Run(tmp_path, 4, seed=1)
    works = list(run.works())
    assert len(works) == 6
    run.settle(Outcome(works[1], "failed", "damaged"))
    with pytest.raises(KeyError):
        run.settle(Outcome(works[1], "failed", "twice"))
    with pytest.raises(AssertionError, match="nobody can read it"):
        run.settle(Outcome(works[0], "failed", "nobody can read it"))
    assert run.hangs == []
    hung = "reading it took more than 20 seconds: what it lies on does not answer"
    run.settle(Outcome(works[2], "failed", hung))
    assert run.hangs == [works[2].name]
    # An overlay that is not there.
    (tmp_path / "bare").mkdir()
    run = mutants.Run(tmp_path / "bare", 4, seed=1, formats=("overlay",))
    first = next(run.works())
    run.job.masks.mkdir()
    Image.fromarray(run.masks[0]).save(run.job.masks / first.mask)
    with pytest.raises(FileNotFoundError, match=r"overlay/0000000\.jpg"):
        run.settle(Outcome(first, "done"))
    # A neighbour's mask in place of its own.
    (tmp_path / "swapped").mkdir()
    run = mutants.Run(tmp_path / "swapped", 15, seed=1)
    honest = run.works

    def swapped() -> list[Work]:
        found = list(honest())
        found[0], found[4] = (
            dataclasses.replace(found[0], path=found[4].path),
            dataclasses.replace(found[4], path=found[0].path),
        )
        return found

    monkeypatch.setattr(run, "works", lambda: iter(swapped()))
    # Two workers: either may be first.
    with pytest.raises(AssertionError, match=r"000000[04]\.bmp"):
        run.run()


def test_some_mutants_are_decoded_at_half_their_size() -> None:
    reduced = []
    for data in mutation.seeds()["jpg"]:
        pixels, (height, width) = imageio.decode_reduced(data, colours.SIDE)
        reduced.append(pixels.shape[:2] == (height // 2, width // 2))
    assert sum(reduced) == 3


def test_mutants_are_seeded_and_differ() -> None:
    files = mutation.seeds()
    for name, variants in files.items():
        for data in variants:
            assert imageio.decode(data).ndim == 3, name
            bent = [mutation.mutate(data, data, random.Random(seed)) for seed in range(30)]
            assert bent == [mutation.mutate(data, data, random.Random(seed)) for seed in range(30)]
            assert len(set(bent)) > 20
    whole = files["png"][0]
    assert mutation.repaired(whole) == whole
    assert mutation.repaired(whole[:-2] + b"xx") == whole


def test_kills(tmp_path: Path) -> None:
    # How quickly a signal ends a run is test_kill's matter: here other programs may be at work.
    tally = kills.run(tmp_path, count=1, photos=60, seed=2, grace=30)
    assert set(tally.kills.values()) == {1}
    assert len(tally.kills) == 4
    assert tally.folders >= 1


@pytest.mark.parametrize(
    ("number", "code", "errors", "expected"),
    [
        (signal.SIGINT, -2, "", True),
        (signal.SIGTERM, -15, "", True),
        (signal.SIGINT, -15, "", False),
        (signal.SIGINT, 130, "interrupted\n", False),
        *((signal.SIGINT, 1, line + "Python runtime state: x\n", True) for line in kills.UNBORN),
        (signal.SIGTERM, 1, kills.UNBORN[0], False),
        (signal.SIGINT, 1, "Aborted!\n", False),
        (signal.SIGINT, 1, "Fatal Python error: Segmentation fault\n", False),
    ],
)
def test_kills_know_python_that_ends_before_the_command(
    number: signal.Signals, code: int, errors: str, expected: bool
) -> None:
    assert kills.unborn(number, code, errors) == expected


def test_kills_notice_what_a_stopped_run_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped:
        """A command that SIGTERM ends, and that leaves a file with this name."""

        pid, returncode, leaves = 1, 128 + signal.SIGTERM, ""

        def wait(self, timeout: float) -> None:
            raise subprocess.TimeoutExpired("petseg-batch", timeout)

        def poll(self) -> None:
            pass

        def communicate(self, timeout: float) -> tuple[str, str]:
            (tmp_path / "petseg" / self.leaves).touch()
            return "", ""

    process, sent = Stopped(), []
    monkeypatch.setattr(kills.Disturbance, "_start", lambda self: process)
    monkeypatch.setattr(kills.os, "killpg", lambda *arguments: sent.append(arguments))
    scene = kills.Scene(tmp_path, tmp_path, {})
    chance = random.Random(1)
    disturbance = kills.Disturbance(scene, tmp_path, kills.Tally(), chance, photos=10, grace=30)
    # An earlier SIGKILL's, which a run finds that is stopped before it sweeps.
    (tmp_path / "petseg").mkdir()
    (tmp_path / "petseg" / "tmp-killed").touch()
    for process.leaves in ("tmp-killed", "another"):
        disturbance.groups(signal.SIGTERM, 1, 0)
    assert disturbance.tally.kills == {"SIGTERM to the process group": 2}
    process.leaves = "tmp-stopped"
    with pytest.raises(AssertionError, match=r"\['tmp-stopped'\]"):
        disturbance.groups(signal.SIGTERM, 1, 0)
    assert sent == [(1, signal.SIGTERM)] * 3


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_fuzz_targets_take_their_seeds_and_parts_of_them(target: str) -> None:
    found = fuzz_targets.TARGETS[target]
    chance = random.Random(3)
    for data in found.seeds():
        found.run(data)
        for _ in range(50):
            found.run(mutation.mutate(data, data, chance))


@pytest.mark.parametrize("target", ["record", "mask-file"])
def test_fuzz(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    found = fuzz.run(target, seconds=1, seed=1, keep=tmp_path)
    assert found["finding"] == ""
    assert found["executions"] > 100
    assert found["edges"] > 5
    assert list(tmp_path.iterdir()) == []


def test_all_targets_are_fuzzed_and_stand_on_the_page() -> None:
    assert set(fuzz.TARGETS) == set(fuzz_targets.TARGETS)
    page = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text()
    section = page.partition("\n## Fuzzing\n")[2].partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)) == fuzz.TARGETS


def test_the_seed_mask_is_one_of_petsegs(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(fuzz_targets.example_mask())
    assert read_mask(path).shape == (10, 12)
    assert records.judge(path.read_bytes())[0] is records.MaskState.OURS
