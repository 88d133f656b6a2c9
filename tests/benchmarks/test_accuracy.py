"""Times of gradwitness beside those of a loop: what differs is found, and what slows both is not."""

from __future__ import annotations

import pytest

from benchmarks.accuracy.loops import CANDIDATES, LOOPS
from benchmarks.accuracy.measure import DTYPE, PART, SECONDS, by_turns, compared, problem_of
from gradwitness import registry

CALL = 1e-3  # seconds of a fake call


class Machine:
    """One that gets slower, by a hundredth with each turn."""

    turns = 0

    def runs(self, seconds: float, count: int) -> list[float]:
        self.turns += 1
        return [seconds * 1.01**self.turns] * count


@pytest.mark.parametrize(("added", "agrees"), [(0.0, True), (0.5 * PART, True), (4 * PART, False)])
def test_a_difference_is_told_on_a_machine_that_gets_slower(added: float, agrees: bool) -> None:
    machine = Machine()
    found = by_turns(
        lambda count: machine.runs(CALL * (1 + added), count), lambda count: machine.runs(CALL, count), budget=0.2
    )
    assert found.agrees is agrees
    assert found.difference == pytest.approx(added * found.loop, abs=0.01 * found.loop)


def test_few_microseconds_are_none() -> None:
    found = by_turns(lambda count: [2e-6 + 0.9 * SECONDS] * count, lambda count: [2e-6] * count, budget=0.01)
    assert found.agrees
    assert found.difference > PART * found.loop


@pytest.mark.parametrize("backend", LOOPS)
def test_the_loop_and_gradwitness_differentiate_the_same(backend: str) -> None:
    prepared = registry.backend(backend).prepare(CANDIDATES[backend], problem_of("small"), dtype=DTYPE, device="cpu")
    found = compared(prepared, backend, "small", budget=0.01)
    assert 0.1 < found.ours / found.loop < 10  # more is for a quiet machine: `python -m benchmarks.accuracy`
    assert LOOPS[backend](problem_of("small"))() > 0
