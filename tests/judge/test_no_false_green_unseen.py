"""A wrong gradient is not accepted where rounding or coarse differences may hide it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gradwitness as gw
from tests.judge.cases import (
    DOUBT,
    RULES,
    Case,
    W,
    each,
    expect_refused,
    jax_rule,
    normal,
    numpy_gradient,
    power,
    squares,
    summed,
    torch_rule,
)

# What the gradient rounds is no excuse for its formula


def lossy(factor: float, lost: float) -> Callable[[Any], Any]:
    """2 x times a factor, with most of its digits cancelled."""
    return lambda x: (2 * factor * x + lost * x) - lost * x


def lossy_by_hand(backend: str, factor: float, lost: float) -> dict[str, gw.Candidate]:
    slope = lossy(factor, lost)
    return {"mine": gw.Candidate(backend, squares, gradient=lambda p, b: {"w": slope(p["w"])})}


CANCELLED = {
    f"{backend}, {factor} times": Case(lossy_by_hand(backend, factor, lost), W, verdicts=DOUBT)
    for backend, factor, lost in [("torch", 1.1, 1e14), ("numpy", 1.3, 3e14), ("torch", 1.5, 5e14), ("jax", 1.4, 4e14)]
} | {
    f"a rule of {backend}": Case(
        {backend: summed(rule(lambda x: x**2, lossy(1.3, 3e14)), "w")},
        W | {"v": normal(2, 3)},
        leaves=["w"],
        verdicts=DOUBT,
    )
    for backend, rule in RULES.items()
}


# Nor is what the dtype rounds


def silu_slope(sigmoid: Callable[[Any], Any], factor: float) -> Callable[[Any], Any]:
    return lambda x: factor * sigmoid(x) * (1 + x * (1 - sigmoid(x)))


def layer(f: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda p, b: (f(b["x"] @ p["w"].T) * b["c"]).mean()


LAYER: dict[str, Any] = {
    "params": {"w": normal(0, 8, 6)},
    "batch": {"x": normal(1, 16, 6), "c": normal(2, 16, 8)},
}
OFF: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "silu of torch, 1.05 times": (
        "torch",
        torch_rule(lambda x: x * torch.sigmoid(x), silu_slope(torch.sigmoid, 1.05)),
    ),
    "cube of torch, 3.06 for 3": ("torch", torch_rule(lambda x: x**3, lambda x: 3.06 * x**2)),
    "cube of jax, 3.06 for 3": ("jax", jax_rule(lambda x: x**3, lambda x: 3.06 * x**2)),
    "silu of jax, 1.05 times": (
        "jax",
        jax_rule(lambda x: x * jax.nn.sigmoid(x), silu_slope(jax.nn.sigmoid, 1.05)),
    ),
}


def by_hand(p: Any, b: Any) -> Any:
    h = torch.tanh(b["x"] @ p["w"].T)
    return {"w": 1.05 * ((1 - h * h) * b["c"] / h.numel()).T @ b["x"]}


NARROW = {
    f"{name}, {dtype}": Case({backend: layer(f)}, **LAYER, how={"dtypes": dtype})
    for name, (backend, f) in OFF.items()
    for dtype in ("bfloat16", "float16")
} | {
    f"tanh of torch by hand, {dtype}": Case(
        {"torch": gw.Candidate("torch", layer(torch.tanh), gradient=by_hand)}, **LAYER, how={"dtypes": dtype}
    )
    for dtype in ("bfloat16", "float16")
}


# Nor what moved inputs would change


def centred(f: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """Of data that are far from their mean of 0: pixels, years."""

    def loss(p: Any, b: Any) -> Any:
        return (((b["x"] - b["x"].mean(0)) @ f(p["w"])) ** 2).mean()

    return loss


def centred_by_hand(p: Any, b: Any) -> Any:
    c = b["x"] - b["x"].mean(0)
    return {"w": (1 + 1e-4) * 2 * c.T @ (c @ p["w"]) / len(c)}


def torch_gelu_slope(x: Any) -> Any:
    """tanh's, behind an exact gelu."""
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        return torch.autograd.grad(F.gelu(y, approximate="tanh").sum(), y)[0]


def jax_gelu_slope(x: Any) -> Any:
    return jax.grad(lambda y: jax.nn.gelu(y, approximate=True).sum())(x)


def torch_layers(p: Any, b: Any) -> Any:
    gelu = torch_rule(F.gelu, torch_gelu_slope)
    return ((gelu(F.layer_norm(b["x"], (8,)) @ p["w"]) @ p["v"]) ** 2).mean()


