"""What a run of petseg-batch is asked to do, and the checks of the folders and model it names."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from petseg import imageio, signature, sources, transforms
from petseg.errors import ModelError, PetsegError
from petseg.formats.catalog import INDEX, NAMES, PICTURES, TABLES
from petseg.masks import RESERVED

# Seconds.  What is slow, a photo of hundreds of megapixels or a disk that has to spin up, takes
# less; what takes more will most likely never come.
DEFAULT_READ_TIMEOUT = 60.0


@dataclass(frozen=True)
class BatchConfig:
    """A run of petseg-batch; see its --help for what the options mean.

    Attributes:
        images: a folder, a file, or a glob pattern.
        masks: the folder of masks.
        model: None takes `./model.onnx` if there is one, else the model in the package.
        provider: "auto", "cuda", "openvino" or "cpu".
        precision: what the network is computed in, of `runtime.PRECISIONS`.
        batch_size: images at once; None for the provider's default.
        workers: processes that read and write; None for the provider's default.
        formats: of `catalog.NAMES`; "index" is always written.
        size: "source" for masks of the photo's size, "model" for the network's.
        names: "stem" for `x.png`, "full" for `x.jpg.png`.
        list_file: paths below `images`, or one of Oxford's lists.
        limit: at most so many images.
        max_pixels: larger images are refused.
        read_timeout: seconds after which a worker that is still at one image is given up.
        redo: make petseg's own masks again.
        overwrite: make everybody's masks again.
        fail_fast: stop at the first image that fails.
        verify: compare photos by content.
        check: compare masks of some photos with float32's before the run.
        dry_run: look, count, and do nothing.
        review_below: masks of a lower confidence, 0..1, are listed in `masks/petseg/review.txt`;
            None for no list.
        report: write `masks/petseg/report.html`.
        stats: where the stats go; None for `masks/petseg/stats.json`.
    """

    images: str
    masks: Path
    model: Path | None = None
    provider: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    formats: tuple[str, ...] = (INDEX.name,)
    size: Literal["source", "model"] = "source"
    names: Literal["stem", "full"] = "stem"
    list_file: Path | None = None
    limit: int | None = None
    max_pixels: int = imageio.DEFAULT_MAX_PIXELS
    read_timeout: float = DEFAULT_READ_TIMEOUT
    redo: bool = False
    overwrite: bool = False
    fail_fast: bool = False
    verify: bool = False
    check: bool = False
    dry_run: bool = False
    review_below: float | None = None
    report: bool = True
    stats: Path | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "limit", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.review_below is not None and not 0 <= self.review_below <= 1:
            raise ValueError(f"review_below must lie in 0..1, not {self.review_below}")
        if self.read_timeout <= 0:
            raise ValueError(f"read_timeout must be more than 0 seconds, not {self.read_timeout}")
        if unknown := set(self.formats) - set(NAMES):
            raise ValueError(f"formats are of {NAMES}, not {sorted(unknown)}")

    @property
    def extras(self) -> tuple[str, ...]:
        """The pictures beside the mask itself, each once."""
        return tuple(name for name in PICTURES if name in self.formats)

    @property
    def tables(self) -> tuple[str, ...]:
        """The formats that are one file for all masks."""
        return tuple(name for name in TABLES if name in self.formats)

    @property
    def stats_file(self) -> Path:
        """Where the stats go."""
        return self.stats or self.reserved / "stats.json"

    @property
    def reserved(self) -> Path:
        """The folder for stats, lists and other formats."""
        return self.masks / RESERVED

    def to_json(self) -> dict[str, Any]:
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in dataclasses.asdict(self).items()
        }


def check_folders(config: BatchConfig) -> None:
    """Refuse what would mix photos and masks, and masks that cannot be written.

    Raises:
        PetsegError: with the reason; nothing has been written.
    """
    try:
        _check_folders(config)
    except PermissionError as error:
        raise PetsegError(f"{error.filename} may not be looked at: {error.strerror}") from error


def _check_folders(config: BatchConfig) -> None:
    target = config.masks.resolve()
    if Path(config.images).is_dir():
        base = sources.root(config.images).resolve()
        if target == base or base in target.parents:
            raise PetsegError(
                f"{config.masks} lies inside {config.images}: masks would be taken for photos "
                "the next time; choose a folder outside"
            )
        if (base / RESERVED).is_dir():
            raise PetsegError(
                f"{base / RESERVED}: a folder of that name at the top of the input would meet "
                f"{config.reserved}, where stats and other formats go; rename it"
            )
    _check_writable(config.masks, target)
    stats = config.stats_file.resolve()
    _check_writable(config.stats_file, stats.parent)
    if stats.is_dir():
        raise PetsegError(f"{config.stats_file} is a folder, where the stats are to go; move it")


def _check_writable(wanted: Path, folder: Path) -> None:
    existing = next(above for above in (folder, *folder.parents) if above.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise PetsegError(f"{wanted} is not writable: {existing} is not a folder to write in")


def packaged(precision: str = "auto") -> Path:
    """Where the package's model lies, if it has one: a file of its own for int8."""
    name = "petseg-int8.onnx" if precision == "int8" else "petseg.onnx"
    return Path(str(files("petseg") / "assets" / name))


def find_model(model: Path | None, precision: str = "auto") -> tuple[Path, str]:
    """The model to use, and where it was found, for people.

    Args:
        model: the one that was named.
        precision: "int8" takes the package's int8 file, where neither a model was named nor one
            lies in this folder.

    Raises:
        ModelError: none was named and the package has none.
    """
    if model is not None:
        return model, "--model"
    here = Path("model.onnx")
    if here.exists():
        return here, "in this folder"
    own = packaged(precision)
    if own.exists():
        return own, "from the package"
    if precision == "int8" and packaged().exists():
        raise ModelError(
            "the package has no int8 model: make one with petseg-export int8.onnx --from "
            f"{packaged()} --precision int8 --calibration DIR, and name it with --model"
        )
    raise ModelError(
        "no model: name one with --model, or make ./model.onnx with petseg-export model.onnx"
    )


def full_precision(path: Path, stored: str) -> Path:
    """The file with whose weights, computed in float32, a model's masks can be compared.

    Raises:
        ModelError: there is none: a file stored in int8 holds no other weights.
    """
    if stored != "int8":
        return path
    own = packaged("int8")
    if own.exists() and path.samefile(own):
        return packaged()
    raise ModelError(
        f"--check compares with float32, and {path} holds int8 weights alone; score it beside the "
        "file it was made from with petseg-eval"
    )


def read_signature(path: Path) -> signature.Signature:
    """A model's signature, once it is sure that photos are prepared here as the model wants them.

    Raises:
        ModelError: not a model that this petseg can run.
    """
    found = signature.read(path)
    wants = (found.resize_filter, found.decoder)
    does = (transforms.RESIZE_FILTER, imageio.DECODER)
    if wants != does:
        raise ModelError(f"{path} wants photos prepared by {wants}, this petseg has {does}")
    return found
