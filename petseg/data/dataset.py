"""Oxford-IIIT Pet's layout: lists, splits and samples.

A data set is a folder that holds `images/NAME.jpg`, `annotations/trimaps/NAME.png` (8-bit
greyscale, the classes' values) and the lists a split is cut from: `annotations/list.txt`,
`trainval.txt` or `test.txt`.  A list may also hold paths below `images/` (`a/x.jpg`, `y.webp`), as
`petseg-batch --review-below` writes them; the trimap of `a/x.jpg` is `a/x.png`.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from petseg.errors import DatasetError, ImageError
from petseg.masks import reading
from petseg.photos import imageio

IMAGES, TRIMAPS = Path("images"), Path("annotations/trimaps")
_LISTS = Path("annotations")


@dataclass(frozen=True)
class Split:
    """Names of the samples to train on and of those to validate on; they share none."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def read_list(path: Path) -> list[str]:
    """Names from one of Oxford's lists, or paths of images; '#' starts a comment.

    A line that ends as an image's name does is a path; of others the first word is the name.

    Raises:
        DatasetError: the file cannot be read or names nothing.
    """
    try:
        # Some editors begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read the list {path}: {error}") from error
    if "\0" in text:
        raise DatasetError(f"the list {path} is no text: it holds zero bytes")
    names = [
        line.strip() if _is_path(line.strip()) else line.split()[0]
        for line in text.splitlines()
        if line.strip() and not line.startswith("#")
    ]
    if not names:
        raise DatasetError(f"the list {path} names no images")
    return names


