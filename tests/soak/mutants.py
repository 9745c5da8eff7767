"""Mutated images of all formats through real workers: python -m soak.mutants --count 100000.

The network takes no time, before every three mutants goes a good photo, and nothing is kept on the
disk.  A quarter of the mutants get an overlay, too, for which a photo is decoded once more, at full
scale.  Each image has one outcome; the good ones' masks are right; memory does not grow; nothing
hangs; a worker that dies costs the image that it was at, which is kept with --keep.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from batching import Pixels, make_job, picture, read_mask
from faults import encode
from PIL import Image

from petseg.classes import PET_CLASSES, ids_to_values
from petseg.engines.local import LocalEngine
from petseg.engines.outcome import Outcome, Work
from petseg.formats.catalog import PICTURES
from petseg.photos import transforms
from petseg.steps import extra_path
from soak import mutation
from soak.colours import SIDE, ColourSession

WORKERS, GOOD_EVERY = 2, 4
# One mutant in so many is in the run that makes overlays, whose seed is so far from the other's.
OVERLAY_EVERY, OTHER_SEED = 4, 1_000_000
# Far above what any of these takes: a mutant that takes so long hangs.
READ_TIMEOUT = 20.0
MAX_PIXELS = 1_000_000
# Between two looks at the workers' memory, images.
LOOK_EVERY = 100
# A worker's memory may be so much larger in the last third of a run than in the first: what one
# photo of MAX_PIXELS takes in the widest of types, and what the allocator keeps.
GROWTH_BYTES = 32_000_000


@dataclass
class Run:
    """A stream of images on its way through an engine.

    Attributes:
        folder: where the images lie that are under way.
        count: how many mutants there are to be.
        seed: of the mutations.
        formats: pictures to make of each image beside its mask.
        keep: where images go that a worker died or hung of.
        outcomes: of mutants, by format and status.
        problems: what mutants failed of: the first words.
        deaths: mutants that cost a worker, and what was said of them.
        memory: largest and summed resident bytes of the workers, over the run.
    """

    folder: Path
    count: int
    seed: int
    formats: tuple[str, ...] = ()
    keep: Path | None = None
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    deaths: dict[str, str] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)
    settled: int = 0
    good: int = 0

    def __post_init__(self) -> None:
        self.under_way: set[str] = set()
        self.photos = [picture(seed, 30, 40) for seed in range(8)]
        self.masks = [expected(pixels) for pixels in self.photos]
        self.folder.mkdir(exist_ok=True)
        self.job = make_job(
            self.folder / "masks",
            model_size=SIDE,
            max_pixels=MAX_PIXELS,
            replace_any=True,
            formats=self.formats,
        )

    @property
    def images(self) -> int:
        """Mutants and good ones, of which one goes before every three."""
        return self.count + math.ceil(self.count / (GOOD_EVERY - 1))

    @property
    def hangs(self) -> list[str]:
        """Mutants that a worker hung of."""
        return [name for name, problem in self.deaths.items() if " took more" in problem]

    def run(self) -> LocalEngine:
        """All of it; raises AssertionError where an image is lost or a good one's mask is wrong."""
        engine = LocalEngine(ColourSession(), self.job, WORKERS, READ_TIMEOUT)  # type: ignore[arg-type]

        def settle(outcome: Outcome) -> None:
            self.settle(outcome)
            if self.settled % LOOK_EVERY == 0:
                pids = [worker.process.pid for worker in engine.pool.workers.values()]
                self.memory.append(max(resident(pid) for pid in pids if pid is not None))

        try:
            engine.run(self.works(), settle, lambda batch: None, lambda: False)
        finally:
            engine.close()
        assert self.settled == self.images
        assert not self.under_way
        assert engine.restarts == len(self.deaths)
        left = sorted(path.name for path in self.job.temporary.iterdir())
        assert len(left) <= engine.restarts, left
        return engine

    def works(self) -> Iterator[Work]:
        chance, files = random.Random(self.seed), mutation.seeds()
        suffixes = sorted(files)
        whole = [data for suffix in suffixes for data in files[suffix]]
        images = self.folder / "images"
        images.mkdir()
        for number in range(self.images):
            suffix = "bmp"
            if number % GOOD_EVERY == 0:
                pixels = self.photos[number // GOOD_EVERY % len(self.photos)]
                data = encode(Image.fromarray(pixels), "BMP")
            else:
                suffix = suffixes[number % len(suffixes)]
                data = mutation.mutate(chance.choice(files[suffix]), chance.choice(whole), chance)
            name = f"{number:07}.{suffix}"
            (images / name).write_bytes(data)
            self.under_way.add(name)
            yield Work(str(images / name), name, f"{number:07}.png")

    def settle(self, outcome: Outcome) -> None:
        """Count an image and remove it."""
        work = outcome.work
        self.under_way.remove(work.name)  # KeyError: it had an outcome before
        number, mask = int(work.name[:7]), self.job.masks / work.mask
        if number % GOOD_EVERY == 0:
            assert outcome.status == "done", outcome
            found = read_mask(mask)
            right = self.masks[number // GOOD_EVERY % len(self.masks)]
            np.testing.assert_array_equal(found, right, err_msg=work.name)
            self.good += 1
        else:
            self.outcomes[Path(work.name).suffix, outcome.status] += 1
            if outcome.status == "done":
                found = read_mask(mask)
                assert found.size <= MAX_PIXELS
            else:
                assert not mask.exists(), work.name
                assert outcome.status == "failed", outcome
                assert outcome.problem
                self.problems[outcome.problem[:40]] += 1
                if "a worker process died" in outcome.problem or " took more" in outcome.problem:
                    self.deaths[work.name] = outcome.problem
                    if self.keep is not None:
                        self.keep.mkdir(parents=True, exist_ok=True)
                        (self.keep / work.name).write_bytes(Path(work.path).read_bytes())
        for name in self.formats:
            beside = extra_path(self.job.masks, PICTURES[name], work.mask)
            if outcome.status == "done":
                with Image.open(beside) as drawn:
                    drawn.load()
                    assert drawn.size == found.shape[::-1], work.name
            beside.unlink(missing_ok=True)
        self.settled += 1
        mask.unlink(missing_ok=True)
        Path(work.path).unlink()

    def growth(self) -> int:
        """Bytes that the largest worker grew by from the first third of the run to the last."""
        third = max(1, len(self.memory) // 3)
        return max(self.memory[-third:]) - max(self.memory[:third])


def expected(pixels: Pixels) -> Pixels:
    """The mask of a small photo, by the colours of it."""
    scores = np.maximum(transforms.to_model(pixels, SIDE).transpose(2, 0, 1), 1)
    ids = transforms.to_source(np.ascontiguousarray(scores), *pixels.shape[:2])
    mask: Pixels = ids_to_values(PET_CLASSES)[ids]
    return mask


def resident(pid: int) -> int:
    """Resident bytes of a process (proc_pid_status(5)); 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@click.command(context_settings={"show_default": True})
@click.option("--count", type=click.IntRange(LOOK_EVERY * 3), default=100_000, help="Mutants.")
@click.option("--seed", default=1)
@click.option("--keep", type=click.Path(path_type=Path), help="Where killers of workers go.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def main(count: int, seed: int, keep: Path | None, as_json: bool) -> None:
    """Send mutants through the workers; ends with an error where a promise is broken."""
    started = time.monotonic()
    overlaid = count // OVERLAY_EVERY
    with tempfile.TemporaryDirectory(prefix="petseg-mutants-") as name:
        runs = [
            Run(Path(name) / "masks", count - overlaid, seed, (), keep),
            Run(
                Path(name) / "overlays",
                overlaid,
                seed + OTHER_SEED,
                ("overlay",),
                keep and keep / "overlays",
            ),
        ]
        restarts = [run.run().restarts for run in runs]
    growth, memories = max(run.growth() for run in runs), [run.memory for run in runs]
    assert growth < GROWTH_BYTES, memories
    outcomes = runs[0].outcomes + runs[1].outcomes
    found = {
        "images": sum(run.settled for run in runs),
        "good ones, every mask right": sum(run.good for run in runs),
        "mutants": {f"{suffix} {status}": n for (suffix, status), n in sorted(outcomes.items())},
        "of them with an overlay": overlaid,
        "workers that died or hung": sum(restarts),
        "of": runs[0].deaths | {f"overlays/{name}": of for name, of in runs[1].deaths.items()},
        "a worker's memory at most, MB": round(max(map(max, memories)) / 1e6, 1),
        "its growth from the first to the last third, MB": round(growth / 1e6, 1),
        "seconds": round(time.monotonic() - started, 1),
    }
    click.echo(json.dumps(found) if as_json else "\n".join(f"{k}: {v}" for k, v in found.items()))
    if hangs := [name for run in runs for name in run.hangs]:
        click.echo(f"workers hung of {', '.join(hangs)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
