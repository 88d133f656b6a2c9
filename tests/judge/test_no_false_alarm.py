"""A right gradient is never accused: it agrees, or it is inconclusive and the report says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gradwitness as gw
from tests.judge.cases import Case, abs_sign, each, max_plus, normal, numpy_gradient, power, scattered, torch_rule

AGREE = ("agree",)
QUIET = ("agree", "inconclusive")  # where differences cannot tell
COARSE = "too coarse"
STAIRCASE = "below a step of 1e-7 the loss is another function"
NOTHING_LEADS = "nothing leads to the loss"


def of_x(f: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda p, b: f(p["x"])


def elementwise(backend: str, f: Callable[[Any], Any], x: Any, dtypes: Any = "float64", **expected: Any) -> Case:
    """A function of an array x, weighed at random."""
    how = {"cotangent": "random", "dtypes": dtypes}
    return Case({backend: of_x(f)}, {"x": np.array(x)}, how=how, **({"verdicts": AGREE} | expected))


# Subnormal numbers may be lost

SUBNORMAL = {
    "silu of torch": elementwise("torch", F.silu, [-100.0, 0.5, 1.0], "float32"),
    "x sigmoid(x) of torch": elementwise("torch", lambda x: x * torch.sigmoid(x), [-100.0, 0.5, 1.0], "float32"),
    "silu of torch, in the middle": elementwise("torch", F.silu, [0.3, -101.5, 2.0, -99.0], "float32"),
    "silu of jax": elementwise("jax", jax.nn.silu, [-100.0, 0.5, 1.0], "float32", verdicts=QUIET),
    "silu of torch, float64": elementwise("torch", F.silu, [-745.0, -740.0, 0.3]),
}


# A loss that computes in float32 inside


def attention(p: Any, b: Any) -> Any:
    scores = torch.softmax((p["q"] @ p["k"].T).float(), -1).to(p["v"].dtype)
    return scores @ p["v"]


def rms_norm(p: Any, b: Any) -> Any:
    x = p["x"].to(torch.float32)
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
    return p["w"] * x.to(p["x"].dtype)


def jax_attention(p: Any, b: Any) -> Any:
    return jax.nn.dot_product_attention(p["q"], p["k"], p["v"], is_causal=True)


def cast_in_jax(p: Any, b: Any) -> Any:
    return jax.nn.softmax((b["x"] @ p["w"]).astype(jnp.float32)).astype(p["w"].dtype) @ p["v"]


BOTH: dict[str, Any] = {"cotangent": "random", "dtypes": ("float64", "float32")}
WIDE: dict[str, Any] = BOTH | {"dtypes": "float64"}


def inside(backend: str, loss: Any, seed: int, how: Any = BOTH, **shapes: tuple[int, ...]) -> Case:
    rng = np.random.default_rng(seed)
    params = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return Case({backend: loss}, params, {"x": normal(9, 6, 3)}, verdicts=QUIET, how=how)


IN_FLOAT32 = {
    **{f"attention of torch {n}": inside("torch", attention, n, q=(4, 3), k=(5, 3), v=(5, 2)) for n in range(3)},
    "attention of jax": inside("jax", jax_attention, 5, WIDE, q=(1, 4, 2, 3), k=(1, 4, 2, 3), v=(1, 4, 2, 3)),
    "softmax of jax": inside("jax", cast_in_jax, 2, WIDE, w=(3, 4), v=(4, 2)),
} | {
    f"RMS norm of torch {n}": Case(
        {"torch": rms_norm}, {"x": normal(n, 4, 3), "w": normal(n + 9, 3)}, verdicts=QUIET, how=BOTH
    )
    for n in range(3)
}


def tanh_in(dtype: Any) -> Callable[[Any, Any], Any]:
    """A layer in less than float32, as mixed precision has it."""

    def loss(p: Any, b: Any) -> Any:
        h = torch.tanh(b["x"].to(dtype) @ p["w"].to(dtype)).to(p["v"].dtype)
        return (h @ p["v"]).square().mean()

    return loss


def jax_tanh_in_bfloat16(p: Any, b: Any) -> Any:
    h = jnp.tanh(b["x"].astype(jnp.bfloat16) @ p["w"].astype(jnp.bfloat16)).astype(p["v"].dtype)
    return ((h @ p["v"]) ** 2).mean()


def rounded(dtype: Any) -> Callable[[Any], Any]:
    return lambda x: x.to(dtype).to(x.dtype) ** 2


IN_LESS = {
    **{
        f"tanh of torch, {name}": replace(inside("torch", tanh_in(dtype), 0, w=(3, 4), v=(4, 2)), how={})
        for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16))
    },
    "tanh of jax, bfloat16": replace(inside("jax", jax_tanh_in_bfloat16, 0, w=(3, 4), v=(4, 2)), how={}),
    "a square of torch, bfloat16": Case(
        {"torch": of_x(rounded(torch.bfloat16))},
        {"x": normal(0, 6)},
        verdicts=QUIET,
        how={"cotangent": "random"},
    ),
    "a square of torch, float16": elementwise("torch", rounded(torch.float16), normal(0, 6), verdicts=QUIET),
}


# An iteration that stops is a staircase; its exact gradient is right


class Center(torch.autograd.Function):
    """x - tau, whose sum is 0: tau by 25 halvings of [max - 10, max]."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        low = x.max() - 10
        step = torch.full_like(low, 10.0)
        for _ in range(25):
            step = step / 2
            low = torch.where((x - (low + step)).sum() >= 0, low + step, low)
        return x - low

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0] - g[0].mean()


