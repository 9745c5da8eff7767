"""A bell that other threads ring, to be waited for beside the workers' pipes."""

from __future__ import annotations

import multiprocessing
import threading


class Bell:
    """Rung once or many times, it is heard once.

    Attributes:
        pipe: can be read while the bell has been rung and not heard.
    """

    def __init__(self) -> None:
        self.pipe, self._rope = multiprocessing.Pipe(duplex=False)
        self._lock = threading.Lock()
        self._rung = False

    def ring(self) -> None:
        """From any thread; nothing happens once the bell is closed."""
        with self._lock:
            if not self._rung and not self._rope.closed:
                self._rung = True
                self._rope.send_bytes(b"!")

    def hear(self) -> None:
        """Take note of it; whatever is rung for after this rings anew."""
        with self._lock:
            if self._rung:
                self._rung = False
                self.pipe.recv_bytes()

    def close(self) -> None:
        with self._lock:
            self.pipe.close()
            self._rope.close()
