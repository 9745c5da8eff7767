"""What a run will do, settled before it does any of it.

Every file is looked at once: is it an image, which mask is its, does another file claim the same
mask, and what lies there already.  A run that must be refused is refused here, with nothing done.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from petseg import imageio, steps
from petseg.collisions import refuse_collisions
from petseg.engines.outcome import Work
from petseg.errors import ImageError, PetsegError, some
from petseg.formats.catalog import PICTURES
from petseg.record import Maker, Record
from petseg.records import MaskState, inspect
from petseg.sources import Source


@dataclass
class Plan:
    """The outcome of looking at every file.

    Attributes:
        files: found.
        ignored: no images.
        skipped: masks that are there already, kept ones included, and need nothing.
        kept: of these, those that petseg did not make or somebody changed; the mask's name.
        photos: the photo's name of every mask that petseg did not make or somebody changed.
        failed: images known to be unreadable: name and reason.
        todo: images to do, in order.
        redone: of these, those whose mask is made anew: it was cut off, is of an earlier version of
            the photo, or lacks a format that needs the network.
    """

    files: int = 0
    ignored: int = 0
    skipped: int = 0
    kept: list[str] = field(default_factory=list)
    photos: dict[str, str] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    todo: list[Work] = field(default_factory=list)
    redone: int = 0


@dataclass(frozen=True)
class Rules:
    """What decides whether a mask is to be made.

    Attributes:
        folder: of the masks.
        maker: model, transform and options of this run.
        formats: names of pictures, which have to be there, too.
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
    for source in sources:
        plan.files += 1
        if not source.is_image:
            plan.ignored += 1
            continue
        images.append(source)
    if not images:
        raise PetsegError(
            f"no images found among {plan.files} files"
            if plan.files
            else "no images found: the input is empty"
        )
    refuse_collisions(images, rules.maker.names, rules.folder, rules.pattern)
    others: list[str] = []
    for source in images:
        if source.problem is not None:
            plan.failed.append((source.name, source.problem))
        else:
            _place(source, rules, plan, others)
    if others:
        raise PetsegError(
            f"{len(others)} masks in {rules.folder} were made by another model or with other "
            f"options: {some(others)}; --redo makes petseg's own masks again, another folder "
            "keeps both"
        )
    return plan


def _place(source: Source, rules: Rules, plan: Plan, others: list[str]) -> None:
    """Decide about one image by what lies where its mask goes."""
    name = steps.mask_name(source.name, rules.maker.names)
    work = Work(source.path, source.name, name)
    try:
        state, record = inspect(rules.folder / name, rules.max_pixels)
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
        plan.photos[name] = source.name
        if missing := _stale(name, rules):
            plan.todo.append(dataclasses.replace(work, derive=missing, by_person=True))
        else:
            plan.skipped += 1
            plan.kept.append(name)
    elif state is MaskState.CUT or rules.redo:
        plan.todo.append(work)
        plan.redone += 1
    elif state is MaskState.OTHER:
        others.append(f"{name} (its record is of another version of petseg)")
    else:
        assert record is not None
        if record.maker != rules.maker:
            others.append(f"{name} ({_difference(record.maker, rules.maker)})")
            return
        missing = _missing(name, rules)
        needed = any(PICTURES[chosen].needs_network for chosen in missing)
        if needed or not _same_photo(source, record, rules):
            plan.todo.append(work)
            plan.redone += 1
        elif missing:
            plan.todo.append(dataclasses.replace(work, derive=missing))
        else:
            plan.skipped += 1


def _same_photo(source: Source, record: Record, rules: Rules) -> bool:
    try:
        if rules.verify:
            identity, _ = steps.identify(source.path, rules.max_pixels)
            return identity.sha256 == record.image.sha256
        status = os.stat(source.path)  # noqa: PTH116 - a Path for each of millions is slow
    except (OSError, ImageError):
        return False  # reading it will say why
    found = (os.path.basename(source.path), status.st_size, status.st_mtime_ns)  # noqa: PTH119 - as above
    return found == (record.image.name, record.image.size, record.image.mtime_ns)


def _missing(name: str, rules: Rules) -> tuple[str, ...]:
    """The formats that a mask of petseg's lacks."""
    return tuple(
        chosen
        for chosen in rules.formats
        if not steps.extra_path(rules.folder, PICTURES[chosen], name).exists()
    )


def _stale(name: str, rules: Rules) -> tuple[str, ...]:
    """The formats that a person's mask lacks, or that are older than it: of what was there before.

    The status' time, and not the content's, because a mask that was worked on elsewhere may be put
    here with its own.
    """
    try:
        changed = (rules.folder / name).stat()
    except OSError:
        return ()
    if not stat.S_ISREG(changed.st_mode):
        return ()
    found = []
    for chosen in rules.formats:
        try:
            made = steps.extra_path(rules.folder, PICTURES[chosen], name).stat().st_mtime_ns
        except OSError:
            made = 0
        if made < max(changed.st_mtime_ns, changed.st_ctime_ns):
            found.append(chosen)
    return tuple(found)


def _difference(found: Maker, wanted: Maker) -> str:
    return ", ".join(
        f"{field}: {getattr(found, field)[:12]}, now {getattr(wanted, field)[:12]}"
        for field in Maker.__dataclass_fields__
        if getattr(found, field) != getattr(wanted, field)
    )
