"""Coverage-guided fuzzing of petseg's own parsers: python -m soak.fuzz --seconds 600.

Atheris (https://github.com/google/atheris), libFuzzer for Python, looks which inputs reach new
lines of petseg and goes on from those.  A finding is printed with its traceback and kept in --keep;
it becomes a test.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click

TARGETS = (
    "model-file",
    "signature",
    "classes",
    "class-file",
    "mask-file",
    "record",
    "training-list",
    "photo-list",
    "list-table",
    "archive",
)
MAX_BYTES = 8192


@click.command(context_settings={"show_default": True})
@click.option("--seconds", type=click.IntRange(1), default=600, help="For each target.")
@click.option("--target", "targets", type=click.Choice(TARGETS), multiple=True, default=TARGETS)
@click.option("--seed", default=1)
@click.option("--keep", type=click.Path(path_type=Path), default="findings", help="For findings.")
@click.option("--one", hidden=True, is_flag=True, help="In this process, with libFuzzer's output.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def main(
    seconds: int, targets: tuple[str, ...], seed: int, keep: Path, one: bool, as_json: bool
) -> None:
    """Fuzz one target after the other; exit code 1 where something was found."""
    if one:
        fuzz(targets[0], seconds, seed, keep)
    found = {}
    for target in targets:
        found[target] = run(target, seconds, seed, keep)
        if not as_json:
            click.echo(f"{target}: {found[target]}")
    if as_json:
        click.echo(json.dumps(found))
    sys.exit(any(result["finding"] for result in found.values()))


def run(target: str, seconds: int, seed: int, keep: Path) -> dict[str, int | str]:
    """Fuzz a target in a process of its own, because libFuzzer ends its process.

    Returns:
        "executions", "edges" of petseg's code that were reached, and the "finding": the error that
        came through, or "".
    """
    arguments = ["--one", "--target", target, "--seconds", str(seconds), "--seed", str(seed)]
    path = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    # It ends without a last word, and leaves its files to us.
    with tempfile.TemporaryDirectory(prefix="petseg-fuzz-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "soak.fuzz", *arguments, "--keep", str(keep)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "TMPDIR": folder},
        )
    runs = re.search(r"Done (\d+) runs|stat::number_of_executed_units: *(\d+)", done.stdout)
    edges = re.findall(r"cov: (\d+)", done.stdout)
    finding = ""
    if done.returncode:
        click.echo(done.stdout[-4000:], err=True)
        errors = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Warning)\b.*$", done.stdout, re.M)
        finding = errors[0] if errors else f"exit code {done.returncode}"
    return {
        "executions": int(runs[1] or runs[2]) if runs else 0,
        "edges": int(edges[-1]) if edges else 0,
        "finding": finding,
    }


def fuzz(target: str, seconds: int, seed: int, keep: Path) -> None:
    """Fuzz a target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["petseg"]):
        from soak import fuzz_targets
    keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="petseg-fuzz-") as name:
        for number, data in enumerate(fuzz_targets.TARGETS[target].seeds()):
            (Path(name) / f"seed-{number}").write_bytes(data)
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={MAX_BYTES}",
            f"-seed={seed}",
            f"-artifact_prefix={keep}/{target}-",
            "-timeout=20",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, name], fuzz_targets.TARGETS[target].run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
