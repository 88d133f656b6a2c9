"""The calls that are timed, in the process that makes them: forward, backward alone, and both."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from gradwitness.protocol import Prepared
from gradwitness.timing.memory import forget_peak, peak, resident

__all__ = ["PHASES", "left_to_do", "most_beyond", "most_memory", "seconds"]

PHASES = ("forward", "backward", "forward_backward")
LONGEST = 0.25  # seconds of a turn, if one call does not take longer
TRIES = 4  # of what is fetched at once, and of what is fetched after a rest
WARM = 2  # calls before those that are timed: caches are cold after another's turn
Call = Callable[[Prepared, Any], float]


def seconds(prepared: Prepared, leaves: Any, phase: str, count: int) -> list[float]:
    """What each of so many calls took until the device had finished; of fewer where these take longer than foreseen,
    as on a machine that others use. A backward gets a tape of its own, whose making is not timed."""
    call = _CALLS[phase]
    for _ in range(WARM):
        call(prepared, leaves)
    was_enabled = gc.isenabled()
    gc.disable()  # as timeit does: it would strike one call in a thousand
    try:
        found: list[float] = []
        while len(found) < count and sum(found) < LONGEST:
            found.append(call(prepared, leaves))
        return found
    finally:
        if was_enabled:
            gc.enable()


def most_memory(prepared: Prepared, leaves: Any, phase: str) -> int | None:
    """The most memory that a call takes beyond what the process holds before it, in bytes; None where the system does
    not tell."""
    return most_beyond(lambda: _CALLS[phase](prepared, leaves))


def most_beyond(call: Callable[[], Any]) -> int | None:
    """The same of any call."""
    call()  # what is made once is made now
    gc.collect()
    _give_back()
    if not forget_peak():
        return None
    before = resident()
    call()
    return max(peak() - before, 0)


def left_to_do(prepared: Prepared, leaves: Any) -> float:
    """Seconds that a gradient still takes after `wait`: by how much longer it takes to fetch at once than after a rest
    in which it must have finished; 0 where the wait is honest.

    Of some tries, the least at once is held against the middle one after a rest, so that neither cold caches nor a busy
    machine accuse.
    """

    def fetched(rest: float) -> float:
        gradient = prepared.forward_backward(leaves)
        prepared.wait(gradient)
        time.sleep(rest)
        return _seconds(lambda: prepared.fetch(gradient))

    fetched(0.0)  # what is imported once is imported now
    at_once, later = [], []
    for _ in range(TRIES):
        started = time.perf_counter()
        at_once.append(fetched(0.0))
        later.append(fetched(time.perf_counter() - started))
    return max(min(at_once) - median(later), 0.0)


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _give_back() -> None:
    """Give free memory back to the system, which else would be taken again without a trace."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _forward(prepared: Prepared, leaves: Any) -> float:
    started = time.perf_counter()
    prepared.wait(prepared.forward(leaves))
    return time.perf_counter() - started


def _backward(prepared: Prepared, leaves: Any) -> float:
    tape = prepared.forward(leaves)
    prepared.wait(tape)
    started = time.perf_counter()
    prepared.wait(prepared.backward(tape))
    return time.perf_counter() - started


def _forward_backward(prepared: Prepared, leaves: Any) -> float:
    started = time.perf_counter()
    prepared.wait(prepared.forward_backward(leaves))
    return time.perf_counter() - started


_CALLS: Mapping[str, Call] = dict(zip(PHASES, (_forward, _backward, _forward_backward), strict=True))