class Entmax(torch.autograd.Function):
    """Sparse probabilities, 1.5-entmax, by bisection (Peters, Niculae & Martins 2019, algorithm 1)."""

    @staticmethod
    def forward(ctx: Any, x: Any, halvings: int) -> Any:
        x = x / 2
        low = x.max(-1, keepdim=True)[0] - 1
        step = 1 - x.shape[-1] ** -0.5
        for _ in range(halvings):
            step = step / 2
            total = ((x - low - step).clamp(min=0) ** 2).sum(-1, keepdim=True)
            low = torch.where(total >= 1, low + step, low)
        p = (x - low).clamp(min=0) ** 2
        p = p / p.sum(-1, keepdim=True)
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        s = ctx.saved_tensors[0].sqrt()
        d = g[0] * s
        return d - s * (d.sum(-1, keepdim=True) / s.sum(-1, keepdim=True)), None


def entmax(halvings: int, seed: int, dtype: str) -> Case:
    rule: Any = Entmax
    return elementwise("torch", lambda x: rule.apply(x, halvings), normal(seed, 4, 6), dtype, verdicts=QUIET)


def jax_center(x: Any) -> Any:
    low, step = x.max() - 10, 10.0
    for _ in range(25):
        step = step / 2
        low = jnp.where((x - (low + step)).sum() >= 0, low + step, low)
    return x - low


JAX_CENTER = jax.custom_vjp(jax_center)
JAX_CENTER.defvjp(lambda x: (jax_center(x), None), lambda _, g: (g - g.mean(),))


def rounded_root(x: Any) -> Any:
    """sqrt by bisection, stopped at 2^-24."""
    low, high = np.zeros(x.shape), np.full(x.shape, 4.0)
    for _ in range(26):
        middle = (low + high) / 2
        low, high = np.where(middle**2 <= x, middle, low), np.where(middle**2 <= x, high, middle)
    return low


def iteration(backend: str, f: Callable[[Any], Any], seed: int, dtype: str = "float64") -> Case:
    return elementwise(backend, f, normal(seed, 6), dtype, verdicts=["inconclusive"], says=STAIRCASE)


CENTER: Any = Center
ITERATIONS = {
    **{
        f"bisection of torch {n}, {dtype}": iteration("torch", CENTER.apply, n, dtype)
        for n, dtype in ((0, "float64"), (0, "float32"), (6, "float64"))
    },
    **{f"bisection of torch {n}": iteration("torch", CENTER.apply, n) for n in (4, 7)},
    "bisection of jax": iteration("jax", JAX_CENTER, 1),
    **{f"entmax by {n} halvings, {dtype}": entmax(n, 0, dtype) for n, dtype in ((40, "float64"), (30, "float32"))},
    **{f"entmax by 25 halvings, {dtype}": entmax(25, 0, dtype) for dtype in ("float64", "float32")},
    "entmax by 15 halvings, float64": entmax(15, 0, "float64"),
    "sqrt by bisection, by hand": Case(
        numpy_gradient(lambda p, b: rounded_root(p["x"]).sum(), lambda p, b: {"x": 0.5 / np.sqrt(p["x"])}),
        {"x": np.array([0.3, 1.7, 2.9])},
        verdicts=QUIET,
    ),
}


# Elements of one leaf of very different sizes

