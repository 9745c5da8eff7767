"""Kinds of file systems through fsspec: many threads get each file's own bytes, or a refusal."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from batching import batch, mask_bytes, save_photos, tally
from ftp import ftp_server

from petseg.errors import PetsegError
from petseg.remote import kinds
from petseg.remote.store import Store
from petseg.remote.times import mtime_ns

MEMBERS, THREADS = 200, 64


@pytest.fixture
def members(tmp_path: Path) -> dict[str, bytes]:
    """Files of different sizes in `tmp_path / "files"`, by name."""
    made = {
        f"{number:03}.bin": hashlib.sha256(b"%d" % number).digest() * (20 + 7 * number)
        for number in range(MEMBERS)
    }
    (tmp_path / "files").mkdir()
    for name, data in made.items():
        (tmp_path / "files" / name).write_bytes(data)
    return made


def read_by_many(store: Store) -> dict[str, bytes]:
    """Every file of a store, by 64 threads; each of them twice, which have to agree."""
    found = store.find()
    with ThreadPoolExecutor(THREADS) as pool:
        names = [*found, *reversed(found)]
        data = [*pool.map(lambda name: store.read(name, found[name].size + 1), names)]
    first, second = data[:MEMBERS], [*reversed(data[MEMBERS:])]
    assert first == second
    return dict(zip(found, first, strict=True))


@pytest.mark.parametrize("kind", ["file", "zip", "zip in memory", "simplecache", "ftp"])
def test_many_threads_get_each_files_own_bytes(
    members: dict[str, bytes], tmp_path: Path, kind: str
) -> None:
    packed = tmp_path / "files.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    fsspec.filesystem("memory").pipe_file("/kinds/files.zip", packed.read_bytes())
    with ftp_server(tmp_path) as server:
        address = {
            "file": f"file://{tmp_path}/files",
            "zip": f"zip://::file://{packed}",
            "zip in memory": "zip://::memory://kinds/files.zip",
            "simplecache": f"simplecache::file://{tmp_path}/files",
            "ftp": f"{server}/files",
        }[kind]
        store = Store(address)
        assert read_by_many(store) == members
        assert store.retries == 0
    fsspec.filesystem("memory").rm("/kinds", recursive=True)


def test_fsspecs_tar_is_refused_with_what_works(tmp_path: Path) -> None:
    """Were it none of fsspec's any more, this would tell."""
    with tarfile.open(tmp_path / "x.tar", "w") as packed:
        packed.add(__file__, "x.py")
    here = f"file://{tmp_path}/x.tar"
    assert fsspec.url_to_fs(f"tar://::{here}")[0].find("") == ["x.py"]
    for chain in (f"tar://::{here}", f"tar://x/y::{here}", f"simplecache::tar://::{here}"):
        with pytest.raises(PetsegError, match=r"gives wrong bytes") as refused:
            Store(chain)
        assert f"name the archive itself, {here}, or a copy" in str(refused.value)
    with pytest.raises(PetsegError, match=r"ftp://ann:\*\*\*@host/x\.tar, or") as refused:
        Store("tar://::ftp://ann:secret@host/x.tar")
    assert "secret" not in str(refused.value)


def test_what_threads_may_not_share_has_one_connection() -> None:
    many = ("memory://x", "file:///x", "s3://bucket/x", "http://127.0.0.1/x")
    one = ("dir::file:///x", "simplecache::memory://x", "reference::memory://none.json")
    for addresses, expected in ((many, kinds.CONNECTIONS), (one, 1)):
        for address in addresses:
            first = fsspec.get_filesystem_class(kinds.links(address)[0])
            # What a reference file system is made of is looked for at once.
            fs = first.__new__(first) if "reference" in address else fsspec.url_to_fs(address)[0]
            assert kinds.connections(fs) == expected, address


def test_photos_and_masks_on_an_ftp_server(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "staging").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "staging"))
    photos = tmp_path / "photos"
    save_photos(photos / "a", 6)
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        # FTP tells whole seconds.
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    batch(photos, tmp_path / "expected", tiny_model)
    with ftp_server(tmp_path) as server:
        places = (f"{server}/photos", f"{server}/masks", tiny_model)
        assert tally(batch(*places)) == (6, 0, 0, 0, 0)
        assert mask_bytes(tmp_path / "masks") == mask_bytes(tmp_path / "expected")
        assert tally(batch(*places)) == (0, 6, 0, 0, 0)
        # Of the same size, and a second later.
        os.utime(photos / "a" / "000.png", (1_700_000_001, 1_700_000_001))
        assert tally(batch(*places)) == (1, 5, 0, 0, 0)
        # Somebody's is kept.
        (tmp_path / "masks" / "a" / "001.png").write_bytes(b"somebody's")
        report = batch(*places, redo=True)
        assert (report.counts.done, report.counts.kept) == (5, 1)
    assert (tmp_path / "masks" / "a" / "001.png").read_bytes() == b"somebody's"


def test_the_time_of_what_tells_it_in_digits_or_not_at_all() -> None:
    noon = 1_795_435_200_000_000_000
    assert mtime_ns({"modify": "20261123120000"}) == noon
    assert mtime_ns({"modify": "20261123120000.25"}) == noon + 250_000_000
    assert mtime_ns({"modify": "Nov 23 12:00"}) == 0
    # What a member of a zip file tells.
    assert mtime_ns({"CRC": 7}) not in (0, mtime_ns({"CRC": 8}))
