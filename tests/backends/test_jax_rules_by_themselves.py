"""Which custom_vjp or custom_jvp is wrong: each judged by itself, where the gradient runs through it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradwitness as gw
from gradwitness.run.failing import short

DRAW = np.random.default_rng(0).standard_normal
PARAMS, BATCH = {"w": DRAW((3, 4))}, {"x": DRAW((5, 4)), "k": np.arange(1, 4)}


def silu(factor: float) -> Any:
    """Of an array, and of integers that it multiplies by."""

    @jax.custom_vjp
    def silu(x: Any, k: Any) -> Any:
        return x * jax.nn.sigmoid(x) * k

    def backward(kept: Any, g: Any) -> Any:
        x, k = kept
        s = jax.nn.sigmoid(x)
        return factor * g * (s + x * s * (1 - s)) * k, None

    silu.defvjp(lambda x, k: (silu(x, k), (x, k)), backward)
    return silu


def square(factor: float) -> Any:
    @jax.custom_jvp
    def square(x: Any) -> Any:
        return x * x

    square.defjvp(lambda primals, tangents: (square(*primals), factor * 2 * primals[0] * tangents[0]))
    return square


def hidden(first: Any, second: Any, p: Any, b: Any, x: Any) -> Any:
    return second(first(x @ p["w"].T, b["k"])).mean()


def scanned(first: Any, second: Any, p: Any, b: Any) -> Any:
    def step(total: Any, x: Any) -> Any:
        return total + hidden(first, second, p, b, x), None

    return jax.lax.scan(step, jnp.zeros((), b["x"].dtype), b["x"])[0]


WHERE: dict[str, Callable[..., Any]] = {
    "plain": lambda first, second, p, b: hidden(first, second, p, b, b["x"]),
    "jit": lambda first, second, p, b: jax.jit(lambda p: hidden(first, second, p, b, b["x"]))(p),
    "checkpoint": lambda first, second, p, b: jax.checkpoint(lambda p: hidden(first, second, p, b, b["x"]))(p),
    "vmap": lambda first, second, p, b: jax.vmap(lambda x: hidden(first, second, p, b, x))(b["x"]).sum(),
    "scan": scanned,
}


def verified(where: str, first: float, second: float, **how: Any) -> gw.Report:
    rules = silu(first), square(second)
    return gw.verify({"jax": lambda p, b: WHERE[where](*rules, p, b)}, PARAMS, BATCH, **({"dtypes": "float64"} | how))


def ends_with(named: str, message: str) -> bool:
    """Whether it ends with the rule that is named, and where it stands in this file."""
    return (
        re.search(rf"; wrong by itself: {re.escape(named)} at {re.escape(short(__file__))}:\d+$", message) is not None
    )


@pytest.mark.parametrize("where", WHERE)
def test_the_rule_that_is_wrong_is_named_and_no_other(where: str) -> None:
    (row,) = verified(where, 1 + 1e-9, 1.0).rows
    assert str(row.verdict) == "disagree"
    assert ends_with("the backward of silu (input 0, by 1e-09 of its norm)", row.message), row.message


def test_a_custom_jvp_is_named_too() -> None:
    (row,) = verified("plain", 1.0, 0.5).rows
    assert ends_with("the backward of square (input 0, by 0.5 of its norm)", row.message), row.message


def test_two_that_are_wrong_are_both_named() -> None:
    (row,) = verified("plain", 1.1, 0.5).rows
    both = (
        r"the backward of square \(input 0, by 0\.5 of its norm\) at \S+, silu \(input 0, by 0\.1 of its norm\) at \S+"
    )
    assert re.search(both, row.message), row.message


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_in_fewer_digits_the_rule_is_looked_at_in_float64(dtype: str) -> None:
    (row,) = verified("plain", 1.001, 1.0, dtypes=dtype).rows
    assert str(row.verdict) == "disagree"
    assert "wrong by itself: the backward of silu (input 0, by 0.001 of its norm)" in row.message, row.message


def test_where_the_rules_are_right_none_is_named() -> None:
    right = silu(1.0)

    def stopping(p: Any, b: Any) -> Any:
        return (right(b["x"] @ p["w"].T, b["k"]) * jax.lax.stop_gradient(p["w"]).sum()).mean()

    (row,) = gw.verify({"jax": stopping}, PARAMS, BATCH, dtypes="float64").rows
    assert str(row.verdict) == "disagree"
    assert "by itself" not in row.message


def test_an_argument_by_which_nobody_differentiates_accuses_no_rule() -> None:
    """It gives no cotangent for the labels, and for the inputs a wrong one."""

    @jax.custom_vjp
    def apart(x: Any, y: Any) -> Any:
        return (x - y) ** 2

    apart.defvjp(lambda x, y: (apart(x, y), (x, y)), lambda kept, g: (3 * g * (kept[0] - kept[1]), None))
    batch = {**BATCH, "y": DRAW((5, 3))}
    (row,) = gw.verify({"jax": lambda p, b: apart(b["x"] @ p["w"].T, b["y"]).sum()}, PARAMS, batch).rows
    assert ends_with("the backward of apart (input 0, by 0.5 of its norm)", row.message), row.message


def test_a_rule_of_several_arguments_and_results_is_named_by_the_one_that_is_off() -> None:
    @jax.custom_vjp
    def both(pair: Any, scale: Any) -> Any:
        return {"sum": (pair[0] + pair[1]) * scale, "product": pair[0] * pair[1], "count": jnp.arange(3)}

    def forward(pair: Any, scale: Any) -> Any:
        return both(pair, scale), (pair, scale)

    def backward(kept: Any, g: Any) -> Any:
        (a, b), scale = kept
        first, second = g["sum"] * scale, g["product"]
        return (first + second * b, first + second * a * 2), (g["sum"] * (a + b)).sum()

    both.defvjp(forward, backward)

    def loss(p: Any, b: Any) -> Any:
        found = both((p["w"][0], p["w"][1]), p["w"][2, 0])
        return (found["sum"] * found["product"]).sum()

    (row,) = gw.verify({"jax": loss}, PARAMS, BATCH).rows
    assert "; wrong by itself: the backward of both (input 1, by 0." in row.message, row.message


def test_a_rule_that_closes_over_the_batch_is_named_in_all_its_digits() -> None:
    """Its arrays are so large that their callback runs in another thread, where jax has no float64."""

    def loss(p: Any, b: Any) -> Any:
        @jax.custom_vjp
        def times(x: Any) -> Any:
            return jnp.sin(x) * b["k"]

        times.defvjp(lambda x: (times(x), x), lambda x, g: ((1 + 1e-9) * g * jnp.cos(x) * b["k"],))
        return times(p["w"]).sum()

    params, batch = {"w": DRAW((100, 60))}, {"k": np.arange(1, 61)}
    (row,) = gw.verify({"jax": loss}, params, batch, dtypes="float64").rows
    assert ends_with("the backward of times (input 0, by 1e-09 of its norm)", row.message), row.message


def exp_by_vjp(factor: float) -> Any:
    @jax.custom_vjp
    def exp(x: Any) -> Any:
        return jnp.exp(x)

    exp.defvjp(lambda x: (factor * jnp.exp(x), x), lambda x, g: (g * jnp.exp(x),))
    return exp


def exp_by_jvp(factor: float) -> Any:
    @jax.custom_jvp
    def exp(x: Any) -> Any:
        return jnp.exp(x)

    exp.defjvp(lambda primals, tangents: (factor * jnp.exp(primals[0]), jnp.exp(primals[0]) * tangents[0]))
    return exp


@pytest.mark.parametrize("make", [exp_by_vjp, exp_by_jvp])
def test_a_rule_whose_two_forwards_differ_is_told(make: Callable[[float], Any]) -> None:
    def report(factor: float) -> gw.Report:
        exp = make(factor)
        return gw.verify(gw.Candidate("jax", lambda p, b: jnp.sin(exp(p["w"])).sum()), PARAMS, dtypes="float64")

    assert report(1.0)
    (row,) = report(1 + 1e-6).rows
    assert str(row.verdict) == "different-loss"
    assert "where it is differentiated" in row.message
    assert "two forwards of exp" in row.message
