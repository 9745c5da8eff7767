"""What a run will do, settled before it does any of it.

Every file is looked at once: is it an image, which mask is its, does another file claim the same
mask, and what lies there already.  A run that must be refused is refused here, with nothing done.
"""

from __future__ import annotations

import dataclasses
import os
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from petseg import steps
from petseg.engines.outcome import Work
from petseg.errors import ImageError, PetsegError, some
from petseg.formats.catalog import PICTURES
from petseg.masks.record import Maker, Record
from petseg.masks.records import MaskState
from petseg.masks.shelf import LocalShelf, Look, Shelf
from petseg.photos import imageio
from petseg.photos.shards import Shard
from petseg.photos.sources import Source
from petseg.planning.collisions import Surroundings, refuse_collisions

# Names that are kept of files which are no images.
_STRANGERS = 3


@dataclass
class Plan:
    """The outcome of looking at every file.

    Attributes:
        files: found.
        ignored: no images.
        strangers: of these the first, by their names.
        skipped: masks that are there already, kept ones included, and need nothing.
        kept: of these, those that petseg did not make or somebody changed; the mask's name.
        photos: the photo's name of every mask that petseg did not make or somebody changed.
        failed: images known to be unreadable: name and reason.
        todo: images to do, in order.
        redone: of these, those whose mask is made anew: it was cut off, is of an earlier version of
            the photo, or lacks a format that needs the network.
        mask_keys: `collisions.key` of the mask of every image, those that cannot be read, too.
    """

    files: int = 0
    ignored: int = 0
    strangers: list[str] = field(default_factory=list)
    skipped: int = 0
    kept: list[str] = field(default_factory=list)
    photos: dict[str, str] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    todo: list[Work] = field(default_factory=list)
    redone: int = 0
    mask_keys: array[int] = field(default_factory=lambda: array("Q"))

    def summary(self) -> list[str]:
        """What will become of the files, in a line or two for people."""
        derived = sum(bool(work.derive) for work in self.todo)
        line = (
            f"{self.files} files: {len(self.todo) - derived} to do, {self.skipped} skipped, "
            f"{len(self.failed)} unreadable, {self.ignored} ignored"
        )
        if derived:
            line += f"; {derived} masks are there, and other formats are made of them"
        if not self.strangers:
            return [line]
        return [line, f"ignored, as they are no images: {some(self.strangers, self.ignored)}"]


@dataclass(frozen=True)
class Rules:
    """What decides whether a mask is to be made.

    Attributes:
        folder: of the masks.
        maker: model, transform and options of this run.
        formats: names of pictures, which have to be there, too.
        redo: make petseg's own masks again.
        overwrite: make everybody's masks again.
        verify: compare the photo's content, not its size and time.
        images: what the photos were looked for in, for people.
        max_pixels: of a photo; larger ones fail.
        pattern: what the photos were found by: a glob may find masks as well.
        shelf: tells what lies there; None for a folder on this machine.
        shard: whose files alone are counted and done; None for all.
    """

    folder: Path
    maker: Maker
    formats: tuple[str, ...]
    redo: bool
    overwrite: bool
    verify: bool
    images: str = "the input"
    max_pixels: int = imageio.DEFAULT_MAX_PIXELS
    pattern: str = ""
    shelf: Shelf | None = None
    shard: Shard | None = None


def make_plan(sources: Iterable[Source], rules: Rules) -> Plan:
    """Look at every file.

    Raises:
        PetsegError: two images have one mask name, an image lies where a mask goes, no image was
            found, or a mask was made by another model or with other options.
    """
    plan = Plan()
    images: list[Source] = []
    around = Surroundings(rules.folder)
    elsewhere = 0  # files of other shards
    for source in sources:
        if source.is_image:
            around.add(source)
        if rules.shard is not None and not rules.shard.holds(source.name):
            elsewhere += 1
            continue
        plan.files += 1
        if not source.is_image:
            plan.ignored += 1
            if len(plan.strangers) < _STRANGERS:
                plan.strangers.append(source.name)
            continue
        images.append(source)
    # A shard may well have none, but not all of them.
    if not around.folders and not elsewhere:
        raise PetsegError(
            f"no images found among {plan.files} files in {rules.images}: "
            + some(plan.strangers, plan.ignored)
            if plan.files
            else f"no images found: {rules.images} is empty"
        )
    plan.mask_keys = refuse_collisions(
        images, around, rules.maker.names, rules.folder, rules.pattern
    )
    others: list[str] = []
    shelf = rules.shelf or LocalShelf(rules.folder, rules.max_pixels)
    readable = (source for source in images if source.problem is None)
    looks = shelf.look(steps.mask_name(source.name, rules.maker.names) for source in readable)
    for source in images:
        if source.problem is not None:
            plan.failed.append((source.name, source.problem))
        else:
            _place(source, next(looks), shelf, rules, plan, others)
    if not (rules.redo or rules.overwrite):
        others += _other_names(plan, shelf, rules)
    if others:
        raise PetsegError(
            f"{len(others)} masks in {rules.folder} were made by another model or with other "
            f"options: {some(others)}; --redo makes petseg's own masks again, another folder "
            "keeps both"
        )
    return plan


