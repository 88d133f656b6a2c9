"""What differences see: every element of every leaf, for a number of values that does not grow with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

from gradwitness.evidence.computational_noise import noise_along
from gradwitness.evidence.finite_difference import Differencing
from gradwitness.evidence.norms import norm, typical
from gradwitness.evidence.sight import Refutation, Sight, look

Array = np.ndarray[Any, Any]
Leaves = Mapping[str, Array]
EPS = 2.0**-53
VALUES = 300  # of the loss, that a smooth problem may take, however large
SIZES = (1, 3, 33, 1_000)


@dataclass
class Looked:
    """A loss at a point, with its gradient, and how often it was asked for."""

    differencing: Differencing
    gradients: dict[str, Array]
    asked: list[int]

    def at(
        self, changed: Leaves | None = None, *, seed: int = 0, rounding: float = 0.0, **options: Any
    ) -> dict[str, Sight]:
        """What is seen of the gradients, some of which may be changed. rounding: that of each of their elements."""
        self.asked[0] = 0

        def slack(moved: Mapping[str, tuple[Array, Array]]) -> tuple[float, float]:
            total = 6 * rounding * norm(np.array([norm(v) for _, v in moved.values()]))
            return total, total

        return look(self.differencing, self.gradients | dict(changed or {}), slack, seed=[seed], **options)


def looked(
    loss: Callable[[Leaves], float], primals: Leaves, gradients: Leaves, *, noise: float | None = None
) -> Looked:
    """The noise of the loss is measured, as that of a user's own is, if it is not given."""
    asked = [0]

    def value(moved: Leaves) -> float:
        asked[0] += 1
        with np.errstate(invalid="ignore", divide="ignore"):
            return loss({**primals, **moved})

    rng = np.random.default_rng(9)
    v = {path: rng.standard_normal(x.size) * typical(x) for path, x in primals.items()}
    measured = (
        noise
        if noise is not None
        else noise_along(lambda t: value({path: x + t * v[path] for path, x in primals.items()}))
    )
    here = value({})
    measured = max(measured, EPS * abs(here)) if np.isfinite(measured) else EPS * abs(here)
    return Looked(Differencing(value, primals, here, measured), dict(gradients), asked)


def weighted(sizes: Sequence[int], *, seed: int = 0, decades: float = 0.0) -> tuple[dict[str, Array], dict[str, Array]]:
    """(leaves of these sizes, weights of their sines, that spread over so many decades)."""
    rng = np.random.default_rng(seed)
    x = {f"leaf {i}": rng.standard_normal(n) for i, n in enumerate(sizes)}
    weights = {path: rng.standard_normal(v.size) * 10 ** -(decades * rng.random(v.size)) for path, v in x.items()}
    return x, weights


def smooth(sizes: Sequence[int], *, seed: int = 0, decades: float = 0.0) -> Looked:
    """The sum of weighted sines."""
    x, c = weighted(sizes, seed=seed, decades=decades)
    gradients = {path: c[path] * np.cos(v) for path, v in x.items()}
    return looked(lambda p: float(sum((c[path] * np.sin(v)).sum() for path, v in p.items())), x, gradients)


def sampled(size: int, count: int = 12) -> list[int]:
    return [int(i) for i in np.random.default_rng(size).choice(size, min(count, size), replace=False)]


def is_caught(sight: Sight) -> bool:
    """Refuted, or said to be unseen."""
    return sight.refuted is not None or sight.unseen > 0


def named(sight: Sight) -> int | None:
    """The element that is refuted."""
    assert sight.refuted is not None
    return sight.refuted.probe.index


# Every element, few values


@pytest.mark.parametrize(
    "sizes",
    [(1,), (3,), (33,), (1_000,), (100_000,), (1, 3, 33, 1_000, 100_000), (7,) * 10, (7,) * 100, (300,) * 100],
    ids=["1", "3", "33", "1,000", "100,000", "all of these", "10 leaves", "100 leaves", "100 larger leaves"],
)
@pytest.mark.parametrize("decades", [0, 4])
def test_every_element_is_seen_for_a_few_hundred_values(sizes: tuple[int, ...], decades: int) -> None:
    problem = smooth(sizes, decades=decades)
    for path, sight in problem.at().items():
        assert (sight.size, sight.unseen, sight.doubt) == (problem.gradients[path].size, 0, "")
        assert sight.refuted is None
        assert not sight.faint
        assert sight.seen == sight.size or (decades and sight.seen >= 0.99 * sight.size)
        assert sight.limit < 1e-6
        assert sight.limit_element < 1e-5
    assert problem.asked[0] <= VALUES


