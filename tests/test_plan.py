"""What a run will do, settled before it does any of it."""

from __future__ import annotations

import dataclasses
import errno
import glob
import ntpath
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import numpy as np
import pytest
from batching import MAKER, make_job, picture, read_mask, save_photos, write_mask
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from petseg import steps
from petseg.errors import PetsegError
from petseg.masks import records
from petseg.masks.png import CHUNK_HEAD, HEADER_BYTES, chunk
from petseg.masks.record import Maker
from petseg.masks.records import MaskState, inspect
from petseg.photos import sources
from petseg.photos.sources import Source
from petseg.planning import collisions
from petseg.planning.plan import Plan, Rules, make_plan

COUNT = 4


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    save_photos(folder, COUNT, 20, 30)
    return folder


@pytest.fixture
def masks(images: Path, tmp_path: Path) -> Path:
    """A mask of each of the images."""
    job = make_job(tmp_path / "masks")
    for path in images.iterdir():
        write_mask(path, path.name, job)
    return job.masks


def plan(
    images: Path | str,
    masks: Path,
    maker: Maker = MAKER,
    formats: tuple[str, ...] = (),
    redo: bool = False,
    overwrite: bool = False,
    verify: bool = False,
    list_file: Path | None = None,
) -> Plan:
    rules = Rules(masks, maker, formats, redo, overwrite, verify, pattern=str(images))
    found = make_plan(sources.find(str(images), list_file), rules)
    settled = found.skipped + len(found.failed) + found.ignored + len(found.todo)
    assert found.files == settled
    assert len(found.kept) <= found.skipped
    assert found.redone <= len(found.todo)
    return found


def todo(found: Plan) -> list[str]:
    return [work.mask for work in found.todo]


def test_everything_is_to_do_at_first(images: Path, tmp_path: Path) -> None:
    found = plan(images, tmp_path / "masks")
    assert [(work.name, work.mask) for work in found.todo] == [
        (f"00{n}.png", f"00{n}.png") for n in range(COUNT)
    ]
    assert [work.path for work in found.todo] == [str(images / f"00{n}.png") for n in range(COUNT)]
    assert found.redone == found.skipped == 0
    assert not (tmp_path / "masks").exists()


def test_nothing_is_to_do_at_last(images: Path, masks: Path) -> None:
    found = plan(images, masks)
    assert (found.skipped, found.todo, found.kept) == (COUNT, [], [])


def newer(photo: Path) -> None:
    os.utime(photo, ns=(0, photo.stat().st_mtime_ns + 1))


def other_content(photo: Path) -> None:
    stamp = photo.stat().st_mtime_ns
    Image.fromarray(picture(99, 21, 30)).save(photo)
    os.utime(photo, ns=(stamp, stamp))


@pytest.mark.parametrize("change", [newer, other_content])
def test_a_changed_photo_is_done_again(
    change: Callable[[Path], None], images: Path, masks: Path
) -> None:
    change(images / "001.png")
    found = plan(images, masks)
    assert (todo(found), found.skipped, found.redone) == (["001.png"], COUNT - 1, 1)


def rename(photo: Path) -> None:
    """The mask's place stays the same, and what tables would call its photo does not."""
    photo.rename(photo.with_suffix(".PNG"))


@pytest.mark.parametrize("verify", [False, True])
def test_a_renamed_photo_is_done_again(verify: bool, images: Path, masks: Path) -> None:
    rename(images / "001.png")
    (work,) = plan(images, masks, verify=verify).todo
    assert (work.name, work.mask) == ("001.PNG", "001.png")
    write_mask(images / "001.PNG", "001.png", make_job(masks))
    assert todo(plan(images, masks, verify=verify)) == []


