"""What a run of petseg-batch is asked to do, and the checks of the folders and model it names."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from petseg.engines.engine import Cluster
from petseg.errors import ModelError, PetsegError
from petseg.formats.catalog import INDEX, NAMES, PICTURES, TABLES
from petseg.masks.reading import RESERVED
from petseg.modelfile import signature
from petseg.photos import imageio, lists, sources, transforms
from petseg.photos.addresses import is_address, shown
from petseg.photos.shards import Shard, own_name

# Seconds.  What is slow, a photo of hundreds of megapixels or a disk that has to spin up, takes
# less; what takes more will most likely never come.
DEFAULT_READ_TIMEOUT = 60.0
# What to do about a folder of petseg's name among photos.
RENAME = "if these are masks that petseg made, name the folder of their photos; else rename it"


@dataclass(frozen=True)
class BatchConfig:
    """A run of petseg-batch; see its --help for what the options mean.

    Attributes:
        images: a folder, a file, or a glob pattern; here or, as an address, in a store.
        masks: the folder of masks; a text is an address in a store.
        model: a file or an address; None takes `./model.onnx` if there is one, else the model in
            the package.
        provider: "auto", "cuda", "openvino" or "cpu".
        precision: what the network is computed in, of `runtime.PRECISIONS`.
        devices: the GPUs to use, by CUDA's numbers, or parts of the processor's cores; None for
            the first GPU, or all cores as one.
        batch_size: images at once; None for the provider's default.
        workers: processes that read and write; None for the provider's default.
        formats: of `catalog.NAMES`; "index" is always written.
        size: "source" for masks of the photo's size, "model" for the network's.
        names: "stem" for `x.png`, "full" for `x.jpg.png`.
        list_file: paths below `images`, one of Oxford's lists, or a table of paths.
        list_key: what the paths are called in such a table; None for the first of `lists.KEYS`.
        shard: the one of several runs on `images` that this is; None for the only one.
        shards: masks go into tar files of so many each; None for single files.
        limit: at most so many images, of its shard.
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
        report: write `masks/petseg/report.html`; a shard writes none.
        stats: where the stats go; None for `masks/petseg/stats.json`, or a shard's own.
        engine: "local", or "ray" for a cluster.
        cluster: which, and what each session takes of it.
    """

    images: str
    masks: Path | str
    model: Path | str | None = None
    provider: str = "auto"
    precision: str = "auto"
    devices: tuple[int, ...] | None = None
    batch_size: int | None = None
    workers: int | None = None
    formats: tuple[str, ...] = (INDEX.name,)
    size: Literal["source", "model"] = "source"
    names: Literal["stem", "full"] = "stem"
    list_file: Path | str | None = None
    list_key: str | None = None
    shard: Shard | None = None
    shards: int | None = None
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
    engine: Literal["local", "ray"] = "local"
    cluster: Cluster = field(default_factory=Cluster)

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "shards", "limit", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.devices is not None and (
            not self.devices or min(self.devices) < 0 or len(set(self.devices)) < len(self.devices)
        ):
            raise ValueError(
                "devices are different numbers from 0 on, as in 0,1, not "
                + ",".join(map(str, self.devices))
            )
        if self.review_below is not None and not 0 <= self.review_below <= 1:
            raise ValueError(f"review_below must lie in 0..1, not {self.review_below}")
        if self.read_timeout <= 0:
            raise ValueError(f"read_timeout must be more than 0 seconds, not {self.read_timeout}")
        if self.engine == "local" and self.cluster != Cluster():
            raise ValueError("--address and --actors say where --engine ray runs; name it, too")
        here = self.workers is not None or self.check or self.devices is not None
        if self.engine == "ray" and here:
            raise ValueError(
                "--workers, --devices and --check are of this machine: leave them out with "
                "--engine ray, whose number of sessions --actors sets"
            )
        if is_address(self.stats):
            raise ValueError(
                f"--stats is a file on this machine, not {shown(str(self.stats))}; without it the "
                "stats lie beside the masks"
            )
        if unknown := set(self.formats) - set(NAMES):
            raise ValueError(f"formats are of {NAMES}, not {sorted(unknown)}")
        if self.list_key is not None and not (
            self.list_file and lists.is_table(Path(self.list_file))
        ):
            raise ValueError(
                f"--list-key goes with a --list of {' or '.join(lists.SUFFIXES)}, "
                f"not of {shown(str(self.list_file or 'none'))}"
            )
        if self.shard is not None and (self.tables or self.review_below is not None):
            asked = [*(f"--format {name}" for name in self.tables), "--review-below"]
            raise ValueError(
                f"{asked[0]} makes one file of all masks, and --shard {self.shard} knows its own: "
                "leave it out, and when all shards have ended, run the same command once without "
                "--shard; it finds the masks done and makes that file"
            )

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
        return self.stats or self.beside("stats.json")

    def beside(self, file: str) -> Path:
        """Where a file that tells of this run lies; a shard's has a name of its own."""
        return self.reserved / own_name(file, self.shard)

    @property
    def folder(self) -> Path:
        """The folder of masks on this machine."""
        return Path(self.masks)

    @property
    def reserved(self) -> Path:
        """The folder for stats, lists and other formats."""
        return self.folder / RESERVED

    def to_json(self) -> dict[str, Any]:
        """The options, for the stats; a password in an address is left out."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["cluster"] = dataclasses.asdict(self.cluster)
        values = {k: str(v) if isinstance(v, Path | Shard) else v for k, v in values.items()}
        return {k: shown(v) if isinstance(v, str) else v for k, v in values.items()}


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
    target = config.folder.resolve()
    if Path(config.images).is_dir():
        base = sources.root(config.images).resolve()
        if target == base or base in target.parents:
            where = "is the folder of the photos" if target == base else f"lies in {config.images}"
            raise PetsegError(
                f"{config.masks} {where}: masks would be taken for photos the next time; choose a "
                "folder outside"
            )
        if (base / RESERVED).is_dir():
            raise PetsegError(
                f"{base / RESERVED}: a folder of that name at the top of the input would meet "
                f"{config.reserved}, where stats and other formats go; {RENAME}"
            )
    _check_writable(config.folder, target)
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


def find_model(model: Path | str | None, precision: str = "auto") -> tuple[Path, str]:
    """The model to use, and where it was found, for people.

    Args:
        model: the one that was named.
        precision: "int8" takes the package's int8 file, where neither a model was named nor one
            lies in this folder.

    Raises:
        ModelError: none was named and the package has none.
    """
    if model is not None:
        return Path(model), "--model"
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


def full_precision(path: Path, about: signature.Signature) -> Path:
    """The file with whose weights, computed in float32, a model's masks can be compared.

    Raises:
        ModelError: there is none: a file stored in int8 holds no other weights.
    """
    if about.precision != "int8":
        return path
    own = packaged()
    known = about.weights_hash and own.exists()
    if known and signature.read(own).weights_hash == about.weights_hash:
        return own
    raise ModelError(
        f"--check compares with float32, {path} holds int8 weights alone, and the package's model "
        "is not the one it was made from; score both with petseg-eval"
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
