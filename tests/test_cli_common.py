"""What all commands share: --version, the environment, completion, --json, plain output."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from batching import COMMAND, PROVIDER, save_photos
from click.testing import CliRunner, Result

from petseg import __version__
from petseg.cli import main as group
from petseg.cli.common import Command
from petseg.planning.config import packaged
from petseg.planning.plan import make_plan

COMMANDS = {
    "batch": "petseg.cli.batch",
    "doctor": "petseg.cli.doctor",
    "eval": "petseg.cli.eval",
    "export": "petseg_export.cli",
    "report": "petseg.cli.report",
    "train": "petseg.cli.train",
}


def command(name: str) -> Command:
    found = importlib.import_module(COMMANDS[name]).main
    assert isinstance(found, Command)
    return found


def run(name: str, *arguments: str | Path, **environment: str) -> Result:
    found = CliRunner(env=environment).invoke(command(name), [*map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


@pytest.mark.parametrize("name", [*COMMANDS, None])
def test_version(name: str | None) -> None:
    # Before anything that is wrong with the rest.
    found = CliRunner().invoke(group.main if name is None else command(name), ["--version"])
    assert (found.exit_code, found.stderr) == (0, "")
    lines = dict(line.split(" ", 1) for line in found.stdout.splitlines())
    assert lines["petseg"] == __version__
    assert lines["python"] == ".".join(map(str, sys.version_info[:3]))
    assert lines["provider"].startswith(("cuda (", "openvino (", "cpu ("))
    assert {"numpy", "openvino", "tensorflow", "keras"} < lines.keys()
    assert {"onnxruntime", "onnxruntime-gpu"} & lines.keys()


def test_version_loads_no_training_package() -> None:
    code = (
        "import sys; from petseg.cli.train import main\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "try: main(['--version'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"petseg {__version__}\n")
    assert {"keras", "tensorflow", "onnx"}.isdisjoint(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_has_a_variable_of_its_name(name: str) -> None:
    made = command(name)
    assert made.name == name
    found = {
        option.opts[0]: option.envvar
        for option in made.params
        if isinstance(option, click.Option) and option.expose_value
    }
    # What the doctor says is its result.
    assert {"--json", *(["--quiet"] if name != "doctor" else [])} <= found.keys()
    for flag, names in found.items():
        expected = f"PETSEG_{name}{flag[1:]}".upper().replace("-", "_")
        assert names == [
            expected,
            *(["PETSEG_DATA"] if (name, flag) == ("train", "--data") else []),
        ]
    assert "--help" not in found
    assert "--version" not in found


@pytest.fixture
def images(tmp_path: Path) -> Path:
    save_photos(tmp_path / "images", 3)
    return tmp_path / "images"


def test_options_from_the_environment(images: Path, tmp_path: Path) -> None:
    given = {
        "PETSEG_BATCH_MODEL": str(packaged()),
        "PETSEG_BATCH_DRY_RUN": "1",
        "PETSEG_BATCH_JSON": "yes",
        "PETSEG_BATCH_FORMAT": "color binary",
        "PETSEG_BATCH_REPORT": "no",
        "PETSEG_BATCH_SHARD": "",
        "PETSEG_BATCH_LIMIT": "7",
    }
    for arguments in ((), ("--limit", "5")):
        found = run("batch", images, tmp_path / "masks", *arguments, **given)
        options = json.loads(found.stdout)["options"]
        assert options["formats"] == ["color", "binary"]
        assert (options["dry_run"], options["report"], options["shard"]) == (True, False, None)
        # The command line comes first.
        assert options["limit"] == (5 if arguments else 7)
    joined = CliRunner(env=given).invoke(group.main, ["batch", str(images), str(tmp_path / "m")])
    assert json.loads(joined.stdout)["options"]["limit"] == 7


def test_a_wrong_value_names_its_variable(images: Path, tmp_path: Path) -> None:
    for variable, value, words in (
        ("PETSEG_BATCH_LIMIT", "0", "Invalid value for '--limit': 0 is not in the range"),
        ("PETSEG_BATCH_DEVICES", "a", "expected numbers of devices, as in 0,1, found 'a'"),
        ("PETSEG_BATCH_QUIET", "perhaps", "'perhaps' is not a valid boolean"),
    ):
        found = run("batch", images, tmp_path / "masks", **{variable: value})
        assert found.exit_code == 2
        assert words in " ".join(found.stderr.split())
        assert f"It comes from the environment variable {variable}." in found.stderr
    found = run("batch", images, tmp_path / "masks", "--limit", "0", PETSEG_BATCH_LIMIT="1")
    assert found.exit_code == 2
    assert "environment" not in found.stderr


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("petseg-batch ph", "file"),
        ("petseg-batch photos ma", "dir"),
        ("petseg-batch photos masks --model mo", "file"),
        ("petseg-batch photos masks --list li", "file"),
        ("petseg-report masks --images ph", "file"),
        ("petseg-eval ma", "file"),
        ("petseg-export --from ru", "file"),
        ("petseg-train --data pe", "file"),
    ],
)
def test_the_shell_completes_paths(line: str, kind: str) -> None:
    *_, last = line.split()
    assert complete(line) == [f"{kind},{last}"]


def test_the_shell_completes_options_and_choices() -> None:
    assert complete("petseg-batch a b --provider o") == ["plain,openvino"]
    assert complete("petseg-batch a b --read-t") == ["plain,--read-timeout"]
    assert complete("petseg-doctor --v") == ["plain,--version"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_lines_of_the_docs_for_other_shells(shell: str) -> None:
    variables = {"_PETSEG_BATCH_COMPLETE": f"{shell}_source"}
    found = CliRunner(env=variables).invoke(command("batch"), prog_name="petseg-batch")
    assert found.exit_code == 0
    assert f"_PETSEG_BATCH_COMPLETE={shell}_complete" in found.stdout
    page = Path(__file__).parents[1] / "docs" / "conventions.md"
    assert f"_PETSEG_BATCH_COMPLETE={shell}_source petseg-batch" in page.read_text()


def complete(line: str) -> list[str]:
    """What Click tells bash of a line whose last word is to be completed."""
    program = line.split()[0]
    variables = {
        f"_{program.upper().replace('-', '_')}_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    made = command(program.removeprefix("petseg-"))
    found = CliRunner(env=variables).invoke(made, prog_name=program)
    assert found.exit_code == 0, found.output
    return found.stdout.splitlines()


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_json_tells_of_a_signal_before_the_work_begins(
    number: signal.Signals,
    code: int,
    words: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(sources: Any, rules: Any) -> Any:
        signal.raise_signal(number)
        return make_plan(sources, rules)

    monkeypatch.setattr("petseg.batch.run.make_plan", interrupted)
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        found = run("batch", images, tmp_path / "masks", "--model", packaged(), "--json")
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    assert found.exit_code == code
    assert json.loads(found.stdout) == {"exit_code": code, "error": words}
    assert found.stderr.splitlines()[-1] == words


@pytest.mark.parametrize("arguments", [("report", "masks"), ("--version",)])
def test_an_interrupt_before_the_command_ends_it_as_later(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    # A group looks for the command; an option is read.
    monkeypatch.setattr("petseg.cli.main.entry_points", interrupted)
    monkeypatch.setattr("petseg.doctor.versions", interrupted)
    found = CliRunner().invoke(group.main, arguments)
    assert (found.exit_code, found.stderr) == (130, "interrupted\n")


# A module that a signal reaches while it is imported; as those that pybind11 makes, onnxruntime's
# among them, it then says no more than this.
_REACHED = """
import os, signal
try:
    {signal}