def test_verify_compares_content(images: Path, masks: Path) -> None:
    newer(images / "001.png")
    assert todo(plan(images, masks, verify=True)) == []
    # Same size and time, one byte another.
    photo = images / "002.png"
    stamp = photo.stat().st_mtime_ns
    data = bytearray(photo.read_bytes())
    data[-1] ^= 1
    photo.write_bytes(data)
    os.utime(photo, ns=(stamp, stamp))
    assert todo(plan(images, masks)) == ["001.png"]
    assert todo(plan(images, masks, verify=True)) == ["002.png"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", "ef" * 32), ("transform", "another/2"), ("size", "model")],
)
def test_masks_of_another_maker_stop_the_run(
    field: str, value: str, images: Path, masks: Path
) -> None:
    maker = dataclasses.replace(MAKER, **{field: value})
    old = getattr(MAKER, field)[:12]
    with pytest.raises(PetsegError) as caught:
        plan(images, masks, maker)
    message = str(caught.value)
    assert f"{COUNT} masks in {masks} were made by another model or with other options" in message
    assert f"000.png ({field}: {old}, now {value[:12]})" in message
    assert "--redo makes petseg's own masks again" in message
    assert todo(plan(images, masks, maker, redo=True)) == todo(plan(images, masks, redo=True))


def test_masks_named_by_another_rule_stop_the_run(tmp_path: Path) -> None:
    """Both rules give a photo without an ending the same mask."""
    (name,) = save_photos(tmp_path / "images", 1, 20, 30)
    photo = (tmp_path / "images" / name).rename(tmp_path / "images" / "x")
    job = make_job(tmp_path / "masks")
    write_mask(photo, "x.png", job)
    assert todo(plan(tmp_path / "images", job.masks)) == []
    full = dataclasses.replace(MAKER, names="full")
    with pytest.raises(PetsegError, match=r"x\.png \(names: stem, now full\)"):
        plan(tmp_path / "images", job.masks, full)
    assert todo(plan(tmp_path / "images", job.masks, full, redo=True)) == ["x.png"]


