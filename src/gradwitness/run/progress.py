"""How far a run has come: which of how many steps begins, and about how long the others will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

__all__ = ["Counted", "Progress"]

Progress = Callable[[str], None]  # told, in words, of each step that begins


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
