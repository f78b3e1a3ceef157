"""Ctrl-C, SIGTERM and a closed terminal, where what was started must not be left running."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from service.lifecycle import StopSignal


class Interrupts(StopSignal):
    """A stop signal that can also cut something slow short.

    There is no deadline after which the process just ends, as a service's: what it has started
    would be left running.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cuts_short = False

    def install(self) -> Interrupts:
        """Handle the signals from now on."""
        super().install()
        if hasattr(signal, "SIGHUP"):  # not on Windows
            signal.signal(signal.SIGHUP, self._on_signal)
        return self

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        is_first = not self.requested
        self.request()
        if is_first and self._cuts_short:  # a second one must not cut the clean-up short
            raise KeyboardInterrupt

    @contextmanager
    def cutting_short(self) -> Iterator[None]:
        """Let a signal raise ``KeyboardInterrupt`` in the block: downloads and starts take long."""
        self._cuts_short = True
        try:
            yield
        finally:
            self._cuts_short = False


def end_as_by_ctrl_c() -> None:
    """Let SIGTERM raise ``KeyboardInterrupt``, so that whatever was started is cleared up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
