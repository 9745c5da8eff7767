"""One of several runs on one input: which photos are its own, and what its files are called."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from petseg.system.text import caseless

_TEXT = re.compile(r"([0-9]+)/([0-9]+)")


@dataclass(frozen=True, order=True)
class Shard:
    """Shard `number` of `count`, counted from 1.

    A photo is one shard's by its folder and its name without the ending, whatever the case and the
    Unicode form: photos that would meet in one mask name are the same shard's, which sees it.
    Every machine and every version of Python splits alike.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(
                f"shards are counted from 1: expected 1/{self.count} to {self.count}/{self.count}, "
                f"found {self}.  Slurm's --array=1-{self.count} counts so; Kubernetes' "
                "JOB_COMPLETION_INDEX begins with 0: add 1"
                if self.count
                else f"expected at least one shard, as in 1/8, found {self}"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that `2/8` names.

        Raises:
            ValueError: it names none.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(f"expected K/N, the second of eight shards being 2/8, found {text!r}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, name: str) -> bool:
        """Whether the file of that name, below the input and with forward slashes, is its own."""
        stem = os.path.splitext(name)[0]  # noqa: PTH122 - a Path for each of millions is slow
        digest = hashlib.blake2b(caseless(stem), digest_size=8).digest()
        return int.from_bytes(digest, "little") % self.count == self.number - 1


def own_name(file: str, shard: Shard | None) -> str:
    """`stats.json` as a shard calls it: `stats-2-of-8.json`, beside those of all others."""
    if shard is None:
        return file
    path = Path(file)
    return f"{path.stem}-{shard.number}-of-{shard.count}{path.suffix}"


def find_own(folder: Path, file: str) -> dict[Shard, Path]:
    """Every shard's `file` in a folder, in order."""
    path = Path(file)
    pattern = re.compile(rf"{re.escape(path.stem)}-([0-9]+)-of-([0-9]+){re.escape(path.suffix)}")
    found = {}
    for place in folder.glob(f"{path.stem}-*-of-*{path.suffix}"):
        match = pattern.fullmatch(place.name)
        if match and 1 <= int(match[1]) <= int(match[2]):
            shard = Shard(int(match[1]), int(match[2]))
            # 02-of-8 is somebody else's.
            if own_name(file, shard) == place.name:
                found[shard] = place
    return dict(sorted(found.items()))
