"""Paths in a list: lines, Oxford's lists, JSON lines, and the column of a Parquet file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from petseg.errors import MissingPackageError, PetsegError
from petseg.system.files import open_regular

# What a path is called, unless somebody says: petseg's own tables, and others' data sets.
KEYS = ("path", "image", "file_name")
SUFFIXES = (".jsonl", ".parquet")

_ROWS_AT_ONCE = 10_000
# Longer lines are no JSON lines: a whole file may be one.
_MOST_BYTES = 1 << 20


def is_table(list_file: Path) -> bool:
    """Whether the list's suffix says that its paths stand under a key."""
    return list_file.suffix.lower() in SUFFIXES


def read(
    list_file: Path, key: str | None, below: object, exists: Callable[[str], bool]
) -> Iterator[str]:
    """The names that a list gives, relative to the folder they lie in, with forward slashes.

    Args:
        list_file: a table (see `read_table`), or text: a line is a path; else its first word is
            one, perhaps without .jpg as in Oxford's lists.
        key: of a table's paths.
        below: the folder, for messages.
        exists: whether a name is there; it decides what a line means, and whether backslashes are
            letters of a name or stand between folders, as in a list from Windows.

    Raises:
        MissingPackageError: as `read_table`.
        PetsegError: the list cannot be read, or names what does not lie in the folder.
    """

    def meant(name: str) -> str:
        slashed = name.replace("\\", "/")
        return slashed if slashed != name and not exists(name) and exists(slashed) else name

    def is_there(name: str) -> bool:
        return exists(meant(name))

    table = is_table(list_file)
    for place, name in read_table(list_file, key) if table else _read_lines(list_file, is_there):
        listed = Path(os.path.normpath(meant(name)))
        # On Windows a path with a drive or a root alone leads elsewhere, too.
        if listed.anchor:
            raise PetsegError(
                f"the list {list_file} names {name} in {place}, expected a path relative to {below}"
            )
        if ".." in listed.parts:
            raise PetsegError(
                f"the list {list_file} names {name} in {place}, which does not lie below {below}"
            )
        yield listed.as_posix()


def _read_lines(list_file: Path, exists: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    try:
        # Some editors begin a file with a byte order mark.
        text = list_file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise PetsegError(f"cannot read the list {list_file}: {error.strerror}") from error
    if "\0" in text:
        raise PetsegError(f"the list {list_file} is no text in UTF-8")
    for number, line in enumerate(text.split("\n"), 1):
        # Oxford's lists begin with lines like that, which are no names.
        if line.strip() and (not line.startswith("#") or exists(line.strip())):
            word = line.split()[0]
            # A name may end in a space, and Windows ends lines with one character more.
            whole = line.removesuffix("\r")
            forms = dict.fromkeys((whole, line.strip(), word, f"{word}.jpg"))
            yield f"line {number}", next(filter(exists, forms), line.strip())


def read_table(list_file: Path, key: str | None = None) -> Iterator[tuple[str, str]]:
    """The paths of a list, each with where it stands there, "line 3" or "row 3".

    Args:
        list_file: of SUFFIXES.  `.jsonl` holds an object a line; empty lines are passed over.
        key: the key or column of the paths; None for the first of KEYS that is there.

    Raises:
        MissingPackageError: pyarrow is not installed, which reads Parquet.
        PetsegError: the list cannot be read, or a row names no path.
    """
    try:
        with open_regular(list_file) as file:
            read = _read_parquet if list_file.suffix.lower() == ".parquet" else _read_json_lines
            for place, value in read(file, list_file, key):
                yield place, _checked(value, f"{list_file}, {place}")
    except OSError as error:
        raise PetsegError(f"cannot read the list {list_file}: {error.strerror or error}") from error


def _checked(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise PetsegError(f"{where}: expected a path, found {repr(value)[:60]}")
    try:
        encoded = os.fsencode(value)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise PetsegError(f"{where}: {value!r} can be no file's name")
    return value


def _read_json_lines(file: BinaryIO, list_file: Path, key: str | None) -> Iterator[tuple[str, Any]]:
    number = 0
    while line := file.readline(_MOST_BYTES + 1):
        number += 1
        where = f"{list_file}, line {number}"
        if len(line) > _MOST_BYTES:
            raise PetsegError(
                f"{where}: longer than {_MOST_BYTES} bytes; expected an object a line"
            )
        try:
            # Some editors begin a file with a byte order mark.
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            values = json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            raise PetsegError(f"{where}: expected a JSON object, found: {error}") from error
        if not text:
            continue
        if not isinstance(values, dict):
            raise PetsegError(f"{where}: expected a JSON object, found {text[:60]}")
        yield f"line {number}", values[_choose(values, key, where)]


def _read_parquet(file: BinaryIO, list_file: Path, key: str | None) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingPackageError("pyarrow", "formats", f"--list {list_file}") from error
    row = 0
    try:
        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            column = _choose(names, key, str(list_file))
            kind = table.schema_arrow.field(names.index(column)).type
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                # A column of the photos themselves, say, which nobody should read for a message.
                raise PetsegError(
                    f"{list_file}: expected paths in the column {column}, found {kind}"
                )
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[column]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    yield f"row {row}", value
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise PetsegError(
            f"{list_file}, behind row {row}: cannot be read as Parquet: {error}"
        ) from error


def _choose(there: Any, key: str | None, where: str) -> str:
    """The key to take, of those that are there."""
    wanted = KEYS if key is None else (key,)
    found = next((name for name in wanted if name in there), None)
    if found is None:
        names = ", ".join(map(str, there)) or "nothing"
        raise PetsegError(
            f"{where}: expected {' or '.join(wanted)}, found {names}; "
            "--list-key names the one that holds the paths"
        )
    return found
