"""Gradients that are meant to differ: within a distance, at elements, or everywhere, and never more than was said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gradwitness as gw
from gradwitness.errors import ProblemError

STEPS = 10
STEP = 1 / STEPS
POINT = {"a": np.array([0.7, 0.3]), "y": np.array([0.3, -0.7]), "c": np.array([1.5, 0.8])}
ADJOINT = "continuous adjoint"


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


# An ODE, y' = -a y + sin(y) from 0 to 1, and its continuous adjoint


def runge_kutta(f: Callable[[Any], Any], state: Any, step: float) -> Any:
    """The classical method of fourth order; `state` is an array, or a tuple of arrays."""

    def moved(slopes: Any, by: float) -> Any:
        return tuple(s + by * k for s, k in zip(state, slopes, strict=True))

    k1 = f(state)
    k2 = f(moved(k1, step / 2))
    k3 = f(moved(k2, step / 2))
    k4 = f(moved(k3, step))
    return tuple(s + step / 6 * (a + 2 * b + 2 * c + d) for s, a, b, c, d in zip(state, k1, k2, k3, k4, strict=True))


def integrate(f: Callable[[Any], Any], state: Any, step: float, xp: Any) -> Any:
    if xp is jnp:
        return jax.lax.fori_loop(0, STEPS, lambda _, s: runge_kutta(f, s, step), state)
    for _ in range(STEPS):
        state = runge_kutta(f, state, step)
    return state


def solve(a: Any, y: Any, xp: Any) -> Any:
    return integrate(lambda s: (-a * s[0] + xp.sin(s[0]),), (y,), STEP, xp)[0]


def adjoint(saved: tuple[Any, Any], g: Any, xp: Any) -> tuple[Any, Any]:
    """(gradient by a, by y at 0), by solving for y, its cotangent and a's backwards (Chen et al. 2018, algorithm 1).

    saved: a, and y at 1.
    """
    a, y = saved

    def slopes(state: Any) -> Any:
        s, c, _ = state
        return -a * s + xp.sin(s), -c * (xp.cos(s) - a), c * s

    _, by_y, by_a = integrate(slopes, (y, g, 0 * a), -STEP, xp)
    return by_a, by_y


def in_torch(change: float) -> Callable[[Any, Any], Any]:
    class Ode(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Any, y: Any) -> Any:
            end = solve(a, y, torch)
            ctx.save_for_backward(a, end)
            return end

        @staticmethod
        def backward(ctx: Any, *g: Any) -> Any:
            by_a, by_y = adjoint(ctx.saved_tensors, g[0], torch)
            return change * by_a, by_y

    rule: Any = Ode
    return lambda p, b: (p["c"] * rule.apply(p["a"], p["y"]) ** 2).sum()


def in_jax(change: float) -> Callable[[Any, Any], Any]:
    @jax.custom_vjp
    def ode(a: Any, y: Any) -> Any:
        return solve(a, y, jnp)

    def forward(a: Any, y: Any) -> Any:
        end = solve(a, y, jnp)
        return end, (a, end)

    def backward(saved: Any, g: Any) -> Any:
        by_a, by_y = adjoint(saved, g, jnp)
        return change * by_a, by_y

    ode.defvjp(forward, backward)
    return lambda p, b: (p["c"] * ode(p["a"], p["y"]) ** 2).sum()


def in_numpy(change: float) -> gw.Candidate:
    def gradient(p: Any, b: Any) -> Any:
        end = solve(p["a"], p["y"], np)
        by_a, by_y = adjoint((p["a"], end), 2 * p["c"] * end, np)
        return {"a": change * by_a, "y": by_y, "c": end**2}

    return gw.Candidate("numpy", lambda p, b: (p["c"] * solve(p["a"], p["y"], np) ** 2).sum(), gradient=gradient)


SOLVERS: Mapping[str, Callable[[float], Any]] = {"torch": in_torch, "jax": in_jax, "numpy": in_numpy}


def of_ode(candidates: Mapping[str, Any], distance: float = 1e-4, dtypes: str = "float64") -> gw.Report:
    """What is solved for is off by the method's error, the weights c are not."""
    return gw.verify(candidates, POINT, intended={"[ay]": (ADJOINT, distance)}, dtypes=dtypes)


def verdict(report: gw.Report, path: str) -> set[str]:
    return {str(row.verdict) for row in report.rows if row.parameter == path}


