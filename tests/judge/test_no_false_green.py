"""A wrong gradient is not accepted, whatever its point, its rule or its neighbours hide of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import gradwitness as gw
from tests.judge.cases import (
    RULES,
    Case,
    W,
    each,
    expect_refused,
    jax_rule,
    logistic,
    max_plus,
    normal,
    numpy_gradient,
    power,
    squares,
    summed,
    torch_rule,
)

# Of two answers to one question, both are looked at


def mean_square(p: Any, b: Any) -> Any:
    return (p["w"] ** 2).mean()


def logged(change: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """The gradient of mean_square beside another value."""
    return lambda p, b: (change(p["w"]), {"w": 2 * p["w"] / 3})


VALUES = {
    f"{backend}, {name}": Case(
        {"mine": gw.Candidate(backend, mean_square, value_and_gradient=logged(change))},
        {"w": np.arange(1.0, 4)},
        verdicts=["different-loss"],
        says="value_and_gradient gives a loss",
    )
    for backend in ("numpy", "torch", "jax")
    for name, change in {
        "the sum for the mean": lambda w: (w**2).sum(),
        "off by a constant": lambda w: (w**2).mean() + 1e-3,
    }.items()
}


# A backward that is wrong only at one point is wrong there


def skipped(value: float) -> Callable[[Any, Any], Any]:
    def gradient(p: Any, b: Any) -> Any:
        return {"w": np.where(p["w"] == value, 0.0, 3 * p["w"] ** 2)}

    return gradient


CUBES = {
    "torch": torch_rule(lambda x: x**3, lambda x: torch.where(x == 1.0, 0.0, 3 * x * x)),
    "jax": jax_rule(lambda x: x**3, lambda x: jnp.where(x == 1.0, 0.0, 3 * x * x)),
}
SINE = torch_rule(torch.sin, lambda x: torch.where(x == 0, 0.0, torch.cos(x)))
SPECIAL = {
    f"cube of {backend} at 1, {dtype}": Case(
        {backend: summed(CUBES[backend], "w")}, {"w": np.array([1.0, 2.0, 0.5])}, how={"dtypes": dtype}
    )
    for backend in CUBES
    for dtype in ("float64", "float32")
} | {
    "cube by hand at 2": Case(
        numpy_gradient(power(3), skipped(2.0)), {"w": np.array([1.0, 2.0, 0.5])}, how={"dtypes": "float64"}
    ),
    "det of torch at a singular matrix": Case(
        {"torch": lambda p, b: torch.linalg.det(p["w"])},
        {"w": np.array([[1.0, 2.0], [2.0, 4.0]])},
        how={"dtypes": "float64"},
    ),
    "sine of torch at 0": Case(
        {"torch": summed(SINE, "w")},
        {"w": np.array([0.0, 1.0, -2.0])},
        how={"dtypes": "float64"},
    ),
}


# Where the loss stays as it is, a gradient other than 0 is wrong, however small


def saturated(f: Callable[[Any], Any], backend: str, x: list[float], slope: float) -> Case:
    rule = RULES[backend](f, lambda x: 0 * x + slope)
    return Case({backend: lambda p, b: rule(p["x"]).sum()}, {"x": np.array(x)}, how={"dtypes": "float64"})


CONSTANT = {
    "sigmoid of torch": saturated(torch.sigmoid, "torch", [400.0, -900.0], 1e-9),
    "sigmoid of jax": saturated(jax.nn.sigmoid, "jax", [400.0, -900.0], 1e-6),
    "softmax of torch": saturated(lambda x: torch.softmax(x, 0), "torch", [200.0, 0.0, 3.0], 1e-3),
    "softmax of jax": saturated(lambda x: jax.nn.softmax(x), "jax", [200.0, 0.0, 3.0], 1e-6),
    "a stationary point of torch": saturated(lambda x: x * x + 1, "torch", [0.0, 0.0], 1e-9),
    "a stationary point by hand": Case(
        numpy_gradient(lambda p, b: np.cos(p["x"]).sum(), lambda p, b: {"x": p["x"] * 0 + 1.0}),
        {"x": np.zeros(2)},
        how={"dtypes": "float64"},
    ),
}


# Elements of very different sizes are each seen


def one_wrong(f: Callable[[Any], Any], slope: Callable[[Any], Any], x: list[float], place: int) -> Case:
    def gradient(p: Any, b: Any) -> Any:
        d = slope(p["x"])
        d[place] *= 1.01
        return {"x": d}

    return Case(numpy_gradient(lambda p, b: f(p["x"]).sum(), gradient), {"x": np.array(x)}, how={"dtypes": "float64"})


MIXED = {
    "sigmoid beside 1e8": one_wrong(logistic, lambda x: logistic(x) * (1 - logistic(x)), [0.3, 1e8, -2.0], 0),
    "log at 1e-6": one_wrong(np.log, lambda x: 1 / x, [1e-6, 1.0], 0),
    "log at 1, beside 1e-6": one_wrong(np.log, lambda x: 1 / x, [1e-6, 1.0], 1),
    "softplus beside 1e7": one_wrong(lambda x: np.logaddexp(0, x), logistic, [1.0, -2.0, 1e7], 1),
}


# A backward that compares, or is differentiated again


COMPARED = {
    f"max-plus off by {off:g}": Case(
        {"torch": max_plus(1 + off)},
        {"a": normal(0, 3, 4), "b": normal(1, 4, 5)},
        how={"cotangent": "random", "dtypes": "float64"},
    )
    for off in (2e-6, -1e-7, 1e-4)
}


class Soft(torch.autograd.Function):
    """silu, with an intermediate kept as it is: the first derivative is right, and no path leads to the second."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.e = torch.exp(-x)
        return x / (1 + ctx.e)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        s = 1 / (1 + ctx.e)
        return g[0] * (s - torch.log(ctx.e) * s * (1 - s))