def _other_names(plan: Plan, shelf: Shelf, rules: Rules) -> list[str]:
    """Masks of photos to do that petseg made by the other rule for names.

    They would be made again beside these, and a person's work among them would be left behind.
    """
    other = "stem" if rules.maker.names == "full" else "full"
    names = [
        name
        for work in plan.todo
        if not work.derive and (name := steps.mask_name(work.name, other)) != work.mask
    ]
    found = []
    for name, look in zip(names, shelf.look(names), strict=True):
        try:
            state, record = look()
        except OSError:
            continue  # nothing of this run's
        if state is MaskState.OURS and record is not None and record.maker.names == other:
            found.append(f"{name} (names: {other}, now {rules.maker.names})")
    return found


def _place(
    source: Source, look: Look, shelf: Shelf, rules: Rules, plan: Plan, others: list[str]
) -> None:
    """Decide about one image by what lies where its mask goes."""
    name = steps.mask_name(source.name, rules.maker.names)
    work = Work(source.path, source.name, name)
    try:
        state, record = look()
    except PermissionError as error:
        plan.failed.append(
            (source.name, f"its mask cannot be looked at: {error.strerror or error}")
        )
        return
    except OSError as error:
        raise PetsegError(
            f"cannot read {rules.folder / name}: {error.strerror or error}"
        ) from error
    if state is MaskState.ABSENT:
        plan.todo.append(work)
    elif rules.overwrite:
        plan.todo.append(work)
        plan.redone += 1
    elif state is MaskState.FOREIGN:
        plan.photos[name] = source.name
        if missing := _stale(name, shelf, rules):
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
        missing = _missing(name, shelf, rules)
        needed = any(PICTURES[chosen].needs_network for chosen in missing)
        if needed or not _same_photo(source, record, rules):
            plan.todo.append(work)
            plan.redone += 1
        elif missing:
            plan.todo.append(dataclasses.replace(work, derive=missing))
        else:
            plan.skipped += 1


def _same_photo(source: Source, record: Record, rules: Rules) -> bool:
    name = os.path.basename(source.path)  # noqa: PTH119 - a Path for each of millions is slow
    recorded = (record.image.name, record.image.size, record.image.mtime_ns)
    if source.size is not None:
        return (name, source.size, source.mtime_ns) == recorded
    try:
        if rules.verify:
            identity, _ = steps.identify(source.path, rules.max_pixels)
            return (name, identity.sha256) == (record.image.name, record.image.sha256)
        status = os.stat(source.path)  # noqa: PTH116 - as above
    except (OSError, ImageError):
        return False  # reading it will say why
    return (name, status.st_size, status.st_mtime_ns) == recorded


def _missing(name: str, shelf: Shelf, rules: Rules) -> tuple[str, ...]:
    """The formats that a mask of petseg's lacks."""
    return tuple(chosen for chosen in rules.formats if shelf.made_ns(_extra(chosen, name)) is None)


def _stale(name: str, shelf: Shelf, rules: Rules) -> tuple[str, ...]:
    """The formats that a person's mask lacks, or that are older and of what was there before."""
    changed = shelf.changed_ns(name)
    if changed is None:
        return ()
    return tuple(
        chosen for chosen in rules.formats if (shelf.made_ns(_extra(chosen, name)) or 0) < changed
    )


def _extra(chosen: str, name: str) -> str:
    return steps.extra_path(Path(), PICTURES[chosen], name).as_posix()


def _difference(found: Maker, wanted: Maker) -> str:
    return ", ".join(
        f"{field}: {getattr(found, field)[:12]}, now {getattr(wanted, field)[:12]}"
        for field in Maker.__dataclass_fields__
        if getattr(found, field) != getattr(wanted, field)
    )
