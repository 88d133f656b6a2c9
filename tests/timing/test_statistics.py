"""Intervals that hold what they say."""

from __future__ import annotations

import numpy as np

from gradwitness.timing.statistics import CONFIDENCE, median, ratio


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = rng.lognormal(size=(2000, 15))  # as times are: skewed, with a median of 1
    share = np.mean([median([draw]).holds(1.0) for draw in draws[:400]])
    assert CONFIDENCE - 0.02 <= share <= 0.995


def test_too_few_values_leave_it_open() -> None:
    found = median([[1.0, 2.0, 3.0]])
    assert found.middle == 2.0
    assert found.low == -np.inf
    assert found.high == np.inf
    assert found.spread == np.inf


def test_a_ratio_is_taken_pair_by_pair() -> None:
    """A machine that is slow for a while is so for both of a pair."""
    slow = np.where(np.arange(20) < 10, 1.0, 7.0)
    found = ratio([list(2 * slow)], [list(slow)])
    assert found.low == found.middle == found.high == 2.0
    assert median([list(slow)]).spread > 0.5


def test_processes_that_differ_widen_it() -> None:
    quick, slow = [1.0 + 0.001 * i for i in range(20)], [1.25 + 0.001 * i for i in range(20)]
    assert median([quick]).spread < 0.01
    together = median([quick, slow, quick])
    assert together.low <= 1.01
    assert together.high >= 1.25
