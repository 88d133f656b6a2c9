"""What rounding errors leave alone in a jax program: results that are exact, and what is decided on an edge."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradwitness as gw
from gradwitness.arithmetic import Arithmetic, RoundingErrors
from gradwitness.dtypes import find_dtype
from gradwitness_jax.rounding import Perturbed

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 5))
RUNS = 16
DTYPES = ("float64", "float32", "bfloat16", "float16")

Function = Callable[..., Any]


def spread(function: Function, *arguments: Any, dtype: str) -> Any:
    """The rms deviation of each element of the result over `RUNS` runs, in units of roundoff."""
    errors, rng = RoundingErrors.of(dtype, Arithmetic()), np.random.default_rng(1)
    with jax.enable_x64(True):
        arguments = tuple(jnp.asarray(x) for x in arguments)
        perturbed = Perturbed(function, *arguments)
        runs = [np.asarray(perturbed(errors, rng.standard_normal(perturbed.count), *arguments)) for _ in range(RUNS)]
        exact = np.asarray(function(*arguments))
    return np.sqrt(np.mean((np.array(runs, np.float64) - exact) ** 2, axis=0)) / errors.roundoff


# Results that are exact

SIGNS, WHOLE = np.sign(X), np.round(5 * X)
EXACT: dict[str, Function] = {
    "signs": lambda s, n: (s >= 0).astype(s.dtype) * 2 - 1,
    "sums": lambda s, n: n + s - 3,
    "products": lambda s, n: s * n * 0.25,
    "quotients": lambda s, n: n * 4 / s / 2,
    "roots": lambda s, n: jnp.sqrt(n * n) + jnp.sqrt(jnp.square(n) / 4),
    "powers": lambda s, n: lax.integer_pow(s + s, 5),
    "counts": lambda s, n: (n > 0).astype(n.dtype).sum(axis=0),
    "places": lambda s, n: jnp.cumsum(jnp.ones_like(n), axis=0) - 1,
    "a matrix times one-hot rows": lambda s, n: jax.nn.one_hot(jnp.arange(5) % 3, 6, dtype=n.dtype) @ n,
    "histograms": lambda s, n: jnp.zeros(6, n.dtype).at[jnp.arange(30) % 6].add(1.0),
    "their difference": lambda s, n: (s * n)[0].sum() - (s * n)[0].sum(),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_an_exact_result_has_no_error(name: str, dtype: str) -> None:
    assert np.all(spread(EXACT[name], SIGNS, WHOLE, dtype=dtype) == 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_more_digits_than_a_dtype_has_are_rounded(dtype: str) -> None:
    most = 1 / find_dtype(dtype).unit_roundoff

    def next_one(x: Any) -> Any:
        return x + 1

    assert spread(next_one, most - 1, dtype=dtype) == 0
    assert spread(next_one, most, dtype=dtype) > 0
    assert spread(lambda x: x / 3, 1.0, dtype=dtype) > 0
    assert spread(lambda x: x.sum(), np.full(2, most / 2 - 1), dtype=dtype) == 0
    assert spread(lambda x: x.sum(), np.array([most, 1.0, most]), dtype=dtype) > 0
    smallest = find_dtype(dtype).smallest_normal
    assert spread(lambda x: x * x, smallest, dtype=dtype) > 0 or dtype == "float64", "which has nothing below"


OPERATIONS: dict[str, tuple[Function, Function]] = {
    "add": (lax.add, lambda a, b: a + b),
    "sub": (lax.sub, lambda a, b: a - b),
    "mul": (lax.mul, lambda a, b: a * b),
    "div": (lax.div, lambda a, b: a / b),
    "square": (lambda a, b: lax.square(a), lambda a, b: a * a),
    "integer_pow": (lambda a, b: lax.integer_pow(a, 3), lambda a, b: a**3),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_exact_is_what_rational_numbers_say(name: str, dtype: str) -> None:
    """In a compiled program, which may have rewritten what finds it out. Of numbers of few digits, and all."""
    few = RNG.integers(-30, 31, 400) * 2.0 ** RNG.integers(-9, 9, 400)
    many = RNG.standard_normal(400).astype(dtype).astype(np.float64)
    a, b = (np.where(RNG.random(400) < 0.5, few, many) for _ in range(2))
    b = np.where(b == 0, 1.0, b)
    function, by_hand = OPERATIONS[name]
    true = [by_hand(Fraction(x), Fraction(y)) for x, y in zip(a, b, strict=True)]
    is_exact = np.array([Fraction(float(np.dtype(dtype).type(x))) == x for x in true])
    found = spread(function, a, b, dtype=dtype)
    assert np.any(is_exact)
    assert np.array_equal(found == 0, is_exact)


# Decisions on an edge: the same computed twice, with other errors, and whole numbers made of such


def twice(x: Any) -> tuple[Any, Any]:
    return jnp.exp(x), jnp.exp(x)


def whole(x: Any) -> Any:
    """2, with an error."""
    return jnp.exp(x) - jnp.exp(x) + 2.0


def interleaved(x: Any) -> Any:
    """Shape (6, 10): each number beside itself."""
    return jnp.stack(twice(x), axis=-1).reshape(6, 10)


def pooled(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2), (1, 2), "VALID")


def chosen_by_pooling(x: Any) -> Any:
    """Which of each two the gradient of max pooling goes to."""
    return jax.vjp(pooled, interleaved(x))[1](jnp.ones((6, 5)))[0]


EDGES: dict[str, Function] = {
    "eq": lambda x: lax.eq(*twice(x)),
    "ne": lambda x: lax.ne(*twice(x)),
    "lt": lambda x: lax.lt(*twice(x)),
    "le": lambda x: lax.le(*twice(x)),
    "gt": lambda x: lax.gt(*twice(x)),
    "ge": lambda x: lax.ge(*twice(x)),
    "floor": lambda x: lax.floor(whole(x)),
    "ceil": lambda x: lax.ceil(whole(x)),
    "round": lambda x: lax.round(whole(x) + 0.5),
    "sign": lambda x: lax.sign(whole(x) - 2),
    "rem": lambda x: lax.rem(whole(x), 2.0 + 0 * x) > 1,
    "to int": lambda x: whole(x).astype(int),
    "to bool": lambda x: (whole(x) - 2).astype(bool),
    "argmax": lambda x: jnp.argmax(interleaved(x), axis=1),
    "argmin": lambda x: jnp.argmin(interleaved(x), axis=0),
    "sort": lambda x: jnp.argsort(interleaved(x), axis=1),
    "sort by two": lambda x: lax.sort((whole(x), -jnp.arange(30).reshape(6, 5)), num_keys=2)[1],
    "top_k": lambda x: lax.top_k(interleaved(x), 4)[1],
    "select_and_scatter_add": lambda x: chosen_by_pooling(x),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EDGES)
def test_what_is_decided_on_an_edge_stays_decided(name: str, dtype: str) -> None:
    assert np.all(spread(EDGES[name], X, dtype=dtype) == 0)


BESIDE: dict[str, Function] = {  # 1e-11 beside an edge: below the errors of float32, and those of float64 amplified
    "gt": lambda x: lax.gt(jnp.exp(x), jnp.exp(x) * (1 - 1e-11)),
    "floor": lambda x: lax.floor(whole(x) + 1e-11),
    "to int": lambda x: (whole(x) + 1e-11).astype(int),
    "sign": lambda x: lax.sign(whole(x) - 2 + 1e-11),
    "argmax": lambda x: jnp.argmax(interleaved(x) * (1 + 1e-11 * jnp.arange(10)), axis=1),
    "sort": lambda x: jnp.argsort(interleaved(x) * (1 + 1e-11 * jnp.arange(10)), axis=1),
    "top_k": lambda x: lax.top_k(interleaved(x) * (1 + 1e-11 * jnp.arange(10)), 4)[1],
    "select_and_scatter_add": lambda x: jax.vjp(pooled, interleaved(x) * (1 + 1e-11 * jnp.arange(10)))[1](
        jnp.ones((6, 5))
    )[0],
}


@pytest.mark.parametrize("name", BESIDE)
def test_beside_an_edge_errors_decide_but_not_amplified_ones(name: str) -> None:
    assert np.any(spread(BESIDE[name], X, dtype="float32") > 0)
    assert np.all(spread(BESIDE[name], X, dtype="float64") == 0)


def test_values_keep_their_errors_where_their_order_is_decided() -> None:
    for function in (
        lambda x: jnp.sort(interleaved(x)),
        lambda x: lax.top_k(interleaved(x), 3)[0],
        lambda x: lax.rem(jnp.exp(x), 0.1 + 0 * x),
        lambda x: jax.vjp(pooled, interleaved(x))[1](jnp.exp(x))[0].sum(axis=1),
    ):
        for dtype in ("float64", "float32"):
            assert np.all(spread(function, X, dtype=dtype) > 0)


def masked(x: Any) -> Any:
    a, b = twice(x)
    return jnp.where(a == b, 1.0, 0.0)


def scanned(x: Any) -> Any:
    def step(carry: Any, row: Any) -> tuple[Any, Any]:
        return jnp.exp(row), carry == jnp.exp(row)

    return lax.scan(step, jnp.exp(x[0]), jnp.stack([x[0]] * 3))[1]


def looped(x: Any) -> Any:
    def step(state: Any) -> Any:
        count, value, alike = state
        return count + 1, jnp.tanh(value), alike & (jnp.tanh(value) == jnp.tanh(value))

    return lax.while_loop(lambda s: s[0] < 3, step, (0, x, jnp.ones(x.shape, bool)))[2]


FORMS: dict[str, Function] = {
    "jit": jax.jit(masked),
    "vmap": jax.vmap(masked),
    "checkpoint": jax.checkpoint(masked),
    "scan": scanned,
    "while": looped,
    "cond": lambda x: lax.cond((jnp.exp(x) == jnp.exp(x)).all(), masked, jnp.exp, x),
    "how often a loop goes round": lambda x: lax.while_loop(
        lambda s: s[1] < whole(x)[0, 0], lambda s: (s[0] + 1, s[1] + 0.5), (0, 0.0)
    )[0],
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("form", FORMS)
def test_decisions_inside_programs_are_seen(form: str, dtype: str) -> None:
    assert np.all(spread(FORMS[form], X, dtype=dtype) == 0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_loop_that_goes_round_for_another_number_of_times_is_let(dtype: str) -> None:
    """Newton's iteration, until it is within what float32 resolves; and a branch by what is beside an edge."""

    def root(x: Any) -> Any:
        def step(y: Any) -> Any:
            return (y + x / y) / 2

        found = lax.while_loop(lambda y: (abs(y * y - x) > 1e-7).any(), step, x)
        return jnp.where(found == step(found), found, step(found))

    found = spread(root, np.array([2.0, 3.0, 700.0]), dtype=dtype)
    assert np.all(np.isfinite(found))
    assert np.all(found < 1e4)
    branched = spread(lambda x: lax.cond(jnp.exp(x) > jnp.exp(x) * (1 - 1e-11), jnp.sin, jnp.cos, x), 0.5, dtype=dtype)
    assert (branched > 1e4) == (dtype == "float32")


