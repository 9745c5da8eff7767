"""Photos and masks in a store, and the network on a Ray cluster: moto's S3 and two real nodes."""

from __future__ import annotations

import json
import pickle
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pytest
from batching import make_job, save_photos, write_mask
from clusters import BATCH, TELL, batch, draw, masks, start_with, two_nodes
from s3 import S3, s3_server
from stores import Watched, at, failing, watched

from petseg.engines import carrying
from petseg.engines.attempt import Verdict
from petseg.engines.outcome import Outcome, Work
from petseg.engines.rows import Row
from petseg.planning.config import BatchConfig
from petseg.remote.carrier import StoreCarrier, carriage
from petseg.remote.listing import list_photos
from petseg.remote.shelf import StoreShelf
from petseg.remote.store import Entry, Store

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs pip install 'petseg[ray]'")

PHOTOS, MASKS = "s3://bucket/photos", "s3://bucket/masks"
COUNT = 60


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with s3_server(monkeypatch) as server:
        yield server


@pytest.fixture
def writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file for each node whose workers have begun to write; before `cluster`."""
    folder = tmp_path / "writers"
    folder.mkdir()
    start_with(TELL.format(folder=str(folder)), tmp_path, monkeypatch)
    return folder


@pytest.fixture
def staging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the nodes' processes have photos and masks for a while; Ray's sockets want it short."""
    with tempfile.TemporaryDirectory(prefix="", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def cluster(s3: S3, staging: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Its nodes have the store's credentials from their environment."""
    with two_nodes(monkeypatch) as made:
        yield made


@pytest.fixture
def fs(s3: S3, tmp_path: Path) -> Any:
    """The bucket, as somebody who is not petseg sees it, with photos in it."""
    import s3fs

    draw(tmp_path / "photos", COUNT, 90, 70)
    found = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    found.mkdir("bucket")
    for path in sorted((tmp_path / "photos").rglob("*.jpg")):
        found.pipe_file(f"bucket/{path.relative_to(tmp_path).as_posix()}", path.read_bytes())
    return found


def masks_in(fs: Any, root: str = "bucket/masks") -> dict[str, bytes]:
    found = fs.find(root)
    names = [path.removeprefix(f"{root}/") for path in found]
    return {
        name: fs.cat_file(path)
        for name, path in zip(names, found, strict=True)
        if not name.startswith("petseg/")
    }


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Watched]]:
    """Three photos in fsspec's memory file system."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with watched() as store:
        for name in save_photos(tmp_path / "few", 3):
            data = (tmp_path / "few" / name).read_bytes()
            fsspec.filesystem("memory").pipe_file(f"/bucket/{tmp_path.name}/a/{name}", data)
        yield store


def packed(tmp_path: Path, **options: Any) -> tuple[list[Row], StoreCarrier]:
    """The rows of the three photos and their carrier, as they come to a node."""
    images, target = f"memory://bucket/{tmp_path.name}", f"memory://masks/{tmp_path.name}"
    photos, shelf = Store(f"{images}/*/*.png"), StoreShelf(Store(target), 10**6)
    entries = list_photos(photos)
    config = BatchConfig(f"{images}/*/*.png", target, max_pixels=10**6, **options)
    found = carriage(config, photos, entries, shelf)
    works = [Work(f"{photos.address}/{name}", name, name) for name in entries]
    rows = [Row(work, luggage=found.luggage(work)) for work in works]
    carried: tuple[list[Row], StoreCarrier] = pickle.loads(pickle.dumps((rows, found.carrier)))
    return carried


def test_photos_come_as_they_were_listed_or_fail_with_the_reason(
    memory: type[Watched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petseg.remote.asking._WAITS", (0.0,))
    rows, carrier = packed(tmp_path)
    assert [row.work.name for row in rows] == ["a/000.png", "a/001.png", "a/002.png"]
    come = carrying.bring(rows, carrier, 60)
    for row, name in zip(come, ("000.png", "001.png", "002.png"), strict=True):
        path = Path(row.here)
        assert (path.name, path.stat().st_mtime_ns) == (name, row.luggage.entry.mtime_ns)
        assert path.read_bytes() == (tmp_path / "few" / name).read_bytes()
        assert (row.carried, row.verdict) == ((("fetch", None),), Verdict())
        carrier.drop(row.here)
        assert not path.exists()
    memory.requests.clear()
    fs = fsspec.filesystem("memory")
    fs.rm_file(f"/bucket/{tmp_path.name}/a/000.png")
    fs.pipe_file(f"/bucket/{tmp_path.name}/a/001.png", b"grown" * 10000)
    memory.fault = at(f"/bucket/{tmp_path.name}/a/002.png", failing(9, OSError("on fire")))
    gone, changed, silent = carrying.bring(rows, carrier, 60)
    assert (gone.verdict.problem, gone.carried) == ("it is no longer there", ())
    assert changed.verdict.problem == "the file changed since it was listed"
    assert silent.verdict.problem is not None
    assert "on fire" in silent.verdict.problem
    assert silent.carried == (("fetch", silent.verdict.problem),)
    assert gone.store_retries == 1
    # Larger than any photo of so many pixels: it is not asked for.
    memory.requests.clear()
    large = rows[0].luggage._replace(entry=Entry(10**9, 0))
    (row,) = carrying.bring([rows[0]._replace(luggage=large)], carrier, 60)
    assert "raise --max-pixels" in str(row.verdict.problem)
    assert memory.requests == []


def test_masks_arrive_and_nobodys_is_replaced(memory: type[Watched], tmp_path: Path) -> None:
    rows, carrier = packed(tmp_path)
    job = carrier.job(make_job(tmp_path / "nowhere"))
    done = []
    for row in rows:
        write_mask(tmp_path / "few" / row.work.name[2:], row.work.mask, job)
        done.append(row._replace(outcome=Outcome(row.work, "done")))
    made = {row.work.mask: (job.masks / row.work.mask).read_bytes() for row in rows}
    fs, root = fsspec.filesystem("memory"), f"/masks/{tmp_path.name}"
    fs.pipe_file(f"{root}/a/001.png", b"somebody's")
    # What an earlier try has put there, before its node died.
    fs.pipe_file(f"{root}/a/002.png", made["a/002.png"])
    taken = carrying.take(done, carrier, 60)
    assert [row.outcome and row.outcome.status for row in taken] == ["done", "kept", "done"]
    assert [row.carried for row in taken] == [(("put", None),)] * 3
    assert fs.cat_file(f"{root}/a/000.png") == made["a/000.png"]
    assert fs.cat_file(f"{root}/a/001.png") == b"somebody's"
    assert not [*job.masks.rglob("*.png")]

    # One that may not be put ends the run, and the line has the store's address.
    def refuse(verb: str, path: str) -> None:
        if verb == "put":
            raise PermissionError("read only")

    write_mask(tmp_path / "few" / "000.png", "a/000.png", job)
    fs.rm_file(f"{root}/a/000.png")
    memory.fault = refuse
    (row,) = carrying.take(done[:1], carrier, 60)
    assert row.verdict.stop is not None
    assert f"may not write to memory://masks/{tmp_path.name}: read only" in row.verdict.stop


def test_what_does_not_come_in_time_has_failed(memory: type[Watched], tmp_path: Path) -> None:
    rows, carrier = packed(tmp_path)
    never = threading.Event()
    memory.fault = at(f"/bucket/{tmp_path.name}/a/001.png", lambda: never.wait(60) and None)
    come = carrying.bring(rows, carrier, 8)
    never.set()
    late = [row.verdict.problem for row in come]
    assert (late[0], late[2]) == (None, None)
    assert "the store took more than 8 seconds" in str(late[1])
    (told,) = carrying.told([Row(rows[0].work, verdict=Verdict(stop=str(tmp_path)))], carrier)
    assert told.verdict.stop == str(tmp_path)


@needs_ray
@pytest.mark.scale
def test_nodes_read_and_write_a_store_by_themselves(
    s3: S3, fs: Any, cluster: Any, tiny_model: Path, tmp_path: Path, staging: Path
) -> None:
    common = ("--model", tiny_model, "--provider", "cpu")
    on_ray = ("--engine", "ray", "--address", cluster.address)
    fs.pipe_file("bucket/photos/broken.jpg", b"\xff\xd8\xff no more")
    here = batch(PHOTOS, "s3://bucket/here", *common)
    assert here.returncode == 3, here.stderr
    expected = masks_in(fs, "bucket/here")
    assert len(expected) == COUNT
    # Each photo is refused once, and the connection of each mask dies once.
    seen: set[str] = set()

    def fault(method: str, path: str) -> str | None:
        if not path.startswith(("/bucket/photos/", "/bucket/masks/")) or path in seen:
            return None
        seen.add(path)
        return "slow down" if method == "GET" else "reset"

    s3.requests.clear()
    s3.fault = fault
    there = batch(PHOTOS, MASKS, *common, *on_ray)
    s3.fault = lambda method, path: None
    assert there.returncode == 3, there.stderr
    assert masks_in(fs) == expected
    stats = json.loads(there.stdout)
    assert stats["counts"] == json.loads(here.stdout)["counts"]
    assert stats["store_retries"] >= COUNT
    puts = [put for put in s3.asked("PUT", "/bucket/masks/") if "IF_NONE_MATCH" in put]
    assert len(puts) >= COUNT
    lists = [fs.cat_file(f"bucket/{one}/petseg/failures.csv") for one in ("masks", "here")]
    assert lists[0] == lists[1]
    assert str(staging) not in there.stdout + there.stderr + lists[0].decode()

    # What is there is skipped, and nothing fetched; formats are made of it on the nodes.
    s3.requests.clear()
    fs.rm_file("bucket/photos/broken.jpg")
    again = batch(PHOTOS, MASKS, *common, *on_ray, "--format", "color")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["counts"]["derived"] == COUNT
    assert s3.asked("GET", "/bucket/photos/") == []
    assert masks_in(fs) == expected
    assert len(fs.find("bucket/masks/petseg/color")) == COUNT

    # Photos from the store, masks into a folder that every node sees; and the other way round.
    one_way = batch(PHOTOS, tmp_path / "shared", *common, *on_ray)
    assert one_way.returncode == 0, one_way.stderr
    assert masks(tmp_path / "shared") == expected
    other_way = batch(tmp_path / "photos", "s3://bucket/other", *common, *on_ray)
    assert other_way.returncode == 0, other_way.stderr
    assert masks_in(fs, "bucket/other").keys() == expected.keys()
    drawn = batch(PHOTOS, MASKS, *common, *on_ray, "--format", "overlay")
    assert drawn.returncode == 1
    assert "--format overlay draws on the photo" in drawn.stderr


@needs_ray
@pytest.mark.scale
def test_what_a_store_refuses_nodes_fails_alone_or_ends_the_run(
    s3: S3, fs: Any, cluster: Any, tiny_model: Path
) -> None:
    arguments = (PHOTOS, MASKS, "--model", tiny_model, "--provider", "cpu", "--engine", "ray")
    arguments += ("--address", cluster.address)
    # None of somebody's is overwritten, who puts it there after the run was planned.
    theirs = "bucket/masks/a/1.png"

    def fault(method: str, path: str) -> str | None:
        if path.endswith("/a/1.jpg") and method == "GET" and not fs.exists(theirs):
            fs.pipe_file(theirs, b"somebody's")
        return "deny" if path.endswith("/a/2.jpg") else None

    s3.fault = fault
    found = batch(*arguments)
    assert found.returncode == 3, found.stderr
    counts = json.loads(found.stdout)["counts"]
    assert (counts["done"], counts["failed"], counts["kept"]) == (COUNT - 2, 1, 1)
    assert fs.cat_file(theirs) == b"somebody's"
    failures = fs.cat_file("bucket/masks/petseg/failures.csv").decode()
    assert "a/2.jpg,it may not be read: " in failures.replace('"', "")
    # All masks are refused: a matter of the run.
    s3.fault = lambda method, path: "deny" if method == "PUT" else None
    found = batch(*arguments, "--redo")
    assert found.returncode == 1, found.stderr
    assert "may not write to s3://bucket/masks: Access Denied" in found.stderr
    # No photo comes any more.
    s3.fault = lambda method, path: "slow down" if ".jpg" in path else None
    found = batch(*arguments, "--redo", "--batch-size", "4")  # a network waits for no more
    assert found.returncode == 1, found.stderr
    assert "16 images one after the other failed, the last because: s3://bucket" in found.stderr


@needs_ray
@pytest.mark.scale
def test_a_node_that_dies_with_masks_on_their_way(
    writers: Path, s3: S3, fs: Any, cluster: Any, tiny_model: Path
) -> None:
    common = ("--model", tiny_model, "--provider", "cpu")
    assert batch(PHOTOS, "s3://bucket/here", *common).returncode == 0
    command = [*BATCH, PHOTOS, MASKS, *common, "--json", "--engine", "ray"]
    command += ["--address", cluster.address]
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
    stats = json.loads(output)
    assert stats["counts"]["done"] == COUNT
    assert stats["retries"] >= 1
    assert masks_in(fs) == masks_in(fs, "bucket/here")
