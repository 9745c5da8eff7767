"""petseg-batch on S3: moto's server on the loopback address, throttled, cut off, and killed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batching import COMMAND, PROVIDER, Result, batch, command, invoke, mask_bytes, save_photos
from killing import wait_for
from s3 import S3, s3_server

from petseg.remote.times import mtime_ns

COUNT, FEW = 40, 6
PHOTOS, MASKS = "s3://bucket/photos", "s3://bucket/masks"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with s3_server(monkeypatch) as server:
        yield server


@pytest.fixture
def fs(s3: S3) -> Any:
    """The bucket, as somebody who is not petseg sees it."""
    import s3fs

    found = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    found.mkdir("bucket")
    return found


@pytest.fixture
def expected(fs: Any, s3: S3, tiny_model: Path, tmp_path: Path) -> dict[str, bytes]:
    """What a run on this machine makes of the photos, which lie in the bucket, too."""
    return stock(fs, s3, tiny_model, tmp_path, COUNT)


@pytest.fixture
def few(fs: Any, s3: S3, tiny_model: Path, tmp_path: Path) -> dict[str, bytes]:
    """As `expected`, in seconds."""
    return stock(fs, s3, tiny_model, tmp_path, FEW)


def stock(fs: Any, s3: S3, tiny_model: Path, tmp_path: Path, count: int) -> dict[str, bytes]:
    folder = tmp_path / "photos"
    save_photos(folder, count)
    fs.put(f"{folder}/", "bucket/photos/", recursive=True)
    for path, info in fs.find("bucket/photos", detail=True).items():
        made = mtime_ns(info)
        os.utime(folder / path.rpartition("/")[2], ns=(made, made))
    batch(folder, tmp_path / "expected", tiny_model)
    s3.requests.clear()
    return mask_bytes(tmp_path / "expected")


def masks_in(fs: Any) -> dict[str, bytes]:
    found = fs.cat("bucket/masks/*.png") if fs.glob("bucket/masks/*.png") else {}
    return {path.removeprefix("bucket/masks/"): data for path, data in found.items()}


def run(model: Path, *options: str | Path, images: str = PHOTOS, masks: str = MASKS) -> Result:
    return command(images, masks, "--model", model, "--workers", "1", "--json", *options)


def test_a_few_photos(s3: S3, fs: Any, few: dict[str, bytes], tiny_model: Path) -> None:
    arguments = (PHOTOS, MASKS, "--model", tiny_model, "--workers", "1", "--json")
    result = invoke(*arguments)
    assert (result.code, result.counts["done"]) == (0, FEW), result.err
    assert masks_in(fs) == few
    assert [put["IF_NONE_MATCH"] for put in s3.asked("PUT", "/bucket/masks/0")] == ["*"] * FEW
    s3.requests.clear()
    assert invoke(*arguments).counts["skipped"] == FEW
    assert s3.asked("GET", "/bucket/photos/0") == []
    heads = s3.asked("GET", "/bucket/masks/0")
    assert [head["RANGE"] for head in heads] == ["bytes=0-4095"] * FEW


def test_a_few_photos_of_a_store_that_throttles(
    s3: S3, fs: Any, few: dict[str, bytes], tiny_model: Path
) -> None:
    """Each photo is refused once, and the connection of each mask dies once."""
    seen: set[str] = set()

    def fault(method: str, path: str) -> str | None:
        if not path.startswith(("/bucket/photos/", "/bucket/masks/0")) or path in seen:
            return None
        seen.add(path)
        return "slow down" if method == "GET" else "reset"

    s3.fault = fault
    result = invoke(PHOTOS, MASKS, "--model", tiny_model, "--workers", "1", "--json")
    s3.fault = lambda method, path: None
    assert (result.code, result.counts["done"]) == (0, FEW), result.err
    # Where a connection died that had been used before, aiohttp asks again by itself.
    assert FEW <= result.stats["store_retries"] <= 2 * FEW
    assert len(s3.asked("GET", "/bucket/photos/0")) == 2 * FEW
    assert len(s3.asked("PUT", "/bucket/masks/0")) == 2 * FEW
    assert masks_in(fs) == few


def test_archives(s3: S3, fs: Any, few: dict[str, bytes], tiny_model: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as packed:
            packed.add(tmp_path / "photos", ".")
        fs.put(str(tmp_path / f"{name}.tar"), f"bucket/{name}.tar")
    batch(tmp_path / "*.tar", tmp_path / "here", tiny_model)
    s3.requests.clear()
    seen: set[str] = set()

    def fault(method: str, path: str) -> str | None:
        if method != "GET" or not path.endswith(".tar") or path in seen:
            return None
        seen.add(path)
        return "slow down"

    s3.fault = fault
    there = tmp_path / "there"
    result = invoke("s3://bucket/*.tar", there, "--model", tiny_model, "--json")
    assert (result.code, result.counts["done"]) == (0, 2 * FEW), result.err
    assert mask_bytes(there) == mask_bytes(tmp_path / "here")
    assert result.stats["store_retries"] == 2
    assert len(s3.asked("GET", "/bucket/one.tar")) == 2
    # One alone is not listed; its masks go to the store as well.
    s3.requests.clear()
    result = invoke("s3://bucket/one.tar", MASKS, "--model", tiny_model, "--json")
    assert (result.code, result.counts["done"]) == (0, FEW), result.err
    assert (len(s3.asked("HEAD", "/bucket/one.tar")), s3.asked("GET", "prefix=one")) == (1, [])
    batch(tmp_path / "one.tar", tmp_path / "alone", tiny_model)
    assert masks_in(fs) == mask_bytes(tmp_path / "alone")
    missing = invoke("s3://bucket/none.tar", MASKS, "--model", tiny_model)
    assert missing.code == 1
    assert "there is no folder, file or pattern s3://bucket/none.tar" in missing.err


@pytest.mark.scale
def test_masks_are_those_of_a_local_run_and_a_second_run_fetches_nothing(
    s3: S3, fs: Any, expected: dict[str, bytes], tiny_model: Path
) -> None:
    # Beside the photos, so many that a listing takes more than a page.
    fs.pipe({f"bucket/photos/notes/{number}.txt": b"" for number in range(1010)})
    s3.requests.clear()
    result = run(tiny_model)
    assert result.code == 0, result.err
    assert (result.counts["done"], result.counts["ignored"]) == (COUNT, 1010)
    assert result.stats["store_retries"] == 0
    pages = len(s3.asked("GET", "prefix=photos"))
    assert pages == 2
    assert len(s3.asked("GET", "/bucket/photos/0")) == COUNT
    assert s3.asked("HEAD", "/bucket/photos/0") == []
    puts = s3.asked("PUT", "/bucket/masks/0")
    assert [put["IF_NONE_MATCH"] for put in puts] == ["*"] * COUNT
    assert masks_in(fs) == expected
    s3.requests.clear()
    result = run(tiny_model)
    assert (result.code, result.counts["skipped"]) == (0, COUNT)
    assert s3.asked("GET", "/bucket/photos/0") == []
    heads = s3.asked("GET", "/bucket/masks/0")
    assert [head["RANGE"] for head in heads] == ["bytes=0-4095"] * COUNT
    assert masks_in(fs) == expected


@pytest.mark.scale
def test_throttling_and_dead_connections_are_asked_again(
    s3: S3, fs: Any, expected: dict[str, bytes], tiny_model: Path
) -> None:
    number = itertools.count()

    def fault(method: str, path: str) -> str | None:
        if not path.startswith(("/bucket/photos/", "/bucket/masks/")):
            return None
        return {2: "slow down", 5: "reset"}.get(next(number) % 7)

    s3.fault = fault
    result = run(tiny_model)
    s3.fault = lambda method, path: None
    assert (result.code, result.counts["done"]) == (0, COUNT), result.err
    assert result.stats["store_retries"] >= COUNT // 4
    assert masks_in(fs) == expected


@pytest.mark.scale
def test_a_photo_that_never_comes_fails_alone(
    s3: S3, fs: Any, expected: dict[str, bytes], tiny_model: Path
) -> None:
    s3.fault = lambda method, path: "slow down" if path.endswith("photos/007.png") else None
    result = run(tiny_model)
    assert (result.code, result.counts["done"], result.counts["failed"]) == (3, COUNT - 1, 1)
    assert b"007.png" in fs.cat("bucket/masks/petseg/failures.csv")
    assert masks_in(fs) == {name: data for name, data in expected.items() if name != "007.png"}
    # The next run tries again, and takes the list of failures away.
    s3.fault = lambda method, path: None
    assert run(tiny_model).counts["done"] == 1
    assert not fs.exists("bucket/masks/petseg/failures.csv")
    assert masks_in(fs) == expected


@pytest.mark.scale
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_killed_goes_on_where_it_stopped(
    s3: S3, fs: Any, expected: dict[str, bytes], tiny_model: Path, number: int
) -> None:
    arguments = [PHOTOS, MASKS, "--model", str(tiny_model), "--workers", "1", "--batch-size", "1"]
    process = subprocess.Popen(
        [sys.executable, *COMMAND, *PROVIDER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(s3.asked("PUT", "/bucket/masks/0")) >= 5, process)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == (-number if number == signal.SIGKILL else 143)
    there = masks_in(fs)
    assert 0 < len(there) < COUNT
    assert all(expected[name] == data for name, data in there.items())
    result = run(tiny_model)
    assert result.code == 0, result.err
    assert result.counts["done"] + result.counts["skipped"] == COUNT
    assert result.counts["skipped"] >= len(there)
    assert masks_in(fs) == expected


@pytest.mark.scale
def test_what_cannot_be_had_is_one_clear_line(
    s3: S3, fs: Any, expected: dict[str, bytes], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(**places: str) -> str:
        result = run(tiny_model, **places)  # type: ignore[arg-type]
        assert result.code == 1, result.err
        assert "Traceback" not in result.err
        error: str = result.stats["error"]
        return error

    assert "there is no s3://none/photos: " in line(images="s3://none/photos")
    assert "there is no s3://none/masks to put masks into: " in line(masks="s3://none/masks")
    s3.fault = lambda method, path: "deny" if method == "PUT" else None
    assert "may not write to s3://bucket/masks: Access Denied; see that" in line()
    s3.fault = lambda method, path: "deny"
    assert "may not list s3://bucket/masks: " in line()
    s3.fault = lambda method, path: None
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "redentials" in line()
    assert masks_in(fs) == {}