def _is_path(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in imageio.SUFFIXES


def stem(name: str) -> str:
    """What a sample's trimap and mask are called, without suffix: `a/x` for `a/x.jpg` and `a/x`."""
    return str(PurePosixPath(name).with_suffix("")) if _is_path(name) else name


def image_path(root: Path, name: str) -> Path:
    """Where the photo of a sample lies, which is named by its name or its path below `images/`."""
    return root / IMAGES / (name if _is_path(name) else f"{name}.jpg")


def trimap_path(root: Path, name: str) -> Path:
    """Where the trimap of that sample lies."""
    return root / TRIMAPS / f"{stem(name)}.png"


def read_breeds(root: Path) -> dict[str, int]:
    """Breed ids, 0, 1, ..., by name: the second word of each line of list.txt, less 1.

    Raises:
        DatasetError: there is no such list, or a line of it has no such number.
    """
    path = root / _LISTS / "list.txt"
    advice = "give a list with lines like 'Abyssinian_1 1', or train with --breed-weight 0"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read breeds from {path}: {error}; {advice}") from error
    breeds = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *words = line.split()
        if not words or not words[0].isdecimal() or int(words[0]) < 1:
            raise DatasetError(
                f"{path}, line {number}: expected a name and its breed, a number from 1, "
                f"found {line!r}; {advice}"
            )
        breeds[name] = int(words[0]) - 1
    return breeds


def name_breeds(root: Path, names: Sequence[str]) -> list[str | None]:
    """The breed of each sample in words; None where list.txt does not tell.

    The list holds numbers, and Oxford's files are called after their breeds: `Abyssinian_1`.  A
    number whose samples share such a word, which those of no other number have, is called by it;
    others are called `breed 3`.
    """
    try:
        breeds = read_breeds(root)
    except DatasetError:
        # A list of names alone is as good a list.
        return [None] * len(names)
    words: dict[int, set[str]] = {}
    for name, breed in breeds.items():
        word = PurePosixPath(stem(name)).name.rpartition("_")[0]
        words.setdefault(breed, set()).add(word)
    users = Counter(word for found in words.values() for word in found)
    called = {
        breed: min(found) if len(found) == users[min(found)] == 1 and "" not in found else None
        for breed, found in words.items()
    }
    return [
        (called[breeds[name]] or f"breed {breeds[name] + 1}") if name in breeds else None
        for name in names
    ]


def breed_table(breeds: dict[str, int], names: Sequence[str]) -> NDArray[np.float32]:
    """One row a name, 1 for its breed and 0 for all others: float32 (N, K).

    Raises:
        DatasetError: a name has no breed.
    """
    missing = [name for name in names if name not in breeds]
    if missing:
        raise DatasetError(
            f"{len(missing)} training samples have no breed in list.txt, the first is {missing[0]};"
            " add them, or train with --breed-weight 0"
        )
    table = np.zeros((len(names), max(breeds.values()) + 1), np.float32)
    table[np.arange(len(names)), [breeds[name] for name in names]] = 1
    return table


def hash_names(names: Sequence[str]) -> str:
    """SHA-256 of the sorted names, one a line: tells which images a model was trained on."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode()).hexdigest()


def split(root: Path, which: str, seed: int, limit: int | None) -> Split:
    """The article's split or the official one.

    Args:
        root: folder in Oxford's layout.
        which: "article" or "official".
        seed: of what is kept for validation.
        limit: at most so many samples to train on, and a quarter as many to validate on.
    """
    cut = (split_article if which == "article" else split_official)(root, seed)
    if limit is None:
        return cut
    return Split(cut.train[:limit], cut.validation[: max(limit // 4, 1)])


def split_article(root: Path, seed: int, share: float = 0.2) -> Split:
    """The article's split: everything in list.txt shuffled, a share kept for validation."""
    return _cut(_listed(root, "list.txt"), seed, share)


def split_official(root: Path, seed: int, share: float = 0.1) -> Split:
    """The official trainval list less a validation part; test.txt is never read."""
    return _cut(_listed(root, "trainval.txt"), seed, share)


def _listed(root: Path, name: str) -> list[str]:
    for folder in (IMAGES, TRIMAPS):
        if not (root / folder).is_dir():
            raise DatasetError(
                f"{root} is not in Oxford-IIIT Pet's layout: expected the folders "
                f"{IMAGES.as_posix()} and {TRIMAPS.as_posix()}, found no {folder.as_posix()}"
            )
    path = root / _LISTS / name
    if not path.exists():
        there = ", ".join(sorted(file.name for file in (root / _LISTS).glob("*.txt"))) or "none"
        raise DatasetError(
            f"this split is cut from {path}, which does not exist; lists there: {there}"
        )
    return read_list(path)


def _cut(names: Sequence[str], seed: int, share: float) -> Split:
    # Sorted: the list's order does not matter.  Each photo once, and not by its path if it has a
    # name, too, by which its breed is known: the parts share none.
    paths_first = sorted(sorted(set(names)), key=_is_path, reverse=True)
    once = {image_path(Path(), name): name for name in paths_first}
    shuffled = sorted(once.values())
    random.Random(seed).shuffle(shuffled)
    count = max(1, round(len(shuffled) * share))
    if count >= len(shuffled):
        raise DatasetError(
            f"{len(shuffled)} images are too few: {count} are needed for validation alone"
        )
    return Split(train=tuple(shuffled[count:]), validation=tuple(shuffled[:count]))


def read_sample(
    root: Path, name: str, table: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One photo and its class ids, at their own size.

    Args:
        root: folder in Oxford's layout.
        name: the sample's name, or its image's path below `images/`.
        table: uint8 (256,), value on disk to class id, 255 for none.

    Returns:
        RGB uint8 (H, W, 3) and class ids uint8 (H, W).

    Raises:
        ImageError: one of them cannot be read, they differ in size, or the trimap holds a value
            that stands for no class.
    """
    image = imageio.decode(_bytes(image_path(root, name)))
    trimap = read_trimap(trimap_path(root, name), table)
    if image.shape[:2] != trimap.shape:
        raise ImageError(
            f"the photo is {image.shape[1]}x{image.shape[0]}, "
            f"its trimap {trimap.shape[1]}x{trimap.shape[0]}"
        )
    return image, trimap


def read_trimap(path: Path, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class ids uint8 (H, W) from an 8-bit greyscale mask on disk.

    Raises:
        ImageError: unreadable, not 8-bit greyscale, or with a value that stands for no class.
    """
    return reading.decode(_bytes(path), table, path)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