def test_a_loop_may_carry_keys() -> None:
    def drawn(x: Any) -> Any:
        def step(state: Any) -> Any:
            key, count, y = state
            return jax.random.split(key)[0], count + 1, jnp.exp(y) * (jax.random.uniform(key) > 2 * count)

        return lax.while_loop(lambda s: s[1] < whole(x)[0, 0], step, (jax.random.key(0), 0, x))[2]

    assert np.all(np.isfinite(spread(drawn, X, dtype="float32")))


# Verdicts


def max_plus(off: float) -> Function:
    """A product of matrices in which sums are maxima, whose backward looks up who was the largest."""

    @jax.custom_vjp
    def product(a: Any, b: Any) -> Any:
        return (a[:, :, None] + b[None]).max(axis=1)

    def backward(saved: Any, g: Any) -> Any:
        a, b, out = saved
        mask = ((a[:, :, None] + b[None]) == out[:, None]).astype(g.dtype)
        found = off * g[:, None] * mask / mask.sum(axis=1, keepdims=True)
        return found.sum(axis=2), found.sum(axis=0)

    product.defvjp(lambda a, b: (product(a, b), (a, b, product(a, b))), backward)
    return lambda p, _: product(p["a"], p["b"])


@pytest.mark.parametrize(("off", "verdict"), [(1.0, "agree"), (1 + 2e-6, "disagree")])
def test_a_backward_that_compares_for_equality_is_judged(off: float, verdict: str) -> None:
    params = {"a": RNG.standard_normal((3, 4)), "b": RNG.standard_normal((4, 5))}
    dtypes = ("float64", "float32") if off == 1 else "float64"
    report = gw.verify(gw.Candidate("jax", max_plus(off)), params, cotangent="random", dtypes=dtypes)
    assert {str(row.verdict) for row in report.rows} == {verdict}, repr(report)


def kept_as_int8(off: float) -> Function:
    """|x|, whose backward has its signs in the smallest integers."""

    @jax.custom_vjp
    def size(x: Any) -> Any:
        return jnp.abs(x)

    def forward(x: Any) -> Any:
        return jnp.abs(x), ((x >= 0).astype(x.dtype) * 2 - 1).astype(jnp.int8)

    size.defvjp(forward, lambda sign, g: (off * sign.astype(g.dtype) * g,))
    return lambda p, _: size(p["x"])


@pytest.mark.parametrize(("off", "verdict"), [(1.0, "agree"), (1.0001, "disagree")])
def test_whole_numbers_in_floats_are_cut_off_as_they_are(off: float, verdict: str) -> None:
    x = np.array([-1.7, -0.9, -0.4, 0.2, 0.8, 1.6])
    candidate = gw.Candidate("jax", kept_as_int8(off))
    report = gw.verify(candidate, {"x": x}, cotangent="random", dtypes=("float64", "float32"))
    assert {str(row.verdict) for row in report.rows} == {verdict}, repr(report)
