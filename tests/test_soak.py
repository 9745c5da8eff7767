"""The runs that take hours, in short: that they run, and that they would notice."""

from __future__ import annotations

import dataclasses
import random
import sys
from pathlib import Path

import pytest
from batching import read_mask
from soak import fuzz, fuzz_targets, kills, mutants

from petseg import imageio, records
from petseg.engines.outcome import Outcome, Work

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they read Linux's /proc")


def test_mutants(tmp_path: Path) -> None:
    run = mutants.Run(tmp_path, 600, seed=1)
    engine = run.run()
    assert (run.settled, run.good) == (600, 150)
    assert engine.restarts == len(run.deaths) == 0
    # Neither all harmless nor all broken at once, in any format.
    for suffix in mutants.seeds():
        assert run.outcomes[f".{suffix}", "done"] > 0, suffix
        assert run.outcomes[f".{suffix}", "failed"] > 0, suffix
    assert len(run.memory) == 6
    assert 20_000_000 < min(run.memory) <= max(run.memory) < 500_000_000
    assert run.growth() < mutants.GROWTH_BYTES


def test_mutants_notice_what_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = mutants.Run(tmp_path, 4, seed=1)
    works = list(run.works())
    run.settle(Outcome(works[1], "failed", "damaged"))
    with pytest.raises(KeyError):
        run.settle(Outcome(works[1], "failed", "twice"))
    with pytest.raises(AssertionError, match="nobody can read it"):
        run.settle(Outcome(works[0], "failed", "nobody can read it"))
    # A neighbour's mask in place of its own.
    (tmp_path / "swapped").mkdir()
    run = mutants.Run(tmp_path / "swapped", 20, seed=1)
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


def test_mutants_are_seeded_and_differ() -> None:
    files = mutants.seeds()
    for name, variants in files.items():
        for data in variants:
            assert imageio.decode(data).ndim == 3, name
            bent = [mutants.mutate(data, data, random.Random(seed)) for seed in range(30)]
            assert bent == [mutants.mutate(data, data, random.Random(seed)) for seed in range(30)]
            assert len(set(bent)) > 20
    whole = files["png"][0]
    assert mutants.repaired(whole) == whole
    assert mutants.repaired(whole[:-2] + b"xx") == whole


def test_kills(tmp_path: Path) -> None:
    tally = kills.run(tmp_path, count=1, photos=60, seed=2)
    assert set(tally.kills.values()) == {1}
    assert len(tally.kills) == 4
    assert tally.folders >= 1


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_fuzz_targets_take_their_seeds_and_parts_of_them(target: str) -> None:
    found = fuzz_targets.TARGETS[target]
    chance = random.Random(3)
    for data in found.seeds():
        found.run(data)
        for _ in range(50):
            found.run(mutants.mutate(data, data, chance))


@pytest.mark.parametrize("target", ["record", "mask-file"])
def test_fuzz(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    found = fuzz.run(target, seconds=1, seed=1, keep=tmp_path)
    assert found["finding"] == ""
    assert found["executions"] > 100
    assert found["edges"] > 5
    assert list(tmp_path.iterdir()) == []


def test_all_targets_are_fuzzed() -> None:
    assert set(fuzz.TARGETS) == set(fuzz_targets.TARGETS)


def test_the_seed_mask_is_one_of_petsegs(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(fuzz_targets.example_mask())
    assert read_mask(path).shape == (10, 12)
    assert records.judge(path.read_bytes())[0] is records.MaskState.OURS
