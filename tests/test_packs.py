"""Shards of masks, tar files: what counts in them, whoever wrote them and whatever cut them off."""

from __future__ import annotations

import errno
import io
import os
import random
import tarfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petseg.errors import PetsegError
from petseg.masks import packs
from petseg.remote import part
from petseg.remote.packer import Packer
from petseg.system.temporary import host

# A name that needs a header of its own for it, and one that is no UTF-8.
LONG = f"{'folder/' * 20}x.png"
NAMES = ("a.png", "b/c.png", LONG, "\udcff.png")


def data_of(name: str) -> bytes:
    return random.Random(os.fsencode(name)).randbytes(100 + len(name))


def left_behind(number: int = 0, owner: str | None = None) -> str:
    return packs.part_name(number, owner or host(), "00000000")


def pack(folder: Path, *names: str, count: int = 100) -> None:
    """As a run that ends well does it."""
    packer = Packer(folder, count)
    packer.find()
    for name in names:
        packer.put(name, data_of(name), replace=True)
    packer.tidy()


def content(folder: Path) -> dict[str, bytes]:
    """All members, as Python's tarfile reads them; there must be nothing but ended tar files."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.iterdir()):
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                assert member.isreg()
                assert (member.uid, member.gid, member.uname, member.mode) == (0, 0, "", 0o644)
                file = tar.extractfile(member)
                assert file is not None
                assert member.name not in found
                found[member.name] = file.read()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "masks").mkdir()
    return tmp_path / "masks"


def test_what_is_put_is_read(folder: Path) -> None:
    pack(folder, *NAMES, count=3)
    assert sorted(path.name for path in folder.iterdir()) == [
        "masks-000000.tar",
        "masks-000001.tar",
    ]
    assert content(folder) == {name: data_of(name) for name in NAMES}
    found = packs.index(folder)
    assert list(found) == list(NAMES)
    for name, member in found.items():
        assert packs.read(member, 1 << 20) == data_of(name)
        assert packs.read(member, 5) == data_of(name)[:5]
        assert abs(member.mtime_ns / 1e9 - time.time()) < 60


def test_the_last_of_a_name_counts(folder: Path) -> None:
    pack(folder, "a.png", "b.png")
    packer = Packer(folder, 10)
    assert list(packer.find()) == ["a.png", "b.png"]
    with pytest.raises(FileExistsError):
        packer.put("a.png", b"new", replace=False)
    packer.put("a.png", b"new", replace=True)
    packer.put("a.png", b"newer", replace=True)
    assert packer.read("a.png", 100) == b"newer"
    packer.tidy()
    found = packs.index(folder)
    assert found["a.png"].pack.name == "masks-000001.tar"
    assert packs.read(found["a.png"], 100) == b"newer"
    with pytest.raises(PetsegError, match="came when"):
        packer.put("c.png", b"late", replace=False)


def test_a_part_is_found_wherever_it_lies_by_now(folder: Path) -> None:
    packer = Packer(folder, 2)
    packer.put("a.png", data_of("a.png"), replace=False)
    found = packs.index(folder)["a.png"]
    assert found.pack.suffix == ".part"
    packer.put("b.png", data_of("b.png"), replace=False)
    assert not found.pack.exists()
    assert packs.read(found, 1000) == data_of("a.png")
    assert packer.read("a.png", 1000) == data_of("a.png")


def test_two_parts_of_one_number_are_not_taken_for_each_other(folder: Path) -> None:
    """Two runs took it at once; the second that ended got another."""
    for number, name in enumerate(("a.png", "b.png")):
        pack(folder, name)
        ended = folder / packs.tar_name(4 * number)
        ended.rename(folder / left_behind(3, owner=f"host{number}"))
    members = packs.index(folder)
    assert {member.pack.name.split(".")[0] for member in members.values()} == {"masks-000003"}
    (folder / left_behind(3, owner="host0")).rename(folder / "masks-000003.tar")
    (folder / left_behind(3, owner="host1")).rename(folder / "masks-000004.tar")
    for name in ("a.png", "b.png"):
        assert packs.read(members[name], 1000) == data_of(name)


def test_times_that_no_file_has(folder: Path) -> None:
    with tarfile.open(folder / packs.tar_name(0), "w", format=tarfile.PAX_FORMAT) as tar:
        for name, mtime in (("a.png", 10**13), ("b.png", float("nan")), ("c.png", 1_700_000_000)):
            member = tarfile.TarInfo(name)
            member.pax_headers = {"mtime": str(mtime)}
            tar.addfile(member)
    found = {name: member.mtime_ns for name, member in packs.index(folder).items()}
    assert found == {"a.png": 0, "b.png": 0, "c.png": 1_700_000_000 * 10**9}


@settings(max_examples=50)
@given(
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=150)
    | st.text(st.sampled_from("a\udcff\n =0"), min_size=1),
    st.text("abcé. ", max_size=120),
)
def test_whatever_its_name(tmp_path_factory: pytest.TempPathFactory, stem: str, above: str) -> None:
    name = f"{above}/{stem}.png" if above.strip(".") else f"{stem}.png"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # no file has it
        return
    folder = tmp_path_factory.mktemp("names")
    pack(folder, name, "next.png")
    assert list(packs.index(folder)) == [name, "next.png"]
    assert set(content(folder)) == {name, "next.png"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int]]:
    """A tar file's bytes without its end, and where each member ends."""
    folder = tmp_path_factory.mktemp("whole")
    packer = Packer(folder, 100)
    ends = []
    for name in NAMES:
        packer.put(name, data_of(name), replace=False)
        (path,) = folder.iterdir()
        ends.append(path.stat().st_size)
    data = path.read_bytes()
    packer.tidy()
    return data, ends


