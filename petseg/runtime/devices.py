"""Several devices as one session: each has a session of its own, and all are fed from one queue."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petseg.errors import DeviceLostError, ProviderError, first_line
from petseg.runtime.session import Session, Stream


@dataclass(eq=False)
class _Device:
    """One of them.

    Attributes:
        number: what it is called.
        session: its own.
        images: how many went through it.
        problem: why it is no longer used; None while it is.
    """

    number: int
    session: Session
    images: int = 0
    problem: str | None = None


class DevicesSession:
    """A session made of others; see `session.Session`.

    Its streams are theirs: whoever takes batches from one queue for each stream keeps every device
    at work, and a slow one takes fewer.  Each keeps to a batch size of its own, for which a larger
    batch is cut; the tuner's choice is one for all.

    A device that fails is left out: its stream raises DeviceLostError, which says that the batch is
    for another stream.  Only where none is left does the failure come through.
    """

    def __init__(self, sessions: Mapping[int, Session]) -> None:
        """Join sessions of one model, provider and precision, by their devices' numbers."""
        self._devices = [_Device(number, session) for number, session in sessions.items()]
        first = self._devices[0].session
        self.signature, self.provider = first.signature, first.provider
        self.precision, self.batch_sizes = first.precision, first.batch_sizes
        # However many streams are opened, any `streams` in a row are one of each.
        self._turns = itertools.cycle(
            [device for device in self._devices for _ in range(device.session.streams)]
        )
        self._all_streams = self.streams
        self._lock = threading.Lock()

    @property
    def batch_size(self) -> int:
        """The largest of those that are left."""
        return max((device.session.batch_size for device in self._left()), default=1)

    @property
    def streams(self) -> int:
        """Of those that are left; 1 where none is, for whoever divides by it."""
        return sum(device.session.streams for device in self._left()) or 1

    @property
    def notes(self) -> list[str]:
        """What happened to each, and how much each did, `--check` included."""
        found = [
            f"device {device.number}: {note}"
            for device in self._devices
            for note in device.session.notes
        ]
        for device in self._devices:
            if device.problem is not None:
                found.append(
                    f"warning: device {device.number} failed and was left out: {device.problem}"
                )
        shares = (f"{device.images} on {device.number}" for device in self._devices)
        return [*found, f"images by device: {', '.join(shares)}"]

    def open_stream(self) -> Stream:
        """A stream of the next device that is left, or of one that tells it is not."""
        for device in itertools.islice(self._turns, self._all_streams):
            if device.problem is None:
                break
        return _DeviceStream(self, device)

    def count(self, device: _Device, images: int) -> None:
        """Note that so many images went through a device."""
        with self._lock:
            device.images += images

    def lose(self, device: _Device, error: Exception) -> ProviderError:
        """Leave a device out from now on.

        Returns:
            What to raise: a DeviceLostError, or, where no other is left, what became of each.
        """
        with self._lock:
            if device.problem is None:
                device.problem = first_line(error)
            if not self._left():
                each = (f"device {one.number}: {one.problem}" for one in self._devices)
                return ProviderError(f"every device failed: {'; '.join(each)}")
        return DeviceLostError(f"device {device.number} failed: {device.problem}")

    def _left(self) -> list[_Device]:
        return [device for device in self._devices if device.problem is None]


class _DeviceStream:
    """A stream of one of the sessions; see `session.Stream`."""

    def __init__(self, session: DevicesSession, device: _Device) -> None:
        self._session, self._device = session, device
        self._stream = device.session.open_stream()

    @property
    def padded(self) -> list[int] | None:
        return self._stream.padded

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._device.problem is not None:
            # Another of its streams has found out.
            raise DeviceLostError(f"device {self._device.number} failed: {self._device.problem}")
        try:
            result = self._stream.run(images)
        except Exception as error:
            # Whatever it is, another device may be without it; where it is none's fault, all fail.
            raise self._session.lose(self._device, error) from error
        self._session.count(self._device, len(images))
        return result
