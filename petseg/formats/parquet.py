"""All masks of a folder as one table, a row a photo, for pandas, DuckDB and others."""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from petseg.classes import SegmentClass
from petseg.masks.reading import MaskFile
from petseg.system.text import as_text

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 10_000


class Seconds:
    """How long each mask took, at twelve bytes a mask.

    No mask tells that, because masks of the same photo are the same, byte for byte: what a run has
    measured goes into the table, and the next table takes it from this one.
    """

    def __init__(self) -> None:
        self._keys = array("Q")
        self._values = array("f")
        self._sorted: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None

    def add(self, mask: str, seconds: float, written: int | None = None) -> None:
        """Note a mask's time; with `written`, microseconds since 1970, of a mask of that time."""
        self._keys.append(_key(mask, written))
        self._values.append(seconds)
        self._sorted = None

    def find(self, mask: str, written: int) -> float | None:
        """A mask's time; None where it is not known."""
        if not self._keys:
            return None
        if self._sorted is None:
            keys = np.frombuffer(self._keys, np.uint64)
            order = np.argsort(keys, kind="stable")
            self._sorted = keys[order], np.frombuffer(self._values, np.float32)[order]
        keys, values = self._sorted
        for key in (_key(mask, None), _key(mask, written)):
            # The last of those that are equal.
            place = int(np.searchsorted(keys, np.uint64(key), "right")) - 1
            if place >= 0 and keys[place] == key:
                return float(values[place])
        return None

    def take_over(self, path: Path) -> None:
        """Add what an earlier table knows; one that is missing or damaged knows nothing."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as earlier:
                for batch in earlier.iter_batches(
                    _ROWS_AT_ONCE, columns=["mask", "written", "seconds"]
                ):
                    # By name: they come in the file's order, and without what it has not.
                    masks = batch.column("mask").cast(pa.string()).to_pylist()
                    seconds = batch.column("seconds").cast(pa.float64()).to_pylist()
                    written = batch.column("written").cast(pa.int64()).to_pylist()
                    for mask, value, time in zip(masks, seconds, written, strict=True):
                        if mask is not None and value is not None:
                            self.add(mask, value, time)
        except (OSError, pa.ArrowException, KeyError):
            return


def _key(mask: str, written: int | None) -> int:
    mask = as_text(mask)
    text = mask if written is None else f"{mask}\0{written}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class ParquetFile:
    """Grows by a mask at a time and takes its name when its `with` block ends well.

    Columns: `path` of the photo below the input (null where nothing tells it) and `mask` below the
    folder of masks; `width` and `height` of the photo, pixels; `share_CLASS`, that part of the mask
    which is of the class, 0..1; `box_x`, `box_y`, `box_width`, `box_height` of the foreground, in
    the photo's pixels, null without foreground; `confidence` and `uncertain` (see
    `measures.certainty`), null for masks of a person; `made_by`, "petseg" or "person"; `provider`,
    `precision` and `model`, the model's hash; `photo_bytes` and `photo_sha256`; `written`, the
    mask's time in UTC; `seconds` of reading, network and writing, null where no table was kept.
    """

    def __init__(
        self, path: Path, temporary: Path, classes: tuple[SegmentClass, ...], seconds: Seconds
    ) -> None:
        """Begin the file.

        Args:
            path: where it goes; what lies there tells seconds of earlier runs.
            temporary: a folder on the same file system.
            classes: of the masks.
            seconds: of this run.
        """
        import pyarrow.parquet as pq

        self.path = path
        self.classes = classes
        self.seconds = seconds
        self.seconds.take_over(path)
        self._part = temporary / "parquet.part"
        self._schema = _schema(classes)
        self._writer = pq.ParquetWriter(self._part, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, mask: MaskFile) -> None:
        record, box = mask.record, mask.box
        total = sum(mask.class_pixels)
        name = as_text(mask.name)
        written = mask.written_ns // 1000
        self._rows.append(
            {
                "path": None if mask.photo is None else as_text(mask.photo),
                "mask": name,
                "width": mask.width,
                "height": mask.height,
                **{
                    f"share_{item.name}": pixels / total
                    for item, pixels in zip(self.classes, mask.class_pixels, strict=True)
                },
                **({} if box is None else {f"box_{key}": v for key, v in box._asdict().items()}),
                "made_by": "person" if mask.by_person else "petseg",
                "written": written,
                "seconds": self.seconds.find(name, written),
            }
        )
        if record is not None:
            self._rows[-1] |= {
                "confidence": record.confidence,
                "uncertain": record.uncertain,
                "provider": record.provider,
                "precision": record.precision,
                "model": record.maker.model,
                "photo_bytes": record.image.size,
                "photo_sha256": record.image.sha256,
            }
        if len(self._rows) == _ROWS_AT_ONCE:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self._flush()
        finally:
            self._writer.close()
        if error is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._part.replace(self.path)

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def _schema(classes: tuple[SegmentClass, ...]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("path", pa.string()),
            ("mask", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            *((f"share_{item.name}", pa.float32()) for item in classes),
            *((f"box_{side}", pa.int32()) for side in ("x", "y", "width", "height")),
            ("confidence", pa.float32()),
            ("uncertain", pa.float32()),
            ("made_by", pa.string()),
            ("provider", pa.string()),
            ("precision", pa.string()),
            ("model", pa.string()),
            ("photo_bytes", pa.int64()),
            ("photo_sha256", pa.string()),
            ("written", pa.timestamp("us")),
            ("seconds", pa.float32()),
        ]
    )
