"""What `stats.json` and `failures.csv` tell of the last run on a folder of masks."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petseg.classes import PET_CLASSES, SegmentClass
from petseg.errors import PetsegError
from petseg.pages.html import number, seconds
from petseg.photos.shards import Shard, own_name

# In `masks/petseg/`.
STATS, FAILURES = "stats.json", "failures.csv"

# Rows of lists that a page shows; and kinds of failures that are told apart.
_SHOWN = 50
_MOST_KINDS = 1000
_OTHERS = "others"


@dataclass(frozen=True)
class StageTimes:
    """One stage of a run; seconds, None where nothing went through it."""

    name: str
    busy: float
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True)
class ShardRun:
    """How one of several shards went.

    Attributes:
        name: "2/8".
        counts: what became of its files.
        stopped: why it ended early; None where it went to its end.
        seconds: of its whole run.
        images_per_second: masks written, since its model was loaded.
        bottleneck: the stage that held it back; None without masks.
    """

    name: str
    counts: dict[str, int]
    stopped: str | None
    seconds: float
    images_per_second: float
    bottleneck: str | None


@dataclass(frozen=True)
class Run:
    """One run, as far as its stats tell.

    Attributes:
        counts: what became of the files: a word and a number each.
        facts: what ran and how fast: a word and a text each.
        stages: in the order in which an image goes through them.
        bottleneck: the stage that held the run back; None without masks.
        rates: masks per second in each span of time; empty where it is not known.
        rates_begin, rates_width: of the spans, seconds since the run began.
        options: those that have a value, in words.
        notes: lines for people.
        classes: what the masks' values mean.
        failures: names of the lists of failures, beside the stats.
        shards: each of them, where the run was made in such; empty for one in one piece.
        missing: the numbers of those that have left no stats, for people; "" where all have.
    """

    counts: list[tuple[str, int]]
    facts: list[tuple[str, str]]
    stages: list[StageTimes]
    bottleneck: str | None
    rates: list[float]
    rates_begin: float
    rates_width: float
    options: list[tuple[str, str]]
    notes: list[str]
    classes: tuple[SegmentClass, ...] = PET_CLASSES
    failures: tuple[str, ...] = (FAILURES,)
    shards: list[ShardRun] = field(default_factory=list)
    missing: str = ""


def read_stats(path: Path) -> dict[str, Any] | None:
    """The content of a `stats.json`; None where there is none.

    Raises:
        PetsegError: it cannot be read.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PetsegError(f"cannot read {path}: {error}; remove it, or name another") from error
    if not isinstance(values, dict):
        raise PetsegError(f"{path} holds no JSON object; remove it, or name another")
    return values


