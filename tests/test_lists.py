"""Paths under a key: JSON lines and Parquet, what they name, and what is wrong with them."""

from __future__ import annotations

import json
import ntpath
import os
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batching import batch, invoke, mask_bytes, save_photos
from hypothesis import given
from hypothesis import strategies as st
from soak.colours import write_model

from petseg.errors import MissingPackageError, PetsegError
from petseg.photos import lists, sources
from petseg.photos.lists import is_table, read_table
from petseg.photos.shards import Shard
from petseg.planning.config import BatchConfig


def json_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path = path.with_suffix(".parquet")
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


WRITERS = pytest.mark.parametrize("write", [json_lines, parquet])


def paths(list_file: Path, key: str | None = None) -> list[str]:
    return [path for _, path in read_table(list_file, key)]


@pytest.mark.parametrize("key", ["path", "image", "file_name"])
@WRITERS
def test_paths_stand_under_a_key(write: Any, key: str, tmp_path: Path) -> None:
    names = ["a/x.jpg", "with space.png", "caf\u00e9.jpg", "a/x.jpg"]
    listed = write(tmp_path / "list", [{"width": 3, key: name, "text": "x"} for name in names])
    assert paths(listed) == names
    word = "line" if write is json_lines else "row"
    assert [place for place, _ in read_table(listed)] == [f"{word} {n}" for n in (1, 2, 3, 4)]


@WRITERS
def test_path_comes_before_image_and_a_key_before_both(write: Any, tmp_path: Path) -> None:
    row = {"image": "image.jpg", "path": "path.jpg", "photo": "photo.jpg"}
    listed = write(tmp_path / "list", [row])
    assert paths(listed) == ["path.jpg"]
    assert paths(listed, "photo") == ["photo.jpg"]


@WRITERS
def test_a_key_that_is_not_there(write: Any, tmp_path: Path) -> None:
    listed = write(tmp_path / "list", [{"url": "x.jpg", "width": 3}])
    words = r"expected path or image or file_name, found url, width; --list-key names the one"
    with pytest.raises(PetsegError, match=words):
        paths(listed)
    with pytest.raises(PetsegError, match=r"expected photo, found url, width"):
        paths(listed, "photo")


def test_lines_as_programs_and_people_write_them(tmp_path: Path) -> None:
    listed = tmp_path / "list.JSONL"
    listed.write_bytes(
        b'\xef\xbb\xbf{"path": "a.jpg"}\r\n\n  \n{"path":"b.jpg","path":"c.jpg"}\n'
        b'{"image": "\\ud83d\\udc31.jpg"}\n{"path": "\\udcff.jpg"}'
    )
    assert is_table(listed)
    assert paths(listed) == ["a.jpg", "c.jpg", "\N{CAT FACE}.jpg", "\udcff.jpg"]
    assert [place for place, _ in read_table(listed)] == ["line 1", "line 4", "line 5", "line 6"]
    listed.write_text("")
    assert paths(listed) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"x.jpg", "expected a JSON object, found: Expecting value"),
        (b'"x.jpg"', 'expected a JSON object, found "x.jpg"'),
        (b'["x.jpg"]', "expected a JSON object, found"),
        (b'{"path": "x.jpg"', "expected a JSON object, found: Expecting"),
        (b'{"path": "\xff.jpg"}', "expected a JSON object, found: 'utf-8' codec"),
        (b"[" * 100_000, "expected a JSON object, found: "),
        (b'{"path": null}', "expected a path, found None"),
        (b'{"path": 7}', "expected a path, found 7"),
        (b'{"path": ""}', "expected a path, found ''"),
        (b'{"path": {"bytes": "' + b"x" * 999 + b'"}}', "expected a path, found {'bytes': 'xxx"),
        (b'{"path": "a\\u0000.jpg"}', "can be no file's name"),
        (b'{"path": "\\ud800.jpg"}', "can be no file's name"),
        (b"{}", "found nothing"),
        (b'{"path": "' + b"x" * (1 << 20) + b'"}', "longer than 1048576 bytes"),
    ],
)
def test_a_wrong_line_is_named(line: bytes, words: str, tmp_path: Path) -> None:
    listed = tmp_path / "list.jsonl"
    listed.write_bytes(b'{"path": "a.jpg"}\n\n' + line + b"\n")
    with pytest.raises(PetsegError, match=r"list\.jsonl, line 3: ") as caught:
        paths(listed)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def _damaged(lines: list[str], places: list[int]) -> bytes:
    data = bytearray(b"".join(json.dumps({"path": line}).encode() + b"\n" for line in lines))
    for place in places:
        data[place % len(data)] ^= 1 << place % 8
    return bytes(data)


