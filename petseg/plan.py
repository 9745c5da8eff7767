"""What a run will do, settled before it does any of it.

Every file is looked at once: is it an image, which mask is its, does another file claim the same
mask, and what lies there already.  A run that must be refused is refused here, with nothing done.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from petseg import imageio, masks, sources, steps
from petseg.engines.outcome import Work
from petseg.errors import ImageError, PetsegError
from petseg.records import Maker, MaskState, Record, inspect
from petseg.sources import Source

# Lines shown of a list that may be long.
_SHOWN = 10


@dataclass
class Plan:
    """The outcome of looking at every file.

    Attributes:
        files: found.
        ignored: no images.
        skipped: masks that are there already, kept ones included.
        kept: masks that petseg did not make or somebody changed; the mask's name.
        failed: images known to be unreadable: name and reason.
        todo: images to do, in order.
        redone: of these, those whose mask petseg made of an earlier version of the photo, or that
            was cut off.
    """

    files: int = 0
    ignored: int = 0
    skipped: int = 0
    kept: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    todo: list[Work] = field(default_factory=list)
    redone: int = 0


@dataclass(frozen=True)
class Rules:
    """What decides whether a mask is to be made.

    Attributes:
        folder: of the masks.
        maker: model, transform and options of this run.
        formats: names of extra formats, which have to be there, too.
        redo: make petseg's own masks again.
        overwrite: make everybody's masks again.
        verify: compare the photo's content, not only its size and time.
        max_pixels: of a photo; larger ones fail.
        pattern: what the photos were found by: a glob may find masks as well.
    """

    folder: Path
    maker: Maker
    formats: tuple[str, ...]
    redo: bool
    overwrite: bool
    verify: bool
    max_pixels: int = imageio.DEFAULT_MAX_PIXELS
    pattern: str = ""


def make_plan(sources: Iterable[Source], rules: Rules) -> Plan:
    """Look at every file.

    Raises:
        PetsegError: two images have one mask name, an image lies where a mask goes, no image was
            found, or a mask was made by another model or with other options.
    """
    plan = Plan()
    images: list[Source] = []
    keys = array("Q")
    for source in sources:
        plan.files += 1
        if not source.is_image:
            plan.ignored += 1
            continue
        images.append(source)
        keys.append(_key(steps.mask_name(source.name, rules.maker.names)))
    if not images:
        raise PetsegError(
            f"no images found among {plan.files} files"
            if plan.files
            else "no images found: the input is empty"
        )
    folders = _folders(images)
    _refuse_collisions(images, keys, folders, rules.maker.names)
    _refuse_places(images, keys, folders, rules.folder)
    _refuse_masks_among_photos(images, rules)
    others: list[str] = []
    for source in images:
        if source.problem is not None:
            plan.failed.append((source.name, source.problem))
        else:
            _place(source, rules, plan, others)
    if others:
        raise PetsegError(
            f"{len(others)} masks in {rules.folder} were made by another model or with other "
            f"options: {_some(others)}; --redo makes petseg's own masks again, another folder "
            "keeps both"
        )
    return plan


def _place(source: Source, rules: Rules, plan: Plan, others: list[str]) -> None:
    """Decide about one image by what lies where its mask goes."""
    name = steps.mask_name(source.name, rules.maker.names)
    work = Work(source.path, source.name, name)
    try:
        state, record = inspect(rules.folder / name)
    except PermissionError as error:
        plan.failed.append((source.name, f"its mask cannot be looked at: {error.strerror}"))
        return
    except OSError as error:
        raise PetsegError(f"cannot read {rules.folder / name}: {error.strerror}") from error
    if state is MaskState.ABSENT:
        plan.todo.append(work)
    elif rules.overwrite:
        plan.todo.append(work)
        plan.redone += 1
    elif state is MaskState.FOREIGN:
        plan.skipped += 1
        plan.kept.append(name)
    elif state is MaskState.CUT or rules.redo:
        plan.todo.append(work)
        plan.redone += 1
    else:
        assert record is not None
        if record.maker != rules.maker:
            others.append(f"{name} ({_difference(record.maker, rules.maker)})")
        elif _same_photo(source, record, rules) and _has_extras(name, rules):
            plan.skipped += 1
        else:
            plan.todo.append(work)
            plan.redone += 1


def _same_photo(source: Source, record: Record, rules: Rules) -> bool:
    try:
        if rules.verify:
            found, _ = steps.identify(source.path, rules.max_pixels)
            return found.sha256 == record.image.sha256
        status = os.stat(source.path)  # noqa: PTH116 - a Path for each of millions is slow
    except (OSError, ImageError):
        return False  # reading it will say why
    return (status.st_size, status.st_mtime_ns) == (record.image.size, record.image.mtime_ns)


def _has_extras(name: str, rules: Rules) -> bool:
    return all(
        steps.extra_path(rules.folder, masks.EXTRA[extra], name).exists() for extra in rules.formats
    )


def _difference(found: Maker, wanted: Maker) -> str:
    return ", ".join(
        f"{field}: {getattr(found, field)[:12]}, now {getattr(wanted, field)[:12]}"
        for field in Maker.__dataclass_fields__
        if getattr(found, field) != getattr(wanted, field)
    )


def _key(mask: str) -> int:
    """Eight bytes that are equal for names which some file system takes for one."""
    return int.from_bytes(hashlib.blake2b(_folded(mask), digest_size=8).digest(), "little")


def _folded(mask: str) -> bytes:
    """File systems may ignore case and Unicode form; a mask must have its name on all of them."""
    # The Unicode Standard, section 3.13, canonical caseless matching.
    folded = unicodedata.normalize("NFD", mask).casefold()
    return unicodedata.normalize("NFD", folded).encode("utf-8", "surrogateescape")


def _folders(images: list[Source]) -> dict[str, int]:
    """Every folder that masks will lie in, and its key."""
    found: dict[str, int] = {}
    for source in images:
        folder = source.name.rpartition("/")[0]
        while folder and folder not in found:
            found[folder] = _key(folder)
            folder = folder.rpartition("/")[0]
    return found


def _refuse_collisions(
    images: list[Source], keys: array[int], folders: dict[str, int], names: str
) -> None:
    values, counts = np.unique(np.frombuffer(keys, np.uint64), return_counts=True)
    # A mask may also meet a folder: x.jpg gives x.png, and so does x.png/ with an image in it.
    taken = np.isin(values, np.array([*folders.values()], np.uint64))
    suspects = set(values[(counts > 1) | taken].tolist())
    if not suspects:
        return
    meeting: dict[bytes, list[str]] = {}
    for source, key in zip(images, keys, strict=True):
        if key in suspects:
            folded = _folded(steps.mask_name(source.name, names))
            meeting.setdefault(folded, []).append(source.name)
    for folder, key in folders.items():
        if key in suspects:
            meeting.setdefault(_folded(folder), []).append(f"{folder}/")
    groups = [group for group in meeting.values() if len(group) > 1]
    if not groups:
        return  # two names with one hash
    helps = names == "stem" and all(
        len({_folded(steps.mask_name(name, "full")) for name in group}) == len(group)
        for group in groups
    )
    raise PetsegError(
        f"{len(groups)} mask names are claimed more than once: "
        + _some([" and ".join(group) for group in groups])
        + ("; --names full gives x.jpg.png" if helps else "; rename them")
    )


def _refuse_places(
    images: list[Source], keys: array[int], folders: dict[str, int], target: Path
) -> None:
    """Refuse photos where masks go, whatever glob, list or link led there."""
    reserved = [folder for folder in folders if _folded(folder) == _folded(masks.RESERVED)]
    if reserved:
        raise PetsegError(
            f"the input has a folder {reserved[0]}/, which would meet {target / masks.RESERVED}, "
            "where stats and other formats go; rename it"
        )
    home = os.path.join(os.path.realpath(target), "")  # noqa: PTH118 - a Path for each is slow
    folder = real = None
    inside: list[tuple[Source, int]] = []
    for source in images:
        if os.path.dirname(source.path) != folder:  # noqa: PTH120 - as above
            folder = os.path.dirname(source.path)  # noqa: PTH120 - as above
            real = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118 - as above
        assert real is not None
        if real.startswith(home):
            file = os.path.basename(source.path)  # noqa: PTH119 - as above
            inside.append((source, _key(f"{real[len(home) :]}{file}")))
    places = set(keys) if inside else set()
    meeting = [source.path for source, key in inside if key in places]
    if meeting:
        raise PetsegError(
            f"{len(meeting)} images lie in {target}, where masks of that name are to go: "
            f"{_some(meeting)}; choose another folder for the masks"
        )


def _refuse_masks_among_photos(images: list[Source], rules: Rules) -> None:
    """Refuse a glob that would take this run's masks for photos the next time."""
    names = (steps.mask_name(source.name, rules.maker.names) for source in images)
    found = sources.would_find(rules.pattern, rules.folder, names)
    if found is not None:
        raise PetsegError(
            f"{rules.pattern} finds masks in {rules.folder}, too: {found} would be taken for a "
            "photo the next time; choose a folder outside, or a pattern that leaves it out"
        )


def _some(lines: list[str]) -> str:
    shown = "; ".join(lines[:_SHOWN])
    more = len(lines) - _SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown
