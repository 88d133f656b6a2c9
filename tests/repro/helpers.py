"""A module of the user's own beside that of the loss: a script cannot import it."""

from __future__ import annotations

from typing import Any

SCALE = 2.0


def halved(x: Any) -> Any:
    """Half of it."""
    return x / SCALE


def mean_square(x: Any) -> Any:
    return (x * x).mean()
