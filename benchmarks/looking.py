"""What it costs to look at names: petseg's finding and its plan, as a run makes them."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from petseg.masks.record import Maker
from petseg.photos import transforms
from petseg.photos.shards import Shard
from petseg.photos.sources import Source
from petseg.planning.config import BatchConfig, find_model, read_signature
from petseg.planning.plan import Rules, make_plan
from petseg.remote.site import opened

# A shard that has next to nothing of its own: what is left is what others' files cost.
OTHERS = Shard(1, 1000)


@dataclass(frozen=True)
class Looked:
    """What it took.

    Attributes:
        files: that were looked at.
        busy_seconds: processor time of this process.
        wall_seconds: of the clock.
        peak_bytes: of Python's memory.
    """

    files: int
    busy_seconds: float
    wall_seconds: float
    peak_bytes: int


def look(
    images: Path | str, masks: Path, model: Path | None = None, others: bool = False
) -> Looked:
    """Find the files and decide about each: once for the time, and once for the memory.

    Args:
        images: folder or address.
        masks: of the photos, or a folder without any.
        model: that made them; None for petseg-batch's own choice.
        others: as a shard to which hardly one of them belongs.
    """
    config = BatchConfig(str(images), masks, shard=OTHERS if others else None)
    about = read_signature(find_model(model)[0])
    maker = Maker(about.graph_hash, transforms.TRANSFORM, config.size, config.names)
    wall, busy = time.perf_counter(), time.process_time()
    files = _plan(config, maker)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    tracemalloc.start()
    _plan(config, maker)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Looked(files, busy, wall, peak)


def _plan(config: BatchConfig, maker: Maker) -> int:
    """Make the plan; returns how many files it saw."""
    seen = 0

    def counted(found: Iterable[Source]) -> Iterator[Source]:
        nonlocal seen
        for source in found:
            seen += 1
            yield source

    with opened(config) as site:
        rules = Rules(config.folder, maker, (), False, False, False, shard=config.shard)
        make_plan(counted(site.find()), rules)
    return seen
