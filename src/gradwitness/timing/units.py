"""Seconds, bytes and rates as people read them."""

from __future__ import annotations

from gradwitness.timing.statistics import Interval

__all__ = ["bytes_text", "decimal_text", "ratio_text", "seconds_text", "time_text"]

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def time_text(found: Interval) -> str:
    """With half the width of its interval."""
    unit, name = _unit(found.middle)
    return f"{found.middle / unit:.3g} {name} +- {100 * found.spread:.0f}%"


def seconds_text(seconds: float) -> str:
    unit, name = _unit(seconds)
    return f"{seconds / unit:.3g} {name}"


def _unit(seconds: float) -> tuple[float, str]:
    return next(((unit, name) for unit, name in UNITS if seconds >= unit), UNITS[-1])


def ratio_text(found: Interval | None) -> str:
    return "" if found is None else f"{found.middle:.2f} ({found.low:.2f} to {found.high:.2f})"


def bytes_text(found: int | None) -> str:
    if found is None:
        return "-"
    unit, name = next(((unit, name) for unit, name in BYTES if found >= unit), BYTES[-1])
    return f"{found / unit:.3g} {name}"


def decimal_text(x: float) -> str:
    """In thousands: "79.4 G"."""
    scale, prefix = next(((s, p) for s, p in PREFIXES if x >= s), PREFIXES[-1])
    return f"{x / scale:.3g} {prefix}"
