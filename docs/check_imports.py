"""What CVAT's and Label Studio's own libraries read out of petseg's files.

    petseg-batch photos/ masks/ --format coco --format binary
    uv run --no-project docs/check_imports.py masks/

follows docs/formats.md and compares, pixel by pixel, each mask with what comes out: what datumaro,
which CVAT's own reader is a branch of, finds in `coco.json` and in the folder for "Segmentation
mask 1.1"; and the run lengths that Label Studio's converter makes.  Prints a line for each, and
ends with an error where a pixel differs.
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["datumaro>=1.13", "label-studio-sdk>=2.1"]
# ///

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset
from label_studio_sdk.converter import brush
from PIL import Image

VALUES = {"pet": 1, "background": 2, "border": 3}


def read(path: Path) -> np.ndarray:
    """The values of a mask, uint8 (H, W)."""
    with Image.open(path) as image:
        assert image.mode == "L", f"{path} is {image.mode}, not 8-bit greyscale"
        return np.array(image)


def own(masks: Path) -> dict[str, np.ndarray]:
    """All masks of a folder by their names without ending."""
    paths = (path.relative_to(masks) for path in sorted(masks.rglob("*.png")))
    return {
        path.with_suffix("").as_posix(): read(masks / path)
        for path in paths
        if path.parts[0] != "petseg"
    }


def through_datumaro(
    path: Path, kind: str, masks: dict[str, np.ndarray], expected: set[int]
) -> None:
    """Read a data set, and compare the pixels of each value that is expected with petseg's."""
    found = Dataset.import_from(str(path), kind)
    labels = found.categories()[AnnotationType.label]
    items = {item.id: item for item in found}
    assert items.keys() == masks.keys(), (items.keys(), masks.keys())
    for name, values in masks.items():
        there = np.zeros(values.shape, np.uint8)
        for annotation in items[name].annotations:
            if annotation.type == AnnotationType.mask:
                value = VALUES[labels[annotation.label].name]
                there[np.asarray(annotation.image, bool)] = value
        wanted = np.where(np.isin(values, list(expected)), values, 0)
        np.testing.assert_array_equal(there, wanted, err_msg=name)
    print(f"datumaro, {kind}: {len(masks)} masks, all pixels of {expected} the same")


def through_label_studio(tasks: Path, masks: dict[str, np.ndarray]) -> None:
    """Decode the run lengths in a list of tasks, and compare them with petseg's masks."""
    found = json.loads(tasks.read_text(encoding="utf-8"))
    assert len(found) == len(masks)
    for task in found:
        photo = unquote(task["data"]["image"].removeprefix("/data/local-files/?d=photos/"))
        values = masks[str(Path(photo).with_suffix(""))]
        (result,) = task["predictions"][0]["result"]
        assert result["type"] == "brushlabels"
        shape = result["original_height"], result["original_width"]
        assert shape == values.shape
        # Red, green, blue and opacity, all of them the mask.
        there = brush.decode_rle(result["value"]["rle"]).reshape(*shape, 4)
        np.testing.assert_array_equal(there[..., 3] == 255, values != 2, err_msg=photo)
    print(f"Label Studio, brush: {len(masks)} masks, all pixels the same")


def main() -> None:
    """Follow the page's instructions, and compare what comes out."""
    if len(sys.argv) != 2:
        sys.exit("usage: check_imports.py MASKS")
    folder = Path(sys.argv[1]).resolve()
    masks = own(folder)
    assert masks, f"there are no masks in {folder}"
    page = Path(__file__).with_name("formats.md").read_text(encoding="utf-8")
    _, for_cvat = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    *_, for_label_studio = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        shutil.copytree(folder, "masks")
        # CVAT's own datumaro takes the bare file; the one on PyPI asks for COCO's folders.
        Path("coco/annotations").mkdir(parents=True)
        Path("coco/images").mkdir()
        shutil.copy("masks/petseg/coco/coco.json", "coco/annotations/instances_default.json")
        through_datumaro(Path("coco"), "coco", masks, {1, 3})
        lines = for_cvat.splitlines()[:-1]  # without the archive
        subprocess.run(["sh", "-ec", "\n".join(lines)], check=True)
        through_datumaro(Path("cvat"), "voc_segmentation", masks, {1, 2, 3})
        exec(for_label_studio, {})
        through_label_studio(Path("tasks.json"), masks)
        os.chdir(folder)


if __name__ == "__main__":
    main()
