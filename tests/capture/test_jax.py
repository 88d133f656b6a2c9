"""What people write in jax, read into a graph: its loss and its gradient are jax's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular

import gradwitness as gw
from gradwitness.errors import CaptureError
from gradwitness.protocol import Interpreter

SAME = 1e-12  # of the largest element
DRAW = np.random.default_rng(0).standard_normal
PARAMS = {
    "m": DRAW((3, 4)),
    "n": DRAW((4, 4)) + 4 * np.eye(4),
    "v": DRAW(4),
    "image": DRAW((2, 6, 5, 4)),
    "kernel": DRAW((3, 3, 2, 4)),
    "tap": DRAW((3, 4, 2)),
    "positive": np.abs(DRAW(5)) + 0.5,
    "table": DRAW((5, 3)),
}
INDEX = np.array([2, 0, 2, 1])


def stacked(p: Any) -> Any:
    return jnp.stack([p["n"], p["n"][::-1]])


def definite(p: Any) -> Any:
    return p["n"] @ p["n"].T + jnp.eye(4)


@jax.custom_vjp
def square(x: Any) -> Any:
    return x * x


square.defvjp(lambda x: (x * x, x), lambda x, g: (g * 2 * x,))


@jax.custom_jvp
def cube(x: Any) -> Any:
    return x**3


cube.defjvp(lambda x, t: (x[0] ** 3, 3 * x[0] ** 2 * t[0]))


def scanned(p: Any) -> Any:
    def step(h: Any, row: Any) -> Any:
        h = jnp.tanh(row + p["n"] @ h)
        return h, h * row

    last, rows = lax.scan(step, jnp.zeros(4), p["m"])
    back, _ = lax.scan(step, last, p["m"], reverse=True)
    return back.sum() + rows


def looped(p: Any) -> Any:
    doubled = lax.fori_loop(0, 3, lambda i, x: jnp.sin(x) * (i + 1), p["m"])
    return doubled + lax.cond(p["v"][0] > 0, jnp.exp, jnp.cos, p["m"])


def updated(p: Any) -> Any:
    x = jnp.zeros((4, 4)).at[1:].set(p["m"]).at[0, INDEX[:2]].add(p["v"][:2])
    x = x.at[INDEX, INDEX].add(p["v"]).at[3].multiply(2.0)
    return lax.dynamic_update_slice(x, p["m"][:1, :2], (2, 1)).T.at[0].get()


LOSSES: dict[str, Callable[[Any], Any]] = {
    "scanned": scanned,
    "looped": looped,
    "updated": updated,
    "a custom_vjp": lambda p: square(p["m"]),
    "a custom_jvp": lambda p: cube(p["m"]),
    "jitted": lambda p: jax.jit(lambda x: jnp.sin(x) @ p["n"])(p["m"]),
    "a checkpoint": lambda p: jax.checkpoint(lambda x: jnp.sin(x) * x)(p["m"]),
    "vmap": lambda p: jax.vmap(lambda row: jnp.tanh(row @ p["v"]))(p["m"]),
    "einsum": lambda p: jnp.einsum("ij,jk,k->i", p["m"], p["n"], p["v"]),
    "tensordot": lambda p: jnp.tensordot(p["image"], p["image"], axes=([1, 3], [1, 3])).sum((0, 2)),
    "moved about": lambda p: jnp.roll(p["m"], 1, 1) * jnp.flip(p["m"], 0) + jnp.swapaxes(p["m"], 0, 1).reshape(3, 4),
    "joined": lambda p: (
        jnp.concatenate([p["m"], p["n"]]).sum(1) @ jnp.stack([p["v"][0]] * 7) + jnp.tile(p["v"], 2).sum()
    ),
    "split": lambda p: jnp.split(p["n"], 2)[1].prod() + jnp.array_split(p["m"], 3, 1)[0].sum(),
    "triangles": lambda p: jnp.tril(p["n"]).sum() + jnp.triu(jnp.exp(p["n"]), 1).sum() + jnp.diag(p["n"]).prod(),
    "padded": lambda p: jnp.pad(p["m"], ((1, 0), (2, 1)), constant_values=2.0).sum() * jnp.pad(p["v"], 2, mode="wrap"),
    "gathered": lambda p: p["m"][INDEX % 3, INDEX] + jnp.take(p["n"], INDEX, axis=1)[0] + p["table"][INDEX].sum(),
    "taken along an axis": lambda p: jnp.take_along_axis(p["m"], INDEX[None, :3] * jnp.ones((3, 1), int), 1),
    "segments": lambda p: jnp.cos(jax.ops.segment_sum(p["n"], INDEX, 3)),
    "cumulative": lambda p: (
        jnp.sin(jnp.cumsum(p["m"], 1))
        + jnp.cumprod(p["m"], 0)
        + lax.cummax(p["m"], 1)
        + lax.cumsum(p["m"], 1, reverse=True)
    ),
    "sorted": lambda p: jnp.sort(p["m"], 1) * jnp.arange(4.0) + lax.top_k(p["m"], 2)[0].sum() + jnp.median(p["m"]),
    "looked up": lambda p: jnp.interp(jax.nn.sigmoid(p["m"]), jnp.linspace(0, 1, 7), jnp.linspace(0, 1, 7) ** 2),
    "extrema": lambda p: p["m"].max(1).sum() + p["m"].min() + jnp.ptp(p["m"]),
    "moments": lambda p: p["m"].std() + p["m"].var(1, ddof=1).sum() + jnp.linalg.norm(p["m"]) + p["m"].prod(),
    "elementwise": lambda p: (
        jnp.exp2(p["m"])
        + jnp.tan(p["m"]) * 1e-3
        + jnp.square(p["m"])
        + jnp.abs(p["m"])
        + jnp.expm1(p["m"])
        + jnp.sinc(p["m"])
    ),
    "of positive numbers": lambda p: (
        p["positive"] ** 2.5
        + 2 ** p["positive"]
        + p["positive"] ** p["positive"]
        + lax.rsqrt(p["positive"])
        + jnp.cbrt(p["positive"])
        + jnp.log1p(p["positive"])
        + p["positive"] ** -3
    ),
    "activations": lambda p: (
        jax.nn.gelu(p["m"])
        + jax.nn.gelu(p["m"], approximate=False)
        + jax.nn.silu(p["m"])
        + jax.nn.softplus(p["m"] * 20)
        + jax.nn.selu(p["m"])
        + jax.nn.mish(p["m"])
        + jax.nn.log_sigmoid(p["m"])
        + jax.nn.soft_sign(p["m"])
    ),
    "with thresholds": lambda p: (
        jax.nn.relu(p["m"])
        + jax.nn.relu6(p["m"] * 9)
        + jax.nn.leaky_relu(p["m"])
        + jax.nn.elu(p["m"])
        + jax.nn.celu(p["m"])
        + jax.nn.hard_tanh(p["m"])
        + jax.nn.hard_swish(p["m"])
        + jnp.clip(p["m"], -0.5, p["v"] + 1)
    ),
    "soft maxima": lambda p: (
        jax.nn.softmax(p["m"])
        + jax.nn.log_softmax(p["m"], 0)
        + jax.nn.logsumexp(p["m"], 1).sum()
        + jax.nn.softmax(p["m"], where=np.eye(3, 4) < 1)
        + jnp.logaddexp(p["m"], p["v"])
    ),
    "chosen": lambda p: jnp.where((p["m"] > 0) & ~(p["m"] > 1), jnp.exp(p["m"]), p["m"] * 2),
    "select": lambda p: jnp.select([p["m"] > 1, p["m"] > 0], [p["m"], jnp.sin(p["m"])], jnp.exp(p["m"])),
    "one hot": lambda p: jax.nn.one_hot(INDEX, 4) @ p["v"] + p["m"][:, 0] @ jnp.eye(3, 4),
    "convolutions": lambda p: (
        lax.conv_general_dilated(
            p["image"],
            p["kernel"],
            (2, 1),
            "SAME",
            rhs_dilation=(1, 2),
            feature_group_count=2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ).sum()
        ** 2
        + lax.conv_general_dilated(
            p["m"][None, :, :], p["tap"], (1,), [(2, 1)], dimension_numbers=("NHC", "HIO", "NHC")
        )
    ),
    "a transposed convolution": lambda p: (
        lax.conv_transpose(
            p["image"],
            jnp.concatenate([p["kernel"]] * 2, 2),
            (2, 2),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        ** 2
    ),
    "pooling": lambda p: (
        lax.reduce_window(p["image"], -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME").sum()
        + lax.reduce_window(p["image"], 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") ** 2
    ),
    "solved": lambda p: (
        jnp.linalg.solve(p["n"], p["v"]).sum()
        + jnp.sin(jnp.linalg.solve(stacked(p), jnp.stack([p["m"].T] * 2))).sum()
        + jnp.sin(jnp.linalg.inv(stacked(p)))
    ),
    "solved by triangles": lambda p: (
        jnp.sin(solve_triangular(p["n"], p["m"].T, lower=True, trans=1)).sum()
        + jnp.sin(solve_triangular(p["n"], p["m"].T, unit_diagonal=True)).sum()
        + jnp.sin(lax.linalg.triangular_solve(p["n"], p["m"], left_side=False, lower=True))
    ),
    "Cholesky factors": lambda p: (
        jnp.sin(jnp.linalg.cholesky(definite(p))).sum()
        + jnp.sin(cho_solve(cho_factor(definite(p)), p["v"])).sum()
        - jax.scipy.stats.multivariate_normal.logpdf(p["m"], p["v"], definite(p))
    ),
    "determinants": lambda p: (
        jnp.sin(jnp.linalg.det(stacked(p))).sum() + jnp.linalg.det(p["n"][:3, :3]) + jnp.linalg.slogdet(-p["n"])[1]
    ),
    "a convolution of volumes": lambda p: (
        lax.conv_general_dilated(
            jnp.stack([p["image"], jnp.cos(p["image"])], 1),
            p["kernel"][:, None],
            (1, 2, 1),
            "SAME",
            feature_group_count=2,
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        )
        ** 2
    ),
    "mapped": lambda p: jax.vmap(lambda row: row - row.mean(keepdims=True))(p["m"]) ** 2,
    "resized": lambda p: jax.image.resize(p["image"], (2, 9, 7, 4), "bilinear") ** 2,
    "normalised": lambda p: jax.nn.standardize(p["m"]) * p["v"],
    "attention": lambda p: jax.nn.softmax(p["m"] @ p["n"] @ p["m"].T / 2, axis=-1) @ p["m"],
    "ravelled": lambda p: jax.flatten_util.ravel_pytree({"a": p["m"], "b": p["v"]})[0] ** 2,
}


def total_of(loss: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda params, batch: jnp.sum(loss(params))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_jax(name: str, interpreter: Interpreter) -> None:
    total = total_of(LOSSES[name])
    graph = gw.capture(gw.Candidate("jax", total), PARAMS, {})
    with jax.enable_x64(True):
        leaves = {path: jnp.asarray(x) for path, x in PARAMS.items()}
        value, expected = jax.jit(jax.value_and_grad(total))(leaves, {})
    tape = interpreter.forward(graph, {**PARAMS, **graph.constants})
    assert abs(interpreter.loss(tape) - float(value)) <= SAME * max(1.0, abs(float(value)))
    found = interpreter.backward(tape, list(PARAMS))
    for path, g in expected.items():
        apart = np.abs(found.get(path, np.zeros(PARAMS[path].shape)) - np.asarray(g))
        assert np.max(apart) <= SAME * max(1.0, float(np.max(np.abs(g)))), path


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a primitive without a rule": (lambda p: jax.scipy.special.digamma(p["positive"]), "digamma"),
    "complex numbers": (lambda p: jnp.abs(jnp.fft.fft(p["v"])), "complex"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_named_with_its_line(name: str) -> None:
    loss, says = REFUSED[name]
    with pytest.raises(CaptureError, match=says) as refused:
        gw.capture(gw.Candidate("jax", total_of(loss)), PARAMS)
    assert f"at {__file__}:" in str(refused.value)


def test_a_loss_of_nothing_is_refused() -> None:
    with pytest.raises(CaptureError, match="does not depend"):
        gw.capture(gw.Candidate("jax", lambda p, b: jnp.ones(())), PARAMS)


def test_a_loop_without_end_is_not_unrolled_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwitness_jax.capture.MOST", 1000)

    def loss(p: Any, b: Any) -> Any:
        return lax.fori_loop(0, 10**6, lambda i, x: jnp.sin(x), p["v"]).sum()

    with pytest.raises(CaptureError, match="more than 1,000 equations"):
        gw.capture(gw.Candidate("jax", loss), PARAMS)