JAX_GELU = jax_rule(lambda x: jax.nn.gelu(x, approximate=False), jax_gelu_slope)


def jax_layers(p: Any, b: Any) -> Any:
    x = b["x"] - b["x"].mean(-1, keepdims=True)
    x = x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return ((JAX_GELU(x @ p["w"]) @ p["v"]) ** 2).mean()


FAR: dict[str, Any] = {
    "params": {"w": normal(7, 3)},
    "batch": {"x": 2000 + normal(8, 64, 3)},
    "how": {"dtypes": "float32"},
}
DEEP: dict[str, Any] = {
    "params": {"w": normal(3, 8, 8) / 3, "v": normal(4, 8, 4) / 3},
    "batch": {"x": 1000 + normal(5, 64, 8)},
    "how": {"dtypes": "float32"},
}
ILL_CONDITIONED = {
    "torch, off by 1e-4": Case({"torch": centred(torch_rule(torch.clone, lambda x: 1 + 1e-4 + 0 * x))}, **FAR),
    "jax, off by 1e-4": Case({"jax": centred(jax_rule(lambda x: 1 * x, lambda x: 1 + 1e-4 + 0 * x))}, **FAR),
    "by hand, off by 1e-4": Case(numpy_gradient(centred(lambda w: w), centred_by_hand), **FAR),
    "torch, gelu of tanh behind an exact one": Case({"torch": torch_layers}, **DEEP, leaves=["w"]),
    "jax, gelu of tanh behind an exact one": Case({"jax": jax_layers}, **DEEP, leaves=["w"]),
}


# A leaf that differences cannot see is not 0 by structure


def beside(offset: float, slope: float, xp: Any) -> Callable[[Any, Any], Any]:
    return lambda p, b: offset + xp.sum(p["a"]) + slope * xp.sin(p["b"])[0]


def forgotten(p: Any, b: Any) -> Any:
    return {"a": p["a"] * 0 + 1}


def zeroed(p: Any, b: Any) -> Any:
    return {"a": p["a"] * 0 + 1, "b": p["b"] * 0}


def in_float32(p: Any, b: Any) -> float:
    """A loss that computes in float32 inside."""
    f = np.float32
    z = b["x"].astype(f) @ p["w"].astype(f)
    return float(f(np.mean(z**2) + f(1e-4) * np.sum(p["c"].astype(f))))


def without_bias(p: Any, b: Any) -> Any:
    return {"w": 2 * b["x"].T @ (b["x"] @ p["w"]) / 16}


LEAVES = {"a": np.array([0.3, 0.7]), "b": np.array([0.5])}
BELIEVED = {
    f"{backend}, slope {slope} beside {offset:g} {given.__name__}": Case(
        {"mine": gw.Candidate(backend, beside(offset, slope, xp), gradient=given)},
        LEAVES,
        leaves=["b"],
        verdicts=DOUBT | {"missing"},
    )
    for backend, xp, slope, offset, given in [
        ("numpy", np, 3e-3, 1e9, forgotten),
        ("numpy", np, 1e-3, 3e8, zeroed),
        ("torch", torch, 3e-3, 1e9, zeroed),
        ("jax", jnp, 3e-3, 1e9, forgotten),
    ]
} | {
    "numpy, float32 inside": Case(
        numpy_gradient(in_float32, without_bias),
        {"w": 10 * normal(1, 3, 2), "c": np.ones(2)},
        {"x": normal(2, 8, 3)},
        leaves=["c"],
        verdicts=DOUBT | {"missing"},
        how={"dtypes": "float32"},
    )
}


# Nor has an element any sign, if its leaf is seen


def lifted(xp: Any) -> Callable[[Any, Any], Any]:
    """One element leads, and the others drown in what a large loss rounds."""
    return lambda p, b: 1e9 + p["x"][0] + 1e-4 * xp.sum(xp.sin(p["x"][1:]))


def wrong_signs(p: Any, b: Any) -> Any:
    d = -1e-4 * np.cos(np.asarray(p["x"]))
    d[0] = 1
    return {"x": d}


def relu_beside(slope: float) -> Any:
    def gradient(p: Any, b: Any) -> Any:
        d = 2 * p["x"] + (p["x"] > 0)
        d[0] = slope
        return {"x": d}

    return numpy_gradient(lambda p, b: np.sum(p["x"] ** 2 + np.maximum(p["x"], 0)), gradient)