@pytest.mark.parametrize("dtypes", ["float64", "float32"])
@pytest.mark.parametrize("backend", SOLVERS)
def test_inside_the_distance_it_is_intended(backend: str, dtypes: str) -> None:
    report = of_ode({backend: SOLVERS[backend](1.0)}, dtypes=dtypes)
    assert report, repr(report)
    assert verdict(report, "a") == verdict(report, "y") == {"intended"}
    assert verdict(report, "c") == {"agree"}
    declared = [row.message for row in report.rows if row.parameter != "c"]
    assert all(ADJOINT in message and "of 0.0001 allowed" in message for message in declared)


@pytest.mark.parametrize("backend", SOLVERS)
def test_a_report_of_nothing_else_is_green_too(backend: str) -> None:
    report = gw.verify({backend: SOLVERS[backend](1.0)}, POINT, wrt=["a", "y"], intended={"*": (ADJOINT, 1e-4)})
    assert verdict(report, "a") == verdict(report, "y") == {"intended"}
    assert report


@pytest.mark.parametrize(
    ("backend", "change"),
    [*product(("torch", "numpy"), (-1.0, 1.01, 1.0005, 0.0)), ("jax", -1.0), ("jax", 1.0005)],
)
def test_beyond_the_distance_it_disagrees(backend: str, change: float) -> None:
    report = of_ode({backend: SOLVERS[backend](change)})
    assert not report
    assert verdict(report, "a") == {"disagree"}, repr(report)
    assert verdict(report, "y") == {"intended"}


def test_it_disagrees_in_less_than_float64_too() -> None:
    assert verdict(of_ode({"torch": in_torch(-1.0)}, dtypes="float32"), "a") == {"disagree"}


def test_a_distance_that_the_method_does_not_keep_is_exceeded() -> None:
    report = of_ode({"torch": in_torch(1.0)}, distance=1e-9)
    assert "disagree" in verdict(report, "a"), repr(report)


def test_without_a_word_it_is_no_derivative() -> None:
    report = gw.verify({"torch": in_torch(1.0)}, POINT)
    assert verdict(report, "a") == {"disagree"}


def test_three_that_keep_the_distance_are_intended_beside_each_other() -> None:
    report = of_ode({backend: make(1.0) for backend, make in SOLVERS.items()})
    assert report, repr(report)
    wrong = of_ode({"torch": in_torch(1.0), "jax": in_jax(-1.0)})
    found = {row.candidate: str(row.verdict) for row in wrong.rows if row.parameter == "a"}
    assert found["jax"] == "disagree"


@pytest.mark.parametrize("given", [(ADJOINT, 0.0), (ADJOINT, -1e-4), (ADJOINT, 2.0), (ADJOINT,), (1e-4, ADJOINT), 1e-4])
def test_a_distance_must_be_one(given: Any) -> None:
    with pytest.raises(ProblemError, match="needs a reason, or \\(reason, distance\\)"):
        gw.verify({"torch": in_torch(1.0)}, POINT, intended={"a": given})


# Elements by name: a padding that stays as it is


WORDS = {"x": np.array([[1, 0, 3], [2, 4, 0]])}
TABLE = {"embedding": normal(0, 5, 3), "w": normal(1, 3)}


def padded(off: float) -> Callable[[Any, Any], Any]:
    """torch's own padding_idx, which leaves row 0 without a gradient."""

    def loss(p: Any, b: Any) -> Any:
        e = p["embedding"]
        e = e + (off - 1) * (e - e.detach()) * (torch.arange(5)[:, None] == 3)
        return (F.embedding(b["x"], e, padding_idx=0) @ p["w"]).tanh().sum()

    return loss


def padded_in_jax(off: float) -> Callable[[Any, Any], Any]:
    def loss(p: Any, b: Any) -> Any:
        e = p["embedding"]
        e = jnp.concatenate([jax.lax.stop_gradient(e[:1]), e[1:]])
        e = e + (off - 1) * (e - jax.lax.stop_gradient(e)) * (jnp.arange(5)[:, None] == 3)
        return jnp.tanh(e[b["x"]] @ p["w"]).sum()

    return loss


def padded_by_hand(off: float) -> gw.Candidate:
    def gradient(p: Any, b: Any) -> Any:
        rows = p["embedding"][b["x"]]
        slope = 1 - np.tanh(rows @ p["w"]) ** 2
        g = np.zeros((5, 3))
        np.add.at(g, b["x"], slope[..., None] * p["w"])
        g[0] = 0
        g[3] *= off
        return {"embedding": g, "w": (slope[..., None] * rows).sum((0, 1))}

    loss: Any = lambda p, b: np.tanh(p["embedding"][b["x"]] @ p["w"]).sum()  # noqa: E731
    return gw.Candidate("numpy", loss, gradient=gradient)


PADDED: Mapping[str, Callable[[float], Any]] = {"torch": padded, "jax": padded_in_jax, "numpy": padded_by_hand}


