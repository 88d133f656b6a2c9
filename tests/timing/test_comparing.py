"""Times of two runs: what chance explains is not told, whatever the spread of processes; what it does not, is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gradwitness.timing.comparing import Compared, common_shift, compared
from gradwitness.timing.records import Turns

TIMES = 9  # three candidates, forward, backward and both
TRIALS = 100
SLOWED = 1.5


def drawn(rng: np.random.Generator, kind: str, processes: int) -> Turns:
    """The same code in some processes, of which each has a speed of its own, in a few turns each."""
    speeds: dict[str, Callable[[], float]] = {
        "alike": lambda: rng.normal(0.0, 0.002),
        "a few percent apart": lambda: rng.normal(0.0, 0.03),
        "fast or slow by a quarter": lambda: 0.22 * rng.integers(2) + rng.normal(0.0, 0.01),
        "now and then slow": lambda: 0.02 * rng.standard_t(2),
    }
    speed = speeds[kind]
    return [list(np.exp(speed() + rng.normal(0.0, 0.02, 3))) for _ in range(processes)]


def told(kind: str, factor: float, processes: int) -> tuple[float, float]:
    """(how often anything is told of the times that did not change, how often the one is told that did)."""
    rng = np.random.default_rng(0)
    others = first = 0
    for _ in range(TRIALS):
        times = {n: (drawn(rng, kind, processes), drawn(rng, kind, processes)) for n in range(TIMES)}
        times[0] = times[0][0], [[factor * x for x in turns] for turns in times[0][1]]
        found = compared(times)
        others += any(found[n].is_beyond(0.0) for n in range(1, TIMES))
        first += found[0].is_beyond(0.0)
    return others / TRIALS, first / TRIALS


@pytest.mark.parametrize("kind", ["alike", "a few percent apart", "fast or slow by a quarter", "now and then slow"])
def test_the_same_code_is_silent(kind: str) -> None:
    others, first = told(kind, 1.0, 3)
    assert others < 0.02
    assert first < 0.01


TOLD = {
    ("alike", 3): 1.0,
    ("a few percent apart", 3): 0.99,
    ("now and then slow", 3): 0.8,
    ("fast or slow by a quarter", 5): 0.9,
}


@pytest.mark.parametrize(("kind", "processes"), TOLD)
def test_half_of_a_time_more_is_told(kind: str, processes: int) -> None:
    assert told(kind, SLOWED, processes)[1] >= TOLD[kind, processes]


def test_what_all_have_in_common_is_the_least_of_them() -> None:
    assert common_shift({"a": [0.3, 0.2, 0.4], "b": [0.2], "c": [0.9]}) == pytest.approx(0.2)
    assert common_shift({"a": [-0.3], "b": [-0.2]}) == pytest.approx(-0.2)
    assert common_shift({"a": [0.3], "b": [-0.2]}) == 0.0
    assert common_shift({"a": [0.3]}) == 0.0
    assert Compared(0.5, 0.2).is_beyond(0.1)
    assert not Compared(0.5, 0.2).is_beyond(0.4)