except BaseException:
    raise ImportError("initialization failed")
os._exit(77)
"""


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_that_an_import_turns_into_its_own_error_ends_a_command_as_ever(
    number: signal.Signals, code: int, words: str, images: Path, tmp_path: Path
) -> None:
    def imported(line: str, before: str = "") -> subprocess.CompletedProcess[str]:
        (tmp_path / "fake").mkdir(exist_ok=True)
        (tmp_path / "fake" / "onnxruntime.py").write_text(_REACHED.format(signal=line))
        masks = tmp_path / "masks"
        arguments = ["-c", before + COMMAND[1], *PROVIDER, "--json", str(images), str(masks)]
        found = subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | {"PYTHONPATH": str(tmp_path / "fake")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not masks.exists()
        return found

    sent = f"signal.raise_signal({int(number)})"
    found = imported(sent)
    assert (found.returncode, found.stderr) == (code, f"{words}\n")
    assert json.loads(found.stdout) == {"exit_code": code, "error": words}
    # Without a signal it is an error like others.
    found = imported("1 / 0")
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1] == "ImportError: initialization failed"
    # What is ignored, nohup's way, ends nothing.
    found = imported(sent, f"import signal; signal.signal({int(number)}, signal.SIG_IGN)\n")
    assert found.returncode == 77


@pytest.mark.parametrize("name", ["eval", "report"])
def test_json_tells_why_there_is_no_result(name: str, tmp_path: Path) -> None:
    both = (tmp_path / "none", *((tmp_path,) if name == "eval" else ()))
    found = run(name, *both, "--json", "--quiet")
    assert found.exit_code == 1
    told = json.loads(found.stdout)
    assert told["exit_code"] == 1
    assert f"error: {told['error']}\n" == found.stderr


def test_a_pattern_stays_one_argument_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def record(self: click.Command, *args: Any, **extra: Any) -> None:
        given.append(extra["windows_expand_args"])

    monkeypatch.setattr(click.Command, "main", record)
    command("batch")()
    group.main()
    assert given == [False, False]


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, bytearray]]:
    """A terminal of 120 columns: a descriptor to write to, and what has come out at the end."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 120))
    output = bytearray()

    def collect() -> None:
        # Linux ends a terminal that nobody holds with an error, others with nothing.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 1 << 16):
                output.extend(part)

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        yield theirs, output
    finally:
        os.close(theirs)
        reader.join(timeout=10)
        os.close(ours)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that could show colours, and somebody who wants none."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")


