"""petseg-batch itself, the command as anybody starts it, in a process below this one.

Timed, by its own stats: from the loaded model until the last mask is written.  It has no warm-up
to leave out: the start of its worker processes and the first batches are counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from contestant import arguments, attempt, openvino_core, say

# What the console script runs, in this script's own environment.
COMMAND = (sys.executable, "-c", "from petseg.cli.batch import main; main()")


def main() -> None:
    task = arguments()
    if task.provider == "openvino" and attempt(openvino_core, task) is None:
        return
    options = (
        *("--model", task.model, "--provider", task.provider, "--precision", task.precision),
        # Nobody else writes a page about the masks.
        *("--quiet", "--json", "--no-report"),
    )
    command = [str(part) for part in (*COMMAND, task.photos, task.masks, *options)]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    whole = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.returncode)  # having said why
    stats = json.loads(done.stdout)
    seconds = stats["wall_seconds"] - stats["ready_seconds"]
    say(seconds, whole - seconds, 0.0, stats["provider"], stats["precision"])


if __name__ == "__main__":
    main()
