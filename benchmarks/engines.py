"""Whether the engines make the same masks: python benchmarks/engines.py PHOTOS.

petseg-batch on one folder of photos, each time into a new folder: with the local engine, on a Ray
cluster of this machine, and as three shards that run at the same time.  Prints a digest of all
masks' names and bytes, records included, for each, and ends with 1 where they are not all the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from petseg.cli.common import FAILED, OK, PARTLY_FAILED, exits
from petseg.errors import PetsegError
from petseg.masks.reading import RESERVED
from petseg.photos import sources
from petseg.planning.config import packaged
from petseg.system import machine

COMMAND = (sys.executable, "-c", "from petseg.cli.batch import main; main()")
# What each adds to the command; several commands run at the same time.
ENGINES: dict[str, list[tuple[str, ...]]] = {
    "local": [()],
    "ray": [("--engine", "ray")],
    "shards": [("--shard", f"{number}/3") for number in (1, 2, 3)],
}


@dataclass(frozen=True)
class Made:
    """What an engine made.

    Attributes:
        engine: one of ENGINES.
        seconds: from the first command's start to the last one's end.
        masks: SHA-256 of each mask's file, by its name.
        digest: SHA-256 of all that, in the order of names.
    """

    engine: str
    seconds: float
    masks: dict[str, str]
    digest: str


@click.command(context_settings={"show_default": True})
@click.argument("photos", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--provider", type=click.Choice(("cpu", "openvino")), default="cpu")
@click.option("--limit", type=click.IntRange(1), help="The first so many photos, by name.")
@click.option(
    "--model", type=click.Path(path_type=Path, exists=True), help="[default: the package's]"
)
@click.option(
    "--only",
    "engines",
    type=click.Choice([*ENGINES]),
    multiple=True,
    default=[*ENGINES],
    help="Repeatable; the first is what the others are compared with.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(
    photos: Path,
    provider: str,
    limit: int | None,
    model: Path | None,
    engines: tuple[str, ...],
    as_json: bool,
) -> int:
    """Run each engine on the same photos and compare all masks."""
    options = ("--provider", provider, "--model", str((model or packaged()).absolute()))
    with tempfile.TemporaryDirectory(prefix="petseg-engines-") as name:
        folder = Path(name)
        names = itertools.islice(
            (source.name for source in sources.find(str(photos)) if source.is_image), limit
        )
        # JSON holds every name, one that is no Unicode, too.
        (folder / "photos.jsonl").write_text(
            "".join(json.dumps({"path": name}) + "\n" for name in names)
        )
        options += ("--list", str(folder / "photos.jsonl"))
        made = [make(engine, photos.absolute(), folder / engine, options) for engine in engines]
    same = len({one.digest for one in made}) == 1
    lines = [
        f"{machine.device_name('cpu')}, {machine.usable_cores()} cores, {provider}",
        "",
        "| engine | masks | seconds | SHA-256 of names and masks |",
        "|---|---|---|---|",
        *(
            f"| {one.engine} | {len(one.masks)} | {one.seconds:.1f} | {one.digest} |"
            for one in made
        ),
        "",
        "all the same" if same else "not the same:",
        *(line for one in made[1:] for line in differences(made[0], one)),
    ]
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps([vars(one) for one in made]))
    return OK if same else FAILED


def make(engine: str, photos: Path, masks: Path, options: tuple[str, ...]) -> Made:
    """Run an engine's commands at the same time.

    Raises:
        PetsegError: one of them could not do it, or made no mask.
    """
    began = time.perf_counter()
    running = [
        subprocess.Popen(
            [*COMMAND, str(photos), str(masks), *options, *own, "--no-report", "--quiet"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own in ENGINES[engine]
    ]
    # A photo that cannot be read has no mask, whatever the engine.
    wrong = [
        f"petseg-batch {' '.join(own)} ended with {command.returncode}: {said.strip()[-1000:]}"
        for own, command, (_, said) in [
            (own, command, command.communicate())
            for own, command in zip(ENGINES[engine], running, strict=True)
        ]
        if command.returncode not in (OK, PARTLY_FAILED)
    ]
    seconds = time.perf_counter() - began
    if wrong:
        raise PetsegError(f"{engine}: {'; '.join(wrong)}")
    return collect(engine, seconds, masks)


def collect(engine: str, seconds: float, masks: Path) -> Made:
    """The digests of what lies in a folder of masks; raises PetsegError where nothing does."""
    found = {}
    for path in sorted(masks.rglob("*")):
        name = path.relative_to(masks)
        if path.is_file() and name.parts[0] != RESERVED:
            found[name.as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found:
        raise PetsegError(f"{engine} made no mask: expected photos that can be read")
    whole = hashlib.sha256()
    for name, digest in sorted(found.items()):
        whole.update(f"{name}\0{digest}\n".encode(errors="surrogateescape"))
    return Made(engine, seconds, found, whole.hexdigest())


def differences(one: Made, other: Made) -> list[str]:
    """A line for each mask that is another, or is one's alone."""
    names = sorted(one.masks.keys() | other.masks.keys())
    return [
        f"{name}: {one.engine} {one.masks.get(name, 'none')[:12]}, "
        f"{other.engine} {other.masks.get(name, 'none')[:12]}"
        for name in names
        if one.masks.get(name) != other.masks.get(name)
    ]


if __name__ == "__main__":
    main()
