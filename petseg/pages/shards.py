"""What shards' stats tell together: their sums, how each went, and which have left none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from petseg.errors import PetsegError, some
from petseg.pages.run import STATS, Run, ShardRun, StageTimes, read_stats, understand
from petseg.photos.shards import Shard, find_own

# What shards may differ in, and is told of each.
_EACH_ITS_OWN = ("shard", "stats")


def read_last(folder: Path) -> Run | None:
    """The last run on a folder of masks, in one piece or in shards, whichever ended later.

    Args:
        folder: `masks/petseg`.

    Returns:
        None where no run has left its stats.

    Raises:
        PetsegError: they cannot be read.
    """
    own = find_own(folder, STATS)
    whole = folder / STATS
    try:
        times = {shard: path.stat().st_mtime_ns for shard, path in own.items()}
        latest = max(own, key=lambda shard: times[shard], default=None)
        if latest is None or (whole.exists() and whole.stat().st_mtime_ns > times[latest]):
            stats = read_stats(whole)
            return None if stats is None else understand(stats)
    except OSError as error:
        raise PetsegError(f"cannot look at {error.filename}: {error.strerror}") from error
    # Of another count are those of an earlier run, which was split otherwise.
    return join({shard: read(path) for shard, path in own.items() if shard.count == latest.count})


def read(path: Path) -> Mapping[str, Any]:
    """A shard's stats.

    Raises:
        PetsegError: they are not there, cannot be read, or are no stats.
    """
    stats = read_stats(path)
    if stats is None:
        raise PetsegError(f"{path} was there a moment ago: run the same command again")
    try:
        understand(stats)
    except PetsegError as error:
        raise PetsegError(f"{path}: {error}") from error
    return stats


def join(stats: Mapping[Shard, Mapping[str, Any]]) -> Run:
    """One run of several shards'.

    Args:
        stats: of at least one shard, all of one count, ascending.
    """
    count = next(iter(stats)).count
    runs = {shard: understand(values) for shard, values in stats.items()}
    missing = gaps((shard.number for shard in stats), count)
    counts: Counter[str] = Counter()
    for run in runs.values():
        for name, number in run.counts:
            counts[name] += number
    facts = {"shards": f"{len(stats)} of {count}"}
    if missing:
        facts["shards"] += f"; without stats, not ended or never begun: {missing}"
    rate = sum(values["images_per_second"] for values in stats.values())
    facts["speed"] = f"{rate:.1f} images/s, the sum of the shards'"
    for name in ("photos", "model", "computed", "versions"):
        told = _distinct(text for run in runs.values() for key, text in run.facts if key == name)
        if told:
            facts[name] = some(told)
    busy: dict[str, float] = {}
    for stage in (stage for run in runs.values() for stage in run.stages):
        busy[stage.name] = busy.get(stage.name, 0.0) + stage.busy
    options = [
        (name, some(_distinct(dict(run.options).get(name, "") for run in runs.values())))
        for name in _distinct(name for run in runs.values() for name, _ in run.options)
        if name not in _EACH_ITS_OWN
    ]
    return Run(
        counts=list(counts.items()),
        facts=list(facts.items()),
        # Medians of several runs cannot be told from theirs.
        stages=[StageTimes(name, seconds, None, None, None) for name, seconds in busy.items()],
        bottleneck=None,
        rates=[],
        rates_begin=0.0,
        rates_width=1.0,
        options=options,
        notes=[f"shard {shard}: {note}" for shard, run in runs.items() for note in run.notes],
        classes=next(iter(runs.values())).classes,
        failures=tuple(name for run in runs.values() for name in run.failures),
        shards=[_row(shard, values, runs[shard]) for shard, values in stats.items()],
        missing=missing,
    )


def _row(shard: Shard, stats: Mapping[str, Any], run: Run) -> ShardRun:
    return ShardRun(
        name=str(shard),
        counts=dict(run.counts),
        stopped=stats["stopped"],
        seconds=float(stats["wall_seconds"]),
        images_per_second=float(stats["images_per_second"]),
        bottleneck=run.bottleneck,
    )


def gaps(numbers: Iterable[int], count: int) -> str:
    """Which of 1 to `count` are not among `numbers`, ascending ones, in few words: `3, 5 to 9`."""
    found = []
    before = 0
    for number in (*numbers, count + 1):
        if number - before == 2:
            found.append(f"{before + 1}")
        elif number - before > 2:
            found.append(f"{before + 1} to {number - 1}")
        before = number
    return ", ".join(found)


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