@given(
    st.one_of(
        st.binary(max_size=80),
        st.builds(
            _damaged,
            st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=4),
            st.lists(st.integers(0, 1 << 30), max_size=2),
        ),
    )
)
def test_whatever_bytes_a_list_holds(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    listed = tmp_path_factory.getbasetemp() / "any.jsonl"
    listed.write_bytes(data)
    refused = ""
    try:
        found = paths(listed)
    except PetsegError as error:
        found, refused = [], str(error)
    assert "\n" not in refused
    for path in found:
        assert path
        assert b"\0" not in os.fsencode(path)


def test_a_list_that_is_not_damaged_gives_its_paths(tmp_path: Path) -> None:
    """So that the test above is not of refusals alone."""
    names = ["x.jpg", "ä/☃ \t.png", "\u2028"]
    listed = tmp_path / "any.jsonl"
    listed.write_bytes(_damaged(names, []))
    assert paths(listed) == names


def test_columns_of_text(tmp_path: Path) -> None:
    listed = tmp_path / "list.parquet"
    names = ["a.jpg", "b.jpg", "a.jpg"]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        pq.write_table(pa.table({"path": pa.array(names, kind)}), listed)
        assert paths(listed) == names
    # As data sets hold the photos themselves.
    pq.write_table(pa.table({"image": [{"bytes": b"x", "path": "a.jpg"}]}), listed)
    with pytest.raises(PetsegError, match=r"expected paths in the column image, found struct<"):
        paths(listed)


def test_a_row_without_a_path_is_named(tmp_path: Path) -> None:
    listed = parquet(tmp_path / "list", [{"path": "a.jpg"}, {"path": None}])
    with pytest.raises(PetsegError, match=r"list\.parquet, row 2: expected a path, found None"):
        paths(listed)


def test_what_is_no_parquet(tmp_path: Path) -> None:
    listed = parquet(tmp_path / "list", [{"path": f"{number}.jpg"} for number in range(3)])
    whole = listed.read_bytes()
    for data in (b"", b"hello", whole[:-20], whole[:4] + bytes(40) + whole[44:]):
        listed.write_bytes(data)
        with pytest.raises(PetsegError, match=r"list\.parquet"):
            paths(listed)


def test_lists_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(PetsegError, match=r"cannot read the list .*gone\.jsonl: No such file"):
        paths(tmp_path / "gone.jsonl")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(PetsegError, match=r"cannot read the list .*: not a regular file"):
        paths(tmp_path / "folder.parquet")


def test_pyarrow_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = parquet(tmp_path / "list", [{"path": "a.jpg"}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'petseg\[formats\]'"):
        paths(listed)
    assert paths(json_lines(tmp_path / "list", [{"path": "a.jpg"}])) == ["a.jpg"]


@WRITERS
def test_a_long_list_takes_no_more_memory_than_a_short_one(write: Any, tmp_path: Path) -> None:
    listed = write(tmp_path / "list", [{"path": f"{n:040}.jpg"} for n in range(30_000)])

    def most(rows: Iterator[Any], count: int) -> int:
        tracemalloc.reset_peak()
        for _ in range(count):
            next(rows)
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        rows = read_table(listed)
        first = most(rows, 12_000)
        assert most(rows, 17_000) < first + 1_000_000
    finally:
        tracemalloc.stop()


@WRITERS
def test_a_run_does_what_its_list_names(write: Any, tmp_path: Path) -> None:
    images = tmp_path / "images"
    save_photos(images / "a", 4)
    names = ["a/002.png", "a/000.png", "./a/002.png", "gone.png"]
    listed = write(tmp_path / "list", [{"photo": name} for name in names])
    model = write_model(tmp_path / "model.onnx")
    found = invoke(
        *(images, tmp_path / "masks", "--model", model, "--list", listed, "--list-key", "photo"),
        *("--json", "--quiet"),
    )
    assert found.code == 3
    assert found.counts | {"files": 3, "done": 2, "failed": 1} == found.counts
    assert list(mask_bytes(tmp_path / "masks")) == ["a/000.png", "a/002.png"]
    # As one of several.
    done = [
        batch(
            images,
            tmp_path / "shards",
            model,
            list_file=listed,
            list_key="photo",
            shard=Shard(number, 3),
        ).counts
        for number in (1, 2, 3)
    ]
    assert sum(counts.files for counts in done) == 3
    assert mask_bytes(tmp_path / "shards") == mask_bytes(tmp_path / "masks")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../x.png", r"names .* in (line|row) 2, which does not lie below"),
        ("/etc/hostname", r"names .* in (line|row) 2, expected a path relative to"),
    ],
)
@WRITERS
def test_a_list_stays_inside(write: Any, name: str, words: str, tmp_path: Path) -> None:
    save_photos(tmp_path / "images", 1)
    listed = write(tmp_path / "list", [{"path": "000.png"}, {"path": name}])
    with pytest.raises(PetsegError, match=words):
        list(sources.find(str(tmp_path / "images"), listed))


def test_a_key_wants_a_table(tmp_path: Path) -> None:
    for list_file in (None, tmp_path / "list.txt"):
        with pytest.raises(ValueError, match=r"--list-key goes with a --list of \.jsonl or"):
            BatchConfig(images="x", masks=tmp_path, list_file=list_file, list_key="x")
    found = invoke(tmp_path, tmp_path / "masks", "--list-key", "x")
    assert found.code == 2


def test_names_that_end_in_white_space(tmp_path: Path) -> None:
    there = {"trail.jpg ", "tab.jpg\t", "plain.jpg"}
    for end in ("\n", "\r\n"):
        (tmp_path / "list.txt").write_bytes(end.join([*sorted(there), "plain.jpg  "]).encode())
        found = list(lists.read(tmp_path / "list.txt", None, "here", there.__contains__))
        assert found == [*sorted(there), "plain.jpg"]


@pytest.mark.parametrize("text", [True, False])
def test_a_list_from_windows(text: bool, tmp_path: Path) -> None:
    r"""Backslashes stand between folders where that names a file and they as letters do not."""
    there = {"cats/x.jpg", "cats/deep/y.jpg", "dogs\\z.jpg", "dogs/z.jpg"}
    named = ["cats\\x.jpg", "cats\\deep\\y.jpg", "dogs\\z.jpg", "gone\\w.jpg"]
    if text:
        list_file = tmp_path / "list.txt"
        # Oxford's lists leave .jpg out.
        lines = ["cats\\x 1 1 1", *named[1:]]
        list_file.write_bytes("\r\n".join(lines).encode())
    else:
        list_file = json_lines(tmp_path / "list", [{"path": name} for name in named])
    found = list(lists.read(list_file, None, "here", there.__contains__))
    assert found == ["cats/x.jpg", "cats/deep/y.jpg", "dogs\\z.jpg", "gone\\w.jpg"]
    # What leads out of the folder does so with either.
    list_file.write_text('{"path": "..\\\\x.jpg"}' if not text else "..\\x.jpg")
    with pytest.raises(PetsegError, match="which does not lie below here"):
        list(lists.read(list_file, None, "here", {"../x.jpg"}.__contains__))


def test_lists_read_on_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    list_file = json_lines(tmp_path / "list", [{"path": "a\\x.jpg"}, {"path": "a/./b/../y.jpg"}])
    monkeypatch.setattr(lists, "os", SimpleNamespace(path=ntpath, fsencode=os.fsencode))
    monkeypatch.setattr(lists, "Path", PureWindowsPath)
    # There, both stand between folders.
    assert list(lists.read(list_file, None, "here", lambda name: True)) == ["a/x.jpg", "a/y.jpg"]
    for name in ("C:\\x.jpg", "C:x.jpg", "\\x.jpg", "/x.jpg", "\\\\server\\share\\x.jpg"):
        json_lines(tmp_path / "list", [{"path": name}])
        with pytest.raises(PetsegError, match="expected a path relative to here"):
            list(lists.read(list_file, None, "here", lambda name: True))
    json_lines(tmp_path / "list", [{"path": "a\\..\\..\\x.jpg"}])
    with pytest.raises(PetsegError, match="does not lie below here"):
        list(lists.read(list_file, None, "here", lambda name: True))
