"""What other tests rely on must be able to make them fail."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from browsing import programs

from petseg.modelfile.signature import INPUT, MASK
from petseg_export.parity import draw_images


def test_tiny_model_tells_classes_and_images_apart(tiny_model: Path) -> None:
    session = onnxruntime.InferenceSession(tiny_model, providers=["CPUExecutionProvider"])
    images = draw_images(64, count=16, seed=7)
    (masks,) = session.run([MASK], {INPUT: images})
    for mask in masks:
        shares = np.bincount(mask.ravel(), minlength=3) / mask.size
        assert shares.min() > 0.01, shares
        assert len(shares) == 3
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    differing = np.mean([np.mean(one != other) for one, other in itertools.pairwise(masks)])
    assert differing > 0.1, differing


def test_without_a_browser_tests_are_skipped_unless_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("REQUIRE_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        programs()
    monkeypatch.setenv("REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        programs()
