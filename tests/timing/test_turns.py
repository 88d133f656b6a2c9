"""Turns: one after another, all as often, as many as make the times sure."""

from __future__ import annotations

import numpy as np
import pytest

from gradwitness.timing.statistics import median, ratio
from gradwitness.timing.turns import FEWEST, MOST, Runner, by_turns


class Fake:
    """One whose calls take as long as it says, on a machine that gets slower."""

    def __init__(self, label: str, seconds: float, machine: Machine, noise: float = 0.0) -> None:
        self.label, self.each, self.machine, self.noise = label, seconds, machine, noise

    def seconds(self, phase: str, count: int) -> list[float]:
        self.machine.turns.append((self.label, count))
        slow = 1.0 + len(self.machine.turns) * self.machine.drift
        return list(self.each * slow * (1 + self.noise * self.machine.rng.standard_normal(count)))


class Machine:
    def __init__(self, drift: float = 0.0) -> None:
        self.drift, self.turns, self.rng = drift, list[tuple[str, int]](), np.random.default_rng(0)


def test_they_take_turns_in_order_and_all_as_often() -> None:
    machine = Machine()
    runners: dict[str, Runner] = {label: Fake(label, 1e-3, machine) for label in "abc"}
    found = by_turns(runners, "forward", budget=1.0)
    assert len({len(x) for x in found.values()}) == 1
    order = [label for label, _ in machine.turns[-9:]]
    assert order == list("abc") * 3


def test_a_turn_of_quick_calls_has_many_and_one_of_slow_calls_one() -> None:
    machine = Machine()
    by_turns({"quick": Fake("quick", 1e-4, machine), "slow": Fake("slow", 1.0, machine)}, "forward", budget=1.0)
    counts = dict(machine.turns[-2:])
    assert counts == {"quick": 200, "slow": 1}


def test_what_drifts_leaves_the_ratio() -> None:
    machine = Machine(drift=0.05)
    found = by_turns({"a": Fake("a", 1e-3, machine), "b": Fake("b", 2e-3, machine)}, "backward", budget=100.0)
    assert median([found["a"]]).spread > 0.05
    assert ratio([found["b"]], [found["a"]]).middle == pytest.approx(2.0, rel=0.03)


def test_rounds_end_once_they_are_sure_and_never_before_the_fewest() -> None:
    steady, noisy = Machine(), Machine()
    quiet = by_turns({"a": Fake("a", 1.0, steady)}, "forward", budget=1e9)
    loud = by_turns({"a": Fake("a", 1.0, noisy, noise=0.5)}, "forward", budget=1e9)
    assert len(quiet["a"]) == FEWEST
    assert len(loud["a"]) == MOST


def test_the_budget_ends_them() -> None:
    machine = Machine()
    found = by_turns({"a": Fake("a", 1.0, machine, noise=0.5)}, "forward", budget=10.5)
    assert FEWEST < len(found["a"]) < MOST / 3
