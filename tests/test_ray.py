"""The cluster engine, on a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import BATCH, TELL, batch, draw, masks, start_with, two_nodes

from petseg.engines import ray_cluster
from petseg.engines.engine import Cluster
from petseg.engines.nodes import Ledger
from petseg.errors import PetsegError
from petseg.planning.config import BatchConfig
from petseg.remote import refusals
from petseg.runtime.onnx import BATCH_SIZES

pytest.importorskip("ray", reason="needs Ray: pip install 'petseg[ray]'")


# No image is known that crashes today's decoders.
CRASH = """
def patch(steps):
    read = steps.read
    def crash(path, job, pixels):
        if path.endswith("killer.jpg"):
            os.abort()
        return read(path, job, pixels)
    steps.read = crash
"""


@pytest.fixture
def writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file for each node whose workers have begun to write; before `cluster`."""
    folder = tmp_path / "writers"
    folder.mkdir()
    start_with(TELL.format(folder=str(folder)), tmp_path, monkeypatch)
    return folder


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with two_nodes(monkeypatch) as made:
        yield made


@pytest.mark.scale
def test_two_nodes_make_the_local_engines_masks(
    cluster: Any, tiny_model: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    draw(photos, 150, 90, 70)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    os.link(photos / "b ü" / "0.jpg", os.fsencode(photos) + b"/\xff.jpg")
    common = ("--model", tiny_model, "--provider", "cpu")
    here = batch(photos, tmp_path / "here", *common)
    assert here.returncode == 3, here.stderr
    # The cluster's processes work in other folders than this one.
    ray_options = ("--engine", "ray", "--address", cluster.address)
    there = batch("photos", "there", *common, *ray_options, cwd=tmp_path)
    assert there.returncode == 3, there.stderr
    assert (tmp_path / "there" / "petseg" / "report.html").exists()
    assert "provider: cpu (as asked for)" in there.stderr
    expected = masks(tmp_path / "here")
    assert len(expected) == 151
    assert masks(tmp_path / "there") == expected

    stats, local = json.loads(there.stdout), json.loads(here.stdout)
    assert stats["counts"] == local["counts"]
    assert stats["counts"]["done"] == 151
    assert stats["counts"]["failed"] == 1
    assert stats["provider"] == "cpu"
    assert stats["precision"] == "float32"
    assert stats["retries"] == 0
    # Tasks are of nine photos here, and the session cuts what it is given.
    assert stats["batch_size"] == BATCH_SIZES["cpu"][-1] == 8
    assert stats["stages"]["infer"]["busy_core_seconds"] > 0
    assert "2 nodes, 4 cores" in there.stderr
    failures = (tmp_path / "there" / "petseg" / "failures.csv").read_text()
    assert failures == (tmp_path / "here" / "petseg" / "failures.csv").read_text()
    assert not [*(tmp_path / "there" / "petseg").glob("tmp-*")]

    # What is there is skipped; a format of it is made there, too, without the network.
    again = batch(
        photos,
        tmp_path / "there",
        *common,
        *("--engine", "ray", "--address", cluster.address, "--format", "color"),
    )
    assert again.returncode == 3, again.stderr
    counts = json.loads(again.stdout)["counts"]
    assert (counts["done"], counts["skipped"], counts["derived"]) == (0, 151, 151)
    assert len([*(tmp_path / "there" / "petseg" / "color").rglob("*.png")]) == 151


@pytest.mark.scale
def test_a_photo_that_ends_its_process_costs_that_photo(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder is made to crash at one photo by a module that Python loads at its start."""
    photos = tmp_path / "photos"
    draw(photos, 12, 90, 70)
    (photos / "killer.jpg").write_bytes((photos / "a" / "1.jpg").read_bytes())
    arguments = (photos, tmp_path / "masks", "--model", tiny_model, "--provider", "cpu")
    start_with(CRASH, tmp_path, monkeypatch)
    there = batch(*arguments, "--engine", "ray", "--actors", "1")
    assert there.returncode == 3, there.stderr
    stats = json.loads(there.stdout)
    assert stats["counts"]["done"] == 12
    assert stats["counts"]["failed"] == 1
    assert stats["retries"] >= 1
    failures = (tmp_path / "masks" / "petseg" / "failures.csv").read_text()
    assert "killer.jpg,a worker process died each time it was at it" in failures


@pytest.mark.scale
def test_a_signal_ends_it_with_its_own_exit_code(
    cluster: Any, tiny_model: Path, tmp_path: Path
) -> None:
    draw(tmp_path / "photos", 200, 1500, 1000)
    command = [*BATCH, tmp_path / "photos", tmp_path / "masks", "--model", tiny_model]
    command += ["--provider", "cpu", "--engine", "ray", "--address", cluster.address]
    with subprocess.Popen(
        [str(part) for part in command], stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        assert any("engine: ray" in line for line in run.stderr)
        deadline = time.monotonic() + 120
        while not masks(tmp_path / "masks") and time.monotonic() < deadline:
            time.sleep(0.1)
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=60)
    assert run.returncode == 143
    stats = json.loads((tmp_path / "masks" / "petseg" / "stats.json").read_text())
    assert stats["stopped"] == "SIGTERM"
    assert stats["counts"]["left"] > 0
    assert not [*(tmp_path / "masks" / "petseg").glob("tmp-*")]


@pytest.mark.scale
def test_a_node_that_dies_costs_nothing(
    writers: Path, cluster: Any, tiny_model: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    draw(photos, 96, 3000, 2000)
    common = ("--model", tiny_model, "--provider", "cpu")
    assert batch(photos, tmp_path / "here", *common).returncode == 0
    command = [*BATCH, photos, tmp_path / "there", *common, "--json", "--no-report"]
    command += ["--engine", "ray", "--address", cluster.address]
    lost = next(node for node in cluster.list_all_nodes() if node != cluster.head_node)
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True
    ) as run:
        deadline = time.monotonic() + 120
        while not (writers / lost.node_id).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        began = (writers / lost.node_id).exists()
        cluster.remove_node(lost, allow_graceful=False)
        output, _ = run.communicate(timeout=300)
    assert began, "no worker of the second node began to write"
    assert run.returncode == 0, output[:3000]
    assert output.startswith("{"), output[:2000]
    stats = json.loads(output)
    assert stats["counts"]["done"] == 96
    assert stats["retries"] >= 1
    assert masks(tmp_path / "there") == masks(tmp_path / "here")


@pytest.mark.parametrize("written", [True, False])
def test_the_ledger_forgets_what_is_written(written: bool) -> None:
    ledger = Ledger()
    assert ledger.begin(b"read", 32) == ledger.begin(b"write", 32) == 0
    if written:
        ledger.forget({b"read", b"write"})
        assert ledger.begun == {}
    assert [ledger.begin(b"write", 32) for _ in range(2)] == ([0, 1] if written else [1, 2])
    assert ledger.retries() == (32 if written else 64)


@pytest.mark.scale
def test_a_cluster_that_ray_start_made_is_found(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "photos", 20, 90, 70)
    common = (tmp_path / "photos", "--model", tiny_model, "--provider", "cpu")
    assert batch(common[0], tmp_path / "here", *common[1:]).returncode == 0
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    small = ("--num-cpus", "2", "--object-store-memory", "200000000", "--port", "0")
    head = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", *small]
    head += ["--include-dashboard", "false"]
    with subprocess.Popen(head, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        try:
            assert run.stdout is not None
            assert any("Ray runtime started" in line for line in run.stdout)
            auto = ("--engine", "ray", "--address", "auto")
            there = batch(common[0], tmp_path / "there", *common[1:], *auto)
        finally:
            run.terminate()
            run.communicate(timeout=60)
    assert there.returncode == 0, there.stderr
    assert "engine: ray (1 nodes, 2 cores" in there.stderr
    assert masks(tmp_path / "there") == masks(tmp_path / "here")


@pytest.mark.scale
def test_two_sessions_share_a_gpu(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is one that Ray only counts: sessions on processors take halves of it."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    draw(tmp_path / "photos", 24, 90, 70)
    common = (tmp_path / "photos", tmp_path / "masks", "--model", tiny_model, "--provider", "cpu")
    small = {"num_cpus": 4, "num_gpus": 1, "object_store_memory": 200_000_000}
    made: Any = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        halves = ("--engine", "ray", "--address", made.address, "--actor-gpus", "0.5")
        there = batch(*common, *halves, "--batch-size", "4")
        crowded = batch(*common[:1], tmp_path / "none", *common[2:], *halves, "--actors", "3")
    finally:
        made.shutdown()
    assert there.returncode == 0, there.stderr
    assert "1 nodes, 4 cores, 1 GPUs" in there.stderr
    stats = json.loads(there.stdout)
    assert stats["counts"]["done"] == 24
    # Two halves, though there are cores for three.
    assert (stats["workers"], stats["provider"]) == (2, "cpu")
    assert crowded.returncode == 1
    assert "3 sessions of 1 cores and 0.5 GPUs do not fit" in crowded.stderr
    here = batch(*common[:1], tmp_path / "here", *common[2:])
    assert here.returncode == 0, here.stderr
    assert masks(tmp_path / "masks") == masks(tmp_path / "here")


class Nodes:
    """What Ray tells of a cluster's nodes."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self.resources = resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": resource} for resource in self.resources]


def test_sessions_leave_a_core_to_those_who_read_and_write() -> None:
    gpus = {"CPU": 8.0, "GPU": 4.0}
    assert ray_cluster.room(Nodes({"CPU": 8}), Cluster(), "auto").sessions == 7
    assert (
        ray_cluster.room(Nodes({"CPU": 4}, {"CPU": 4}), Cluster(actor_cpus=4), "cpu").sessions == 1
    )
    assert ray_cluster.room(Nodes(gpus, gpus), Cluster(), "auto").sessions == 8
    assert ray_cluster.room(Nodes(gpus), Cluster(actor_gpus=0.5), "auto").sessions == 7
    assert ray_cluster.room(Nodes(gpus), Cluster(), "cpu").gpus == 0


@pytest.mark.parametrize(
    ("nodes", "cluster", "words"),
    [
        (Nodes({"CPU": 8}), Cluster(actors=8), "8 sessions of 1 cores .* lower --actors"),
        (Nodes({"CPU": 1}), Cluster(), "1 sessions of 1 cores .* lower"),
        (Nodes({"CPU": 4}, {"CPU": 4}), Cluster(actor_cpus=8), "8 cores .* no node has them"),
        (Nodes({"CPU": 4}), Cluster(actor_gpus=1), "1 GPUs, and no node has them"),
        (Nodes({"CPU": 4, "GPU": 2}), Cluster(actor_gpus=1.5), "whole GPUs"),
    ],
)
def test_a_cluster_without_room_is_refused(nodes: Nodes, cluster: Cluster, words: str) -> None:
    with pytest.raises(PetsegError, match=words):
        ray_cluster.room(nodes, cluster, "auto")


def test_without_a_cluster_there_is_a_line(tiny_model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "photos", 2, 40, 30)
    found = batch(
        tmp_path / "photos",
        tmp_path / "masks",
        *("--model", tiny_model, "--engine", "ray", "--address", "127.0.0.1:1"),
        timeout=120,
    )
    assert found.returncode == 1
    assert "there is no Ray cluster" in found.stderr
    assert "ray start --head" in found.stderr
    assert not masks(tmp_path / "masks")


@pytest.mark.scale
def test_model_and_list_in_a_store_are_brought_to_the_nodes(
    cluster: Any, tiny_model: Path, tmp_path: Path
) -> None:
    draw(tmp_path / "photos", 12, 90, 70)
    chosen = sorted(path.relative_to(tmp_path / "photos") for path in tmp_path.rglob("*.jpg"))[::2]
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in chosen))
    common = (tmp_path / "photos", "--provider", "cpu")
    here = batch(*common, tmp_path / "here", "--model", tiny_model, "--list", tmp_path / "list.txt")
    assert here.returncode == 0, here.stderr
    stored = ("--model", f"file://{tiny_model}", "--list", f"file://{tmp_path}/list.txt")
    options = ("--engine", "ray", "--address", cluster.address)
    there = batch(*common, tmp_path / "there", *stored, *options)
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout)["model"]["path"] == f"file://{tiny_model}"
    assert len(masks(tmp_path / "here")) == len(chosen)
    assert masks(tmp_path / "there") == masks(tmp_path / "here")


