"""What README and docs/ say of the code: values of options; names of files, tests, modules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from docpages import COMMANDS, DOCS, OPTIONS, PAGES, ROOT, text_of

# What comes behind the dot of a file, and not of a module.
ENDINGS = ("md", "json", "csv", "txt", "onnx", "py", "html", "keras")
# Folders whose files pages name with their folder, and those whose files they may name without it.
TREE = ("petseg", "export", "tests", "docs", "benchmarks")
BY_NAME = ("tests", "docs", "benchmarks")
PACKAGES = (ROOT / "petseg", ROOT / "export" / "petseg_export")
PAGE_IDS = [str(page.relative_to(ROOT)) for page in PAGES]

Row = tuple[str, list[tuple[str, str]], str, str | None]


def rows(page: str) -> Iterator[Row]:
    """Each row of a page's tables of options.

    The heading it stands below, the names with what follows each, all text, and the default.
    """
    heading = ""
    for line, table in re.findall(r"^(#.*)$|((?:^\|.*\n)+)", text_of(DOCS / page), re.MULTILINE):
        heading = line or heading
        if line:
            continue
        # A bar within a cell is written as \\|.
        lines = [re.split(r" (?<!\\)\| ", line.strip("|\n ")) for line in table.splitlines()]
        head, _, *body = lines
        if head[0] != "option":
            continue
        place = head.index("default") if "default" in head else None
        for cells in body:
            first = cells[0].replace("\\|", "|")
            names = re.findall(r"`(--[a-z0-9-]+) ?([^`]*)`", first)
            default = None if place is None else cells[place].replace("\\|", "|")
            yield heading, names, " ".join(cells).replace("\\|", "|"), default


def option(page: str, name: str, heading: str = "") -> click.Option:
    """The option of one of a page's commands, of the heading's where the page is of several."""
    commands = [command for command, told in OPTIONS.items() if told == page]
    (found,) = (
        parameter
        for command in commands
        if len(commands) == 1 or command in heading
        for parameter in COMMANDS[command].params
        if isinstance(parameter, click.Option)
        and name in (*parameter.opts, *parameter.secondary_opts)
    )
    return found


def wrong_choices(name: str, follows: str, text: str, found: click.Option) -> str | None:
    """What is wrong with the choices that a row tells; None where nothing is."""
    told = set(follows.split("|")) if "|" in follows else set()
    if isinstance(found.type, click.Choice):
        choices = set(found.type.choices)
        if told:
            return (
                None if told == choices else f"{name} takes {sorted(choices)}, not {sorted(told)}"
            )
        # In the sentence, where there are many.
        missing = choices - set(re.findall(r"`([^`]+)`", text))
        return f"{name}: nothing tells of {sorted(missing)}" if missing else None
    # A word in place of a file has to be one that something tells apart.
    words = {word for word in told if word == word.lower()}
    strange = words - set(re.findall(r"\w+", found.help or ""))
    return f"{name}: {sorted(strange)} are not in its --help" if strange else None


def wrong_default(name: str, told: str, found: click.Option) -> str | None:
    """What is wrong with the default that a row tells; None where nothing is."""
    own = found.to_info_dict()["default"]
    if found.is_flag:
        words = {"no", "neither"} if not own else {f"`{name}`", f"`{found.opts[0]}`"}
        return None if told in words else f"{name} is {own} unless told, not {told}"
    if own is None or own == ():
        # What is found out by the command is told in words.
        plain = re.fullmatch(r"[\d.,]+|`\w+`", told)
        return f"{name} has no default, not {told}" if plain else None
    own = own[0] if isinstance(own, tuple) else own
    shown = f"{own:,}" if isinstance(own, int) else f"{own:g}" if isinstance(own, float) else own
    return None if told.strip("`") == str(shown) else f"{name} is {shown} unless told, not {told}"


@pytest.mark.parametrize("page", sorted(set(OPTIONS.values())))
def test_tables_of_options_tell_the_commands_own_values(page: str) -> None:
    wrong = []
    seen = 0
    for heading, names, text, default in rows(page):
        shared = [] if default is None else default.split("; ")
        for place, (name, follows) in enumerate(names):
            found = option(page, name, heading)
            seen += 1
            wrong.append(wrong_choices(name, follows, text, found))
            if default is not None:
                told = shared[place] if len(shared) == len(names) else default
                wrong.append(wrong_default(name, told, found))
            elif said := re.search(r"`(\w+)` unless told", text):
                wrong.append(wrong_default(name, said[0].removesuffix(" unless told"), found))
    assert seen > 5
    assert [words for words in wrong if words] == []


@pytest.mark.parametrize(
    ("name", "follows", "default"),
    [
        ("--provider", "auto|cuda|cpu", "`auto`"),
        ("--provider", "auto|cuda|openvino|cpu", "`cpu`"),
        ("--max-pixels", "N", "25,000,000"),
        ("--read-timeout", "SECONDS", "30"),
        ("--actor-cpus", "N", "2"),
        ("--batch-size", "N", "16"),
        ("--format", "NAME", "`index`"),
        ("--report", "", "`--no-report`"),
        ("--redo", "", "`--redo`"),
        ("--names", "stem|full", "`full`"),
    ],
)
def test_a_wrong_value_is_found(name: str, follows: str, default: str) -> None:
    found = option("batch.md", name)
    assert wrong_choices(name, follows, "", found) or wrong_default(name, default, found)


def prose(page: Path) -> str:
    """A page without blocks, without links' own words, and without other tools' files."""
    text = text_of(page)
    if page.name == "comparison.md":
        text = text[text.index("\n## petseg\n") : text.index("\n## rembg\n")]
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\[[^]]*\]\(https?:[^)]*\)", "", text)


def modules(name: str) -> list[Path]:
    """The modules and folders of a name, which may have folders before it."""
    name = name.rstrip("/")
    return [
        path
        for package in PACKAGES
        for path in (*package.rglob("*.py"), *(p for p in package.rglob("*") if p.is_dir()))
        if f"/{path.relative_to(package).with_suffix('').as_posix()}".endswith(f"/{name}")
        and "__pycache__" not in path.parts
    ]


def stale(text: str, page: Path) -> list[str]:
    """Names of files, tests, modules and what is in them that the tree does not have."""
    found = []
    for span in re.findall(r"`([^`]+)`", text):
        for word in re.findall(r"[\w./*-]+", span):
            folder, slash, _ = word.partition("/")
            if slash and folder in TREE and not (ROOT / word).exists():
                found.append(word)
            elif word.endswith(".py") and not (slash and folder in TREE):
                places = (page.parent, *(ROOT / name for name in BY_NAME))
                if not any((place / word).exists() for place in places):
                    found.append(word)
        named = re.fullmatch(r"([a-z_]+)\.([a-z_]+)(\(.*\))?", span)
        if named and named[2] not in ENDINGS:
            files = [path if path.is_file() else path / "__init__.py" for path in modules(named[1])]
            inside = (re.search(rf"\b{named[2]}\b", text_of(file)) for file in files)
            # What is no module's is another program's.
            if files and not any(inside):
                found.append(span)
    # A file, and in parentheses what is in it.
    for file, names in re.findall(r"`([\w/]+\.py)`\s\(((?:`\w+`(?:,\s)?)+)\)", text):
        paths = [place / file for place in (ROOT, ROOT / "tests") if (place / file).exists()]
        known = "".join(map(text_of, paths))
        inside = re.findall(r"`(\w+)`", names)
        found += [name for name in inside if not re.search(rf"\b{name}\b", known)]
    # A module in bold letters is explained there: which it is has to be clear.
    found += [name for name in re.findall(r"\*\*`([a-z_/]+)`\*\*", text) if len(modules(name)) != 1]
    return found


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_what_is_named_is_there(page: Path) -> None:
    assert stale(prose(page), page) == []


@pytest.mark.parametrize(
    "text",
    [
        "`petseg/plan.py`",
        "`make test ARGS=tests/test_nothing.py`",
        "`test_nothing.py`",
        "`test_kill.py` (`test_nothing`)",
        "`petseg/classes.py` (`PET_CLASSES`, `NOTHING`)",
        "`training.fit(config, data)`",
        "`imageio.nothing`",
        "**`nothing`** does it",
        "**`shelf`**, of which there are two",
    ],
)
def test_a_stale_name_is_found(text: str) -> None:
    assert stale(text, DOCS / "architecture.md")


def test_names_that_are_there_are_not() -> None:
    text = (
        "`petseg/classes.py` (`PET_CLASSES`), `test_kill.py`\n(`test_kill_9_at_ten_moments`), "
        "`benchmarks/`, `imageio.decode`, `soak/kills.py`, **`masks/shelf`**, `stats.json`"
    )
    assert stale(text, DOCS / "architecture.md") == []
