"""Signals that end the program, in a way that none gets lost.

Python raises what a signal handler raises wherever the main thread happens to be: within a weak reference's callback or a
`__del__`, which is what much of an import is, that is printed and forgotten, and the work would go on to its end. So a
signal is also noted, and whoever reports progress asks.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143


class _Stop:
    """Handler of both signals: notes the first, and raises what it means."""

    def __init__(self) -> None:
        self._asked: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._asked = self._asked or number
        self.raise_again()

    def raise_again(self) -> None:
        if self._asked is not None:
            raise KeyboardInterrupt if self._asked == signal.SIGINT else SystemExit(TERMINATED)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let Ctrl-C (SIGINT) and SIGTERM leave the block through an exception, so that temporary folders are removed."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop = _Stop()
    try:
        for number, handler in before.items():
            if (
                handler is not signal.SIG_IGN
            ):  # as under nohup, or where a shell without job control puts it into the background
                signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_if_asked() -> None:
    """Raise again what a signal raised, if one came since `stoppable` was entered; elsewhere nothing happens.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C.
    SystemExit
        After SIGTERM, with exit code 143.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if isinstance(handler := signal.getsignal(number), _Stop):
            handler.raise_again()
