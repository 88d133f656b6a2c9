"""Averages tell what elements do not: a factor near 1, everywhere or in one place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gradwitness as gw
from gradwitness import ops
from gradwitness.arithmetic import Arithmetic
from gradwitness.dtypes import Array, round_to
from gradwitness.evidence.projections import Noise, Projections, noise_at, projections
from gradwitness.run.referee import graph_referee
from gradwitness.settings import Settings

SHAPE = (40, 32)
SEEDS = range(3)
MASK = np.arange(SHAPE[0]) % 5 == 0
Change = Callable[[Array], Array]


def noise_of(dtype: str, *, scale: float = 1.0, number: float = 0.25) -> list[Noise]:
    """Of the gradient of a, at several draws."""

    def gated(params: Any, batch: Any) -> Any:
        return (ops.silu(params["a"]) * params["b"] * batch["c"] * number).sum()

    found = []
    for seed in SEEDS:
        a, b, c = np.random.default_rng(seed).normal(size=(3, *SHAPE))
        problem = gw.Problem("gated", gated, {"a": a, "b": b}, {"c": scale * c})
        known = graph_referee(problem, dtype, Settings(reference="differences"))
        found.append(noise_at(known, Arithmetic(), {}, masks={"mask": MASK}, number=seed)["a"])
    return found


NOISE = noise_of("bfloat16")


def seen(
    change: Change, beside: Change | None = None, noise: list[Noise] = NOISE, dtype: str = "bfloat16"
) -> Projections:
    """Of the true gradients, changed and then rounded as a kernel rounds them."""
    given = [round_to(change(n.truth), dtype) for n in noise]
    others = [None if beside is None else round_to(beside(n.truth), dtype) for n in noise]
    found = projections(noise, given, others)
    assert found is not None
    return found


def scaled(where: Any, factor: float) -> Change:
    def change(g: Array) -> Array:
        g = g.copy()
        g[where] *= factor
        return g

    return change


def right(g: Array) -> Array:
    return g


def test_a_gradient_that_is_only_rounded_is_right() -> None:
    assert seen(right).ratio < 1 / 2


PLACES = [
    (..., 1.005, "on average"),
    (..., 0.995, "on average"),
    (7, 1.1, r"in \[7, :\]"),
    (np.s_[:, 3], 1.1, r"in \[:, 3\]"),
    (np.s_[-8:], 1.03, "in the last 8 along axis 0"),
    (np.broadcast_to(MASK[:, None], SHAPE), 1.03, "where mask is true"),
]


@pytest.mark.parametrize(("where", "factor", "named"), PLACES)
def test_a_factor_is_seen_where_it_is(where: Any, factor: float, named: str) -> None:
    found = seen(scaled(where, factor))
    assert found.ratio > 1
    assert re.fullmatch(named, found.where)
    assert found.found[found.worst] == pytest.approx(factor - 1, rel=0.2)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_factor_at_one_sign_is_seen(sign: int) -> None:
    found = seen(lambda g: np.where(sign * g > 0, 1.01 * g, g))
    assert found.ratio > 1
    assert found.where == f"where it is {'positive' if sign > 0 else 'negative'}"


def test_the_limit_is_what_would_have_been_caught() -> None:
    limit = seen(right).limit
    assert 1e-4 < limit < 5e-3
    for factor in (1 + 1.1 * limit, 1 - 1.1 * limit):
        assert seen(scaled(..., factor)).ratio > 1
    assert seen(scaled(..., 1 + 0.5 * limit)).ratio < 1


def test_float16_is_seen_eight_times_as_sharply() -> None:
    fine = seen(right, noise=noise_of("float16"), dtype="float16")
    assert seen(right).limit / 12 < fine.limit < seen(right).limit / 4


HELD = float(round_to(np.array(0.3), "bfloat16")) / 0.3


def test_a_number_that_the_dtype_cannot_hold_may_be_rounded() -> None:
    noise = noise_of("bfloat16", number=0.3)
    found = seen(scaled(..., HELD), noise=noise)
    assert abs(found.found[0]) > 2e-3
    assert found.ratio <= 1
    assert replace(found, bias=0 * found.bias).ratio > 1, "else nothing was allowed"
    assert seen(scaled(..., HELD * 1.005), noise=noise).ratio > 1


def test_what_a_right_kernel_loses_another_may_lose() -> None:
    lossy = scaled(..., 0.99)
    assert seen(lossy, beside=right).ratio > 1
    assert seen(lossy, beside=lossy).ratio <= 1
    assert seen(scaled(..., 0.97), beside=lossy).ratio > 1


def test_subnormal_elements_are_left_out_and_counted() -> None:
    """What float16 makes of them is no projection of anything."""
    small = noise_of("float16", scale=1e-4)
    tiny = sum(int(np.count_nonzero((np.abs(n.truth) < 2.0**-14) & (n.truth != 0))) for n in small)
    found = seen(right, noise=small, dtype="float16")
    assert found.tiny == tiny
    assert tiny > 100
    assert found.ratio < 1
    assert seen(lambda g: np.where(np.abs(g) < 2.0**-14, 2 * g, g), noise=small, dtype="float16").ratio < 1
    assert seen(scaled(..., 1.02), noise=small, dtype="float16").ratio > 1


def test_of_a_gradient_that_is_all_subnormal_nothing_is_said() -> None:
    small = noise_of("float16", scale=1e-9)
    assert projections(small, [n.truth for n in small], [None] * len(small)) is None


def test_a_gradient_that_is_missing_or_not_finite_somewhere_is_judged_elsewhere() -> None:
    given = [round_to(1.01 * n.truth, "bfloat16") for n in NOISE]
    found = projections(NOISE, [None, np.full(SHAPE, np.nan), given[2]], [None] * 3)
    assert found is not None
    assert found.ratio > 1
    assert found.limit > seen(scaled(..., 1.01)).limit, "of one draw in the place of three"
    assert projections(NOISE, [None] * 3, [None] * 3) is None