# Colours are ESC [ ... m (ECMA-48, Select Graphic Rendition); no other sequence is needed, either.
ESCAPE = b"\x1b"


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("helped", [False, True])
def test_a_batch_on_a_terminal_has_no_colours(helped: bool, images: Path, tmp_path: Path) -> None:
    run = ["--model", packaged(), "--workers", "1", images, tmp_path / "masks"]
    arguments = [sys.executable, *COMMAND, *PROVIDER, *map(str, ["--help"] if helped else run)]
    with terminal() as (screen, output):
        done = subprocess.run(
            arguments, stdin=screen, stdout=screen, stderr=screen, timeout=120, check=False
        )
    assert done.returncode == 0, output
    assert (b"--max-pixels" if helped else b"| 100%") in output
    assert ESCAPE not in output


@pytest.mark.usefixtures("plain")
def test_training_on_a_terminal_has_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    from petseg.training.progress import TrainingProgress, say
    from petseg.training.recipes import Stage

    with terminal() as (screen, output), os.fdopen(os.dup(screen), "w") as stderr:
        assert stderr.isatty()
        monkeypatch.setattr(sys, "stderr", stderr)
        shown = TrainingProgress((Stage(32, 1, 1e-3),))
        with shown.epoch(0, 2, 4):
            shown.step(0, {"loss": 1.0, "accuracy": 0.5})
            say("a line")
            shown.step(1, {"loss": 0.5, "accuracy": 0.75})
        monkeypatch.undo()
    assert b"epoch 1/1" in output
    assert b"a line\r\n" in output
    assert ESCAPE not in output
