"""What onnxruntime's CPU provider really executes: python benchmarks/session_profile.py MODEL ...

Milliseconds an image of each kind of node, after onnxruntime has optimised the graph; several files
of the same network side by side show what a change to the graph brought.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort

from petseg import machine, signature
from petseg.cli.common import OK, exits
from petseg.signature import INPUT, PROBABILITIES

RUNS, BATCH = 5, 4


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(models: tuple[Path, ...], as_json: bool) -> int:
    """Profile MODELS."""
    found = {str(model): profile(model) for model in models}
    kinds = sorted(
        {kind for one in found.values() for kind in one},
        key=lambda kind: -max(one.get(kind, (0, 0.0))[1] for one in found.values()),
    )
    lines = [
        f"{machine.device_name('cpu')}, {machine.usable_cores()} cores, batches of {BATCH}, "
        f"milliseconds an image, the least of {RUNS} runs for each node",
        "",
        "| node | " + " | ".join(Path(name).name for name in found) + " |",
        "|---|" + "---|" * len(found),
    ]
    for kind in kinds:
        cells = [
            f"{one[kind][1]:.2f} ({one[kind][0]})" if kind in one else "-" for one in found.values()
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    totals = [f"{sum(ms for _, ms in one.values()):.1f}" for one in found.values()]
    lines.append("| all | " + " | ".join(totals) + " |")
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def profile(model: Path) -> dict[str, tuple[int, float]]:
    """Kind of node to how many there are, and milliseconds an image of them all."""
    size = signature.read(model).size
    images = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = machine.usable_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        for _ in range(RUNS):
            session.run([PROBABILITIES], {INPUT: images})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    least: dict[tuple[str, str], float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = (event["args"]["op_name"], event["name"])
            least[node] = min(event["dur"], least.get(node, float("inf")))
    found: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for (kind, _), microseconds in least.items():
        count, milliseconds = found[kind]
        found[kind] = (count + 1, milliseconds + microseconds / 1e3 / BATCH)
    return dict(found)


if __name__ == "__main__":
    main()