def test_what_nodes_cannot_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"")
    for there in (
        {"images": "photos", "masks": tmp_path / "masks", "model": "s3://bucket/pets.onnx"},
        {"images": "s3://bucket/photos", "masks": "s3://bucket/masks"},
        {"images": "photos", "masks": "s3://bucket/masks", "formats": ("index", "overlay")},
        {"images": "s3://bucket/photos", "masks": tmp_path, "formats": ("index", "color")},
    ):
        refusals.check(BatchConfig(**there, engine="ray"))  # type: ignore[arg-type]
    for options, message in (
        ({"images": "s3://bucket/photos.tar"}, "--engine ray reads no archives"),
        ({"images": str(tmp_path / "photos.zip")}, "--engine ray reads no archives"),
        ({"images": "s3://bucket/x", "formats": ("index", "alpha")}, "--format alpha draws on the"),
    ):
        config = BatchConfig(**options, masks=tmp_path / "masks", engine="ray")  # type: ignore[arg-type]
        with pytest.raises(PetsegError, match=message):
            refusals.check(config)


def test_options_of_the_other_engine_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "photos", 1, 40, 30)
    for options, words in (
        (("--actors", "2"), "--engine ray"),
        (("--engine", "ray", "--workers", "2"), "--actors"),
        (("--engine", "ray", "--devices", "0,1"), "--actors"),
        (("--engine", "ray", "--check"), "--actors"),
    ):
        found = batch(tmp_path / "photos", tmp_path / "masks", "--model", tiny_model, *options)
        assert found.returncode == 2, found.stderr
        assert words in found.stderr
        assert not (tmp_path / "masks").exists()