def penalty(p: Any, b: Any) -> Any:
    x = b["x"].detach().clone().requires_grad_()
    soft: Any = Soft
    out = (soft.apply(x @ p["w1"]) @ p["w2"])[:, 0]
    (g,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    return out.mean() + ((g.norm(dim=1) - 1) ** 2).mean()


TWICE = {
    "a penalty on the gradient": Case(
        {"torch": penalty}, {"w1": normal(3, 3, 5), "w2": normal(4, 5, 1)}, {"x": normal(5, 6, 3)}, leaves=["w1"]
    )
}


# NaN is NaN, whatever the other elements do


def shaken(p: Any, b: Any) -> Any:
    """A gradient whose last bits are others each time, and of which one element is NaN."""
    d = 2 * p["w"] * (1 + 1e-16 * np.random.default_rng().standard_normal(p["w"].shape))
    d[1] = np.nan
    return {"w": d}


def spence(x: list[float]) -> Case:
    return Case(
        {"jax": lambda p, b: jax.scipy.special.spence(p["x"])},
        {"x": np.array(x)},
        verdicts=["nonfinite"],
        how={"cotangent": "random", "dtypes": "float64"},
    )


NAN = {
    "spence of jax alone": spence([1.2]),
    "spence of jax beside others": spence([0.3, 1.2, 2.7, 5.0]),
    "by hand, beside bits that are others each time": Case(numpy_gradient(squares, shaken), W, verdicts=["nonfinite"]),
    "sqrt of torch at 0, times 0": Case(
        {"torch": lambda p, b: (torch.sqrt(p["w"]) * torch.tensor([0.0, 1.0, 2.0], dtype=p["w"].dtype)).sum()},
        {"w": np.array([0.0, 1.0, 2.0])},
        verdicts=["nonfinite"],
    ),
}

KINDS = {
    "a value beside a gradient": VALUES,
    "a point of its own": SPECIAL,
    "a loss that does not move": CONSTANT,
    "elements of many sizes": MIXED,
    "a backward that compares": COMPARED,
    "differentiated twice": TWICE,
    "NaN": NAN,
}


@each(KINDS)
def test_a_wrong_gradient_is_not_accepted(case: Case) -> None:
    expect_refused(case)