MIXED = {
    "a kink beside 700": elementwise("torch", lambda x: 1 / (1 + x.abs()), [1e-10, 700.0]),
    "a kink beside 700, jax": elementwise("jax", lambda x: 1 / (1 + jnp.abs(x)), [1e-10, 700.0]),
    "a kink beside 1e6, in the middle": elementwise(
        "torch", lambda x: 1 / (1 + x.abs()), [3.0, -1e-7, 1e6], verdicts=QUIET
    ),
    "flat at 0": elementwise(
        "torch",
        lambda x: torch.where(x > 0, torch.exp(-1 / x.clamp_min(1e-300)), 0 * x),
        [5.0, 1e10, 0.0],
        verdicts=QUIET,
    ),
    "sigmoid beside 1e8": elementwise("torch", torch.sigmoid, [0.3, 1e8, -2.0]),
    "sigmoid beside 1e8, jax": elementwise("jax", jax.nn.sigmoid, [0.3, 1e8, -2.0]),
    "log at 1e-6": elementwise("torch", torch.log, [1e-6, 1.0]),
    "log at 1e-6, by hand": Case(
        numpy_gradient(lambda p, b: np.log(p["x"]).sum(), lambda p, b: {"x": 1 / p["x"]}),
        {"x": np.array([1.0, 1e-6])},
        verdicts=AGREE,
    ),
    "relu at 1e-6 beside 500": elementwise("torch", torch.relu, [1e-6, 500.0, 3.0]),
    "softplus beside 1e7": elementwise("torch", F.softplus, [1.0, -2.0, 1e7]),
    "softplus beside 1e7, jax": elementwise("jax", jax.nn.softplus, [1.0, -2.0, 1e7]),
}


# What a compiler simplifies is neither memory nor randomness


def log_exp(p: Any, b: Any) -> Any:
    return jnp.log(jnp.exp(p["x"])).sum()


REWRITTEN = {
    f"log(exp(x)), {path or 'plain'}, {x}": Case(
        gw.Candidate("jax", log_exp, path=path), {"x": np.array(x)}, verdicts=QUIET, how={"dtypes": "float32"}
    )
    for path, x in [(None, [88.0, 0.3]), ("jax.jit(grad)", [88.0, 0.3]), (None, [0.3, 1.2, 87.5])]
}


# Long sums in float32


def variance(p: Any, b: Any) -> Any:
    return (b["x"] * p["w"]).var()


def spread(p: Any, b: Any) -> Any:
    return ((b["x"] * p["w"]) ** 2).mean() - (b["x"] * p["w"]).mean() ** 2


SUMS = {
    f"{name} of jax, {size} numbers, {seed}": Case(
        {"jax": loss}, {"w": np.array(0.5)}, {"x": normal(seed, size) + 1000}, verdicts=QUIET, how={"dtypes": "float32"}
    )
    for name, loss, size, seed in [
        ("variance", variance, 300_000, 2),
        ("variance", variance, 300_000, 3),
        ("spread", spread, 100_000, 1),
    ]
}


# Structure that is finer than steps


def logistic_map(p: Any, b: Any) -> Any:
    x = p["x"]
    for _ in range(60):
        x = p["r"] * x * (1 - x)
    return x.sum()


def jax_logistic_map(p: Any, b: Any) -> Any:
    return jax.lax.scan(lambda x, _: (p["r"] * x * (1 - x), None), p["x"], length=60)[0].sum()


def solved(p: Any, b: Any) -> Any:
    return torch.linalg.solve(p["A"], p["B"]).pow(2).sum()


def eigenvector(p: Any, b: Any) -> Any:
    first = torch.linalg.eigh((p["A"] + p["A"].T) / 2)[1].abs()[:, 0]
    return (first * b["v"]).sum()


HILBERT = 1 / (np.arange(8)[:, None] + np.arange(8) + 1.0)
FINE = {
    "1 / x at 1e-12": elementwise("torch", lambda x: 1 / x, [1e-12, 1.0, 2.0]),
    "1 / x at 1e-12, jax": elementwise("jax", lambda x: 1 / x, [1.0, 1e-12, 2.0]),
    "cube root at 1e-12": elementwise("torch", lambda x: x.abs() ** (1 / 3), [1e-12, 0.5, 1.0]),
    "sigmoid(1e12 x)": elementwise("torch", lambda x: torch.sigmoid(1e12 * x), [1e-13, 2e-13, 1.0]),
    "sigmoid(1e12 x), jax": elementwise("jax", lambda x: jax.nn.sigmoid(1e12 * x), [1e-13, 2e-13, 1.0]),
    "60 steps of the logistic map": Case(
        {"torch": logistic_map},
        {"x": np.array([0.3, 0.4]), "r": np.array(3.9)},
        verdicts=["inconclusive"],
        says="noisy",
    ),
    "60 steps of the logistic map, jax": Case(
        {"jax": jax_logistic_map},
        {"x": np.array([0.3, 0.4]), "r": np.array(3.9)},
        verdicts=["inconclusive"],
        says="noisy",
    ),
    "solve by a Hilbert matrix": Case({"torch": solved}, {"A": HILBERT, "B": normal(1, 8, 1)}, verdicts=QUIET),
    "an eigenvector beside a small gap": Case(
        {"torch": eigenvector},
        {"A": np.diag([1, 1 + 1e-6, 3, 4, 5.0]) + 1e-9 * normal(1, 5, 5)},
        {"v": normal(2, 5)},
        verdicts=QUIET,
    ),
}


