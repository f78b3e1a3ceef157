"""Ctrl-C, SIGTERM and a closed terminal, where what was started must not be left running."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Notes that the user wants to stop; while something slow is going on, also cuts it short.

    Unlike ``service.lifecycle.StopSignal`` there is no deadline after which the process just ends:
    what it has started would be left running.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._cut_short = False

    def install(self) -> Interrupts:
        """Handle the signals from now on."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):  # Windows has no SIGHUP
                signal.signal(getattr(signal, name), self._on_signal)
        return self

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        first = not self.requested
        self._event.set()
        if first and self._cut_short:  # a second one must not cut the clean-up short
            raise KeyboardInterrupt

    @property
    def requested(self) -> bool:
        """Whether the user wants to stop."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep for ``seconds`` or until the user wants to stop; return whether that is so."""
        return self._event.wait(seconds)

    @contextmanager
    def cutting_short(self) -> Iterator[None]:
        """Let a signal raise ``KeyboardInterrupt`` in the block: downloads and starts take long."""
        self._cut_short = True
        try:
            yield
        finally:
            self._cut_short = False
