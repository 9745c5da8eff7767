"""All masks of a folder as one COCO file: an annotation a photo and foreground class.

https://cocodataset.org/#format-data, as pycocotools, CVAT and others read it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import IO, Any, Self

import cv2
import numpy as np

from petseg.classes import SegmentClass
from petseg.masks.reading import MaskFile
from petseg.system.temporary import replacing
from petseg.system.text import as_text


class CocoFile:
    """Grows by a mask at a time and takes its name when its `with` block ends well.

    Masks are compressed run lengths, not polygons, which lose pixels; `iscrowd` is 0, because each
    stands for what is looked for in its photo, and 1 would keep scorers from counting it.  Ids are
    the order of names: the same masks give the same bytes.
    """

    def __init__(self, path: Path, temporary: Path, classes: tuple[SegmentClass, ...]) -> None:
        """Begin the file.

        Args:
            path: where it goes.
            temporary: a folder on the same file system.
            classes: of the masks; those in the foreground become categories.
        """
        self.path = path
        self.temporary = temporary
        self.classes = classes
        self.nameless = 0
        self._images = _Items(temporary / "coco-images.part")
        self._annotations = _Items(temporary / "coco-annotations.part")

    def add(self, mask: MaskFile) -> None:
        """Add a mask that carries its ids; one whose photo nobody knows is counted and left out."""
        from pycocotools import mask as run_lengths

        if mask.photo is None:
            self.nameless += 1
            return
        assert mask.ids is not None
        ids = mask.ids
        if ids.shape != (mask.height, mask.width):
            # COCO counts in the photo's pixels.
            size = (mask.width, mask.height)
            ids = np.asarray(cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        image_id = self._images.count + 1
        self._images.add(
            {
                "id": image_id,
                "file_name": as_text(mask.photo),
                "height": mask.height,
                "width": mask.width,
            }
        )
        for class_id, item in enumerate(self.classes):
            if not item.foreground:
                continue
            found = run_lengths.encode(np.asfortranarray(ids == class_id, np.uint8))
            area = int(run_lengths.area(found))
            if area:
                self._annotations.add(
                    {
                        "id": self._annotations.count + 1,
                        "image_id": image_id,
                        "category_id": item.value,
                        "segmentation": {
                            "size": found["size"],
                            "counts": found["counts"].decode("ascii"),
                        },
                        "area": area,
                        "bbox": run_lengths.toBbox(found).tolist(),
                        "iscrowd": 0,
                    }
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._images.close()
            self._annotations.close()

    def _finish(self) -> None:
        categories = [
            {"id": item.value, "name": item.name, "supercategory": "foreground"}
            for item in self.classes
            if item.foreground
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path, self.temporary) as whole, whole.open("wb") as file:
            file.write(b'{"images":[')
            self._images.pour(file)
            file.write(b'],\n"annotations":[')
            self._annotations.pour(file)
            file.write(b'],\n"categories":' + json.dumps(categories).encode() + b"}\n")


class _Items:
    """The items of a JSON list, one a line, in a file of their own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file = path.open("wb")

    def add(self, item: dict[str, Any]) -> None:
        self._file.write(b",\n" if self.count else b"\n")
        self._file.write(json.dumps(item, separators=(",", ":")).encode())
        self.count += 1

    def pour(self, target: IO[bytes]) -> None:
        """Copy the items to another file."""
        self._file.flush()
        with self.path.open("rb") as source:
            shutil.copyfileobj(source, target)

    def close(self) -> None:
        """Have no items any more."""
        self._file.close()
        self.path.unlink()