@pytest.mark.parametrize(("made", "now"), [("stem", "full"), ("full", "stem")])
def test_masks_are_not_made_again_beside_those_of_another_rule(
    made: str, now: str, images: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    name = steps.mask_name("001.png", made)
    job = make_job(masks, maker=dataclasses.replace(MAKER, names=made))
    write_mask(images / "001.png", name, job)
    with pytest.raises(PetsegError) as caught:
        plan(images, masks, maker=dataclasses.replace(MAKER, names=now))
    assert f"{name} (names: {made}, now {now})" in str(caught.value)
    assert "another folder keeps both" in str(caught.value)
    # Whoever says so has them made; and another photo's own mask is nobody's reason to stop.
    asked = plan(images, masks, maker=dataclasses.replace(MAKER, names=now), redo=True)
    assert len(asked.todo) == COUNT
    assert len(plan(images, masks, maker=dataclasses.replace(MAKER, names=made)).todo) == COUNT - 1


def test_what_a_mask_was_computed_on_is_not_compared(images: Path, tmp_path: Path) -> None:
    elsewhere = make_job(tmp_path / "masks", provider="cuda", precision="float16")
    for path in images.iterdir():
        write_mask(path, path.name, elsewhere)
    found = plan(images, elsewhere.masks)
    assert (found.skipped, found.todo, found.kept) == (COUNT, [], [])


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    save_photos(tmp_path / "images", 14, 4, 4)
    job = make_job(tmp_path / "masks")
    for path in (tmp_path / "images").iterdir():
        write_mask(path, path.name, job)
    with pytest.raises(PetsegError, match=r"14 masks.*009\.png.*; and 4 more; --redo"):
        plan(tmp_path / "images", job.masks, dataclasses.replace(MAKER, model="00"))


def correct(mask: Path) -> None:
    pixels = read_mask(mask)
    pixels[2, 2] = pixels[2, 2] % 3 + 1
    Image.fromarray(pixels).save(mask)


def replace(mask: Path) -> None:
    Image.fromarray(np.ones((20, 30), np.uint8)).save(mask)


def make_a_link(mask: Path) -> None:
    mask.unlink()
    mask.symlink_to("nowhere.png")


def make_a_pipe(mask: Path) -> None:
    mask.unlink()
    os.mkfifo(mask)


def make_a_circle(mask: Path) -> None:
    mask.unlink()
    mask.symlink_to(mask.name)


def make_a_folder(mask: Path) -> None:
    mask.unlink()
    mask.mkdir()


def write_notes(mask: Path) -> None:
    mask.write_text("to do")


def correct_and_let_it_rot(mask: Path) -> None:
    """The record is kept, and later one bit of the pixels is another."""
    _, record = inspect(mask)
    assert record is not None
    info = PngImagePlugin.PngInfo()
    info.add_text("petseg", record.to_json())
    with Image.open(mask) as image:
        pixels = np.array(image)
    pixels[2, 2] = pixels[2, 2] % 3 + 1
    Image.fromarray(pixels).save(mask, pnginfo=info)
    damage(mask)


def damage(mask: Path) -> None:
    data = bytearray(mask.read_bytes())
    data[data.rindex(b"IDAT") + 20] ^= 4
    mask.write_bytes(data)


WORKS = [
    correct,
    replace,
    make_a_link,
    make_a_circle,
    make_a_folder,
    make_a_pipe,
    write_notes,
    correct_and_let_it_rot,
]


@pytest.mark.parametrize("work", WORKS)
def test_a_persons_work_is_kept(work: Callable[[Path], None], images: Path, masks: Path) -> None:
    work(masks / "002.png")
    for options in ({}, {"redo": True}, {"verify": True}):
        found = plan(images, masks, **options)
        assert found.kept == ["002.png"]
        assert "002.png" not in todo(found)
    # Not even another model's run stops at it.
    shutil.copy(masks / "000.png", masks.with_name("aside"))
    for other in ("000.png", "001.png", "003.png"):
        (masks / other).unlink()
    found = plan(images, masks, dataclasses.replace(MAKER, model="00"))
    assert (found.kept, len(found.todo)) == (["002.png"], 3)


def test_overwrite_takes_a_persons_work_too(images: Path, masks: Path) -> None:
    correct(masks / "002.png")
    found = plan(images, masks, overwrite=True)
    assert (len(found.todo), found.redone, found.kept) == (COUNT, COUNT, [])


def fill_with_zeros(mask: Path) -> None:
    mask.write_bytes(bytes(mask.stat().st_size))


@pytest.mark.parametrize("accident", [damage, fill_with_zeros])
def test_petsegs_own_mask_that_was_damaged_is_made_again(
    accident: Callable[[Path], None], images: Path, masks: Path
) -> None:
    whole = (masks / "002.png").read_bytes()
    accident(masks / "002.png")
    found = plan(images, masks)
    assert (todo(found), found.redone, found.kept) == (["002.png"], 1, [])
    write_mask(images / "002.png", "002.png", make_job(masks))
    assert (masks / "002.png").read_bytes() == whole


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.99])
def test_a_mask_that_was_cut_off_is_made_again(share: float, images: Path, masks: Path) -> None:
    mask = masks / "002.png"
    data = mask.read_bytes()
    mask.write_bytes(data[: int(share * len(data))])
    found = plan(images, masks)
    assert (todo(found), found.redone, found.kept) == (["002.png"], 1, [])


def test_a_missing_format_is_made_of_the_mask(images: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "masks", formats=("color", "overlay"))
    for path in images.iterdir():
        write_mask(path, path.name, job)
    both = ("color", "overlay")
    assert todo(plan(images, job.masks, formats=both)) == []
    (job.masks / "petseg" / "color" / "003.png").unlink()
    (job.masks / "petseg" / "overlay" / "001.jpg").unlink()
    found = plan(images, job.masks, formats=both)
    assert [(work.mask, work.derive, work.by_person) for work in found.todo] == [
        ("001.png", ("overlay",), False),
        ("003.png", ("color",), False),
    ]
    assert (found.redone, found.skipped) == (0, COUNT - 2)
    assert todo(plan(images, job.masks)) == []
    # Another photo: everything is made anew.
    newer(images / "003.png")
    (work,) = plan(images, job.masks, formats=("color",)).todo
    assert (work.mask, work.derive) == ("003.png", ())