def test_cut_anywhere_it_keeps_the_members_that_are_whole(
    whole: tuple[bytes, list[int]], folder: Path
) -> None:
    data, ends = whole
    path = folder / left_behind()
    path.write_bytes(data)
    # Every byte of the last one; the others' ends alone.
    for cut in (*range(len(data), ends[-2] - 1, -1), *ends[-3::-1], 0):
        os.truncate(path, cut)
        found = packs.look(path)
        kept = sum(end <= cut for end in ends)
        assert found.count == kept
        assert found.end == ([0, *ends])[kept]
        assert list(found.members) == list(NAMES[:kept])


@pytest.mark.parametrize("behind", [b"", b"\0" * 700, b"x" * 700], ids=["", "zeros", "garbage"])
def test_a_part_that_was_cut_is_gone_on_with(
    behind: bytes, whole: tuple[bytes, list[int]], folder: Path
) -> None:
    data, ends = whole
    for cut in sorted({*range(0, len(data) + 1, 300), *ends}):
        (folder / left_behind()).write_bytes(data[:cut] + behind)
        packer = Packer(folder, 100)
        kept = NAMES[: sum(end <= cut for end in ends)]
        # What was cut off and what follows may make a header, but no member's.
        assert set(packer.find()) <= set(NAMES)
        packer.put("new.png", data_of("new.png"), replace=False)
        packer.tidy()
        assert [path.name for path in folder.iterdir()] == ["masks-000000.tar"]
        found = content(folder)
        assert found.items() >= {name: data_of(name) for name in (*kept, "new.png")}.items()
        (folder / "masks-000000.tar").unlink()


def test_a_part_that_is_not_the_last_is_ended_as_it_is(
    whole: tuple[bytes, list[int]], folder: Path
) -> None:
    data, ends = whole
    (folder / left_behind(0)).write_bytes(data[: ends[1] + 7])
    (folder / left_behind(2)).write_bytes(data[:300])
    pack(folder, "a.png")
    # What replaces a mask comes behind it.
    Packer(folder, 100).recover()
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["masks-000000.tar", "masks-000002.tar"]
    found = packs.index(folder)
    assert found["a.png"].pack.name == "masks-000002.tar"
    assert packs.read(found["b/c.png"], 1000) == data_of("b/c.png")


def test_nothing_is_left_of_a_part_without_members(folder: Path) -> None:
    (folder / left_behind(0)).touch()
    (folder / left_behind(1)).write_bytes(b"x" * 1000)
    Packer(folder, 100).recover()
    assert not list(folder.iterdir())
    Packer(folder, 100).tidy()
    assert not list(folder.iterdir())


def test_others_parts_are_left_alone(folder: Path) -> None:
    at_work = Packer(folder, 100)
    at_work.put("a.png", data_of("a.png"), replace=False)
    elsewhere = folder / left_behind(7, "other-host")
    elsewhere.write_bytes((next(folder.iterdir())).read_bytes())
    pack(folder, "b.png")
    Packer(folder, 100).recover()
    assert sorted(path.name.split(".")[0] for path in folder.iterdir()) == [
        "masks-000000",
        "masks-000007",
        "masks-000008",
    ]
    assert elsewhere.exists()
    at_work.put("c.png", data_of("c.png"), replace=False)
    at_work.tidy()
    # A day later nobody is at it.
    day = time.time() - 25 * 3600
    os.utime(elsewhere, (day, day))
    Packer(folder, 100).recover()
    assert [path.name for path in sorted(folder.iterdir())] == [
        "masks-000000.tar",
        "masks-000007.tar",
        "masks-000008.tar",
    ]
    assert {name: packs.read(found, 1000) for name, found in packs.index(folder).items()} == {
        name: data_of(name) for name in ("a.png", "b.png", "c.png")
    }


