"""What cannot be had where photos or masks are no files in folders of this machine."""

from __future__ import annotations

import contextlib
import glob
from pathlib import Path

from petseg.errors import PetsegError
from petseg.formats.catalog import PICTURES, TABLES
from petseg.masks import packs
from petseg.photos import sources
from petseg.photos.addresses import is_address, overlap, shown
from petseg.planning.config import BatchConfig
from petseg.remote import archives


def check(config: BatchConfig) -> None:
    """Refuse what cannot be had where photos, masks, model or list lie, or how they are packed.

    Raises:
        PetsegError: with what to do instead.
    """
    masks, images = shown(str(config.masks)), shown(config.images)
    packed = archives.in_store(config.images) or archives.are(config.images)
    if is_address(config.masks):
        _check_stored_masks(config, masks)
    else:
        _check_packed_masks(config)
    # Where both are of this machine, `check_folders` compares them.  Masks are no archives.
    stored = is_address(config.images) or is_address(config.masks)
    if stored and not packed and overlap(config.images, str(config.masks)):
        raise PetsegError(
            f"{masks} and {images} lie inside one another: masks would be taken for photos "
            "the next time; choose another place"
        )
    if config.engine == "ray":
        _check_nodes(config, packed)
    if packed or is_address(config.images):
        for option in ("verify", "check"):
            if getattr(config, option):
                raise PetsegError(
                    f"--{option} reads photos before the run, and {images} is "
                    f"{'packed' if packed else 'in a store'}; copy some of them to a folder of "
                    "this machine for it"
                )


def _check_nodes(config: BatchConfig, packed: bool) -> None:
    if packed:
        raise PetsegError(
            "--engine ray reads no archives: unpack them into a folder that every node sees, or "
            "into a store; or run shards of the photos, each a petseg-batch --shard K/N"
        )
    drawn = [name for name in config.extras if PICTURES[name].needs_photo]
    if drawn and is_address(config.images):
        raise PetsegError(
            f"--format {drawn[0]} draws on the photo, which --engine ray brings from "
            f"{shown(config.images)} to the node that reads it alone: leave it out, and make it of "
            "the masks that are there, with the same command without --engine ray"
        )


def _check_stored_masks(config: BatchConfig, masks: str) -> None:
    if config.shards is not None:
        raise PetsegError(
            f"--shards packs masks in a folder of this machine, and {masks} is in a store: name a "
            "folder, and copy it there when the run has ended"
        )
    tables = [f"--format {name}" for name in TABLES if name in config.formats]
    if config.review_below is not None:
        tables.append("--review-below")
    if tables:
        raise PetsegError(
            f"{tables[0]} reads all masks, and {masks} is in a store; copy the masks to this "
            "machine and run the same command there, which makes it of them without the network"
        )


def _check_packed_masks(config: BatchConfig) -> None:
    if config.shards is None:
        # Where it may not be looked into, the run is refused for that.
        with contextlib.suppress(OSError):
            if packs.find(config.folder):
                raise PetsegError(
                    f"the masks in {config.masks} are in shards, tar files: add --shards COUNT to "
                    "go on with them, or choose another folder for masks that are single files"
                )
        return
    if config.engine == "ray":
        raise PetsegError(
            "--engine ray writes masks from every node, and --shards from one process: run "
            "--shard K/N --shards COUNT instead, once for each node, into the same folder"
        )
    if config.extras:
        raise PetsegError(
            f"--shards packs masks alone, and --format {config.extras[0]} is a file more for each "
            "photo: leave it out; unpacked into a folder (tar -xf), masks get their pictures from "
            "the same command without --shards"
        )
    image = Path(config.images)
    of_masks = image.is_file() and packs.is_name(image.name)
    if archives.in_store(config.images) and overlap(config.images, str(config.masks)):
        of_masks = glob.has_magic(config.images) or packs.is_name(image.name)
    if of_masks or sources.would_find(config.images, config.folder, [packs.tar_name(0)]):
        raise PetsegError(
            f"{shown(config.images)} finds shards of masks in {config.masks}, too, which would be "
            "taken for photos; choose another folder for the masks, or a pattern that leaves it out"
        )
