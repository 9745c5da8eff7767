"""Photos in archives, through the real engine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from batching import COMMAND, PROVIDER, batch, invoke, mask_bytes, save_photos, tally

from petseg.errors import ImageError, PetsegError
from petseg.masks.record import Record
from petseg.masks.records import judge
from petseg.photos.shards import Shard
from petseg.remote import listing
from petseg.remote.archives import Archives

COUNT = 6


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos in two folders, of a time that every kind of archive can tell."""
    (tmp_path / "staging").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "staging"))
    folder = tmp_path / "photos"
    save_photos(folder, COUNT // 2)
    save_photos(folder / "a", COUNT // 2)
    (folder / "a" / "000.json").write_text("{}")
    for path in folder.rglob("*.*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


def pack_zip(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.rglob("*.*")):
            packed.write(file, file.relative_to(folder))
    return path


def pack_tar(path: Path, folder: Path) -> Path:
    with tarfile.open(path, "w") as packed:
        packed.add(folder, ".")
    return path


def record(mask: bytes) -> Record:
    found = judge(mask)[1]
    assert found is not None
    return found


def test_a_tar_gives_the_folders_masks(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    packed = pack_tar(tmp_path / "photos.tar", photos)
    batch(photos, tmp_path / "expected", tiny_model)
    report = batch(packed, tmp_path / "masks", tiny_model)
    assert tally(report) == (COUNT, 0, 0, 1, 0)
    # Byte for byte, the photos' times among the records.
    assert mask_bytes(tmp_path / "masks") == mask_bytes(tmp_path / "expected")
    assert tally(batch(packed, tmp_path / "masks", tiny_model)) == (0, COUNT, 0, 1, 0)
    assert not [path for path in (tmp_path / "staging").rglob("*") if path.is_file()]


def test_a_zip_gives_the_folders_masks(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    packed = pack_zip(tmp_path / "photos.zip", photos)
    batch(photos, tmp_path / "expected", tiny_model)
    report = batch(packed, tmp_path / "masks", tiny_model, shard=Shard(1, 1))
    assert tally(report) == (COUNT, 0, 0, 1, 0)
    found, expected = mask_bytes(tmp_path / "masks"), mask_bytes(tmp_path / "expected")
    assert found.keys() == expected.keys()
    for name in expected:
        mine, theirs = record(found[name]), record(expected[name])
        assert mine.pixels_sha256 == theirs.pixels_sha256
        assert mine.image.sha256 == theirs.image.sha256
    assert tally(batch(packed, tmp_path / "masks", tiny_model)) == (0, COUNT, 0, 1, 0)


def test_of_several_archives_each_is_a_folder(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "shards").mkdir()
    pack_tar(tmp_path / "shards" / "shard-000.tar", photos)
    pack_tar(tmp_path / "shards" / "shard-001.tar", photos / "a")
    found = invoke(f"{tmp_path}/shards/*.tar", tmp_path / "masks", "--model", tiny_model, "--json")
    assert found.code == 0
    assert found.counts["done"] == COUNT + COUNT // 2
    assert {"shard-000/000.png", "shard-000/a/000.png", "shard-001/000.png"} <= mask_bytes(
        tmp_path / "masks"
    ).keys()


def test_what_is_wrong_with_one_photo_costs_that_photo(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    packed = pack_zip(tmp_path / "photos.zip", photos)
    with zipfile.ZipFile(packed) as found:
        place = found.getinfo("a/001.png").header_offset + 30 + len("a/001.png") + 100
    data = bytearray(packed.read_bytes())
    data[place] ^= 0xFF
    packed.write_bytes(data)
    report = batch(packed, tmp_path / "masks", tiny_model)
    assert tally(report) == (COUNT - 1, 0, 1, 1, 0)
    failures = (tmp_path / "masks" / "petseg" / "failures.csv").read_text()
    assert "a/001.png" in failures
    assert "cannot be read from" in failures


def test_names_lead_nowhere_else(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    data = (photos / "000.png").read_bytes()
    with tarfile.open(tmp_path / "evil.tar", "w") as packed:
        for name in ("../up.png", "/tmp/x.png", "a/../../up.png", "good.png"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        packed.addfile(link)
    report = batch(tmp_path / "evil.tar", tmp_path / "masks", tiny_model)
    assert tally(report) == (1, 0, 4, 0, 0)
    assert list(mask_bytes(tmp_path / "masks")) == ["good.png"]
    assert not (tmp_path / "up.png").exists()


def test_every_member_is_accounted_for(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    data = (photos / "000.png").read_bytes()
    with tarfile.open(tmp_path / "some.tar", "w") as packed:
        # A file with two names; one with holes, as GNU's tar marks it; a link and a pipe.
        packed.add(photos / "000.png", "./000.png")
        for name, kind, target in (
            ("a/second.png", tarfile.LNKTYPE, "./000.png"),
            ("third.png", tarfile.LNKTYPE, "a/second.png"),
            ("astray.png", tarfile.LNKTYPE, "later.png"),
            ("soft.png", tarfile.SYMTYPE, "000.png"),
            ("soft.txt", tarfile.SYMTYPE, "000.png"),
            ("pipe.png", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            packed.addfile(member)
        holes = tarfile.TarInfo("holes.png")
        holes.size, holes.pax_headers = len(data), {"GNU.sparse.map": f"0,{len(data)}"}
        packed.addfile(holes, io.BytesIO(data))
    report = batch(tmp_path / "some.tar", tmp_path / "masks", tiny_model)
    assert tally(report) == (3, 0, 4, 1, 0)
    made = mask_bytes(tmp_path / "masks")
    assert sorted(made) == ["000.png", "a/second.png", "third.png"]
    assert record(made["third.png"]).pixels_sha256 == record(made["000.png"]).pixels_sha256
    failures = (tmp_path / "masks" / "petseg" / "failures.csv").read_text()
    for name, reason in (
        ("astray.png", "a link to no file before it"),
        ("soft.png", "a symbolic link: "),
        ("pipe.png", "not a regular file"),
        ("holes.png", "packed without the holes in it: "),
    ):
        assert f"{name},{reason}" in failures.replace('"', "")
    assert tally(batch(tmp_path / "some.tar", tmp_path / "masks", tiny_model)) == (0, 3, 4, 1, 0)


def test_a_time_that_is_none_is_1970(photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "times.tar", "w", format=tarfile.PAX_FORMAT) as packed:
        for time in ("nan", "inf", "-inf", "1e300", "12.5"):
            member = tarfile.TarInfo(f"{time}.png")
            member.pax_headers = {"mtime": time}
            packed.addfile(member)
    found = Archives(str(tmp_path / "times.tar")).find()
    assert {name: entry.mtime_ns for name, entry in found.items()} == {
        "nan.png": 0,
        "inf.png": 0,
        "-inf.png": 0,
        "1e300.png": 0,
        "12.5.png": 12_500_000_000,
    }
    packed_zip = pack_zip(tmp_path / "times.zip", photos)
    data = packed_zip.read_bytes()
    entry = data.index(b"PK\x01\x02")
    # Time and date of the first file in the directory, all of them zero: month 0, day 0.
    packed_zip.write_bytes(data[: entry + 12] + bytes(4) + data[entry + 16 :])
    times = [entry.mtime_ns for entry in Archives(str(packed_zip)).find().values()]
    assert times.count(0) == 1
    assert len(times) == COUNT + 1


def in_directory(changes: dict[int, int]) -> Callable[[bytes], bytes]:
    """Changes bytes of the first entry in a zip file's directory."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        for offset, value in changes.items():
            changed[data.index(b"PK\x01\x02") + offset] = value
        return bytes(changed)

    return change


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        # A version to come, a NotImplementedError; and a name that is said to be UTF-8.
        (".zip", in_directory({6: 99})),
        (".zip", in_directory({9: 8, 46: 0xFF})),
        (".zip", lambda data: data[:-30]),
        # Cut off; the second header damaged, which Python takes for the end; a ValueError.
        (".tar", lambda data: data[:2000]),
        (".tar", lambda data: data[:1536] + b"?" * 512 + data[2048:]),
        (".tar", lambda data: data.replace(b"mtime=1700000000.0", b"GNU.sparse.size=xx")),
    ],
)
def test_a_damaged_archive_is_refused(
    suffix: str, damage: Callable[[bytes], bytes], photos: Path, tmp_path: Path
) -> None:
    packed = (pack_tar if suffix == ".tar" else pack_zip)(tmp_path / f"photos{suffix}", photos)
    whole = packed.read_bytes()
    packed.write_bytes(damage(whole))
    assert packed.read_bytes() != whole
    with pytest.raises(PetsegError, match=r"cannot read the archive .*: \w+"):
        listing.list_photos(Archives(str(packed)))


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_what_is_no_archive_is_refused(suffix: str, tiny_model: Path, tmp_path: Path) -> None:
    packed = tmp_path / f"photos{suffix}"
    packed.write_bytes(b"no archive at all" * 100)
    with pytest.raises(PetsegError, match="cannot read the archive"):
        batch(packed, tmp_path / "masks", tiny_model)
    assert not (tmp_path / "masks").exists()


def test_an_empty_archive_is_named(tiny_model: Path, tmp_path: Path) -> None:
    tarfile.open(tmp_path / "none.tar", "w").close()
    for images in (tmp_path / "none.tar", tmp_path / "*.tar", f"file://{tmp_path}/none.tar"):
        with pytest.raises(PetsegError, match=r"there are no files in .*\.tar: it is empty"):
            batch(images, tmp_path / "masks", tiny_model)


def test_a_name_twice_is_refused(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    packed = pack_tar(tmp_path / "photos.tar", photos)
    with tarfile.open(packed, "a") as more:
        more.add(photos / "000.png", "000.png")
    with pytest.raises(PetsegError, match=r"holds 000\.png twice"):
        batch(packed, tmp_path / "masks", tiny_model)


def test_a_member_without_a_name_is_counted(photos: Path, tmp_path: Path) -> None:
    packed = pack_zip(tmp_path / "photos.zip", photos)
    # The name's length is none, and the name is a comment.
    packed.write_bytes(in_directory({28: 0, 32: len("000.png")})(packed.read_bytes()))
    archive = Archives(str(packed))
    found = listing.list_photos(archive)
    assert (len(found), "" in found) == (COUNT + 1, True)
    sources = {source.name: source for source in listing.find(archive, found, None, None)}
    assert sources[""].problem == "no file can have this name: it leads elsewhere"


def lzma_zip(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as packed:
        for file in sorted(folder.glob("*.png")):
            packed.write(file, file.name)
    return path


def test_a_damaged_member_costs_that_member(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """What its decoder raises is no error of zip files: LZMAError, UnicodeDecodeError."""
    packed = lzma_zip(tmp_path / "photos.zip", photos)
    with zipfile.ZipFile(packed) as found:
        first, second = (found.getinfo(name).header_offset for name in ("000.png", "001.png"))
    data = bytearray(packed.read_bytes())
    # Behind header and name, the version, and the length of the filter's properties, is the first
    # property, which has 224 possible values; and a name in the header, said to be UTF-8.
    data[first + 30 + len("000.png") + 4] = 0xFF
    data[second + 7] |= 0x08
    data[second + 30] = 0xFF
    packed.write_bytes(data)
    archive = Archives(str(packed))
    assert len(archive.find()) == COUNT // 2
    for name in ("000.png", "001.png"):
        with pytest.raises(ImageError, match="cannot be read from"):
            archive.read(name, 1000)
    archive.tidy()
    report = batch(packed, tmp_path / "masks", tiny_model)
    assert tally(report) == (COUNT // 2 - 2, 0, 2, 0, 0)


@pytest.mark.parametrize("name", ["photos.tar.gz", "photos.TGZ", "photos.tar.zst"])
def test_a_compressed_archive_is_refused_with_the_reason(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"whatever it holds")
    for images in (tmp_path / name, tmp_path / f"*{''.join(Path(name).suffixes)}"):
        with pytest.raises(PetsegError, match=r"compressed as a whole.*unpack it to a \.tar"):
            batch(images, tmp_path / "masks", tiny_model)
    (tmp_path / "folder.tar.gz").mkdir()
    with pytest.raises(PetsegError, match=r"folder\.tar\.gz is empty"):
        batch(tmp_path / "folder.tar.gz", tmp_path / "masks", tiny_model)


def test_two_shards_of_an_archive_at_the_same_time(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    packed = pack_tar(tmp_path / "photos.tar", photos)
    batch(packed, tmp_path / "expected", tiny_model)
    arguments = [packed, tmp_path / "masks", "--model", tiny_model, "--json", "--workers", "1"]
    runs = [
        subprocess.Popen(
            [sys.executable, *COMMAND, *PROVIDER, *map(str, arguments), "--shard", f"{number}/2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in (1, 2)
    ]
    counts = []
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err.decode()
        counts.append(json.loads(out)["counts"])
    assert sum(found["done"] for found in counts) == COUNT
    assert sum(found["files"] for found in counts) == COUNT + 1
    assert all(found["done"] for found in counts)
    assert mask_bytes(tmp_path / "masks") == mask_bytes(tmp_path / "expected")


def test_a_list_of_an_archives_photos(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    packed = pack_zip(tmp_path / "photos.zip", photos)
    chosen = tmp_path / "list.jsonl"
    chosen.write_text('{"path": "a/001.png"}\n{"path": "./000.png"}\n{"path": "none.png"}\n')
    report = batch(packed, tmp_path / "masks", tiny_model, list_file=chosen)
    assert tally(report) == (2, 0, 1, 0, 0)
    assert sorted(mask_bytes(tmp_path / "masks")) == ["000.png", "a/001.png"]
