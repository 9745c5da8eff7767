"""README and docs/: commands that can be typed, all options told, links that lead somewhere.

What the commands of a page do is tested by the page's own test.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from docpages import COMMANDS, DOCS, OPTIONS, PAGES, ROOT, blocks, options, spans, text_of
from PIL import Image

from petseg.cli.train_options import configure
from petseg.engines.engine import Cluster
from petseg.planning.config import BatchConfig
from petseg.training.recipes import RECIPES

SHARED = "conventions.md"
# How many of a page's blocks of Python a test runs, and which.  None: nothing does, and why.
PYTHON = {
    "library.md": [(5, "test_library.py::test_the_page_runs")],
    "formats.md": [
        (2, "test_tables.py::test_the_pages_examples_run"),
        # It needs label-studio-sdk; docs/check_imports.py follows it in an environment of its own.
        (1, None),
    ],
    "own-data.md": [(1, "test_own_data.py::test_masks_in_black_and_white_become_a_data_set")],
}
# Ends of a shell's simple command.
SEPARATORS = set(";&|()<>")
# What is no option of a run's configuration.
NOT_HYPERPARAMETERS = (
    *("recipe", "data", "out", "resume", "tensorboard", "devices", "summary", "quiet", "as_json"),
)

Line = tuple[str, list[str]]


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each program that a shell's line starts, also of those it starts in quotes."""
    without_streams = re.sub(r"\b\d(?=[<>])", "", line)
    lexer = shlex.shlex(without_streams, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if set(token) <= SEPARATORS:
            # What follows a redirection is a file.
            if words:
                yield words
            words = ["(to)"] if set(token) & {"<", ">"} else []
            continue
        if " " in token and program(token.split()) is not None:
            yield from simple_commands(token)
        words.append(token)


def program(words: list[str]) -> Line | None:
    """Which of petseg's commands it is, and its arguments; None for another program's."""
    while words and re.match(r"\w+=", words[0]):
        if words[0].endswith("_source"):
            return None  # Click completes; it parses nothing
        words = words[1:]
    if not words:
        return None
    name, *arguments = words
    if name == "petseg" and arguments and not arguments[0].startswith("-"):
        name, arguments = f"petseg-{arguments[0]}", arguments[1:]
    if not name.startswith("petseg-"):
        return None
    return name.removeprefix("petseg-"), arguments


def lines(page: Path) -> Iterator[tuple[str, Line]]:
    """Each command line of petseg's in a page's blocks of code."""
    for language, block in blocks(page):
        if language == "python":
            continue
        typed = block.splitlines()
        if any(line.startswith("$ ") for line in typed):
            # The others are what it prints.
            typed = [line.removeprefix("$ ") for line in typed if line.startswith("$ ")]
        for line in typed:
            if "petseg" not in line:
                continue
            for words in simple_commands(line):
                if (found := program(words)) is not None:
                    yield line, found


def parse(command: str, arguments: list[str]) -> dict[str, Any]:
    """What the command makes of its arguments; files that are not there pass."""
    assert command in COMMANDS, f"there is no petseg-{command}"
    main = COMMANDS[command]
    with pytest.MonkeyPatch.context() as patch:
        for parameter in main.params:
            if isinstance(parameter.type, click.Path):
                patch.setattr(parameter.type, "exists", False)
        given = [word for word in arguments if word not in ("--help", "--version")]
        return main.make_context(f"petseg-{command}", given).params


def check(command: str, arguments: list[str]) -> None:
    """Parse, and build the run's configuration, which knows what goes together."""
    found = parse(command, arguments)
    if command == "batch":
        own = {item.name for item in dataclasses.fields(BatchConfig)} & set(found)
        cluster = Cluster(*(found[item.name] for item in dataclasses.fields(Cluster)))
        BatchConfig(**{name: found[name] for name in own}, cluster=cluster)
    if command == "train":
        given = {name: found[name] for name in found if name not in NOT_HYPERPARAMETERS}
        configure(RECIPES[found["recipe"]], given)


@pytest.fixture(autouse=True)
def _nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But the file of classes that a page shows, which a command line reads when it is parsed."""
    page = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    (tmp_path / "classes.csv").write_text(shown)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_is_one(page: Path) -> None:
    for line, (command, arguments) in lines(page):
        try:
            check(command, arguments)
        except (click.ClickException, ValueError) as error:
            words = error.format_message() if isinstance(error, click.ClickException) else error
            raise AssertionError(f"{page.name}: {line}\n{words}") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_sentence_says_of_a_command_is_so(page: Path) -> None:
    """Commands within sentences may leave out arguments, and name choices in their place."""
    for span in spans(page):
        found = program(span.split()) if re.match(r"petseg(-\w+)? ", span) else None
        if found is None:
            continue
        command, arguments = found[0], shlex.split(" ".join(found[1]))
        try:
            parse(command, arguments)
        except click.MissingParameter:
            continue
        except click.ClickException as error:
            if isinstance(error, click.BadOptionUsage) and arguments[-1] in options(command):
                continue  # an option alone, whose value is told elsewhere
            raise AssertionError(f"{page.name}: `{span}`: {error.format_message()}") from error


def test_commands_are_found_in_all_kinds_of_lines(tmp_path: Path) -> None:
    """What the tests above would pass over in silence."""
    page = tmp_path / "page.md"
    page.write_text(
        "A page:\n\n    petseg-batch a b \\\n      --limit 3\n\n```sh\n"
        "X=1 petseg eval a b 2> out.txt >&2 && petseg-train --resume   # petseg-batch not this\n"
        "sbatch --wrap 'petseg report m --images p'\n"
        'eval "$(_PETSEG_BATCH_COMPLETE=zsh_source petseg-batch)"\n'
        "```\n\n```\n$ petseg doctor\npetseg 1.0\n```\n"
    )
    assert sorted(found for _, found in lines(page)) == [
        ("batch", ["a", "b", "--limit", "3"]),
        ("doctor", []),
        ("eval", ["a", "b"]),
        ("report", ["m", "--images", "p"]),
        ("train", ["--resume"]),
    ]
    seen = {command for page in PAGES for _, (command, _) in lines(page)}
    assert seen == set(COMMANDS)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("batch", ["photos", "masks", "--formats", "color"]),
        ("batch", ["photos", "masks", "--format", "colour"]),
        ("batch", ["photos"]),
        ("batch", ["photos", "masks", "--shard", "1/2", "--format", "coco"]),
        ("train", ["--recipe", "scratch", "--epochs", "3"]),
        ("export", ["--precision", "int4"]),
        ("nothing", []),
    ],
)
def test_a_wrong_line_is_found(command: str, arguments: list[str]) -> None:
    with pytest.raises((click.ClickException, ValueError, AssertionError)):
        check(command, arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_stands_in_its_page(command: str) -> None:
    told = {
        name
        for page in (OPTIONS[command], SHARED)
        for span in spans(DOCS / page)
        for name in re.findall(r"--[a-z][a-z0-9-]*", span)
    }
    assert options(command) - told == set()


@pytest.mark.parametrize("page", sorted(set(OPTIONS.values())))
def test_tables_of_options_name_no_others(page: str) -> None:
    known = set().union(*(options(command) for command in OPTIONS if OPTIONS[command] == page))
    first = re.findall(r"^\| (`--.*?`) \|", text_of(DOCS / page), re.MULTILINE)
    named = set(re.findall(r"--[a-z][a-z0-9-]*", " ".join(first)))
    assert named
    assert named - known == set()


def links(page: Path) -> list[str]:
    """Where links and pictures lead."""
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"`[^`]*`", "", prose)
    return re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'src="([^"]+)"', prose)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives a page's headings."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        count = sum(1 for other in found if re.fullmatch(rf"{re.escape(name)}(-\d+)?", other))
        found.add(f"{name}-{count}" if count else name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_found_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        files = (page.parent / link.partition("#")[0] for link in links(page))
        todo += [file.resolve() for file in files if file.suffix == ".md" and file.exists()]
    assert set(PAGES) <= seen


def test_the_readme_is_short() -> None:
    prose = re.sub(r"\]\([^)]*\)", "]", text_of(ROOT / "README.md"))
    assert len(prose.split()) <= 600


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_is_run_by_a_test(page: Path) -> None:
    count = sum(language == "python" for language, _ in blocks(page))
    runs = PYTHON.get(page.name, [])
    assert count == sum(number for number, _ in runs)
    for _, test in runs:
        if test is not None:
            file, _, name = test.partition("::")
            source = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert f"\ndef {name}(" in source
            assert page.name in source


def test_what_make_is_asked_for_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) =", makefile, re.MULTILINE))
    asked = []
    for page in PAGES:
        inside = [line for _, block in blocks(page) for line in block.splitlines()]
        asked += [line for line in (*inside, *spans(page)) if line.startswith("make ")]
    assert {"make demo IMAGES=photos", "make soak SOAK=mutants"} <= set(asked)
    for line in asked:
        for word in shlex.split(line, comments=True)[1:]:
            name, equals, _ = word.partition("=")
            assert name in (variables if equals else targets), line


def test_every_extra_is_told() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    table = re.findall(r"^\| (`[^|]+`) \|", text_of(DOCS / "install.md"), re.MULTILINE)
    assert set(re.findall(r"`([^`]+)`", " ".join(table))) == extras
    for page in PAGES:
        asked = re.findall(r"(?:petseg|'\.|`\.)\[([a-z0-9,-]+)\]", text_of(page))
        assert set(",".join(asked).split(",")) - {""} <= extras, page


def test_the_pictures_are_those_the_script_makes(tmp_path: Path) -> None:
    """Of the model in the package, and of the run that the log tells of."""
    done = subprocess.run(
        [sys.executable, str(DOCS / "pictures.py"), str(tmp_path / "made")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    total = 0
    for made in sorted((tmp_path / "made").iterdir()):
        there = DOCS / "pictures" / made.name
        total += there.stat().st_size
        with Image.open(made) as new, Image.open(there) as old:
            assert new.size == old.size
            pixels = [np.asarray(image.convert("RGB"), float) for image in (new, old)]
        # Other builds of JPEG and fonts round otherwise.
        differences = np.abs(pixels[0] - pixels[1])
        assert differences.mean() < 2, f"{there}: python docs/pictures.py"
        # Curves are few pixels of a white page.
        assert (differences.max(axis=-1) > 64).mean() < 0.003, f"{there}: python docs/pictures.py"
    assert 0 < total < 250_000


@pytest.mark.parametrize("path", sorted((DOCS / "runs").glob("*.csv")), ids=lambda path: path.stem)
def test_the_log_says_what_the_history_does(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        history = list(csv.DictReader(file))
    columns = ("loss", "accuracy", "val_loss", "val_accuracy", "val_mean_iou")
    log = text_of(DOCS / "training-log.md")
    for row in history:
        figures = " | ".join(f"{float(row[name]):.4f}" for name in columns)
        assert f"| {row['epoch']} | {figures} |" in log


def test_what_options_cost_is_what_the_pages_say_that_measured_it() -> None:
    rows = re.findall(r"^\| .* \|$", text_of(DOCS / "performance.md"), re.MULTILINE)
    compared = 0
    for row in rows:
        for page in re.findall(r"\]\(((?:growth|scale)\.md)", row):
            for figure in re.findall(r"[\d.]+ (?:s|ms|µs|bytes)\b", row):
                assert figure in text_of(DOCS / page), row
                compared += 1
    assert compared == 7


def test_the_speeds_are_the_benchs() -> None:
    table = text_of(DOCS / "performance.md").partition("| images/s |")[2].partition("\n\n")[0]
    speeds = re.findall(r" \| ([\d.]+) \|$", table, re.MULTILINE)
    assert len(speeds) == 7
    bench = text_of(ROOT / "benchmarks/README.md").partition("**The contestants**")[2]
    measured = re.findall(
        r"^\| [\w-]+ \| ([\d.]+) \|", bench.partition("**Whether")[0], re.MULTILINE
    )
    assert {*speeds} <= {*measured}


def test_the_readme_has_the_cards_figures() -> None:
    card = text_of(ROOT / "petseg/assets/petseg.md")
    row = re.search(r"^\| official test list \|(.*)\|$", card, re.MULTILINE)
    assert row is not None
    _, accuracy, mean_iou, *_, foreground = (float(x.replace(",", "")) for x in row[1].split("|"))
    assert (
        f"pixel accuracy {accuracy:.3f}, mean IoU {mean_iou:.3f}, "
        f"pet-plus-border IoU {foreground:.3f}" in text_of(ROOT / "README.md")
    )


def test_every_row_of_the_comparison_has_a_note_in_each_tools_notes() -> None:
    parts = re.split(r"^## (.+)\n", text_of(DOCS / "comparison.md"), flags=re.MULTILINE)
    table, notes = parts[0], dict(zip(parts[1::2], parts[2::2], strict=True))
    (head,) = re.findall(r"^\| \| \| (.+) \|$", table, re.MULTILINE)
    numbers = {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert len(numbers) == 33
    for tool in head.split(" | "):
        (told,) = (text for name, text in notes.items() if name.startswith(tool))
        marks = re.findall(r"\*\*([\d, ]+)\*\*", told)
        assert {int(number) for mark in marks for number in mark.split(", ")} == numbers, tool