def understand(stats: Mapping[str, Any]) -> Run:
    """A run from its stats.

    Raises:
        PetsegError: they are not those of a run of petseg-batch of this version.
    """
    try:
        over_time = stats["masks_over_time"]
        if over_time is None:
            over_time = {"begin_seconds": 0.0, "bin_seconds": 1.0, "counts": []}
        begin, width = float(over_time["begin_seconds"]), float(over_time["bin_seconds"])
        if not (math.isfinite(begin) and 0 < width < math.inf):
            raise ValueError(f"masks over time begin at {begin}, in bins of {width} seconds")
        shard = stats["options"].get("shard")
        return Run(
            counts=[(str(name), int(count)) for name, count in stats["counts"].items()],
            facts=list(_facts(stats).items()),
            stages=[
                StageTimes(
                    str(name),
                    float(stage["busy_core_seconds"]),
                    *(_seconds(stage[f"{part}_seconds"]) for part in ("p50", "p95", "p99")),
                )
                for name, stage in stats["stages"].items()
            ],
            bottleneck=stats["bottleneck"],
            rates=[count / width for count in over_time["counts"]],
            rates_begin=begin,
            rates_width=width,
            options=[(str(k), text) for k, v in stats["options"].items() if (text := _plain(v))],
            notes=[str(note) for note in stats["notes"]],
            classes=tuple(map(SegmentClass.from_json, stats["classes"])),
            failures=(own_name(FAILURES, Shard.parse(shard) if shard else None),),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise PetsegError(
            f"these are not the stats of a run of this version of petseg-batch: {error!r}"
        ) from error


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


def _plain(value: object) -> str:
    """An option's value in words; "" where it was not given."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        parts = ((name, _plain(part)) for name, part in value.items())
        return ", ".join(f"{name} {part}" for name, part in parts if part)
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value)


def _facts(stats: Mapping[str, Any]) -> dict[str, str]:
    facts = {
        "photos": str(stats["options"]["images"]),
        "ended": f"stopped by {stats['stopped']}" if stats["stopped"] else "went to its end",
        "time": seconds(stats["wall_seconds"]),
    }
    if stats["provider"]:
        model = stats["model"]
        facts |= {
            "model": f"{model['path']} ({model['hash'][:12]}, stored in {model['stored']})",
            "computed": f"{stats['precision']} on {stats['provider']}, {stats['device']}",
            "speed": f"{stats['images_per_second']:.1f} images/s, "
            f"{stats['megapixels_per_second']:.1f} megapixels/s",
            "workers": f"{stats['workers']}, batches of {stats['batch_size']}",
        }
        # Sessions on a cluster load their own, each when it is started.
        if stats["model_load_seconds"] is not None:
            facts["model loaded in"] = seconds(stats["model_load_seconds"])
    if stats["first_mask_seconds"] is not None:
        facts["first mask after"] = seconds(stats["first_mask_seconds"])
    if stats["peak_memory_bytes"] is not None:
        facts["memory, at most"] = f"{number(stats['peak_memory_bytes'] // 1_000_000)} MB"
    if stats["worker_restarts"]:
        facts["workers replaced"] = str(stats["worker_restarts"])
    for name, words in (
        ("retries", "steps done again, for lost nodes"),
        ("store_retries", "requests to stores made again"),
    ):
        if stats.get(name):
            facts[words] = str(stats[name])
    if stats["equal_to_float32"] is not None:
        facts["pixels as in float32"] = f"{100 * stats['equal_to_float32']:.2f} %"
    versions = stats["versions"].items()
    return facts | {"versions": ", ".join(f"{name} {version}" for name, version in versions)}


@dataclass
class Failures:
    """The photos that failed, in bounded memory.

    Attributes:
        total: how many there are.
        kinds: how many of each kind; reasons that differ in numbers alone are one kind.
        first: names and reasons of the first of them.
        lists: the files that list them all.
    """

    lists: list[str]
    total: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    first: list[tuple[str, str]] = field(default_factory=list)

    @property
    def commonest(self) -> list[tuple[str, int]]:
        """The kinds that a page shows."""
        return self.kinds.most_common(_SHOWN)


def read_failures(paths: Iterable[Path]) -> Failures:
    """What one `failures.csv`, or that of each shard, lists: nothing where there is none.

    Raises:
        PetsegError: one cannot be read.
    """
    failures = Failures([])
    for path in paths:
        before = failures.total
        _add_failures(failures, path)
        if failures.total > before:
            failures.lists.append(path.name)
    return failures


def _add_failures(failures: Failures, path: Path) -> None:
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.DictReader(file):
                name, reason = row["file"], row["reason"]
                failures.total += 1
                kind = re.sub(r"\d+", "\N{HORIZONTAL ELLIPSIS}", reason)
                known = kind in failures.kinds or len(failures.kinds) < _MOST_KINDS
                failures.kinds[kind if known else _OTHERS] += 1
                if failures.total <= _SHOWN:
                    failures.first.append((name, reason))
    except FileNotFoundError:
        return
    except (OSError, csv.Error, KeyError, TypeError) as error:
        raise PetsegError(
            f"{path} cannot be read as the list of failures of a run, with the columns file and "
            f"reason ({error}): move it away"
        ) from error
