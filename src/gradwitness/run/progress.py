"""How far a run has come: which of how many steps begins, and about how long the others will take."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["Counted", "Progress", "slow_steps_are_told"]

Progress = Callable[[str], None]  # told, in words, of each step that begins
SLOW = 60.0  # seconds of one step after which it is told
ENDLESS = (
    "%s has taken %.0f s so far. If a call of it may never end, as a loop that converges here may not at a point "
    "nearby, timeout=S (--timeout S) bounds each call"
)
logger = logging.getLogger("gradwitness")


@contextmanager
def slow_steps_are_told(progress: Progress, *, after: float = SLOW) -> Iterator[Progress]:
    """The same progress; a step that takes longer is logged once, as a warning of the logger "gradwitness"."""
    timers: list[threading.Timer] = []

    def told(text: str) -> None:
        cancel()
        timer = threading.Timer(after, logger.warning, (ENDLESS, text, after))
        timer.daemon = True
        timer.start()
        timers.append(timer)
        progress(text)

    def cancel() -> None:
        while timers:
            timers.pop().cancel()

    try:
        yield told
    finally:
        cancel()


class Counted:
    """Tells of each step as "text (k of n)", and from the second on about how many seconds are left.

    weights: how long each step takes, beside the others.
    """

    def __init__(self, tell: Callable[[str], None], weights: Sequence[float]) -> None:
        self._tell, self._weights, self._begun, self._started = tell, weights, 0, time.monotonic()

    def __call__(self, text: str) -> None:
        done, left = self._begun, ""
        if done:
            part = sum(self._weights[done:]) / sum(self._weights[:done])
            left = f", about {(time.monotonic() - self._started) * part:.0f} s left"
        self._begun += 1
        self._tell(f"{text} ({self._begun} of {len(self._weights)}{left})")
