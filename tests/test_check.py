"""What a quicker precision changes, on photos that some cannot be read of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from batching import save_photos
from numpy.typing import NDArray

from petseg import runtime
from petseg.batch import check
from petseg.batch.check import Agreement
from petseg.modelfile import signature

Images = NDArray[np.uint8]


class Shifted:
    """A session whose masks lie some pixels further to the right."""

    batch_sizes, batch_size, streams = (1,), 1, 1
    provider, precision = "shifted", "float32"

    def __init__(self, session: runtime.Session, pixels: int) -> None:
        self.signature, self.notes = session.signature, session.notes
        self._stream, self._pixels = session.open_stream(), pixels

    def open_stream(self) -> Shifted:
        return self

    def run(self, images: Images) -> Images:
        return np.roll(self._stream.run(images), self._pixels, axis=-1)


@pytest.fixture
def session(tiny_model: Path) -> runtime.Session:
    return runtime.open_session(tiny_model, signature.read(tiny_model), "cpu")


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    names = save_photos(tmp_path / "images", 40)
    (tmp_path / "images" / names[0]).write_bytes(b"no image")
    return [str(tmp_path / "images" / name) for name in names]


def test_the_same_session_agrees_with_itself(session: runtime.Session, paths: list[str]) -> None:
    assert check.compare(session, session, paths, 10**6) == Agreement(check.PHOTOS - 1, 1.0)


def test_another_one_does_not(session: runtime.Session, paths: list[str]) -> None:
    found = check.compare(Shifted(session, 1), session, paths[1:9], 10**6)
    assert found is not None
    assert found.photos == 8
    assert 0.1 < found.equal_pixels < 0.99


def test_without_a_photo_there_is_nothing_to_say(
    session: runtime.Session, paths: list[str]
) -> None:
    assert check.compare(session, session, paths[:1], 10**6) is None
    assert check.compare(session, session, paths, 1) is None
    assert check.compare(session, session, [], 10**6) is None


def test_100_percent_is_said_of_equal_masks_only() -> None:
    words = "of mask pixels as in float32, on 3 of the photos"
    assert str(Agreement(3, 1.0)) == f"100.000% {words}"
    assert str(Agreement(3, 0.9999999)) == f"99.999% {words}"