def test_a_missing_format_that_needs_the_network_makes_the_mask_anew(
    images: Path, masks: Path
) -> None:
    found = plan(images, masks, formats=("color", "alpha"))
    assert len(found.todo) == found.redone == COUNT
    assert {work.derive for work in found.todo} == {()}


def test_formats_of_a_persons_mask_follow_it(images: Path, tmp_path: Path) -> None:
    formats = ("color", "alpha")
    job = make_job(tmp_path / "masks", formats=formats)
    for path in images.iterdir():
        write_mask(path, path.name, job)
    mask = job.masks / "002.png"
    correct(mask)
    later(mask)
    for options in ({}, {"redo": True}):
        found = plan(images, job.masks, formats=formats, **options)
        (work,) = [work for work in found.todo if work.by_person]
        assert (work.mask, work.derive) == ("002.png", formats)
        assert found.kept == []
        assert found.photos == {"002.png": "002.png"}
    steps.derive(work.mask, work.path, work.derive, job)
    found = plan(images, job.masks, formats=formats)
    assert (found.todo, found.kept) == ([], ["002.png"])
    # A mask that keeps the time at which somebody worked on it elsewhere.
    aside = mask.with_name("aside")
    correct(mask)
    os.utime(mask, ns=(0, 0))
    shutil.copy2(mask, aside)
    later(aside)
    aside.replace(mask)
    assert todo(plan(images, job.masks, formats=formats)) == ["002.png"]


def later(mask: Path) -> None:
    """Have the mask's status changed later than what was made before it, whatever the clock."""
    made = max(path.stat().st_mtime_ns for path in mask.parent.rglob("*"))
    while mask.stat().st_ctime_ns <= made:
        mask.chmod(0o600)
        mask.chmod(0o644)


@pytest.mark.parametrize("work", [make_a_link, make_a_folder])
def test_nothing_is_made_of_what_is_no_file(
    work: Callable[[Path], None], images: Path, masks: Path
) -> None:
    work(masks / "002.png")
    found = plan(images, masks, formats=("color",))
    assert found.kept == ["002.png"]
    assert "002.png" not in todo(found)


def test_masks_of_another_version_stop_the_run(images: Path, masks: Path) -> None:
    path = masks / "001.png"
    data = path.read_bytes()
    start, end = HEADER_BYTES + CHUNK_HEAD.size, data.index(b"IDAT") - 8
    old = data[start:end].replace(b'"version":2', b'"version":1')
    path.write_bytes(data[:HEADER_BYTES] + chunk(b"tEXt", old) + data[end + 4 :])
    assert inspect(path) == (MaskState.OTHER, None)
    with pytest.raises(PetsegError, match=r"001\.png \(its record is of another version of petseg"):
        plan(images, masks)
    assert "001.png" in todo(plan(images, masks, redo=True))


def test_a_photo_that_vanished_is_looked_at_again(images: Path, masks: Path) -> None:
    (images / "001.png").unlink()
    listed = images.with_name("list")
    listed.write_text("000.png\n001.png\n")
    found = plan(images, masks, list_file=listed)
    assert (found.skipped, found.failed) == (1, [("001.png", "no such file")])


def sources_of(*names: str) -> list[Source]:
    return [Source(f"/nowhere/{name}", name, True) for name in names]


def collide(*names: str, rule: str = "stem") -> str | None:
    rules = Rules(
        Path("/nowhere-else"), dataclasses.replace(MAKER, names=rule), (), False, False, False
    )
    try:
        make_plan(sources_of(*names), rules)
    except PetsegError as error:
        return str(error)
    return None


