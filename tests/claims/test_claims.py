"""Claims held against figures: what is as claimed, what is less or more, and what could not be measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from gradwitness import claims
from gradwitness.claims import CLAIMS, Claim, claims_json, claims_table, measures
from gradwitness.claims.measuring import REPEATS, SOME, Bench, Measured, ratio_of, seconds_without_tape
from gradwitness.cli import cli
from gradwitness.report import Address
from gradwitness.settings import Settings
from gradwitness.timing.records import Timing
from gradwitness.timing.roofline import Machine
from gradwitness.timing.statistics import Interval, median

TURNS = 40


def timing(label: str, memory: int | None = None, **seconds: float) -> Timing:
    """One whose phases take as long, within 2% by chance."""
    rng = np.random.default_rng(0)
    samples = {phase: [list(s * (1 + 0.02 * rng.standard_normal(TURNS)))] for phase, s in seconds.items()}
    times = {phase: median(turns) for phase, turns in samples.items()}
    where = Address("mlp", label, label, "cpu", "float32")
    return Timing(where, 10, "agree", 1, times=times, samples=samples, memory=memory, setup_seconds=0.0)


class Planted(Bench):
    """A bench on which everything was timed before."""

    def __init__(self, timings: Mapping[str, Timing], curve: Callable[[int], Any] = lambda count: None) -> None:
        super().__init__(Settings(dtypes=("float32",)), Machine(1), ("numpy", "torch", "torch.compile", "jax"))
        self.timings, self.curve = timings, curve

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def timed(self, problem: Any, backends: Any, candidates: Any = None) -> dict[str, Timing]:
        return {name: self.timings[name] for name in (*backends, *(candidates or ())) if name in self.timings}

    def asked(self, problem: Any, backend: str, function: Any, *args: Any) -> Any:
        return self.curve(args[0] if args else int(problem.params["layers"].__len__() - 1))


def claim(measure: Callable[..., Any]) -> Claim:
    (found,) = (one for one in CLAIMS if one.measure is measure)
    return found


def says(measure: Callable[..., Any], bench: Bench) -> set[str]:
    (found,) = claims.tested([claim(measure)], bench)
    assert found.measured, found.why
    return {found.says(measured.found) for measured in found.measured}


@pytest.mark.parametrize(("part", "expected"), [(0.6, "as claimed"), (0.9, "less"), (1.2, "less"), (0.3, "more")])
def test_what_compiling_cuts_is_one_minus_the_ratio(part: float, expected: str) -> None:
    bench = Planted({"torch": timing("torch", backward=1e-3), "torch.compile": timing("c", backward=part * 1e-3)})
    assert says(measures.cut, bench) == {expected}


@pytest.mark.parametrize(("times", "expected"), [(1.5, "as claimed"), (1.0, "less"), (3.0, "more")])
def test_how_much_faster_it_is(times: float, expected: str) -> None:
    compiled = timing("c", forward_backward=1e-3 / times)
    bench = Planted({"torch": timing("torch", forward_backward=1e-3), "torch.compile": compiled})
    assert says(measures.faster, bench) == {expected}


@pytest.mark.parametrize(("times", "expected"), [(2.0, "as claimed"), (1.0, "less"), (4.0, "more")])
def test_backward_over_forward(times: float, expected: str) -> None:
    assert says(
        measures.backward_over_forward, Planted({"numpy": timing("n", forward=1e-3, backward=times * 1e-3)})
    ) == {expected}


def passes(count: int, *, reverse: float) -> dict[str, float]:
    """What the ways to all derivatives take, if a forward takes a second."""
    return {"forward": 1.0, "reverse": reverse, "tangents": 2.0 * count, "differences": 2.0 * count}


def test_passes_over_the_number_of_parameters() -> None:
    bench = Planted({}, lambda count: passes(count, reverse=3.0))
    for measure in (measures.by_reverse_mode, measures.by_forward_mode, measures.by_differences):
        assert says(measure, bench) == {"as claimed"}


def test_a_reverse_mode_that_takes_a_pass_for_each_parameter_is_told() -> None:
    assert says(measures.by_reverse_mode, Planted({}, lambda count: passes(count, reverse=float(count)))) == {"more"}


@pytest.mark.parametrize(("tape", "expected"), [(1, "as claimed"), (0, "less")])
def test_memory_over_depth(tape: int, expected: str) -> None:
    def held(depth: int) -> dict[str, int]:
        return {"inference": 2**20, "forward mode": 2**21, "training": 2**22 * (depth if tape else 1)}

    assert says(measures.memory_with_depth, Planted({}, held)) == {expected}
    assert says(measures.training_over_inference, Planted({}, held)) == {"as claimed"}
    assert says(measures.reverse_over_forward, Planted({}, held)) == {"as claimed"}


def test_memory_that_the_system_does_not_tell_is_no_figure() -> None:
    (found,) = claims.tested([claim(measures.training_over_inference)], Planted({}))
    assert found.why == "no backend here can show it"


@pytest.mark.parametrize(("slower", "held", "expected"), [(1.3, 1, {"as claimed"}), (3.0, 8, {"more"})])
def test_checkpoints(slower: float, held: int, expected: set[str]) -> None:
    found = {
        "torch": timing("torch", 4, forward_backward=1e-3),
        "torch, checkpoints": timing("torch, checkpoints", held, forward_backward=slower * 1e-3),
    }
    assert says(measures.time_of_checkpoints, Planted(found)) == expected
    assert says(measures.memory_of_checkpoints, Planted(found)) == expected


def test_where_classes_are_too_improbable_softmax_and_then_log_is_told_to_be_wrong() -> None:
    bench = Bench(Settings(dtypes=("float32",)), Machine(1), ("numpy",))
    (found,) = claims.tested([claim(measures.error_apart_over_fused)], bench)
    times = [measured.found.middle for measured in found.measured]
    assert len(times) == len(measures.SPREADS), found.why
    assert times[-1] > 1000 * times[0]
    assert found.says(found.measured[-1].found) == "as claimed"


def broken(bench: Bench) -> Iterator[Measured]:
    raise RuntimeError("no such kernel")
    yield


def test_a_claim_that_cannot_be_measured_costs_no_other_its_figures() -> None:
    fine = Claim(
        "fine", "nobody", 1.0, math.inf, lambda bench: iter([Measured("it", Interval(2.0, 1.5, 2.5), "noted")])
    )
    found = list(claims.tested([Claim("broken", "nobody", 0.0, 1.0, broken), fine], Planted({})))
    assert [one.why for one in found] == ["RuntimeError: no such kernel", ""]
    shown = claims_table(found)
    assert "broken: claimed 0 to 1\n(nobody)\nnot measured: RuntimeError: no such kernel" in shown
    assert "fine: claimed more than 1\n(nobody)\nit  2.00 (1.50 to 2.50)  as claimed\nit: noted" in shown
    kept = json.loads(claims_json({}, found))["claims"]
    assert kept[1]["measured"][0]["says"] == "as claimed"
    assert kept[1]["measured"][0]["found"] == {"middle": 2.0, "low": 1.5, "high": 2.5}


def test_phases_with_turns_of_their_own_are_compared_as_far_as_they_go() -> None:
    one = timing("one", forward=1e-3, backward=2e-3)
    one.samples["forward"][0].pop()
    found = ratio_of(one, one, "backward", "forward")
    assert found is not None
    assert found.holds(2.0)
    assert ratio_of(one, one, "forward_backward") is None


class Counting:
    """A Prepared that counts what is asked of it."""

    setup_seconds = 0.0

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        def called(*args: Any) -> None:
            self.asked[name] = self.asked.get(name, 0) + 1

        return called


def test_every_way_makes_the_passes_that_it_is_said_to_make() -> None:
    counting: Any = Counting()
    seconds_without_tape(counting, None, 7)
    assert counting.asked["tangent"] == REPEATS * 7 + 2
    assert counting.asked["forward_backward"] == REPEATS * SOME + 2
    assert counting.asked["infer"] == REPEATS * (SOME + 2 * 7) + 4


def test_says_needs_intervals_apart() -> None:
    one = claims.Tested(Claim("x", "nobody", 1.3, 2.0, broken), ())
    assert one.says(Interval(1.2, 1.0, 1.31)) == "as claimed"
    assert one.says(Interval(1.2, 1.0, 1.29)) == "less"
    assert one.says(Interval(2.2, 2.1, 2.3)) == "more"


@pytest.mark.parametrize("also", [["mlp"], ["--grow", "width"], ["--shard", "1/2"]])
def test_the_command_takes_nothing_beside_claims_that_it_would_ignore(also: list[str]) -> None:
    result = CliRunner().invoke(cli, ["bench", "--claims", *also])
    assert result.exit_code == 2
    assert "--claims" in result.output