def at_zero(size: int = 32) -> Any:
    x = np.full(size, 100.0)
    x[0] = 0
    return {"x": x}


SMALL = {
    f"{backend}, drowned, point {seed}": Case(
        {"mine": gw.Candidate(backend, lifted(xp), gradient=wrong_signs)}, {"x": normal(seed, 16)}, verdicts=DOUBT
    )
    for backend, xp, seed in [("numpy", np, 0), ("numpy", np, 5), ("torch", torch, 3), ("jax", jnp, 7)]
} | {
    f"relu at 0 given {slope}": Case(relu_beside(slope), at_zero(size), verdicts=DOUBT)
    for slope, size in [(2.0, 32), (-1.0, 32), (2.0, 200)]
}


# Differences of 0 where the loss underflows vouch for nothing


def zero(p: Any, b: Any) -> Any:
    return {"w": p["w"] * 0}


UNDERFLOW = {
    f"{backend}, power {n}": Case(
        {"mine": gw.Candidate(backend, power(n), gradient=zero)}, {"w": size * np.array([1.0, 2.0])}, verdicts=DOUBT
    )
    for backend, n, size in [("numpy", 2, 1e-160), ("torch", 2, 1e-160), ("jax", 4, 1e-80), ("numpy", 3, 1e-107)]
}


# What is left of a leaf does not vouch for elements that could not be differenced


def entropy(p: Any, b: Any) -> Any:
    return -(b["t"] * np.log(p["p"])).sum()


def flipped_first(p: Any, b: Any) -> Any:
    d = -b["t"] / p["p"]
    d[0] *= -1
    return {"p": d}


def clamped(xp: Any) -> Callable[[Any], Any]:
    """1 / 2 sqrt(x), with an epsilon."""
    lowest = (lambda y: torch.clamp(y, min=1e-2)) if xp is torch else (lambda y: jnp.maximum(y, 1e-2))
    return lambda x: 0.5 / lowest(xp.sqrt(x))


ROOTS = {
    "torch": summed(torch_rule(torch.sqrt, clamped(torch)), "v"),
    "jax": summed(jax_rule(jnp.sqrt, clamped(jnp)), "v"),
}
V = {"v": np.array([1e-8, 0.3, 0.7], np.float32)}


def fast(p: Any, b: Any) -> Any:
    return p["x"][0] ** 2 + 1e-3 * np.sin(1e8 * p["x"][1])


def fast_with_wrong_sign(p: Any, b: Any) -> Any:
    return {"x": np.array([2 * p["x"][0], -1e5 * np.cos(1e8 * p["x"][1])])}


def many() -> Any:
    q = np.random.default_rng(1).uniform(0.2, 1, 1000)
    q[0] = 1e-9
    return {"p": q}


def ten_wrong(p: Any, b: Any) -> Any:
    d = -1 / p["p"]
    d[1:11] *= -1
    return {"p": d}


def gate(p: Any, b: Any) -> Any:
    x = p["x"]
    return 1 / (1 + np.exp(-1e10 * x[0])) + 1e5 * (x[1] + x[2] ** 2)


def gate_shut(p: Any, b: Any) -> Any:
    return {"x": np.array([0, 1e5, 2e5 * p["x"][2]])}


DROPPED = {
    "entropy, the leading element flipped": Case(
        numpy_gradient(entropy, flipped_first), {"p": np.array([1e-8, 0.3, 0.7])}, {"t": np.array([0.2, 0.3, 0.5])}
    ),
    "entropy, in the middle": Case(
        numpy_gradient(lambda p, b: -np.log(p["p"]).sum(), lambda p, b: {"p": np.array([-1, 1, -1]) / p["p"]}),
        {"p": np.array([0.3, 1e-9, 0.7])},
    ),
    "sqrt of torch, clamped": Case({"torch": ROOTS["torch"]}, V),
    "sqrt of jax, clamped": Case({"jax": ROOTS["jax"]}, V),
    "sqrt of both, clamped": Case(ROOTS, V),
    "a fast oscillation": Case(numpy_gradient(fast, fast_with_wrong_sign), {"x": np.array([0.3, 0.7])}, verdicts=DOUBT),
    "ten of a thousand": Case(numpy_gradient(lambda p, b: -np.sum(np.log(p["p"])), ten_wrong), many()),
    "a gate narrower than steps": Case(
        numpy_gradient(gate, gate_shut), {"x": np.array([5e-11, 1.0, 2.0])}, verdicts=DOUBT
    ),
}


