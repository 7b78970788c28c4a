"""How far the work is: a bar on a terminal, or a function of the caller."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeAlias

#: ``report(stage, done, total)``; ``total`` is None where it is not known.
Report: TypeAlias = Callable[[str, int, "int | None"], None]


def reporter(progress: bool | Report) -> Report:
    """The function to call: the caller's own, a bar if stderr is a terminal, or nothing."""
    if callable(progress):
        return progress
    if progress and sys.stderr.isatty():
        return _Bar()
    return lambda stage, done, total: None


class _Bar:
    """One line on stderr, redrawn ten times a second."""

    def __init__(self) -> None:
        self.stage, self.drawn = "", 0.0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        ended = total is not None and done >= total
        if stage == self.stage and not ended and now - self.drawn < 0.1:
            return
        if self.stage and stage != self.stage:
            sys.stderr.write("\n")
        self.stage, self.drawn = stage, now
        share = f" {'#' * (30 * done // total):30} {100 * done // total:3}%" if total else ""
        sys.stderr.write(f"\r{stage:12}{share} {done:,}{f' of {total:,}' if total else ''} ")
        if ended:
            sys.stderr.write("\n")
            self.stage = ""
        sys.stderr.flush()
