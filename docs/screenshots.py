"""The report and an overlay, as docs/report.md and docs/formats.md show them.

`python docs/screenshots.py` runs petseg-batch over the demo's pictures and a broken file, opens the
report in Chromium (`apt-get install chromium chromium-driver`) and takes its beginning in the light
and its first photos in the dark, into docs/pictures/.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from demo import draw

PICTURES = Path(__file__).with_name("pictures")
WIDTH = 1200  # pixels, of the window
SHOWN = 900  # pixels, of a picture in docs/
OVERLAY = "cat.jpg"
# Where the last run begins, the least confident masks, and their third row.
TOPS = """
return ["#run", "#unsure", "[aria-labelledby=unsure] .pair:nth-child(7)"]
    .map(name => document.querySelector(name).getBoundingClientRect().top)
"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=PICTURES)
def main(folder: Path) -> None:
    """Write the pictures into FOLDER, docs/pictures unless told."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        masks = run(Path(place))
        shutil.copy(masks / "petseg/overlay" / OVERLAY, folder / "overlay.jpg")
        with chromium(Path(place) / "browser") as driver:
            driver.get((masks / "petseg/report.html").resolve().as_uri())
            run_top, top, next_row = driver.execute_script(TOPS)
            light, dark = shot(driver, "light", 0, run_top), shot(driver, "dark", top, next_row)
        # Few colours where there are no photos; those of the classes are rare and must stay.
        few = light.quantize(128, Image.Quantize.MAXCOVERAGE, kmeans=2)
        few.save(folder / "report.png", optimize=True)
        dark.save(folder / "report-dark.jpg", quality=85)


def run(place: Path) -> Path:
    """Masks of the demo's pictures, in PLACE: the report then names no path of this machine."""
    draw(place / "photos")
    (place / "photos/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    # The same masks on every machine.
    options = ["--format", "overlay", "--provider", "cpu", "--precision", "float32", "--quiet"]
    command = [str(Path(sys.executable).with_name("petseg-batch")), "photos", "masks", *options]
    others = {name: value for name, value in os.environ.items() if name[:7] != "PETSEG_"}
    code = subprocess.run(command, cwd=place, env=others, check=False).returncode
    if code != 3:  # all but the broken one
        raise SystemExit(f"petseg-batch left with {code}, and 3 was expected")
    return place / "masks"


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A browser without a window, whose settings lie in PROFILE."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        raise SystemExit("there is no Chromium here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for switch in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "hide-scrollbars",
    ):
        options.add_argument(f"--{switch}")
    options.add_argument(f"--user-data-dir={profile}")
    found = webdriver.Chrome(options=options, service=Service(driver))
    try:
        size = {"width": WIDTH, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield found
    finally:
        found.quit()


def shot(driver: Any, scheme: str, top: float, bottom: float) -> Image.Image:
    """The page between two heights, pixels from its top, light or dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": features})
    clip = {"x": 0, "y": top, "width": WIDTH, "height": bottom - top, "scale": 1}
    options = {"format": "png", "captureBeyondViewport": True, "clip": clip}
    data = driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        height = round(picture.height * SHOWN / picture.width)
        return picture.convert("RGB").resize((SHOWN, height), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