def test_the_number_of_values_grows_with_the_decades_and_not_with_the_leaves() -> None:
    taken = []
    for count in (10, 100):
        problem = smooth((30,) * count, decades=6)
        problem.at()
        taken.append(problem.asked[0])
    assert taken[1] <= 1.25 * taken[0]


# Faults


@pytest.mark.parametrize("leaf", range(len(SIZES)))
def test_one_element_off_by_the_printed_limit_is_refuted_and_named_whichever_it_is(leaf: int) -> None:
    problem, path = smooth(SIZES, decades=2), f"leaf {leaf}"
    limit = problem.at()[path].limit_element
    for index in sampled(SIZES[leaf]):
        for sign in (1, -1):
            wrong = problem.gradients[path].copy()
            wrong[index] += sign * limit
            found = problem.at({path: wrong})
            assert named(found[path]) == index
            assert found[path].refuted == Refutation(found[path].refuted.probe, wrong[index])  # type: ignore[union-attr]
            assert all(found[other].refuted is None for other in found if other != path)


ERRORS: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "at random": lambda g, rng: rng.standard_normal(g.size),
    "as the gradient": lambda g, rng: g,
    "alike everywhere": lambda g, rng: np.sign(g),
    "where it is small": lambda g, rng: 1 / g,
    "in a tenth of it": lambda g, rng: g * (np.arange(g.size) % 10 == 0),
}


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_by_norm_of_the_printed_limit_never_passes(error: str) -> None:
    problem, rng = smooth(SIZES, decades=2), np.random.default_rng(1)
    refuted, tried = 0, 0
    for seed in range(5):
        known = problem.at(seed=seed)
        for path, g in problem.gradients.items():
            e = ERRORS[error](g, rng)
            found = problem.at({path: g + e / norm(e) * known[path].limit}, seed=seed)[path]
            assert is_caught(found)
            refuted, tried = refuted + (found.refuted is not None), tried + 1
            assert problem.at({path: g + e / norm(e) * 10 * known[path].limit}, seed=seed)[path].refuted is not None
    assert refuted >= 0.7 * tried


@pytest.mark.parametrize("leaf", range(len(SIZES)))
@pytest.mark.parametrize("fault", ["zeros", "opposite", "doubled", "a millionth more"])
def test_a_leaf_that_is_wrong_as_a_whole_is_refuted(fault: str, leaf: int) -> None:
    factor = {"zeros": 0.0, "opposite": -1.0, "doubled": 2.0, "a millionth more": 1 + 1e-6}[fault]
    problem, path = smooth(SIZES), f"leaf {leaf}"
    found = problem.at({path: factor * problem.gradients[path]})
    assert found[path].refuted is not None
    assert all(found[other].refuted is None for other in found if other != path)


@pytest.mark.parametrize("leaf", range(1, len(SIZES)))
def test_one_element_claimed_to_be_zero_is_refuted_there(leaf: int) -> None:
    """Also where all that is claimed to be zero but one is."""
    problem, path = smooth(SIZES, decades=3), f"leaf {leaf}"
    for index in sampled(SIZES[leaf], 5):
        wrong = problem.gradients[path].copy()
        wrong[index] = 0.0
        assert named(problem.at({path: wrong})[path]) == index


def test_a_leaf_that_nothing_leads_to_is_zero_and_one_that_matters_is_not() -> None:
    x, c = weighted((33, 20))
    gradients = {"leaf 0": c["leaf 0"] * np.cos(x["leaf 0"]), "leaf 1": np.zeros(20)}
    apart = looked(lambda p: float((c["leaf 0"] * np.sin(p["leaf 0"])).sum()), x, gradients)
    found = apart.at()
    assert (found["leaf 1"].refuted, found["leaf 1"].unseen) == (None, 0)
    assert not found["leaf 1"].still, "others have moved the loss"
    wrong = np.zeros(20)
    wrong[7] = 1e-3
    assert named(apart.at({"leaf 1": wrong})["leaf 1"]) == 7
    constant = looked(lambda p: 3.0, x, {path: np.zeros(v.size) for path, v in x.items()}).at()
    assert all(sight.still for sight in constant.values())


