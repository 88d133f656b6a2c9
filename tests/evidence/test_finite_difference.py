"""Finite differences: the bound holds, on smooth losses and beside kinks, and says so where it is coarse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gradwitness.evidence.finite_difference import THOROUGH, Differences, Differencing, textbook_difference

Loss = Callable[[np.ndarray], float]
EPS = 2.0**-53


def differences(loss: Loss, x: np.ndarray, noise: float | None = None) -> Differences:
    value = loss(x)
    noise = abs(value) * EPS if noise is None else noise
    return Differencing(lambda path, moved: loss(moved), {"x": x}, value, noise).by_every_leaf(THOROUGH, seed=[0])["x"]


# loss, its derivative, and the size of the terms that it sums
SMOOTH: dict[str, tuple[Loss, Callable[[np.ndarray], np.ndarray], float]] = {
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
    found = differences(loss, x, noise=scale * np.sqrt(size) * EPS)
    assert len(found.probes) == (5 if size == 5 else 15)
    for probe in found.probes:
        assert abs(probe.of(slope(x)) - probe.value) <= probe.bound
        assert probe.bound < 1e-7 * max(abs(probe.value), scale * np.sqrt(size))


@pytest.mark.parametrize("size", [5, 400])
@pytest.mark.parametrize("seed", range(10))
def test_the_bound_covers_the_rounding_of_a_point_far_from_zero(seed: int, size: int) -> None:
    """The loss is small and has next to no rounding, but the points that it is taken at have."""
    x = 3000 + np.random.default_rng(seed).standard_normal(size)
    found = differences(lambda x: float(((x - 3000) ** 2).mean()), x)
    for probe in found.probes:
        assert abs(probe.of(2 * (x - 3000) / size) - probe.value) <= probe.bound
        assert probe.bound < 1e-7 * max(abs(probe.value), 1 / size)


@pytest.mark.parametrize("distance", [0.0, *np.logspace(-10, -2, 200)])
def test_a_kink_nearby_is_covered_by_the_bound(distance: float) -> None:
    x = np.array([distance, 0.5])
    found = differences(lambda x: float(np.maximum(x, 0).sum() + (x * x).sum()), x)
    for probe in found.probes:
        slope = (x > 0) + 2 * x
        assert abs(probe.of(slope) - probe.value) <= probe.bound
    assert found.probes[1].bound < 1e-8  # the other coordinate is far from its kink
    if distance > 1e-6:
        assert found.probes[0].bound < 1e-3  # a smaller step leaves the kink outside


def test_a_wrong_gradient_is_outside_the_bound() -> None:
    x = np.random.default_rng(0).standard_normal(400)
    found = differences(lambda x: float(np.sin(x).sum()), x)
    right = np.cos(x)
    assert found.worst(right, lambda probe: 0.0)[0] <= found.worst(right, lambda probe: 0.0)[1]
    one_wrong = right.copy()
    one_wrong[123] *= 1.001  # not among the sampled coordinates: the directions see it
    error, bound = found.worst(one_wrong, lambda probe: 0.0)
    assert error > bound


def test_losses_that_are_not_finite_nearby_give_no_evidence() -> None:
    with np.errstate(invalid="ignore"):
        found = differences(lambda x: float(np.log(x).sum()), np.array([1e-12, 1.0]))
    assert found.probes[0].bound > 0 or np.isinf(found.probes[0].bound)
    error, bound = found.worst(np.array([1e12, 1.0]), lambda probe: 0.0)
    assert error <= bound or np.isinf(bound)


def test_the_textbook_rule_is_the_relative_difference_over_all_coordinates() -> None:
    x = np.array([0.3, 0.4])
    found = {"x": differences(lambda x: float(np.sin(x).sum()), x)}
    assert textbook_difference({"x": np.cos(x)}, found) == pytest.approx(0.0, abs=1e-9)
    assert textbook_difference({"x": np.cos(x) * 1.01}, found) == pytest.approx(0.01 / 2.01, rel=1e-3)
    assert textbook_difference({"x": -np.cos(x)}, found) == pytest.approx(1.0)
