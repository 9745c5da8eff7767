"""The examples for job systems: valid, and every shard is somebody's."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from petseg.photos.shards import Shard

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
SLURM = EXAMPLES / "slurm.sh"
# Of sbatch(1), those that are used here, and whether they take a value.
SBATCH = {
    "job-name": True,
    "array": True,
    "cpus-per-task": True,
    "mem": True,
    "time": True,
    "requeue": False,
    "output": True,
}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder whose petseg-batch prints what it is called with, an argument a line."""
    program = tmp_path / "petseg-batch"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    return tmp_path


def shard_asked_for(command: list[str], programs: Path, **environment: str) -> Shard:
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    photos, masks, option, shard = done.stdout.splitlines()
    assert (Path(photos).name, Path(masks).name, option) == ("photos", "masks", "--shard")
    return Shard.parse(shard)


def sbatch_options() -> dict[str, str]:
    """What Slurm reads: lines before the first command."""
    found = {}
    lines = SLURM.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])
    for line in lines[:first]:
        if line.startswith("#SBATCH"):
            match = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
            assert match, line
            assert SBATCH[match[1]] == (match[2] is not None), line
            found[match[1]] = match[2]
    return found


def test_slurms_script_does_every_shard_once(programs: Path) -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)
    assert os.access(SLURM, os.X_OK)
    options = sbatch_options()
    match = re.fullmatch(r"1-([0-9]+)", options["array"])
    assert match
    assert re.fullmatch(r"[0-9]+G", options["mem"])
    assert re.fullmatch(r"[0-9]{2}:[0-9]{2}:[0-9]{2}", options["time"])
    assert "%a" in options["output"], "all tasks would write to one file"
    command = ["bash", str(SLURM), "photos", "masks"]
    count = int(match[1])
    # The count of tasks is that of a few which are run again.
    found = [
        shard_asked_for(
            command, programs, SLURM_ARRAY_TASK_ID=str(task), SLURM_ARRAY_TASK_COUNT="3"
        )
        for task in range(1, count + 1)
    ]
    assert found == [Shard(number, count) for number in range(1, count + 1)]
    without = subprocess.run(command[:2], capture_output=True, text=True, check=False)
    assert without.returncode != 0


@pytest.fixture
def job() -> dict[str, Any]:
    """The manifest, which is one document."""
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text())
    return found


def test_the_manifest_is_a_valid_indexed_job(job: dict[str, Any]) -> None:
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    # The API server wants these of who uses a policy for failures and FailIndex in it.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["backoffLimitPerIndex"] >= 1
    # The validator would find what is wrong.
    spec["completionsMode"] = spec.pop("completionMode")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


def test_the_manifest_does_every_shard_once(job: dict[str, Any], programs: Path) -> None:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert {rule["onExitCodes"]["containerName"] for rule in rules_of(job)} == {container["name"]}
    command = [*container["command"], *container["args"]]
    count = job["spec"]["completions"]
    found = [
        shard_asked_for(command, programs, JOB_COMPLETION_INDEX=str(index))
        for index in range(count)
    ]
    assert found == [Shard(number, count) for number in range(1, count + 1)]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}


def rules_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule for rule in job["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
