"""How far a run has come: which of how many steps begins, and about how long the others will take."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Counted", "Progress"]

Progress = Callable[[str], None]  # told, in words, of each step that begins


class Counted:
    """Tells of each step as "text (k of n)", and from the second on how many seconds are left, if all take as long."""

    def __init__(self, tell: Progress, steps: int) -> None:
        self._tell, self._steps, self._begun, self._started = tell, steps, 0, time.monotonic()

    def __call__(self, text: str) -> None:
        self._begun += 1
        done = self._begun - 1
        left = ""
        if done:
            seconds = (time.monotonic() - self._started) / done * (self._steps - done)
            left = f", about {seconds:.0f} s left"
        self._tell(f"{text} ({self._begun} of {self._steps}{left})")