# Nor do parameters so small that moving them by their own size changes nothing


def beside_one(backend: str, factor: float) -> Case:
    """1 + sum x^2 where that is 1, by a rule that is off by a factor."""
    square = RULES[backend](lambda x: x * x, lambda x: 2 * factor * x)
    return Case({backend: lambda p, b: 1.0 + square(p["w"]).sum()}, {"w": 1e-20 * normal(1, 5)}, verdicts=DOUBT)


def gated(width: float, *x: float) -> Case:
    """A gate in which the last element stands, and which the gradient leaves out."""

    def loss(p: Any, b: Any) -> Any:
        return np.sum(p["x"] ** 2) + width * np.tanh((p["x"][-1] - 1) / width)

    mine = numpy_gradient(loss, lambda p, b: {"x": 2 * p["x"]})
    return Case(mine, {"x": np.array(x)}, verdicts=DOUBT, how={"dtypes": "float64"})


GATED = {f"{len(x)} elements": gated(1e-10, *x) for x in ([1.0], [0.9, 1.0], [0.9, 1.0, 1.0])}


def subnormal(factor: float) -> Case:
    """A gradient whose numbers are all below the smallest normal one, off by a factor in float32."""
    rule = torch_rule(
        lambda x: x * 1e-39, lambda x: torch.full_like(x, 1e-39 * (factor if x.dtype == torch.float32 else 1))
    )
    point, how = {"x": normal(1, 5)}, {"dtypes": "float32"}
    return Case({"torch": lambda p, b: rule(p["x"]).sum()}, point, verdicts=DOUBT, how=how)


SUBNORMAL = {f"{factor:g} times": subnormal(factor) for factor in (0.0, 0.5, 1.5, 1.9)}

UNMOVED = {
    f"{backend}, {factor:g} times": beside_one(backend, factor)
    for backend, factor in [("torch", 2.5), ("torch", 0.0), ("jax", 1e30)]
} | {
    "below the smallest number": Case(
        {"torch": summed(torch_rule(lambda x: x * x, lambda x: 5 * x), "w")},
        {"w": 1e-200 * normal(1, 5)},
        verdicts=DOUBT,
    )
}

KINDS = {
    "a gradient that cancels": CANCELLED,
    "a narrow dtype": NARROW,
    "inputs far from 0, in float32": ILL_CONDITIONED,
    "a leaf that cannot be seen": BELIEVED,
    "elements that cannot be seen": SMALL,
    "underflow": UNDERFLOW,
    "steps that cannot be used": DROPPED,
    "parameters that are all tiny": UNMOVED,
    "a gate at one of few": GATED,
    "subnormal numbers": SUBNORMAL,
}


@each(KINDS)
def test_a_wrong_gradient_is_not_accepted(case: Case) -> None:
    expect_refused(case)


TINY = np.r_[np.full(50, 0.5), np.full(10, 1e-11)]


@pytest.mark.parametrize("factor", [0.0, 2.0, -1.0])
@pytest.mark.parametrize("kind", ["sine", "power of 1.1", "pruned regression"])
def test_elements_far_below_their_leaf_are_no_less_held_to_their_gradient(kind: str, factor: float) -> None:
    """Pruned or padded weights: their share of a step of their own size is nothing, that of their gradient is not."""
    draw = np.random.default_rng(1).standard_normal
    x, y = draw((50, 60)), draw(50)
    losses: dict[str, Any] = {
        "sine": (lambda p, b: np.sin(p["w"]).sum(), lambda p: np.cos(p["w"])),
        "power of 1.1": (lambda p, b: (np.abs(p["w"]) ** 1.1).sum(), lambda p: 1.1 * np.abs(p["w"]) ** 0.1),
        "pruned regression": (
            lambda p, b: np.mean((x @ p["w"] - y) ** 2),
            lambda p: 2 / 50 * x.T @ (x @ p["w"] - y),
        ),
    }
    loss, slope = losses[kind]

    def verified(f: float) -> gw.Report:
        gradient = lambda p, b: {"w": slope(p) * np.where(p["w"] < 1e-6, f, 1.0)}  # noqa: E731
        return gw.verify(gw.Candidate("numpy", loss, gradient=gradient), {"w": TINY})

    assert not verified(factor)
    assert {str(row.verdict) for row in verified(1.0).rows} <= {"agree", "inconclusive"}
