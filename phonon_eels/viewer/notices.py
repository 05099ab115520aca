"""Errors and remarks as napari's notifications, in our wording; nothing that goes wrong in a panel reaches the viewer."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from phonon_eels.errors import PhononEELSError

log = logging.getLogger(__name__)


def tell(sentence: str) -> None:
    """Show a remark."""
    from napari.utils.notifications import show_info

    show_info(sentence)


def tell_problem(problem: BaseException) -> None:
    """Show what went wrong: the sentence of our own errors, and for others what to do with it."""
    from napari.utils.notifications import show_error

    show_error(sentence_of(problem))


def sentence_of(problem: BaseException) -> str:
    """Return what the user reads of an error."""
    if isinstance(problem, PhononEELSError):
        return str(problem)
    log.error("unexpected error in the viewer", exc_info=problem)
    kind = type(problem).__name__
    return (
        f"the viewer did not expect this ({kind}: {problem}); the data and results on disk are untouched. "
        f"Please report it with the lines that stand in the terminal"
    )


def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Turn whatever a slot raises into a notification: an exception in a slot would end the program."""

    @functools.wraps(method)
    def call(self: Any, *args: Any) -> Any:
        try:
            return method(self, *args)
        except Exception as problem:  # the last line of defence of a graphical program
            tell_problem(problem)
            return None

    return call


def slot(method: Callable[..., Any]) -> Callable[[], Any]:
    """Return a method as a slot for signals whose arguments it does not want (``clicked`` sends a flag)."""

    def call(*_: Any) -> Any:
        return method()

    return call
