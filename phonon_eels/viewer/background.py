"""Work beside the window: one thread per panel, the newest request wins, results come back as signals."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from phonon_eels.viewer.running import Stopped

Work = Callable[[threading.Event, Callable[..., None]], Any]
"""Called in the thread with (stop, report); `report` brings its arguments to the window."""


def later(parent: QObject, delay_ms: int, then: Callable[[], Any]) -> QTimer:
    """Return a timer that, started any number of times, calls `then` once, a while after the last start."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(delay_ms)
    timer.timeout.connect(then)
    return timer


def _end_dask_pools() -> None:
    """End the threads that Dask keeps for threads that are gone: it does so itself only when another thread computes something."""
    from dask import threaded

    with threaded.pools_lock:
        gone = [threaded.pools.pop(thread) for thread in list(threaded.pools) if not thread.is_alive()]
    for pools in gone:
        for pool in pools.values():
            pool.shutdown()


class _Thread:
    """The thread and the number of the newest request; no Qt object, so that it can be closed while one is destroyed."""

    def __init__(self) -> None:
        self.pool: ThreadPoolExecutor | None = None
        self.stop = threading.Event()
        self.number = 0

    def begin(self) -> tuple[int, threading.Event, ThreadPoolExecutor]:
        """Stop what runs; return number, stop and pool of what comes next."""
        self.stop.set()
        self.stop = threading.Event()
        self.number += 1
        if self.pool is None:
            self.pool = ThreadPoolExecutor(1, thread_name_prefix="phonon-eels")
        return self.number, self.stop, self.pool

    def close(self, *_: Any) -> None:
        """Stop what runs and wait for the thread to end; nothing is reported any more."""
        self.number += 1
        self.stop.set()
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
            self.pool = None
            _end_dask_pools()


class Background(QObject):
    """Runs one piece of work at a time; a newer one stops the older, whose result is dropped."""

    _ended = Signal(int, object, object)
    _reported = Signal(int, tuple)

    def __init__(self, parent: QObject) -> None:
        """Begin without a thread; the first piece of work starts it, and it ends with the parent."""
        super().__init__(parent)
        self._thread = _Thread()
        self._callbacks: tuple[Callable[..., None], ...] = ()
        self._ended.connect(self._deliver)
        self._reported.connect(self._pass_on)
        self.destroyed.connect(self._thread.close)
        self.busy = False

    def submit(
        self,
        work: Work,
        then: Callable[[Any], None],
        failed: Callable[[BaseException], None],
        report: Callable[..., None] | None = None,
    ) -> None:
        """Run `work`; `then` gets its result and `failed` what it raised, both in the window's thread.

        After `cancel` neither `then` nor `report` is called; `failed` gets a `Stopped`.
        """
        number, stop, pool = self._thread.begin()
        self._callbacks = (then, failed, report or (lambda *_: None))
        self.busy = True
        pool.submit(self._run, number, stop, work)

    def cancel(self) -> None:
        """Ask the work to stop; it does so at the next block."""
        self._thread.stop.set()

    def close(self) -> None:
        """Stop the work and wait for the thread to end."""
        self._thread.close()
        self.busy = False

    def _run(self, number: int, stop: threading.Event, work: Work) -> None:
        result, problem = None, None
        try:
            if not stop.is_set():
                result = work(stop, lambda *words: self._tell(number, words))
        except BaseException as error:  # goes to the window, which says it
            problem = error
        if stop.is_set():
            problem = Stopped()
        # Nobody waits for older work, and after `close` there may be no window any more.
        if number == self._thread.number:
            self._ended.emit(number, result, problem)

    def _tell(self, number: int, words: tuple[Any, ...]) -> None:
        if number == self._thread.number:
            self._reported.emit(number, words)

    def _deliver(self, number: int, result: Any, problem: BaseException | None) -> None:
        if number != self._thread.number:
            return
        self.busy = False
        then, failed, _ = self._callbacks
        if problem is not None:
            failed(problem)
        else:
            then(result)

    def _pass_on(self, number: int, words: tuple[Any, ...]) -> None:
        if number == self._thread.number and not self._thread.stop.is_set():
            self._callbacks[2](*words)
