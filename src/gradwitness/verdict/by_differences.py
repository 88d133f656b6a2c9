"""A gradient held against numerical derivatives, each with its bound, widened by what rounding may do."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwitness.evidence.finite_difference import Differences, Probe
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.norms import norm
from gradwitness.verdict.reach import Reach, over

__all__ = [
    "COARSE",
    "against_differences",
    "coarse",
    "confirm_zero",
    "is_refuted_along_directions_alone",
    "is_within",
    "slack",
    "widest",
    "worst",
]

Array = np.ndarray[Any, Any]
COARSE = 1e-2  # differences whose bound is a larger part of the gradient confirm nothing


def slack(probe: Probe, floor: TensorFloor, reach: Reach) -> float:
    """What rounding in the gradient may add to a probe's difference."""
    if probe.direction is not None:
        return reach.norm * norm(probe.direction * floor.elements)
    return reach.element * float(floor.elements.reshape(-1)[probe.index])


def worst(differences: Differences, gradient: Array, floor: TensorFloor, reach: Reach) -> tuple[float, float]:
    """(error, what it may be) of the probe that exceeds its bound the most."""
    return differences.worst(gradient, lambda probe: slack(probe, floor, reach))


def is_within(differences: Differences, gradient: Array, floor: TensorFloor, reach: Reach) -> bool:
    """Whether no probe refutes the gradient; nor their sum, where every coordinate was differenced."""
    error, bound = worst(differences, gradient, floor, reach)
    return bool(error <= bound) and _excess(differences, gradient) <= reach.norm * floor.norm


def _excess(differences: Differences, gradient: Array) -> float:
    """The norm of what the bounds leave unexplained, where every coordinate was differenced; 0 elsewhere."""
    by_index = {p.index: max(abs(p.of(gradient) - p.value) - p.bound, 0.0) for p in differences.probes}
    by_index.pop(None, None)
    return norm(np.array(list(by_index.values()))) if len(by_index) == gradient.size else 0.0


def is_refuted_along_directions_alone(
    differences: Differences, gradient: Array, floor: TensorFloor, reach: Reach
) -> bool:
    """Whether a probe along a direction refutes the gradient, and none by a coordinate: where is it wrong?"""
    refuting = [p for p in differences.probes if not abs(p.of(gradient) - p.value) <= p.bound + slack(p, floor, reach)]
    return bool(refuting) and all(p.index is None for p in refuting)


def widest(differences: Differences) -> float:
    return max(p.bound for p in differences.probes)


def coarse(differences: Differences, gradient: Array) -> str:
    """Why the differences are too coarse to confirm this gradient; empty if they are not.

    They are if a bound exceeds a hundredth of the gradient: beside a kink, or where a large loss
    drowns what is differenced.
    """
    size, bound = norm(gradient), widest(differences)
    if bound <= COARSE * size:
        return ""
    return f"finite differences are too coarse: +- {bound:.1g} for a gradient of {size:.1g}; a wrong one could pass"


def confirm_zero(differences: Differences, size: float, scale: float) -> bool:
    """Whether the differences confirm a zero: not only do they not refute it, a gradient that matters they would see.

    size: the typical value of the leaf; scale: the largest product of gradient and value of any leaf.
    """
    refuted = any(abs(p.value) > p.bound for p in differences.probes)
    return not refuted and widest(differences) * size <= COARSE * scale


def against_differences(differences: Differences, gradient: Array, floor: TensorFloor, reach: Reach) -> str:
    """Where a probe refutes the gradient, and by how much."""

    def excess(probe: Probe) -> float:
        return float(over(abs(probe.of(gradient) - probe.value), probe.bound + slack(probe, floor, reach)))

    probe = max(differences.probes, key=lambda p: (excess(p) > 1 and p.index is not None, excess(p)))
    if excess(probe) <= 1:
        together = _excess(differences, gradient)
        return f"finite differences refute its {gradient.size} elements together, by {together:.2g}"
    if probe.index is None:
        place = "along a Gaussian direction"
    else:
        place = f"at {[int(i) for i in np.unravel_index(probe.index, gradient.shape)]}"
    found, expected = f"{probe.of(gradient):.9g}", f"{probe.value:.9g}"
    if found == expected:  # one in 256 bits tells more digits apart
        found, expected = f"{probe.of(gradient):.17g}", f"{probe.value:.17g}"
    return f"finite differences refute it {place}: {found}, finite difference {expected} +- {probe.bound:.1g}"
