"""From what each contestant did in each round to medians, ratios and a table."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Whose masks have fewer pixels equal to the reference's does not compute the same network.
LEAST_EQUAL = 0.97
# What the names of all petseg-batch's contestants begin with.
OURS = "petseg-batch"


@dataclass
class Result:
    """What became of one contestant.

    Attributes:
        name: the contestant's.
        ceiling: the contestant that it cannot pass, having the same work to do and more.
        runs: one of each round: what the contestant said, with "images_per_second", and
            "peak_memory_bytes".
        skipped: why it did not take part.
        failed: why it is out.
        equal_pixels: share of mask pixels, of the last round, equal to the reference's, 0..1.
    """

    name: str
    ceiling: str | None
    runs: list[dict[str, Any]] = field(default_factory=list)
    skipped: str | None = None
    failed: str | None = None
    equal_pixels: float | None = None

    @property
    def done(self) -> bool:
        """Whether it went through every round."""
        return bool(self.runs) and self.skipped is None and self.failed is None

    def median(self, key: str) -> float:
        """The median of a figure over all rounds."""
        return statistics.median(run[key] for run in self.runs)


def equal_pixels(masks: Path, reference: Path) -> float:
    """Share of pixels of all masks in `reference` that `masks` has, too, 0..1.

    A mask that is missing, or of another size, has no pixel equal.
    """
    equal = pixels = 0
    for path in sorted(reference.glob("*.png")):
        with Image.open(path) as image:
            expected = np.asarray(image)
        pixels += expected.size
        if (masks / path.name).exists():
            with Image.open(masks / path.name) as image:
                found = np.asarray(image)
            if found.shape == expected.shape:
                equal += int((found == expected).sum())
    return equal / pixels if pixels else 0.0


def ratio(result: Result, base: Result | None) -> float | None:
    """The median over all rounds of images/s of one contestant by those of another.

    Round by round, because a machine's slow minutes meet both.
    """
    if base is None or not (result.done and base.done):
        return None
    pairs = zip(result.runs, base.runs, strict=True)
    return statistics.median(
        one["images_per_second"] / other["images_per_second"] for one, other in pairs
    )


def best_of_ours(results: list[Result]) -> dict[str, Result]:
    """The quickest petseg-batch of each precision that one computed in, by the precision."""
    ours: dict[str, Result] = {}
    for result in results:
        if result.done and result.name.startswith(OURS):
            precision = result.runs[-1]["precision"]
            rival = ours.get(precision, result)
            ours[precision] = max(rival, result, key=lambda one: one.median("images_per_second"))
    return ours


def as_dict(results: list[Result], baseline: str) -> dict[str, dict[str, Any]]:
    """Every figure of every contestant: seconds, bytes, shares 0..1; None where there is none."""
    by_name = {result.name: result for result in results}
    ours = best_of_ours(results)
    return {result.name: _as_dict(result, by_name, ours, baseline) for result in results}


def _as_dict(
    result: Result, by_name: dict[str, Result], ours: dict[str, Result], baseline: str
) -> dict[str, Any]:
    if not result.done:
        status = "skipped" if result.skipped is not None else "failed"
        return {"status": status, "reason": result.skipped or result.failed, "runs": result.runs}
    rates = [run["images_per_second"] for run in result.runs]
    memory = [run["peak_memory_bytes"] for run in result.runs]
    return {
        "status": "done",
        "images_per_second": {
            "median": statistics.median(rates),
            "min": min(rates),
            "max": max(rates),
        },
        "ratio": ratio(result, by_name.get(baseline)),
        "against_ours": ratio(result, ours.get(result.runs[-1]["precision"])),
        "ceiling": result.ceiling,
        "share_of_ceiling": ratio(result, by_name.get(result.ceiling or "")),
        "start_up_seconds": result.median("start_up_seconds"),
        "warm_up_seconds": result.median("warm_up_seconds"),
        "peak_memory_bytes": None if None in memory else max(memory),
        "equal_pixels": result.equal_pixels,
        "provider": result.runs[-1]["provider"],
        "precision": result.runs[-1]["precision"],
        "runs": result.runs,
    }


def heading(setting: dict[str, Any], repeats: int) -> str:
    """The setting in a few lines, for people."""
    where, model, photos = setting["machine"], setting["model"], setting["photos"]
    gpu = f", {where['gpu']}" if where["gpu"] else ""
    installed = ", ".join(f"{name} {version}" for name, version in setting["versions"].items())
    return (
        f"{setting['date']}: {where['cpu']}, {where['cores']} cores{gpu}, {where['system']}\n"
        f"{installed}\n"
        f"model {model['path']}, {model['hash'][:12]}, weights stored in {model['stored']}\n"
        f"{photos['count']} photos ({photos['from']}), provider {setting['provider']}, "
        f"medians of {repeats} rounds"
    )


def table(contestants: dict[str, dict[str, Any]], baseline: str, reference: str | None) -> str:
    """A Markdown table of what `as_dict` returns."""
    lines = [
        f"| contestant | images/s | min-max | against {baseline} "
        f"| against the best {OURS} of its precision | of its ceiling | start-up, s "
        f"| peak memory, MB | pixels as {reference} | computed on |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, values in contestants.items():
        if values["status"] != "done":
            reason = values["reason"].replace("|", "\\|")
            lines.append(f"| {name} | {values['status']}: {reason} |" + " |" * 8)
            continue
        rate, memory = values["images_per_second"], values["peak_memory_bytes"]
        cells = (
            name,
            f"{rate['median']:.2f}",
            f"{rate['min']:.2f}-{rate['max']:.2f}",
            _cell(values["ratio"], ".2f"),
            _cell(values["against_ours"], ".2f"),
            _cell(values["share_of_ceiling"], ".1%"),
            f"{values['start_up_seconds']:.1f}",
            _cell(None if memory is None else memory / 1e6, ".0f"),
            _equal(values["equal_pixels"]),
            f"{values['provider']}, {values['precision']}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _equal(share: float) -> str:
    # Rounded down: 100 % is said of equal masks only.
    shown = f"{np.floor(share * 1e5) / 1e5:.3%}"
    return shown if share >= LEAST_EQUAL else f"**wrong masks**: {shown}"


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
