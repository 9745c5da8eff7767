"""README and docs/ as text: their code, and the commands whose options they tell."""

from __future__ import annotations

import re
from pathlib import Path

import click

from petseg.cli import batch, doctor, report, train
from petseg.cli import eval as eval_
from petseg_export import cli as export

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *(ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "benchmarks/README.md"),
        *(ROOT / "petseg/assets/petseg.md", *DOCS.glob("*.md")),
    ]
)
COMMANDS = {
    "batch": batch.main,
    "train": train.main,
    "eval": eval_.main,
    "report": report.main,
    "doctor": doctor.main,
    "export": export.main,
}
# Where a command's options are told, beside those that conventions.md tells of all commands.
OPTIONS = {
    "batch": "batch.md",
    "train": "training.md",
    "eval": "commands.md",
    "export": "commands.md",
    "report": "commands.md",
    "doctor": "commands.md",
}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Blocks of code, fenced with their language or indented, without continued lines."""
    text = text_of(page)
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"(?<=\n\n)(?: {4}.*(?:\n|$))+", rest)
    found += [("", re.sub(r"^ {4}", "", block, flags=re.MULTILINE)) for block in indented]
    return [(language, block.replace("\\\n", " ")) for language, block in found]


def spans(page: Path) -> list[str]:
    """Code within sentences and tables."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    return [span.replace("\n", " ").replace("\\|", "|") for span in re.findall(r"`([^`]+)`", text)]


def options(command: str) -> set[str]:
    """Names of a command's options, both of a switch."""
    return {
        name
        for parameter in COMMANDS[command].params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
