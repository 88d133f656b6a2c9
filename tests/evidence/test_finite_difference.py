"""Finite differences: the bound holds, on smooth losses and beside kinks, and says so where it is coarse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradwitness.evidence.computational_noise import noise_along
from gradwitness.evidence.finite_difference import Differencing, Line, Probe, Slope, textbook_difference
from gradwitness.evidence.norms import typical

Array = np.ndarray[Any, Any]
Loss = Callable[[Array], float]
EPS = 2.0**-53
EVERY, COORDINATES, DIRECTIONS = 32, 12, 3


def differencing(loss: Loss, x: Array, noise: float | None = None) -> Differencing:
    value = loss(x)
    noise = abs(value) * EPS if noise is None else noise
    return Differencing(lambda moved: loss(moved["x"]), {"x": x}, value, noise)


def probes(loss: Loss, x: Array, noise: float | None = None) -> tuple[Probe, ...]:
    """By every coordinate of few, else by some, and along some directions; those that have a derivative."""
    taken, rng = differencing(loss, x, noise), np.random.default_rng(0)
    if x.size <= EVERY:
        return taken.by_coordinates("x", range(x.size))
    chosen = [int(i) for i in np.sort(rng.choice(x.size, COORDINATES, replace=False))]
    found = list(taken.by_coordinates("x", chosen))
    for v in typical(x) * rng.standard_normal((DIRECTIONS, x.size)):
        line = taken.line("x", v)
        slope = line.checked(line.slope())
        if not slope.doubt and np.isfinite(slope.bound):
            found.append(Probe(slope.value / typical(x), slope.bound / typical(x), direction=v / typical(x)))
    return tuple(found)


def excess(probe: Probe, gradient: Array) -> float:
    """By how much a gradient is farther from a derivative than its bound allows."""
    return abs(probe.of(gradient) - probe.value) - probe.bound


# loss, its derivative, and the size of the terms that it sums
SMOOTH: dict[str, tuple[Loss, Callable[[Array], Array], float]] = {
    "sin": (lambda x: float(np.sin(x).sum()), np.cos, 1.0),
    "exp": (lambda x: float(np.exp(3 * x).sum()), lambda x: 3 * np.exp(3 * x), 1e3),
    "cubic": (lambda x: float((x**3).sum()), lambda x: 3 * x**2, 10.0),
    "large offset": (lambda x: 1e6 + float(np.tanh(x).sum()), lambda x: 1 / np.cosh(x) ** 2, 1e6),
    "tiny": (lambda x: 1e-9 * float(np.sin(x).sum()), lambda x: 1e-9 * np.cos(x), 1e-9),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("size", [5, 400])
def test_the_bound_holds_for_smooth_losses(name: str, size: int) -> None:
    loss, slope, scale = SMOOTH[name]
    x = np.random.default_rng(3).standard_normal(size)
    found = probes(loss, x, noise=scale * np.sqrt(size) * EPS)
    assert len(found) == (5 if size == 5 else COORDINATES + DIRECTIONS)
    for probe in found:
        assert excess(probe, slope(x)) <= 0
        assert probe.bound < 1e-7 * max(abs(probe.value), scale * np.sqrt(size))


@pytest.mark.parametrize("size", [5, 400])
@pytest.mark.parametrize("seed", range(10))
def test_the_bound_covers_the_rounding_of_a_point_far_from_zero(seed: int, size: int) -> None:
    """The loss is small and has next to no rounding, but the points that it is taken at have."""
    x = 3000 + np.random.default_rng(seed).standard_normal(size)
    found = probes(lambda x: float(((x - 3000) ** 2).mean()), x)
    assert found
    for probe in found:
        assert excess(probe, 2 * (x - 3000) / size) <= 0
        assert probe.bound < 1e-7 * max(abs(probe.value), 1 / size)


@pytest.mark.parametrize("distance", [0.0, *np.logspace(-10, -2, 200)])
def test_a_kink_nearby_is_covered_by_the_bound(distance: float) -> None:
    x = np.array([distance, 0.5])
    found = {p.index: p for p in probes(lambda x: float(np.maximum(x, 0).sum() + (x * x).sum()), x)}
    for probe in found.values():
        assert excess(probe, (x > 0) + 2 * x) <= 0
    assert found[1].bound < 1e-8  # the other coordinate is far from its kink
    if distance > 1e-6:
        assert found[0].bound < 1e-3  # a smaller step leaves the kink outside


def test_a_wrong_gradient_is_outside_the_bound() -> None:
    x = np.random.default_rng(0).standard_normal(400)
    found = probes(lambda x: float(np.sin(x).sum()), x)
    right = np.cos(x)
    assert max(excess(p, right) for p in found) <= 0
    one_wrong = right.copy()
    one_wrong[123] *= 1.001  # not among the sampled coordinates: the directions see it
    assert 123 not in {p.index for p in found}
    assert all(excess(p, one_wrong) > 0 for p in found if p.direction is not None)


@pytest.mark.parametrize("pole", [1e-12, 1e-6, 1e-3])
def test_beside_the_edge_of_the_domain_the_bound_holds_or_there_is_none(pole: float) -> None:
    x = np.array([pole, 1.0])
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {p.index: p for p in probes(lambda x: float(np.log(x).sum()), x)}
    assert all(excess(p, 1 / x) <= 0 for p in found.values())
    assert found[1].bound < 1e-8
    assert found[0].bound < 1e-2 / pole, "moved by its own scale, it has a derivative"


def test_where_the_loss_is_not_finite_there_is_none() -> None:
    with np.errstate(invalid="ignore"):
        found = probes(lambda x: float((x**1.5).sum()), np.array([0.0, 1.0]))
    assert [p.index for p in found] == [1]


def test_the_textbook_rule_is_the_relative_difference_over_all_coordinates() -> None:
    x = np.array([0.3, 0.4])
    found = {"x": probes(lambda x: float(np.sin(x).sum()), x)}
    assert textbook_difference({"x": np.cos(x)}, found) == pytest.approx(0.0, abs=1e-9)
    assert textbook_difference({"x": np.cos(x) * 1.01}, found) == pytest.approx(0.01 / 2.01, rel=1e-3)
    assert textbook_difference({"x": -np.cos(x)}, found) == pytest.approx(1.0)
    assert textbook_difference({"x": 0 * x}, {"x": probes(lambda x: 1.0, x)}) is None


def line(along: Callable[[float], float], noise: float | None = None) -> Line:
    loss = along(0.0)
    return Line(along, loss, abs(loss) * EPS if noise is None else noise, size=1.0)


def test_a_slope_refutes_what_lies_beyond_its_bound_and_nothing_while_it_is_in_doubt() -> None:
    slope = Slope(1.0, 0.1)
    assert slope.refutes(1.2)
    assert not slope.refutes(1.05)
    assert not slope.refutes(1.2, slack=0.2)
    assert slope.refutes(np.nan)
    assert not Slope(1.0, 0.1, doubt="a staircase").refutes(9.0)
    assert not Slope().refutes(9.0), "without a bound"


STRUCTURE: dict[str, tuple[Callable[[float], float], float]] = {
    "a wave shorter than any step": (lambda t: 1 + t + 1e-1 * np.sin(1e9 * t), 1.0 + 1e8),
    "a tooth of a saw": (lambda t: 1 + t + 1e-2 * ((1e6 * t + 0.5) % 1.0 - 0.5), 1.0 + 1e4),
    "a cusp": (lambda t: 1 + t + 1e-12 / (1e-9 + abs(t)) ** 0.5, 1.0),
    "wide stairs": (lambda t: 1 + np.floor(t * 100 + 0.5) / 100, 0.0),
    "narrow stairs": (lambda t: 1 + np.floor(t * 3e4 + 0.5) / 3e4, 0.0),
}
FAINT: dict[str, tuple[Callable[[float], float], float]] = {
    "a faint wave": (lambda t: 1 + t + 1e-6 * np.sin(1e9 * t), 1.0 + 1e3),
    "a narrow bump": (lambda t: 1 + t + 1e-5 * np.exp(-((t / 1e-8) ** 2)) * np.sin(1e6 * t), 1.0 + 10.0),
}


@pytest.mark.parametrize("name", [*STRUCTURE, *FAINT])
def test_what_is_finer_than_the_steps_refutes_no_right_gradient(name: str) -> None:
    """At long steps each of them looks like a line of slope 1."""
    along, slope = (STRUCTURE | FAINT)[name]
    found = line(along)
    checked = found.checked(found.slope(), varies=1.0)
    assert checked.doubt or not checked.refutes(slope)


POINTS = np.linspace(0.2, 0.9, 15)


@pytest.mark.parametrize("bits", [12, 16, 23, 30, 40, 50])
def test_rounding_of_a_loss_counts_as_noise(bits: int) -> None:
    """sin(x) to so many bits: its derivative stands wherever it is taken, and twice as much mostly falls."""
    fallen = 0
    for x in POINTS:

        def along(t: float, x: float = x) -> float:
            return float(np.round(np.sin(x + t) * 2.0**bits) / 2.0**bits)

        rounded = line(along, noise=max(noise_along(along), EPS))
        found = rounded.checked(rounded.slope(), varies=0.3)
        assert not found.refutes(float(np.cos(x)))
        fallen += found.refutes(2 * float(np.cos(x)))
    assert fallen >= 0.6 * len(POINTS)


@pytest.mark.parametrize("bits", [7, 8, 10, 11])
def test_a_tread_refutes_nothing_where_longer_steps_climb(bits: int) -> None:
    """Half precision inside: short steps see a derivative of 0, as of a constant."""
    for x in POINTS:

        def along(t: float, x: float = x) -> float:
            return float(np.round(np.sin(x + t) * 2.0**bits) / 2.0**bits)

        rounded, claim = line(along, noise=max(noise_along(along), EPS)), float(np.cos(x))
        found = rounded.checked(rounded.slope(), varies=0.3)
        assert not found.refutes(claim) or rounded.second(found, claim).doubt


def test_a_flat_loss_refutes_a_claim_though_it_bends_far_away() -> None:
    """A dead unit: what lies beyond its kink does not make the short steps doubtful."""
    dead = line(lambda t: 1.0 + max(t - 0.01, 0.0))
    found = dead.checked(dead.slope(), varies=0.3)
    assert found.refutes(0.5)
    assert not dead.second(found, 0.5).doubt


def test_one_step_alone_refutes_nothing() -> None:
    """A second one must refute the claim as well, with the same derivative."""
    smooth = line(np.sin)
    assert not smooth.second(smooth.slope(), 1.5).doubt
    crooked = line(lambda t: float(np.sin(t) + (0.3 if 1e-4 < t < 5e-3 else 0.0)))
    first = Slope(9.0, 1e-6, step=3)
    assert "two steps do not agree" in crooked.second(first, 1.5).doubt
    nowhere = line(lambda t: float(np.sin(t)) if abs(t) < 1e-12 else np.nan)
    assert "one step alone" in nowhere.second(first, 1.5).doubt


@pytest.mark.parametrize("rate", [1e5, 1e8, 1e11])
def test_a_wave_that_long_steps_skip_is_no_reason_to_refute_its_slope(rate: float) -> None:
    """A claim that no shorter step is near is refuted all the same."""
    rippled = line(lambda t: 1 + t + float(np.sin(rate * t)) / rate)
    skipping = Slope(1.0, 1e-6, step=3)
    assert rippled.second(skipping, 2.0).doubt
    assert not line(lambda t: 1 + t).second(skipping, 2.0).doubt


def test_a_tooth_refutes_nothing_that_longer_steps_tell() -> None:
    """A saw that climbs 1 by teeth of slope 2."""
    saw = line(lambda t: 1 + t + ((t * 1e4 + 0.5) % 1.0 - 0.5) / 1e4)
    tooth = saw._at(5)
    assert tooth.value == pytest.approx(2.0)
    assert saw.second(tooth, 1.0).doubt
    assert not saw.second(tooth, 3.0).doubt, "which no step tells"


@pytest.mark.parametrize("bend", [0.0, 1.0, -3.0])
def test_one_sided_derivatives_are_those_of_either_side(bend: float) -> None:
    x = np.array([0.0, 1.0])
    taken = differencing(lambda x: float(np.exp(x).sum() + bend * np.maximum(x, 0).sum()), x)
    left, right, bound = taken.one_sided("x", 0)
    assert abs(left - 1.0) <= bound
    assert abs(right - (1.0 + bend)) <= bound < 1e-7
    value, error = taken.one_sided_along("x", np.array([-1.0, 0.0]))
    assert abs(value + 1.0) <= error < 1e-7


def test_a_brief_one_is_the_textbooks_in_two_values() -> None:
    x, asked = np.array([0.3, -2.0]), []

    def loss(x: Array) -> float:
        asked.append(x)
        return float(np.sin(x).sum())

    taken = differencing(loss, x)
    asked.clear()
    (probe,) = taken.briefly("x", 1)
    assert len(asked) == 2
    assert excess(probe, np.cos(x)) <= 0
    assert probe.textbook == probe.value
    assert probe.bound < 1e-4
    assert differencing(lambda x: float(np.log(x).sum()) if x[0] >= 0.3 else np.nan, x + 3).briefly("x", 0)
