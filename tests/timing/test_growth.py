"""Exponents of what grows as a power, and the steps after which a longer setup has paid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gradwitness.cli import cli
from gradwitness.errors import UnknownName
from gradwitness.networks.sizes import AXES, grown
from gradwitness.report import Address
from gradwitness.timing.growth import exponent, growth_table, steps_to_pay
from gradwitness.timing.reading import benchmark_of
from gradwitness.timing.records import Grown, Timing
from gradwitness.timing.statistics import CONFIDENCE, Interval

SIZES = (16, 32, 64, 128)


def timing(label: str, setup: float, seconds: Sequence[float], size: int = 16, memory: int | None = None) -> Timing:
    where = Address("mlp", label, label, "cpu", "float32")
    times = {"forward_backward": Interval(*seconds)}
    grown = Grown("mlp", "width", size)
    return Timing(where, size**2, "agree", 1, times=times, setup_seconds=setup, memory=memory, grown=grown)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_a_power_is_found_exactly(power: float) -> None:
    found = exponent(SIZES, [3e-6 * size**power for size in SIZES])
    assert found is not None
    assert (found.middle, found.low, found.high) == pytest.approx((power, power, power), abs=1e-9)


def test_the_interval_of_an_exponent_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = (exponent(SIZES, [size**2 * np.exp(0.1 * rng.standard_normal()) for size in SIZES]) for _ in range(400))
    held = np.mean([found is not None and found.holds(2.0) for found in draws])
    assert abs(held - CONFIDENCE) < 0.04


def test_two_points_and_nothing_at_all_have_no_exponent() -> None:
    assert exponent((1, 2), (1.0, 2.0)) is None
    assert exponent(SIZES, (0.0, 1.0, 2.0, 3.0)) is None


def test_a_setup_pays_after_the_steps_that_make_up_for_it() -> None:
    eager = timing("eager", 0.5, (10e-3, 9e-3, 11e-3))
    compiled = timing("compiled", 8.5, (6e-3, 5.5e-3, 6.5e-3))
    found = steps_to_pay(compiled, eager)
    assert found is not None
    assert (found.middle, found.low, found.high) == pytest.approx((2000, 8 / 5.5e-3, 8 / 2.5e-3))


def test_a_setup_that_makes_nothing_faster_never_pays() -> None:
    eager = timing("eager", 0.5, (10e-3, 9e-3, 11e-3))
    assert steps_to_pay(timing("slower", 8.5, (12e-3, 11e-3, 13e-3)), eager) is None
    unsure = steps_to_pay(timing("unsure", 8.5, (9.5e-3, 8.5e-3, 10.5e-3)), eager)
    assert unsure is not None
    assert unsure.high == float("inf")


def test_the_table_says_what_it_comes_to() -> None:
    steps = {"eager": (0.5, 1e-6, 2.0), "compiled": (8.5, 1e-4, 1.0)}
    found = [
        timing(label, setup, [scale * size**power] * 3, size, 100 * size)
        for size in SIZES
        for label, (setup, scale, power) in steps.items()
    ]
    shown = growth_table(found)
    assert "eager: time grows as size^2.00 (2.00 to 2.00), memory grows as size^1.00 (1.00 to 1.00)" in shown
    assert "width 64: the setup of compiled (8.5 s against 500 ms of eager) never pays" in shown
    assert "width 128: the setup of compiled (8.5 s against 500 ms of eager) pays after 2,232 steps" in shown


@pytest.mark.parametrize(("along", "name"), [(along, name) for along, names in AXES.items() for name in names])
def test_what_grows_has_more_of_it_alone(along: str, name: str) -> None:
    first, second, *_ = (problem.leaves for problem in grown(name, along, "small").values())
    assert sum(x.size for x in second.values()) > sum(x.size for x in first.values())
    if along in ("batch", "sequence"):
        wider = [path for path in first if path.startswith("cell") and first[path].shape != second[path].shape]
        assert not wider


def test_what_does_not_grow_is_refused() -> None:
    with pytest.raises(UnknownName, match="network that grows in sequence 'mlp'"):
        grown("mlp", "sequence", "small")
    with pytest.raises(UnknownName, match="axis of growth 'length'"):
        grown("mlp", "length", "small")


@pytest.mark.nightly
def test_the_command_times_each_size_and_keeps_it(tmp_path: Path) -> None:
    file = tmp_path / "grown.json"
    options = ["--grow", "width", "--backend", "numpy", "--budget", "0.1", "--processes", "1", "--json", str(file)]
    result = CliRunner().invoke(cli, ["bench", "mlp", *options])
    assert result.exit_code == 0, result.output
    assert "numpy: time grows as size^" in result.output
    found = benchmark_of(json.loads(file.read_text()))
    assert [timing.grown and timing.grown.size for timing in found] == [20, 40, 80, 160]
    assert "numpy: time grows as size^" in found.table()
