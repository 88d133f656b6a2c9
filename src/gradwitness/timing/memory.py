"""The most memory that a call takes, beyond what the process held before it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["forget_peak", "peak", "resident"]

CLEAR = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
PEAK = "5"  # what resets the peak: man 5 proc


def forget_peak() -> bool:
    """Whether the kernel could be told to count anew."""
    try:
        CLEAR.write_text(PEAK)
    except OSError:
        return False
    return True


def peak() -> int:
    """The largest resident size of this process since then, in bytes."""
    return _of("VmHWM")


def resident() -> int:
    """The size of this process in memory now, in bytes."""
    return _of("VmRSS")


def _of(name: str) -> int:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise OSError(f"{STATUS} has no {name}")
