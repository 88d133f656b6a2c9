"""The floor of a loss in jax's arrays, by perturbing every equation of its jaxpr: its table, and what it gives."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas

import gradwitness as gw
from gradwitness.arithmetic import Arithmetic, Sums
from gradwitness.dtypes import find_dtype
from gradwitness.errors import UnsupportedError
from gradwitness_jax.rounding import RULES, Perturbed, Sum
from tests.backends.jax_rounding import ONCE, Function, X, Y, moves

RNG = np.random.default_rng(0)


def deviations(function: Function, *arguments: Any, dtype: str = "float32", arithmetic: Arithmetic = ONCE) -> Any:
    """The rms deviation of each element of the result over `RUNS` runs, in units of roundoff."""
    return np.sqrt(np.mean(moves(function, *arguments, dtype=dtype, arithmetic=arithmetic) ** 2, axis=0))


def near(found: Any, expected: Any) -> None:
    """Within what a spread of `RUNS` samples leaves open."""
    ratio = np.asarray(found) / expected
    assert np.all((ratio > 0.6) & (ratio < 1.5)), ratio


# The rows of the table


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.T.reshape(2, 15)[:, ::-1],
        lambda x: jnp.concatenate([x, -x], axis=1)[1:, None],
        lambda x: jnp.maximum(jnp.where(x > 0, x, 0.0), lax.stop_gradient(x)),
        lambda x: jnp.sort(jnp.abs(x)).max(axis=0),
        lambda x: jnp.take(x, np.array([2, 2, 0]), axis=0),
        lambda x: jnp.clip(x, -1.0, 1.0).at[0].set(1.0),
        lambda x: jnp.round(jnp.pad(x, 1)),
        lambda x: jax.nn.one_hot(jnp.argmax(x, axis=1), 5),
    ],
)
def test_what_is_copied_or_chosen_is_exact(function: Function) -> None:
    assert np.all(deviations(function, X) == 0)


@pytest.mark.parametrize(
    "function", [jnp.exp, jnp.tanh, lambda x: x * Y, lambda x: x + Y, lambda x: x / Y, lambda x: x - Y, lax.logistic]
)
def test_elementary_results_are_rounded_once(function: Function) -> None:
    near(deviations(function, X), np.abs(np.asarray(function(X))))


def test_some_functions_round_their_argument_as_well() -> None:
    """erfc(5) is computed by exp(-25), and 25 has a rounding error of 25 u."""
    x = np.array([0.1, 2.1, 5.1])
    slope = 2 / np.sqrt(np.pi) * np.exp(-(x**2))
    near(deviations(lax.erfc, x), np.hypot(np.array(lax.erfc(x)), x * slope))
    near(deviations(lambda x: lax.integer_pow(x, 7), x), np.hypot(1, 7) * x**7)
    near(deviations(lambda x: lax.pow(-x, 2.0), x), x**2 * np.hypot(1, 2 * np.log(x)))


POWERS = np.array([[3, 2, 1, 0, 7]], np.int32)
MIXED: dict[str, Function] = {  # of float operands beside integers: the same with floats in their places
    "pow": lambda x, n: lax.pow(jnp.abs(x), jnp.broadcast_to(n, x.shape)),
    "pow of a number": lambda x, n: 0.99**n * x,
    "dot_general": lambda x, n: lax.dot_general(x, n.T, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float64),
    "dot_general of a mask": lambda x, n: lax.dot_general(
        x, n.T > 1, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float64
    ),
    "scatter-add": lambda x, n: jnp.zeros(x.shape).at[:, jnp.asarray(n[0], np.int32) % 5].add(x),
}


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8])
def test_integers_among_the_operands_are_as_whole_floats(name: str, dtype: Any) -> None:
    function = MIXED[name]
    found, expected = (deviations(lambda x, n=n: function(x, n), X) for n in (POWERS.astype(dtype), 1.0 * POWERS))
    assert np.array_equal(found, expected)
    assert np.any(found > 0)
    with jax.enable_x64(True):
        gradient = jax.grad(lambda x: function(x, POWERS.astype(dtype)).sum())
    assert np.all(np.isfinite(deviations(gradient, X)))


def test_a_loss_with_powers_by_integers_is_verified() -> None:
    """A discounted return, and the bias corrections of Adam."""
    losses: dict[str, Function] = {
        "discounted": lambda p, b: (0.99 ** jnp.arange(3) * b["r"] * jnp.tanh(p["w"])).sum(),
        "corrected": lambda p, b: (p["w"] ** b["n"] / (1 - 0.9 ** b["n"])).sum(),
    }
    params, batch = {"w": np.array([0.7, 1.3, 2.0])}, {"n": np.array([3, 2, 1], np.int32), "r": np.array([1, -2, 0.5])}
    for name, function in losses.items():
        assert gw.verify({"jax": function}, params, batch, dtypes=("float64", "float32")), name


IMAGES, KERNELS = RNG.standard_normal((2, 3, 6, 6)), RNG.standard_normal((4, 3, 3, 3))
SEGMENTS = np.array([0, 1, 1, 3, 1, 0])
convolved = partial(lax.conv, window_strides=(1, 1), padding="SAME")


def pooled(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 1, 1), "VALID")


def scattered(g: Any) -> Any:
    """Back to the places of the maxima, which windows share."""
    return jax.vjp(pooled, jnp.asarray(IMAGES))[1](g)[0]


# by primitive: (a function that is this sum alone, its arguments)
SUMS: dict[str, tuple[Function, tuple[Any, ...]]] = {
    "dot_general": (jnp.dot, (X, Y.T)),
    "conv_general_dilated": (convolved, (IMAGES, KERNELS)),
    "reduce_sum": (lambda x: x.sum(axis=0), (X,)),
    "cumsum": (lambda x: jnp.cumsum(x, axis=0), (X,)),
    "reduce_window_sum": (
        lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"),
        (IMAGES,),
    ),
    "scatter-add": (lambda x: jnp.zeros((4, 5)).at[SEGMENTS].add(x), (X,)),
    "select_and_scatter_add": (scattered, (RNG.standard_normal((2, 3, 4, 4)),)),
}


def assert_rounds_by_its_terms(name: str, power: float) -> None:
    """c(k) sqrt(y^2 + m), with m the sum of the squares of what is summed and k that of ones."""
    function, arguments = SUMS[name]
    with jax.enable_x64(True):
        y, moment, terms = (
            np.asarray(function(*map(change, arguments))) for change in (np.array, np.square, np.ones_like)
        )
    op = {"dot_general": "matmul", "conv_general_dilated": "conv2d"}.get(name, "sum")
    found = deviations(function, *arguments, arithmetic=Arithmetic(frozenset({(op, Sums(power))})))
    expected = np.maximum(terms, 1) ** power * np.sqrt(y**2 + moment)
    assert np.all(found[expected == 0] == 0)
    near(found[expected > 0], expected[expected > 0])


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if isinstance(rule, Sum)])
@pytest.mark.parametrize("power", [0.0, 0.5])
def test_sums_are_rounded_by_their_terms(name: str, power: float) -> None:
    assert_rounds_by_its_terms(name, power)


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("rule", ["exact", "rounded", Sum("other")])
def test_a_wrong_row_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str, rule: str | Sum) -> None:
    right = RULES[name]
    if isinstance(rule, Sum) and isinstance(right, Sum):
        rule = replace(right, op="matmul" if name == "conv_general_dilated" else "conv2d")
    monkeypatch.setitem(RULES, name, rule)
    with pytest.raises(AssertionError):
        assert_rounds_by_its_terms(name, 0.5)


def test_infinities_and_zeros_are_exact_and_the_smallest_numbers_are_not() -> None:
    tiny = find_dtype("float16").smallest_subnormal
    masked = np.array([-np.inf, 0.0, np.finfo(np.float64).min])
    assert np.all(deviations(lambda x: x * 1.0, masked, dtype="float16") == 0)
    near(deviations(lambda x: x * 1.0, np.array([1e-30]), dtype="float16"), tiny / 2.0**-11)


FUNCTIONS: dict[str, tuple[Function, Any]] = {
    **{name: (getattr(lax, name), 3 * RNG.standard_normal(4000)) for name in ("cosh", "sinh", "erf", "erfc", "exp")},
    **{name: (getattr(lax, name), 3 * RNG.standard_normal(4000)) for name in ("exp2", "expm1", "logistic", "asinh")},
    **{name: (getattr(lax, name), 3 * RNG.standard_normal(4000)) for name in ("sin", "cos", "tan", "tanh", "atan")},
    **{name: (getattr(lax, name), 3 * RNG.standard_normal(4000)) for name in ("cbrt", "square")},
    **{name: (getattr(lax, name), np.exp(3 * RNG.standard_normal(4000))) for name in ("log", "log1p", "sqrt", "rsqrt")},
    **{name: (getattr(lax, name), RNG.uniform(-1, 1, 4000)) for name in ("acos", "asin", "atanh", "erf_inv")},
    "acosh": (lax.acosh, 1 + np.exp(RNG.standard_normal(4000))),
    "pow": (lambda x: lax.pow(x, jnp.asarray(2.7, x.dtype)), np.exp(3 * RNG.standard_normal(4000))),
    "integer_pow": (lambda x: lax.integer_pow(x, 31), RNG.uniform(-1, 1, 4000)),
    "atan2": (lambda x: lax.atan2(x, x[::-1]), RNG.standard_normal(4000)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_row_of_a_function_covers_how_xla_computes_it(name: str, dtype: str) -> None:
    function, x = FUNCTIONS[name]
    narrow = jnp.asarray(x, dtype)
    wide = np.asarray(narrow, np.float64)
    with jax.enable_x64(True):
        exact = np.asarray(function(jnp.asarray(wide)))
    with np.errstate(invalid="ignore"):  # where both are infinite
        error = np.abs(np.asarray(jax.jit(function)(narrow), np.float64) - exact) / find_dtype(dtype).unit_roundoff
    size = deviations(function, wide, dtype=dtype)
    kept = np.isfinite(error) & (np.abs(exact) > find_dtype(dtype).smallest_normal)
    assert np.all(error[kept & (size == 0)] == 0), "what counts as exact is exact"
    kept &= size > 0
    ratio = error[kept] / size[kept]
    assert np.sqrt(np.mean(ratio**2)) < 2
    assert np.max(ratio) < 12, "the threshold"


# Programs inside programs


def steps(x: Any) -> Any:
    for _ in range(4):
        x = jnp.tanh(x @ Y.T[:, :5])
    return x.sum()


def scanned(x: Any) -> Any:
    return lax.scan(lambda c, _: (jnp.tanh(c @ Y.T[:, :5]), None), x, length=4)[0].sum()


def looped(x: Any) -> Any:
    return lax.while_loop(lambda s: s[0] < 4, lambda s: (s[0] + 1, jnp.tanh(s[1] @ Y.T[:, :5])), (0, x))[1].sum()


def branched(x: Any) -> Any:
    return lax.cond(x.sum() < 1e9, steps, lambda x: x.sum(), x)


@jax.custom_vjp
def by_rule(x: Any) -> Any:
    return steps(x)


by_rule.defvjp(lambda x: (steps(x), x), lambda x, g: (g * jax.grad(steps)(x),))


@jax.custom_jvp
def by_tangents(x: Any) -> Any:
    return steps(x)


by_tangents.defjvp(lambda x, t: (steps(x[0]), jnp.vdot(jax.grad(steps)(x[0]), t[0])))

FORMS: dict[str, Function] = {
    "jit": jax.jit(steps),
    "remat": jax.checkpoint(steps),
    "scan": scanned,
    "cond": branched,
    "custom_vjp": by_rule,
    "custom_jvp": by_tangents,
    "while": looped,
}


@pytest.mark.parametrize("form", FORMS)
def test_programs_inside_are_entered(form: str) -> None:
    near(deviations(FORMS[form], X), deviations(steps, X))
    if form != "while":  # has no reverse mode
        found, expected = (deviations(jax.grad(f), X) for f in (FORMS[form], steps))
        assert 0.6 < np.linalg.norm(found) / np.linalg.norm(expected) < 1.6


def test_steps_of_a_loop_have_errors_of_their_own() -> None:
    """Ten thousand independent errors add up to a hundred, one and the same to ten thousand."""

    def summed(loop: Function) -> Any:
        return deviations(lambda x: loop(lambda _, c: c + x * 1e-9, 1.0), np.array(1e-9))

    near(summed(lambda f, c: lax.scan(lambda c, _: (f(0, c), None), c, length=10_000)[0]), 100)
    near(summed(lambda f, c: lax.while_loop(lambda s: s[0] < 10_000, lambda s: (s[0] + 1, f(0, s[1])), (0, c))[1]), 100)


def test_a_loop_under_vmap_stops_where_each_of_its_own_would() -> None:
    def grown(x: Any) -> Any:
        return lax.while_loop(lambda v: v < 10, lambda v: 1.5 * v, x)

    x = np.array([1.1, 2.1, 9.1, 20.0])
    near(deviations(jax.vmap(grown), x)[:3], np.sqrt([6, 4, 1]) * x[:3] * 1.5 ** np.array([6, 4, 1]))
    assert deviations(jax.vmap(grown), x)[3] == 0


def test_what_has_no_error_is_let_through() -> None:
    def printed(x: Any) -> Any:
        jax.debug.print("{}", x.sum())
        return jnp.exp(x)

    assert np.all(deviations(printed, X) > 0)
    assert np.all(deviations(lambda x: lax.scan(lambda c, _: (2 * c, None), x, length=0)[0], X) == 0)
    kept = jax.checkpoint(steps, policy=jax.checkpoint_policies.dots_saveable)
    assert np.all(deviations(jax.grad(kept), X) > 0)


# What cannot be looked into


def doubled(reference: Any, result: Any) -> None:
    result[...] = 2 * reference[...]


def called_back(x: Any) -> Any:
    return jax.pure_callback(np.asarray, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


OPAQUE: dict[str, Function] = {
    "pure_callback": called_back,
    "io_callback": lambda x: jax.experimental.io_callback(np.asarray, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
    "pallas_call": pallas.pallas_call(doubled, out_shape=jax.ShapeDtypeStruct(X.shape, X.dtype), interpret=True),
    "cholesky": lambda x: jnp.linalg.cholesky(x @ x.T + jnp.eye(6)),
    "reduce_precision": lambda x: lax.reduce_precision(x, exponent_bits=8, mantissa_bits=23),
    "gives float32 inside": lambda x: x.astype("float32").sum(),
    "gives complex128 inside": jnp.fft.fft,
    "(TracerBoolConversionError)": lambda x: x if x.sum() > 0 else -x,
    "(TracerArrayConversionError)": lambda x: np.tanh(np.asarray(x)),
}


@pytest.mark.parametrize("name", OPAQUE)
@pytest.mark.parametrize("inside", [False, True])
def test_what_is_opaque_is_refused_by_name(name: str, inside: bool) -> None:
    def function(x: Any) -> Any:
        return lax.map(OPAQUE[name], x[None]) if inside else OPAQUE[name](x)

    with jax.enable_x64(True), pytest.raises(UnsupportedError) as refused:
        Perturbed(function, X)
    assert name in str(refused.value)