@pytest.mark.parametrize(
    ("backend", "key"),
    [
        *product(("torch", "numpy"), ("embedding[0]", "embedding[:1]", "embedding[0,:]", "emb*[0]")),
        ("jax", "embedding[0]"),
    ],
)
def test_named_elements_are_intended_where_the_others_agree(backend: str, key: str) -> None:
    report = gw.verify({backend: PADDED[backend](1.0)}, TABLE, WORDS, intended={key: "padding"})
    assert report, repr(report)
    assert verdict(report, "embedding") == {"intended"}
    assert "padding at [" in next(row.message for row in report.rows if row.parameter == "embedding")


@pytest.mark.parametrize("backend", PADDED)
def test_another_element_is_not_excused_by_them(backend: str) -> None:
    for off, key in ((1.001, "embedding[0]"), (1.0, "embedding[1]")):
        report = gw.verify({backend: PADDED[backend](off)}, TABLE, WORDS, intended={key: "padding"})
        assert verdict(report, "embedding") == {"disagree"}, (off, key)
        assert verdict(report, "w") == {"agree"}


def test_all_that_is_declared_makes_a_green_report() -> None:
    three = {backend: make(1.0) for backend, make in PADDED.items()}
    assert gw.verify(three, TABLE, WORDS, intended={"embedding[0]": "padding"})
    assert not gw.verify(three, TABLE, WORDS)


def test_elements_that_are_not_there_are_told() -> None:
    with pytest.raises(ProblemError, match=r"intended names 'embedding\[9\]'"):
        gw.verify({"torch": padded(1.0)}, TABLE, WORDS, intended={"embedding[9]": "padding"})


# A reversed gradient that one of two forgot


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return -g[0]


REVERSE: Any = Reverse
jax_reverse = jax.custom_vjp(lambda x: x)
jax_reverse.defvjp(lambda x: (x, None), lambda _, g: (-g,))
DOMAINS = {"enc": normal(2, 4, 3), "head": normal(3, 4), "dom": normal(4, 4)}
SAMPLES = {"x": normal(5, 8, 3), "y": normal(6, 8), "d": normal(7, 8)}


def adapted(xp: Any, reverse: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def loss(p: Any, b: Any) -> Any:
        h = xp.tanh(b["x"] @ p["enc"].T)
        return ((h @ p["head"] - b["y"]) ** 2).mean() + ((reverse(h) @ p["dom"] - b["d"]) ** 2).mean()

    return loss


def by_hand(sign: float) -> gw.Candidate:
    def gradient(p: Any, b: Any) -> Any:
        h = np.tanh(b["x"] @ p["enc"].T)
        y, d = 2 / 8 * (h @ p["head"] - b["y"]), 2 / 8 * (h @ p["dom"] - b["d"])
        back = np.outer(y, p["head"]) + sign * np.outer(d, p["dom"])
        return {"enc": ((1 - h * h) * back).T @ b["x"], "head": h.T @ y, "dom": h.T @ d}

    return gw.Candidate("numpy", adapted(np, lambda h: h), gradient=gradient)


REVERSED: dict[str, Any] = {
    "torch": adapted(torch, REVERSE.apply),
    "jax": adapted(jnp, jax_reverse),
    "numpy": by_hand(-1),
}
FORGOTTEN: dict[str, Any] = {
    "torch": adapted(torch, lambda h: h),
    "jax": adapted(jnp, lambda h: h),
    "numpy": by_hand(1),
}


@pytest.mark.parametrize("first", ["the reversed", "the forgotten"])
@pytest.mark.parametrize(
    ("reversing", "other"), [("torch", "jax"), ("jax", "torch"), ("numpy", "jax"), ("torch", "numpy")]
)
def test_one_that_forgot_is_found_whatever_the_order(reversing: str, other: str, first: str) -> None:
    candidates = {reversing: REVERSED[reversing], other: FORGOTTEN[other]}
    if first == "the forgotten":
        candidates = dict(reversed(candidates.items()))
    report = gw.verify(candidates, DOMAINS, SAMPLES, intended={"enc": "gradient reversal"})
    assert not report, repr(report)
    found = {row.candidate: row for row in report.rows if row.parameter == "enc"}
    assert str(found[other].verdict) == "disagree"
    assert "and it is the derivative" in found[other].message, "so you can tell who forgot"
    assert verdict(report, "head") == verdict(report, "dom") == {"agree"}


def test_all_that_reverse_are_intended() -> None:
    report = gw.verify(REVERSED, DOMAINS, SAMPLES, intended={"enc": "gradient reversal"})
    assert report, repr(report)
    assert verdict(report, "enc") == {"intended"}