def test_collisions_name_all_that_meet() -> None:
    message = collide("x.jpg", "y.jpg", "x.png", "X.gif", "z/y.jpg")
    assert message is not None
    assert "1 mask names are claimed more than once: x.jpg and x.png and X.gif" in message
    assert collide("x.jpg", "y.jpg", "z/x.jpg", "z/y.jpg") is None
    assert collide("x.jpg", "x.png", rule="full") is None
    assert "rename them" in (collide("x.jpg", "X.jpg", rule="full") or "")
    many = [name for number in range(30) for name in (f"{number:02}.jpg", f"{number:02}.png")]
    assert "30 mask names" in (collide(*many) or "")
    assert "09.jpg and 09.png; and 20 more; --names full" in (collide(*many) or "")


def test_photos_among_masks_are_found_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collisions, "os", SimpleNamespace(path=ntpath))
    masks = PureWindowsPath("C:\\masks")
    around = collisions.Surroundings(masks)
    around.add(Source("C:\\masks\\cats\\x.png", "cats/x.png", True))
    around.add(Source("C:\\photos\\y.png", "y.png", True))
    assert around.inside == [("C:\\masks\\cats\\x.png", "cats/x.png")]
    images = [Source("C:\\masks\\cats\\x.png", "cats/x.png", True)]
    with pytest.raises(PetsegError, match="1 images lie in C:"):
        collisions.refuse_collisions(images, around, "stem", masks, "C:\\masks")


def test_a_mask_may_not_meet_a_folder() -> None:
    message = collide("a/x.png/inner.jpg", "a/x.jpg")
    assert message is not None
    assert "a/x.jpg and a/x.png/" in message
    assert collide("a/x.png/deep/inner.jpg", "a/X.jpg") is not None
    assert collide("a/x/inner.jpg", "a/x.jpg") is None
    # Folders that some file systems take for one are no trouble as long as no masks meet.
    assert collide("A/x.jpg", "a/y.jpg") is None


def relative_paths(letters: str) -> st.SearchStrategy[list[str]]:
    name = st.text(letters, min_size=1, max_size=5).filter(
        lambda name: all(part not in {"", ".", ".."} for part in name.split("/"))
    )
    return st.lists(name, min_size=1, max_size=6, unique=True)


def meet(names: list[str], rule: str, folded: Callable[[str], set[str]]) -> bool:
    """Whether two masks, or a mask and a folder, have a name in common."""
    found = [steps.mask_name(name, rule) for name in names]
    folders = {str(above) for name in found for above in Path(name).parents}
    return any(
        folded(one) & folded(other)
        for number, one in enumerate(found)
        for other in (*found[number + 1 :], *folders)
    )


rules = st.sampled_from(["stem", "full"])


@given(relative_paths("aAb./"), rules)
def test_collisions_are_found_and_nothing_else(names: list[str], rule: str) -> None:
    wanted = meet(names, rule, lambda name: {name.lower()})
    assert (collide(*names, rule=rule) is not None) == wanted


@given(
    relative_paths("sS\u017f\u00df\u00e9\u00c9e\u0301\u0130i\u0307\ufb01f\u212ak\u0345./"), rules
)
def test_collisions_of_all_scripts_are_found(names: list[str], rule: str) -> None:
    def folded(name: str) -> set[str]:
        """What file systems that ignore case or Unicode form may make of a name."""
        return {
            unicodedata.normalize("NFC", name),
            unicodedata.normalize("NFD", name).upper(),
            name.casefold(),
        }

    if meet(names, rule, folded):
        assert "claimed more than once" in (collide(*names, rule=rule) or "")


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(PetsegError, match=r"among 1 files in the input: notes\.txt$"):
        plan(tmp_path, tmp_path / "masks")
    for number in range(5):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(PetsegError, match=r"0\.txt; 1\.txt; 2\.txt; and 3 more$"):
        plan(tmp_path, tmp_path / "masks")
    for path in tmp_path.glob("*.txt"):
        path.unlink()
    with pytest.raises(PetsegError, match="no images found: the input is empty"):
        plan(tmp_path, tmp_path / "masks")