# Waves that long steps skip, or that rounding hides from short ones


def in_float32(rate: float) -> Callable[[Any, Any], Any]:
    return lambda p, b: torch.sin(rate * p["w"].float()).sum().to(p["w"].dtype)


def rippled(rate: float) -> Callable[[Any, Any], Any]:
    return lambda p, b: (p["w"] ** 2 + torch.sin(rate * p["w"]) / rate).sum()


WAVES = {
    f"{name}, {size} elements, {seed}": Case({"torch": loss}, {"w": normal(seed, size)}, verdicts=QUIET)
    for name, loss, size, seed in [
        *((f"sin({10**e:.0f} w) in float32", in_float32(10**e), 6, n) for e in (3, 4.5, 5, 5.5, 6) for n in (1, 2)),
        *((f"w^2 + sin({rate:g} w) / {rate:g}", rippled(rate), 1, 0) for rate in (1e8, 1e9, 1e10, 1e11)),
        *((f"w^2 + sin({rate:g} w) / {rate:g}", rippled(rate), 6, 2) for rate in (1e9, 1e10, 1e11)),
    ]
}


# A loss that underflows


UNDERFLOW = {
    f"{backend}, power {n}": Case(
        {"mine": gw.Candidate(backend, power(n), gradient=lambda p, b, n=n: {"w": n * p["w"] ** (n - 1)})},
        {"w": size * np.array([1.0, 2.0])},
        verdicts=["inconclusive"],
        says=COARSE,
    )
    for backend, n, size in [
        ("numpy", 2, 1e-160),
        ("torch", 2, 1e-160),
        ("numpy", 3, 1e-107),
        ("torch", 4, 1e-80),
        ("jax", 4, 1e-80),
        ("jax", 2, 1e-160),
    ]
}


# A loss that does not move has a gradient of 0

CONSTANT = {
    "softmax": elementwise("torch", lambda x: torch.softmax(x, 0), [200.0, 0.0, 3.0]),
    "softmax of jax": elementwise("jax", jax.nn.softmax, [0.0, 200.0, 3.0]),
    "sigmoid": elementwise("torch", torch.sigmoid, [400.0, -900.0]),
    "sigmoid of jax": elementwise("jax", jax.nn.sigmoid, [400.0, -900.0]),
    "a stationary point": elementwise("torch", lambda x: (x * x).sum() + 1, [0.0, 0.0]),
    "a stationary point of jax": elementwise("jax", lambda x: jnp.cos(x), [0.0, 0.0]),
    "a stationary point by hand": Case(
        numpy_gradient(lambda p, b: np.sum(p["x"] ** 2) + 1, lambda p, b: {"x": 2 * p["x"]}),
        {"x": np.zeros(3)},
        verdicts=AGREE,
    ),
    "cos": elementwise("torch", torch.cos, [0.0, 0.0]),
}


# Parameters that nothing leads to


def squared_error(p: Any, b: Any) -> Any:
    return ((b["x"] @ p["w"].T - b["y"]) ** 2).mean()


def unused(loss: Any, backend: str, **expected: Any) -> Case:
    params = {"w": normal(1, 4, 3), "b": normal(2, 4)}
    batch = {"c": normal(3, 8), "x": normal(4, 8, 3), "y": normal(5, 8, 4)}
    return Case({backend: loss}, params, batch, **({"verdicts": AGREE, "says": NOTHING_LEADS} | expected))


UNUSED = {
    "torch, none is used": unused(lambda p, b: -F.logsigmoid(b["c"]).mean(), "torch"),
    "torch, one is multiplied by 0": unused(lambda p, b: -F.logsigmoid(b["c"]).mean() + 0 * p["w"].sum(), "torch"),
    "torch, one is not used": unused(squared_error, "torch", says=""),
    "jax, none is used": unused(lambda p, b: -jax.nn.log_sigmoid(b["c"]).mean(), "jax"),
    "jax, one is not used": unused(squared_error, "jax", says=""),
}


