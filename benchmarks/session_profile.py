"""What a session really executes: python benchmarks/session_profile.py MODEL ...

Milliseconds an image of each kind of node, after onnxruntime's CPU provider or OpenVINO has
optimised the graph, and in OpenVINO in which precision it is computed; several files of the same
network side by side show what a change to the graph brought.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort
import openvino
from numpy.typing import NDArray

from petseg.cli.common import OK, exits
from petseg.modelfile.signature import INPUT, PROBABILITIES
from petseg.runtime.openvino import shared_core
from petseg.system import machine

RUNS, BATCH = 5, 4

# Microseconds by kind and name of a node.
Times = dict[tuple[str, str], float]


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--provider", type=click.Choice(["cpu", "openvino"]), default="cpu")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(models: tuple[Path, ...], provider: str, as_json: bool) -> int:
    """Profile MODELS."""
    found = {str(model): PROFILES[provider](model) for model in models}
    kinds = sorted(
        {kind for one in found.values() for kind in one},
        key=lambda kind: -max(one.get(kind, (0, 0.0))[1] for one in found.values()),
    )
    lines = [
        f"{machine.device_name('cpu')}, {machine.usable_cores()} cores, {provider}, batches of "
        f"{BATCH}, "
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


def in_onnxruntime(model: Path) -> dict[str, tuple[int, float]]:
    """Kind of node to how many there are, and milliseconds an image of them all."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = machine.usable_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        images = _pictures(session.get_inputs()[0].shape[1])
        for _ in range(RUNS):
            session.run([PROBABILITIES], {INPUT: images})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    least: Times = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = (event["args"]["op_name"], event["name"])
            least[node] = min(event["dur"], least.get(node, float("inf")))
    return _by_kind(least)


def in_openvino(model: Path) -> dict[str, tuple[int, float]]:
    """The same; kinds are those of OpenVINO's CPU plug-in, each with what it is computed in."""
    settings = {"PERF_COUNT": "YES", "INFERENCE_NUM_THREADS": str(machine.usable_cores())}
    compiled = shared_core().compile_model(str(model), "CPU", settings)
    precisions = {
        node.get_friendly_name(): node.get_rt_info()["runtimePrecision"].astype(str)
        for node in compiled.get_runtime_model().get_ordered_ops()
    }
    images = _pictures(compiled.input(INPUT).partial_shape[1].get_length())
    request = compiled.create_infer_request()
    least: Times = {}
    for _ in range(RUNS):
        request.infer({INPUT: images})
        for info in request.get_profiling_info():
            if info.status == openvino.ProfilingInfo.Status.EXECUTED:
                kind = f"{info.node_type} {precisions.get(info.node_name, '')}".strip()
                node = (kind, info.node_name)
                microseconds = info.real_time.total_seconds() * 1e6
                least[node] = min(microseconds, least.get(node, float("inf")))
    return _by_kind(least)


PROFILES = {"cpu": in_onnxruntime, "openvino": in_openvino}


def _pictures(size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)


def _by_kind(least: Times) -> dict[str, tuple[int, float]]:
    found: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for (kind, _), microseconds in least.items():
        count, milliseconds = found[kind]
        found[kind] = (count + 1, milliseconds + microseconds / 1e3 / BATCH)
    return dict(found)


if __name__ == "__main__":
    main()