def test_photos_where_masks_go_are_refused(images: Path, tmp_path: Path) -> None:
    words = "images lie in .*, where masks of that name are to go.*choose another folder"
    # A glob that reaches into the masks.
    write_mask(images / "000.png", "000.png", make_job(images / "masks"))
    with pytest.raises(PetsegError, match=words):
        plan(f"{images}/**/*.png", images / "masks")
    # A link that leads there.
    shutil.move(images / "masks", tmp_path / "masks")
    (images / "link").symlink_to(tmp_path / "masks")
    with pytest.raises(PetsegError, match=words):
        plan(images, tmp_path / "masks")
    # A photo that would be its own mask.
    with pytest.raises(PetsegError, match=words):
        plan(images / "001.png", images)
    # A mask beside its photo is what was asked for.
    Image.fromarray(picture(1, 9, 9)).save(images / "only.jpg")
    assert todo(plan(images / "only.jpg", images)) == ["only.png"]
    assert len(plan(f"{images}/*.png", tmp_path).todo) == COUNT


def test_petsegs_own_folder_is_no_input(images: Path, tmp_path: Path) -> None:
    (images / "Petseg").mkdir()
    shutil.copy(images / "000.png", images / "Petseg" / "x.png")
    with pytest.raises(PetsegError, match="the input has a folder Petseg/"):
        plan(f"{images}/**/*.png", tmp_path / "masks")
    (images / "inner").mkdir()
    (images / "Petseg").rename(images / "inner" / "petseg")
    assert "inner/petseg/x.png" in todo(plan(f"{images}/**/*.png", tmp_path / "masks"))


@pytest.mark.parametrize(
    ("pattern", "folder", "found"),
    [
        ("**/*.png", "masks", True),
        ("**", "masks", True),
        ("*/*.png", "masks", False),
        ("**/0*", "a/masks", True),
        ("**/*.png", ".masks", False),
        ("**/*.PNG", "masks", False),
        ("*.png", "masks", False),
        ("**/*.png", "../masks", False),
    ],
)
def test_a_glob_that_would_find_masks_is_refused_at_once(
    pattern: str, folder: str, found: bool, images: Path
) -> None:
    shutil.copytree(images, images / "a")
    shutil.copy(images / "000.png", images / "x.PNG")
    target = (images / folder).resolve()
    photos = glob.glob(f"{images}/{pattern}", recursive=True)  # noqa: PTH207
    message = None
    try:
        plan(f"{images}/{pattern}", target)
    except PetsegError as error:
        message = str(error)
    assert (message is not None) == found
    if message is not None:
        assert f"finds masks in {target}, too: " in message
        assert "would be taken for a photo the next time; choose a folder outside" in message
    # And it is true.
    for photo in photos:
        if not Path(photo).is_dir():
            mask = (target / Path(photo).relative_to(images)).with_suffix(".png")
            mask.parent.mkdir(parents=True, exist_ok=True)
            mask.touch()
    again = glob.glob(f"{images}/{pattern}", recursive=True)  # noqa: PTH207
    assert any(Path(path).is_file() for path in {*again} - {*photos}) == found


def test_photos_that_masks_can_lie_beside(images: Path) -> None:
    Image.fromarray(picture(1, 9, 9)).save(images / "only.jpg")
    for _ in range(2):
        assert todo(plan(f"{images}/**/*.jpg", images / "masks")) == ["only.png"]
        (images / "masks").mkdir(exist_ok=True)
        (images / "masks" / "other.png").touch()


def test_where_masks_may_not_be_looked_at_the_image_fails(
    images: Path, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions do not hold for root, whom tests may run as; test_faults has the real thing.
    def refuse(path: Path, *others: object) -> None:
        if path.name == "001.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(records, "inspect", refuse)
    with pytest.raises(PetsegError, match=r"cannot read .*000\.png: Input/output error"):
        plan(images, masks)
    for name in ("000.png", "002.png", "003.png"):
        (images / name).unlink()
    found = plan(images, masks)
    assert found.failed == [("001.png", "its mask cannot be looked at: Permission denied")]