# Whole numbers in floats are not cut off as others, and who was the maximum is decided as it was


BOTH_DTYPES = ("float64", "float32")


def binned(x: Any) -> Any:
    """Weighed by the number of a bin."""
    bins = torch.floor(x.detach() * 2).to(torch.int64)
    return x * bins.to(x.dtype)


DECIDED = {
    "signs in 8 bits": elementwise("torch", abs_sign, [-1.7, -0.9, -0.4, 0.2, 0.8, 1.6], BOTH_DTYPES),
    "bins": elementwise("torch", binned, [-1.7, 0.9, 2.3], BOTH_DTYPES),
    "max-plus": Case(
        {"torch": max_plus()},
        {"a": normal(0, 3, 4), "b": normal(1, 4, 5)},
        verdicts=AGREE,
        how={"cotangent": "random", "dtypes": BOTH_DTYPES},
    ),
    "scatter amax": elementwise("torch", lambda x: scattered(x, "amax"), normal(2, 6, 2), BOTH_DTYPES),
    "scatter amin": elementwise("torch", lambda x: scattered(x, "amin"), normal(3, 6, 2), BOTH_DTYPES),
}

KINDS = {
    "subnormal elements": SUBNORMAL,
    "float32 inside": IN_FLOAT32,
    "less than float32 inside": IN_LESS,
    "an iteration": ITERATIONS,
    "elements of many sizes": MIXED,
    "a compiler's rewrite": REWRITTEN,
    "a long sum": SUMS,
    "fine structure": FINE,
    "waves": WAVES,
    "underflow": UNDERFLOW,
    "a loss that does not move": CONSTANT,
    "parameters that are not used": UNUSED,
    "decided by equality": DECIDED,
}


@each(KINDS)
def test_a_right_gradient_is_not_accused(case: Case) -> None:
    report = case.report()
    assert case.holds(report), repr(report)
    doubted = [row for row in case.rows(report) if str(row.verdict) == "inconclusive"]
    assert all(row.message for row in doubted), "each says why"
    assert bool(report) == (not doubted and bool(report.rows)), repr(report)


HILL_OFF = torch_rule(lambda x: 1 / (1 + x.abs()), lambda x: -1.01 * x.sign() / (1 + x.abs()) ** 2)
SIGMOID_OFF = torch_rule(torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x) * 1.01)
SILU_OFF = torch_rule(F.silu, lambda x: 1.01 * torch.sigmoid(x) * (1 + x * torch.sigmoid(-x)))
TWINS = {
    name: replace(case, candidates={"torch": of_x(wrong)}, verdicts=("disagree",), says="")
    for name, case, wrong in [
        ("sigmoid beside 1e8", MIXED["sigmoid beside 1e8"], SIGMOID_OFF),
        ("silu at -100", SUBNORMAL["silu of torch"], SILU_OFF),
        ("a kink beside 700", MIXED["a kink beside 700"], HILL_OFF),
    ]
}


@pytest.mark.parametrize("case", TWINS.values(), ids=TWINS)
def test_what_is_forgiven_a_right_gradient_is_not_forgiven_a_wrong_one(case: Case) -> None:
    assert case.holds(case.report())


@pytest.mark.parametrize("step", [1e-1, 1e-3, 1e-5])
def test_the_zeros_of_a_true_staircase_are_not_accused(step: float) -> None:
    """Rounding to multiples of a step: its derivative is 0 on each tread, and 1 by steps that are longer."""

    def rounded_to(p: Any, b: Any) -> Any:
        return (torch.round(p["w"] / step) * step).sum()

    report = gw.verify(gw.Candidate("torch", rounded_to), {"w": normal(0, 6)}, dtypes="float64")
    assert {str(row.verdict) for row in report.rows} <= {"agree", "inconclusive"}, repr(report)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(4))
def test_a_loss_that_ends_in_sixteen_bits_is_not_accused(seed: int, dtype: Any) -> None:
    draw = np.random.default_rng(seed).standard_normal

    def loss(p: Any, b: Any) -> Any:
        return (torch.tanh(b["x"] @ p["w"]) ** 2).mean().to(dtype)

    report = gw.verify(gw.Candidate("torch", loss), {"w": draw((6, 3))}, {"x": draw((20, 6))}, dtypes="float64")
    assert {str(row.verdict) for row in report.rows} <= {"agree", "inconclusive"}, repr(report)
