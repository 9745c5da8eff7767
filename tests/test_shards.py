"""Runs that share the work: every file is one's, and together they do what one would do."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from batching import COMMAND, PROVIDER, batch, invoke, mask_bytes, save_photos, tally, tree
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from petseg import steps
from petseg.cli.report import main as report_command
from petseg.errors import PetsegError
from petseg.masks.record import Maker
from petseg.photos import sources
from petseg.photos.shards import Shard, find_own, own_name
from petseg.photos.sources import Source
from petseg.planning.plan import Plan, Rules, make_plan
from petseg.system.text import caseless

MAKER = Maker("ab" * 32, "transform", "source", "stem")

# Letters that change with case and form, and what has a meaning in paths.
letters = st.text(
    st.sampled_from("aAbÅåß\u0301é\u212b\udcff\u017f.. -"), min_size=1, max_size=6
).filter(lambda text: text.strip(".") != "")
names = st.builds(
    lambda folders, stem, suffix: "/".join([*folders, stem + suffix]),
    st.lists(letters, max_size=2),
    letters,
    st.sampled_from(["", ".jpg", ".JPG", ".png", ".tar.png"]),
)
counts = st.integers(1, 40)


def of(name: str, count: int) -> list[int]:
    """The shards that hold a file."""
    return [n for n in range(1, count + 1) if Shard(n, count).holds(name)]


@given(names, counts)
def test_every_file_is_one_shards(name: str, count: int) -> None:
    assert len(of(name, count)) == 1


@given(names, counts, st.sampled_from(["NFC", "NFD"]), st.sampled_from([str.upper, str.lower, str]))
def test_masks_that_would_meet_are_the_same_shards(
    name: str, count: int, form: str, case: Callable[[str], str]
) -> None:
    other = unicodedata.normalize(form, case(name)) + ".webp"
    name += ".jpg"
    for kind in ("stem", "full"):
        masks = [caseless(steps.mask_name(one, kind)) for one in (name, other)]
        if masks[0] == masks[1]:
            assert of(name, count) == of(other, count)
    if case is str:
        assert of(name, count) == of(other, count)


def test_the_split_is_the_same_for_ever() -> None:
    """Shards of one run may be of several machines, and of several versions of petseg."""
    found = {
        name: of(name, 1000) for name in ("x.jpg", "X.PNG", "a/x.jpg", "caf\u00e9", "\udcff.jpg")
    }
    assert found == {
        "x.jpg": [59],
        "X.PNG": [59],
        "a/x.jpg": [422],
        "caf\u00e9": [659],
        "\udcff.jpg": [488],
    }


def test_shards_are_of_about_the_same_size() -> None:
    sizes = Counter(of(f"photos/{number:05}.jpg", 4)[0] for number in range(4000))
    assert all(abs(size - 1000) < 100 for size in sizes.values())


found_sources = st.lists(
    st.tuples(letters, st.booleans(), st.sampled_from([None, "a broken link"])),
    min_size=1,
    max_size=25,
)


@settings(max_examples=30)
@given(found_sources, st.integers(1, 6))
def test_counts_of_all_shards_are_those_of_one_run(
    drawn: list[tuple[str, bool, str | None]], count: int
) -> None:
    # One image at least, and no two that meet.
    drawn[0] = (drawn[0][0], True, None)
    found = [
        Source(f"/none/{n}{text}.jpg", f"{n}{text}.jpg", is_image, problem)
        for n, (text, is_image, problem) in enumerate(drawn)
    ]

    def plan(shard: Shard | None) -> Plan:
        rules = Rules(Path("/none/masks"), MAKER, (), redo=False, overwrite=False, verify=False)
        return make_plan(found, Rules(**{**vars(rules), "shard": shard}))

    whole, parts = plan(None), [plan(Shard(n + 1, count)) for n in range(count)]
    assert sum(part.files for part in parts) == whole.files == len(found)
    assert sum(part.ignored for part in parts) == whole.ignored
    assert sorted(row for part in parts for row in part.failed) == sorted(whole.failed)
    done = [work.name for part in parts for work in part.todo]
    assert sorted(done) == sorted(work.name for work in whole.todo)


def test_names_of_shards() -> None:
    assert Shard.parse("2/8") == Shard(2, 8)
    assert str(Shard(2, 8)) == "2/8"
    assert own_name("stats.json", None) == "stats.json"
    assert own_name("stats.json", Shard(2, 8)) == "stats-2-of-8.json"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0/8", "counted from 1: expected 1/8 to 8/8, found 0/8"),
        ("9/8", "expected 1/8 to 8/8, found 9/8"),
        ("1/0", "expected at least one shard"),
        ("8", "expected K/N"),
        ("-1/8", "expected K/N"),
        ("1/8 ", "expected K/N"),
    ],
)
def test_what_is_no_shard(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        Shard.parse(text)
    found = invoke(tmp_path, tmp_path / "masks", "--shard", text)
    assert found.code == 2
    assert words in " ".join(found.err.split())


def test_who_counts_from_nought_is_told() -> None:
    with pytest.raises(
        ValueError, match=r"--array=1-8 .* JOB_COMPLETION_INDEX begins with 0: add 1"
    ):
        Shard(0, 8)


def test_files_of_shards_are_found(tmp_path: Path) -> None:
    own = [own_name("stats.json", Shard(n, 11)) for n in (1, 2, 11)]
    for name in (*own, "stats.json", "stats-12-of-11.json", "stats-01-of-2.json", "stats-x.json"):
        (tmp_path / name).touch()
    found = find_own(tmp_path, "stats.json")
    assert {shard: path.name for shard, path in found.items()} == dict(
        zip((Shard(1, 11), Shard(2, 11), Shard(11, 11)), own, strict=True)
    )
    assert find_own(tmp_path / "none", "stats.json") == {}


def test_of_other_shards_files_nothing_is_looked_at(tmp_path: Path) -> None:
    save_photos(tmp_path, 1, 4, 4)
    (tmp_path / "000.png").rename(tmp_path / "suffixless")
    (tmp_path / "link.jpg").symlink_to("gone")
    found = {one.name: one for one in sources.find(str(tmp_path), wanted=lambda name: False)}
    assert [found[name].is_image for name in ("suffixless", "link.jpg")] == [False, True]
    assert [one.problem for one in found.values()] == [None, None]
    found = {one.name: one for one in sources.find(str(tmp_path))}
    assert [found[name].is_image for name in ("suffixless", "link.jpg")] == [True, True]
    assert found["link.jpg"].problem == "a broken link"


def test_a_photo_that_meets_another_shards_folder_is_refused(tmp_path: Path) -> None:
    names = ("x.jpg", "x.png/inner.jpg")
    count = next(n for n in range(2, 99) if of(names[0], n) != of(names[1], n))
    found = [Source(f"/none/{name}", name, True) for name in names]
    plans = {}
    for n in range(1, count + 1):
        rules = Rules(tmp_path, MAKER, (), False, False, False, shard=Shard(n, count))
        if [n] == of(names[0], count):
            with pytest.raises(PetsegError, match=r"x\.jpg and x\.png/"):
                make_plan(found, rules)
        else:
            plans[n] = [work.name for work in make_plan(found, rules).todo]
    assert [name for todo in plans.values() for name in todo] == [names[1]]


def test_no_mask_takes_the_place_of_another_shards_photo(tmp_path: Path) -> None:
    """Photos in a folder in that of the masks: p/x.jpg has its mask where the photo x.png lies."""
    masks = tmp_path / "masks"
    save_photos(masks / "p", 1)
    (masks / "p" / "000.png").rename(masks / "p" / "x.png")
    save_photos(masks / "p" / "p", 1)
    (masks / "p" / "p" / "000.png").rename(masks / "p" / "p" / "x.jpg")
    count = next(n for n in range(2, 99) if of("x.png", n) != of("p/x.jpg", n))
    for shard in (None, Shard(of("p/x.jpg", count)[0], count)):
        rules = Rules(masks, MAKER, (), False, True, False, shard=shard)
        with pytest.raises(PetsegError, match=r"1 images lie in .*, where masks of that name are"):
            make_plan(sources.find(str(masks / "p")), rules)


def test_a_shard_may_be_empty_but_not_all(tmp_path: Path, tiny_model: Path) -> None:
    (name,) = save_photos(tmp_path / "images", 1)
    (own,) = of(name, 4)
    other = Shard(own % 4 + 1, 4)
    report = batch(tmp_path / "images", tmp_path / "masks", tiny_model, shard=other)
    assert (tally(report), report.exit_code) == ((0, 0, 0, 0, 0), 0)
    assert [path.name for path in (tmp_path / "masks" / "petseg").iterdir()] == [
        own_name("stats.json", other)
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(PetsegError, match="no images found"):
        batch(tmp_path / "empty", tmp_path / "masks", tiny_model, shard=other)


def test_one_file_of_all_masks_is_no_shards(tmp_path: Path) -> None:
    before = tree(tmp_path)
    for option in (("--format", "coco"), ("--review-below", "0.8")):
        found = invoke(tmp_path, tmp_path / "masks", "--shard", "1/2", *option)
        assert found.code == 2
        assert f"{' '.join(option[:1])}" in found.err
        assert "run the same command once without --shard" in " ".join(found.err.split())
    assert tree(tmp_path) == before


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_three_shards_at_the_same_time(tmp_path: Path, tiny_model: Path) -> None:
    images = tmp_path / "images"
    for folder in ("", "a", "b/c"):
        save_photos(images / folder, 6)
    for number in range(4):
        (images / f"broken{number}.jpg").write_text("hello")
        (images / f"notes{number}.txt").write_text("hello")
    one = batch(images, tmp_path / "one", tiny_model)
    masks = tmp_path / "masks"
    masks.mkdir()
    kept = list(mask_bytes(tmp_path / "one"))[:5]
    for path in kept:
        (masks / path).parent.mkdir(parents=True, exist_ok=True)
        (masks / path).write_text("mine")
    runs = [
        subprocess.Popen(
            [
                *(sys.executable, *COMMAND, *PROVIDER, images, masks, "--model", tiny_model),
                *("--json", "--workers", "1", "--format", "color", "--shard", f"{n}/3"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for n in (1, 2, 3)
    ]
    stats, codes = [], []
    for run in runs:
        out, err = run.communicate(timeout=120)
        stats.append(json.loads(out))
        codes.append(run.returncode)
        assert b"petseg report" in err
    made = mask_bytes(masks)
    assert {path for path in made if made[path] == b"mine"} == set(kept)
    expected = mask_bytes(tmp_path / "one")
    assert made.keys() == expected.keys()
    assert [path for path in made if path not in kept and made[path] != expected[path]] == []
    # The counts are those of one run, but for what was kept.
    total = Counter[str]()
    for found in stats:
        total.update(found["counts"])
        assert found["options"]["shard"] in ("1/3", "2/3", "3/3")
    assert total["files"] == one.counts.files == 26
    assert (total["failed"], total["ignored"]) == (one.counts.failed, one.counts.ignored) == (4, 4)
    assert (total["done"], total["skipped"], total["kept"]) == (18 - 5, 5, 5)
    reserved = masks / "petseg"
    assert not [path for path in reserved.iterdir() if path.name.startswith(("tmp", "."))]
    assert [json.loads(path.read_text()) for path in sorted(reserved.glob("stats*"))] == stats
    lists = sorted(path.name for path in reserved.iterdir() if path.suffix == ".csv")
    assert not {"failures.csv", "kept.csv"} & set(lists)
    failed = [row[0] for path in sorted(reserved.glob("failures-*")) for row in rows(path)]
    assert sorted(failed) == [f"broken{number}.jpg" for number in range(4)]
    assert sorted(row[0] for path in reserved.glob("kept-*") for row in rows(path)) == sorted(kept)
    assert codes == [3 if found["counts"]["failed"] else 0 for found in stats]
    assert not (reserved / "report.html").exists()
    told = CliRunner().invoke(report_command, [str(masks), "--images", str(images)])
    assert told.exit_code == 0
    assert "shards: 3 of 3\n" in told.stderr
    assert "together: 26 files, 13 done, 5 skipped, 5 kept, 0 derived, 4 failed" in told.stderr
    assert "broken0.jpg" in (reserved / "report.html").read_text()
