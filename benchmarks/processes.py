"""A process of its own for each contestant: what it printed, and what memory it held."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# A look at all processes costs some 5 ms of one core: 2 % of it at this distance, in seconds.
_SAMPLE_SECONDS = 0.25
_PATIENCE_SECONDS = 10
# Of /proc/PID/status, by their first letters.
_LINES = ("Rss", "Thr")


@dataclass(frozen=True)
class Finished:
    """How a process ended.

    Attributes:
        code: its exit code; negative for a signal.
        stdout, stderr: what it printed.
        peak_memory: bytes that it and its children held at most; None where there is no /proc.
    """

    code: int
    stdout: str
    stderr: str
    peak_memory: int | None


def run(command: Sequence[str], environment: Mapping[str, str]) -> Finished:
    """Run a command in a session of its own, and end all of that session if this is interrupted."""
    peak: int | None = None
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                if Path("/proc/self/status").exists():
                    peak = max(peak or 0, memory(process.pid))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_SAMPLE_SECONDS)
        finally:
            _end(process)
        stdout.seek(0)
        stderr.seek(0)
        return Finished(process.returncode, stdout.read(), stderr.read(), peak)


def memory(session: int) -> int:
    """Bytes of memory that the processes of a session hold now.

    Each one's own pages, and once the largest share of files (libraries, mostly the same) and of
    shared memory.  The exact figure, /proc/PID/smaps_rollup's Pss, takes the kernel 20 ms for a
    process of 2 GB, time the contestant would lack; a page that a forked process shares with its
    parent is counted twice here.
    """
    own, files, shared = 0, 0, 0
    for held in _held(session):
        own += held["RssAnon"]
        files = max(files, held["RssFile"])
        shared = max(shared, held["RssShmem"])
    return own + files + shared


def open_things(session: int) -> dict[str, int]:
    """How many file handles, processes and threads a session has now."""
    held = [*_held(session)]
    return {
        "handles": sum(process["handles"] for process in held),
        "processes": len(held),
        "threads": sum(process["Threads"] for process in held),
    }


def _held(session: int) -> Iterator[Counter[str]]:
    """`Rss...` of each process of a session, in bytes, and "Threads" (proc_pid_status(5)); and its
    open "handles".
    """
    for name in os.listdir("/proc"):  # noqa: PTH208 - a Path for each process costs as much again
        if not name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it has ended
            # Behind the name, which may hold anything: state, parent, group, session.
            stat = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            if int(stat[3]) == session:
                lines = Path(f"/proc/{name}/status").read_text(errors="replace").splitlines()
                found = Counter({"handles": len(os.listdir(f"/proc/{name}/fd"))})  # noqa: PTH208
                for key, value, *unit in (line.split() for line in lines if line[:3] in _LINES):
                    found[key.rstrip(":")] = int(value) * (1024 if unit else 1)
                yield found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, and its children, whom a terminal's Ctrl-C does not reach."""
    if process.poll() is not None:
        return
    if not hasattr(os, "killpg"):
        process.kill()
        process.wait()
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