def test_many_at_once_never_share_a_number(folder: Path) -> None:
    begin = threading.Barrier(8)
    wrong: list[BaseException] = []

    def work(run: int) -> None:
        try:
            packer = Packer(folder, 3)
            begin.wait()
            for number in range(10):
                packer.put(f"{run}-{number}.png", data_of(f"{run}-{number}"), replace=False)
                # Takes what looks as if nobody were at it.
                Packer(folder, 3).recover()
            packer.tidy()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(run,)) for run in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert content(folder) == {
        f"{run}-{number}.png": data_of(f"{run}-{number}")
        for run in range(8)
        for number in range(10)
    }
    # One that has just been ended with one member may have been gone on with.
    assert 8 * 10 / 3 <= len(list(folder.iterdir())) <= 8 * 4


def test_no_tar_file_takes_the_place_of_another(folder: Path) -> None:
    """A folder that is listed while a name in it changes may hide one: two take one number."""
    one, other = part.create(folder, 7), part.create(folder, 8)
    assert one is not None
    assert other is not None
    one.append("a.png", data_of("a"))
    other.append("b.png", data_of("b"))
    other.path = other.path.rename(other.path.with_name(packs.part_name(7, "here", "0123abcd")))
    one.end()
    other.end()
    assert [path.name for path in sorted(folder.iterdir())] == [
        packs.tar_name(7),
        packs.tar_name(8),
    ]
    assert content(folder) == {"a.png": data_of("a"), "b.png": data_of("b")}


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_without_hard_links_neither(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(source))

    monkeypatch.setattr(os, "link", link)
    test_no_tar_file_takes_the_place_of_another(folder)


def test_a_run_killed_between_two_names_leaves_one(folder: Path) -> None:
    packer = Packer(folder, 3)
    packer.put("a.png", data_of("a"), replace=False)
    packer.tidy()
    (ended,) = folder.iterdir()
    left = folder / packs.part_name(0, host(), "0123abcd")
    os.link(ended, left)
    Packer(folder, 3).recover()
    assert list(folder.iterdir()) == [ended]
    assert content(folder) == {"a.png": data_of("a")}


def write_tar(path: Path, *members: tarfile.TarInfo) -> None:
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))


def info(name: str, size: int = 10, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, "/etc/passwd" if kind != b"0" else ""
    return member


def test_what_leads_elsewhere_is_no_mask(folder: Path) -> None:
    write_tar(
        folder / packs.tar_name(0),
        info("../up.png"),
        info("/etc/x.png"),
        info("a/../../up.png"),
        info("a//b.png"),
        info("link.png", 0, tarfile.SYMTYPE),
        info("hard.png", 0, tarfile.LNKTYPE),
        info("pipe.png", 0, tarfile.FIFOTYPE),
        info("folder.png", 0, tarfile.DIRTYPE),
        info("notes.txt"),
        info("./good.png"),
    )
    assert list(packs.index(folder)) == ["good.png"]


@pytest.mark.parametrize("size", [1 << 40, -(1 << 20), -512, 2000])
def test_a_size_that_is_not_true_ends_it(size: int, folder: Path) -> None:
    """Below zero it would lead back to where the reader has been, again and again."""
    path = folder / packs.tar_name(0)
    head = info("good.png", 600).tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    path.write_bytes(head + info("bad.png", size).tobuf(tarfile.GNU_FORMAT) + bytes(512))
    found = packs.look(path)
    assert list(found.members) == ["good.png"]
    assert found.damaged
    with pytest.raises(PetsegError, match=r"masks-000000\.tar is damaged: .* first 1 members"):
        packs.index(folder)


def test_no_tar_at_all_is_refused(folder: Path) -> None:
    (folder / packs.tar_name(0)).write_bytes(b"no tar at all" * 100)
    with pytest.raises(PetsegError, match="move it away"):
        packs.index(folder)
    (folder / packs.tar_name(0)).unlink()
    (folder / packs.tar_name(0)).mkdir()
    with pytest.raises(PetsegError, match="not a regular file"):
        packs.index(folder)


def test_other_files_are_no_shards(folder: Path) -> None:
    for name in ("masks.tar", "masks-1.tar", "x-000000.tar", "masks-000000.tar.gz", "masks-000000"):
        (folder / name).write_bytes(b"whatever")
    assert packs.find(folder) == []
    assert packs.index(folder / "nowhere") == {}


@settings(max_examples=200)
@given(st.data())
def test_whatever_is_damaged_it_ends(
    whole: tuple[bytes, list[int]], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    changed = bytearray(whole[0])
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / packs.tar_name(0)
    path.write_bytes(changed)
    found = packs.look(path)
    assert 0 <= found.end <= len(changed)
    for member in found.members.values():
        assert len(packs.read(member, 1 << 40)) == member.size