@pytest.mark.parametrize("decades", [3, 5])
def test_a_sign_in_the_smallest_decade_is_not_drowned_by_larger_elements(decades: int) -> None:
    problem = smooth(SIZES, decades=decades)
    path = "leaf 3"
    g = problem.gradients[path]
    smallest = np.flatnonzero(np.abs(g) < 10.0 ** (1 - decades))
    assert smallest.size > 100
    for index in smallest[:: smallest.size // 5]:
        if abs(g[index]) < 1e-6:
            continue
        wrong = g.copy()
        wrong[index] = -g[index]
        assert named(problem.at({path: wrong})[path]) == index


def test_what_rounding_in_the_gradient_explains_is_no_fault() -> None:
    problem, rng = smooth(SIZES), np.random.default_rng(2)
    rounded = {path: g + 1e-8 * rng.standard_normal(g.size) for path, g in problem.gradients.items()}
    assert any(sight.refuted is not None for sight in problem.at(rounded).values())
    assert not any(sight.refuted is not None for sight in problem.at(rounded, rounding=1e-8).values())
    wrong = {path: g * (1 + 1e-5) for path, g in problem.gradients.items()}
    assert any(sight.refuted is not None for sight in problem.at(wrong, rounding=1e-8).values())


# Taken apart


def kinked(places: Sequence[int], size: int = 1_000) -> Looked:
    """Sines, and |x| at elements that are 0; their gradient is that of the sines, as if |x| had a slope of 0 there."""
    x, c = weighted((size,), seed=5)
    x["leaf 0"][list(places)] = 0.0
    at = list(places)

    def loss(p: Leaves) -> float:
        y = p["leaf 0"]
        return float((c["leaf 0"] * np.sin(y)).sum() + np.abs(y[at]).sum())

    return looked(loss, x, {"leaf 0": c["leaf 0"] * np.cos(x["leaf 0"])})


@pytest.mark.parametrize("place", [0, 417, 999])
def test_one_kink_among_a_thousand_is_the_only_element_unseen(place: int) -> None:
    problem = kinked([place])
    sight = problem.at()["leaf 0"]
    assert (sight.unseen, sight.seen, sight.refuted) == (1, 999, None)
    assert "too coarse" in sight.doubt
    wrong = problem.gradients["leaf 0"].copy()
    wrong[500] *= 1.001
    assert named(problem.at({"leaf 0": wrong})["leaf 0"]) == 500, "it hides no fault of another"


def test_no_more_values_are_spent_on_taking_apart_than_there_are_to_spare() -> None:
    problem = kinked(range(1_000))
    problem.at(spare=0)
    least = problem.asked[0]
    for spare in (0, 300, 3_000):
        sight = problem.at(spare=spare)["leaf 0"]
        assert (sight.unseen, sight.refuted) == (1_000, None)
        assert problem.asked[0] <= least + spare + VALUES


POLES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "log": (np.log, lambda x: 1 / x),
    "sqrt": (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "1/x": (lambda x: 1e-3 / x, lambda x: -1e-3 / x**2),
}


@pytest.mark.parametrize("small", [1e-2, 1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("pole", POLES)
def test_an_element_beside_a_pole_is_moved_by_its_own_scale(pole: str, small: float) -> None:
    """At that of its leaf it would leave the domain."""
    f, slope = POLES[pole]
    x, c = weighted((50,))
    x["leaf 0"][7] = small
    g = c["leaf 0"] * np.cos(x["leaf 0"])
    g[7] += slope(small)
    problem = looked(lambda p: float((c["leaf 0"] * np.sin(p["leaf 0"])).sum() + f(p["leaf 0"][7])), x, {"leaf 0": g})
    sight = problem.at()["leaf 0"]
    assert sight.refuted is None
    assert sight.unseen == 0 or small < 1e-6
    assert problem.asked[0] <= VALUES
    for index, factor in ((7, 2.0), (7, -1.0), (7, 0.0), (8, 2.0)):
        wrong = g.copy()
        wrong[index] *= factor
        found = problem.at({"leaf 0": wrong})["leaf 0"]
        assert is_caught(found)
        if small >= 1e-6:
            assert named(found) == index


# Losses that round, and losses of finer structure


def _single(x: Array) -> Array:
    return x.astype(np.float32)


INSIDE: dict[str, Callable[[Leaves, Leaves], float]] = {
    "all in float32": lambda c, p: float(
        sum((_single(c[path]) * np.sin(_single(v))).sum(dtype=np.float32) for path, v in p.items())
    ),
    "elements in float32": lambda c, p: float(sum((c[path] * _single(np.sin(v))).sum() for path, v in p.items())),
    "inputs in float32": lambda c, p: float(sum((c[path] * np.sin(_single(v))).sum() for path, v in p.items())),
    "stairs of 2^-12": lambda c, p: _on_stairs(c, p, 12),
    "stairs of 2^-20": lambda c, p: _on_stairs(c, p, 20),
    "stairs of 2^-40": lambda c, p: _on_stairs(c, p, 40),
}


def _on_stairs(c: Leaves, p: Leaves, bits: int) -> float:
    total = float(sum((c[path] * np.sin(v)).sum() for path, v in p.items()))
    return float(np.round(total * 2.0**bits) / 2.0**bits)


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_rounds_inside_refutes_what_is_wrong_and_nothing_else(inside: str, seed: int) -> None:
    x, c = weighted((3, 33, 1_000), seed=seed)
    gradients = {path: c[path] * np.cos(v) for path, v in x.items()}
    problem = looked(lambda p: INSIDE[inside](c, p), x, gradients)
    assert not any(sight.refuted for sight in problem.at(seed=seed).values())
    for path, g in gradients.items():
        assert problem.at({path: 2 * g}, seed=seed)[path].refuted is not None


def test_stairs_whose_noise_was_not_measured_refute_nothing() -> None:
    """A solver's tolerance of 1e-9, say, of which the spacing at which noise is measured is a multiple."""
    for seed in range(6):
        x, c = weighted((3, 33, 1_000), seed=seed)
        gradients = {path: c[path] * np.cos(v) for path, v in x.items()}
        problem = looked(partial(_on_stairs, c, bits=30), x, gradients, noise=0.0)
        assert not any(sight.refuted for sight in problem.at(seed=seed).values())


@pytest.mark.parametrize("frequency", [1e7, 1e8, 1e9])
def test_a_structure_finer_than_the_steps_is_doubted(frequency: float) -> None:
    """A wave of a hundredth of the loss, along the sum of a leaf's elements: its slope is a million times the rest."""
    x, c = weighted((33,))
    start = float(x["leaf 0"].sum())

    def loss(p: Leaves) -> float:
        y = p["leaf 0"]
        return float((c["leaf 0"] * np.sin(y)).sum() + 0.1 * np.sin(frequency * (y.sum() - start)))

    problem = looked(loss, x, {"leaf 0": c["leaf 0"] * np.cos(x["leaf 0"]) + 0.1 * frequency})
    right = problem.at()["leaf 0"]
    assert right.refuted is None
    without = problem.at({"leaf 0": c["leaf 0"] * np.cos(x["leaf 0"])})["leaf 0"]
    assert is_caught(without)
    assert without.doubt or without.refuted


# What is left out


def test_elements_that_are_nan_are_left_out() -> None:
    problem = smooth(SIZES)
    others = problem.gradients["leaf 2"].copy()
    others[4] = np.nan
    found = problem.at({"leaf 2": others})
    assert not any(is_caught(sight) for sight in found.values())
    assert (found["leaf 2"].size, found["leaf 2"].seen) == (33, 32)
    others[5] *= 2
    assert named(problem.at({"leaf 2": others})["leaf 2"]) == 5


def test_a_leaf_of_which_all_is_left_out_says_nothing() -> None:
    problem = smooth(SIZES)
    found = problem.at({"leaf 1": np.full(3, np.nan)})
    assert (found["leaf 1"].seen, found["leaf 1"].unseen, found["leaf 1"].refuted) == (0, 0, None)
    assert found["leaf 3"].seen == 1_000


def test_a_leaf_that_rounding_drowns_at_any_step_stays_faint() -> None:
    x, c = weighted((1_000, 33))
    c["leaf 1"] *= 1e-15
    gradients = {path: c[path] * np.cos(v) for path, v in x.items()}
    drowned = looked(lambda p: float(sum((c[path] * np.sin(v)).sum() for path, v in p.items())), x, gradients)
    found = drowned.at()["leaf 1"]
    assert (found.faint, found.unseen, found.refuted) == (True, 0, None)
    assert drowned.asked[0] <= VALUES


@pytest.mark.parametrize("size", [1, 2, 33])
def test_beside_a_large_leaf_a_faint_one_is_looked_at_alone(size: int) -> None:
    """Its share is a hundred-millionth of the other's, and a gradient twice as large is refuted all the same."""
    x, c = weighted((1_000, size))
    c["leaf 1"] = 1e-8 * np.sign(c["leaf 1"])
    gradients = {path: c[path] * np.cos(v) for path, v in x.items()}
    problem = looked(lambda p: float(sum((c[path] * np.sin(v)).sum() for path, v in p.items())), x, gradients)
    found = problem.at()["leaf 1"]
    assert (found.refuted, found.unseen) == (None, 0)
    assert not found.faint
    assert found.limit < 1e-2 * norm(gradients["leaf 1"])
    for factor in (2.0, -1.0, 1.02):
        assert problem.at({"leaf 1": factor * gradients["leaf 1"]})["leaf 1"].refuted is not None
    assert problem.at({"leaf 1": 1e4 * gradients["leaf 1"]})["leaf 1"].refuted is not None
