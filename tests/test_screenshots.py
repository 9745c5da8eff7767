"""docs/screenshots.py: what the pages show of the report is what it looks like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from browsing import programs
from numpy.typing import NDArray
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"


def pixels(path: Path) -> NDArray[np.float64]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), float)


def test_the_screenshots_are_made_and_look_like_those_that_are_kept(tmp_path: Path) -> None:
    """Light and dark, and how large; what the page holds is looked at in test_report_page."""
    programs()
    command = [sys.executable, str(DOCS / "screenshots.py"), str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = {path.name: pixels(path) for path in (tmp_path / "made").iterdir()}
    assert set(made) == {"overlay.jpg", "report.png", "report-dark.jpg"}
    kept = {name: pixels(DOCS / "pictures" / name) for name in made}
    for name, picture in made.items():
        assert (DOCS / "pictures" / name).stat().st_size < 200_000
        # Fonts, and with them heights, are the machine's; times and speed are the run's.
        if name == "overlay.jpg":
            assert np.abs(picture - kept[name]).mean() < 2, "python docs/screenshots.py"
        else:
            assert picture.shape[1] == kept[name].shape[1]
            assert abs(picture.shape[0] / kept[name].shape[0] - 1) < 0.2
    for shots in (made, kept):
        # The left edge is the page's own colour.
        assert shots["report.png"][:, 2].min() > 240
        assert shots["report-dark.jpg"][:, 2].max() < 60
        # Photos in the one, lettering in the other.
        assert shots["report-dark.jpg"].std() > 30
        assert 10 < shots["report.png"].std() < 60
