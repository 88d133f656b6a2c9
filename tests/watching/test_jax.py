"""Each pitfall planted in a small training step of jax: found, and named; the same step without it: silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradwitness as gw

STEPS = 9
Loss = Callable[[Any, Any, Any], Any]


def params() -> Any:
    rng = np.random.default_rng(0)
    return {"w": jnp.asarray(rng.normal(size=(4, 3)) / 2, jnp.float32), "b": jnp.zeros(3, jnp.float32)}


def trained(loss: Loss, *, rate: float = 0.05, corrupts: int = 0, scales: int = 0, jit: bool = True) -> gw.Watch:
    def step(p: Any, x: Any, y: Any) -> Any:
        value, g = jax.value_and_grad(loss)(p, x, y)
        return jax.tree.map(lambda a, b: a - rate * b, p, g), value

    watched = gw.watch(jax.jit(step) if jit else step, every=2)
    rng, p = np.random.default_rng(1), params()
    for number in range(1, STEPS + 1):
        x = rng.normal(size=(6, 4)).astype(np.float32)
        if number == corrupts:
            x[4, 1] = np.inf
        if number == scales:
            x *= 1e4
        p, _ = watched(p, x, np.arange(6) % 3)
    return watched


def logits(p: Any, x: Any) -> Any:
    return x @ p["w"] + p["b"]


def by_log(p: Any, x: Any, y: Any) -> Any:
    return -jnp.log(jax.nn.softmax(logits(p, x)))[jnp.arange(6), y].mean()


def by_log_softmax(p: Any, x: Any, y: Any) -> Any:
    return -jax.nn.log_softmax(logits(p, x))[jnp.arange(6), y].mean()


def by_root(p: Any, x: Any, y: Any) -> Any:
    return jnp.sqrt(jnp.sum((x @ p["w"] * 0.0) ** 2)) + by_log_softmax(p, x, y)


def without_bias(p: Any, x: Any, y: Any) -> Any:
    return by_log_softmax({"w": p["w"], "b": jax.lax.stop_gradient(p["b"])}, x, y)


def growing(p: Any, x: Any, y: Any) -> Any:
    return -jnp.sum(jnp.exp(logits(p, x)))


def masked(p: Any, x: Any, y: Any) -> Any:
    """What is infinite and does no harm: a mask, and the log of what is not used."""
    kept = jnp.where(jnp.arange(3) < 2, logits(p, x), -jnp.inf)
    unused = jnp.where(jnp.arange(3) < 2, 1.0, jnp.log(jnp.zeros(3)))
    return jnp.sum(jax.nn.softmax(kept) ** 2) + jnp.sum(unused[:2]) * jnp.sum(p["b"]) * 0.1


PLANTED: dict[str, tuple[Callable[[], gw.Watch], Callable[[], gw.Watch], str, str]] = {
    "log of softmax": (
        lambda: trained(by_log),
        lambda: trained(by_log_softmax),
        "log of softmax",
        f"{__file__}:",
    ),
    "underflowing softmax": (
        lambda: trained(by_log, scales=5),
        lambda: trained(by_log_softmax, scales=5),
        "not finite",
        "step 5: the result [0]['b']: it came out of jax's log at ",
    ),
    "corrupted example": (
        lambda: trained(by_log_softmax, corrupts=4),
        lambda: trained(by_log_softmax),
        "not finite",
        "step 4: the result [0]['b']: it came in with the data, argument 1, itself in row 4",
    ),
    "root of zero": (
        lambda: trained(by_root),
        lambda: trained(by_log_softmax),
        "not finite",
        "in the backward pass",
    ),
    "stopped": (
        lambda: trained(without_bias),
        lambda: trained(by_log_softmax),
        "no gradient",
        "['b']",
    ),
    "growing": (
        lambda: trained(growing, rate=1.0),
        lambda: trained(by_log_softmax),
        "not finite",
        "it came out of jax's exp at ",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_and_named(name: str) -> None:
    wrong, _, kind, words = PLANTED[name]
    seen = wrong()
    found = [str(finding) for finding in seen.findings if finding.kind == kind]
    assert any(words in one for one in found), list(map(str, seen.findings))


@pytest.mark.parametrize("name", PLANTED)
def test_without_it_there_is_silence(name: str) -> None:
    _, right, _, _ = PLANTED[name]
    seen = right()
    assert list(map(str, seen.findings)) == []
    assert seen.training.steps == STEPS


def test_infinities_that_do_no_harm_are_silent() -> None:
    assert "not finite" not in [finding.kind for finding in trained(masked).findings]


def test_a_step_that_is_not_compiled_is_watched_too() -> None:
    (finding,) = trained(by_log_softmax, corrupts=3, jit=False).findings
    assert "step 3" in str(finding)


def test_results_are_those_of_the_step() -> None:
    def step(p: Any, x: Any) -> Any:
        return jax.tree.map(lambda a: a * 2, p), x.sum()

    plain, watched = step(params(), np.ones(3)), gw.watch(step)(params(), np.ones(3))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(watched), strict=True))


def test_a_step_is_called_and_not_entered() -> None:
    with pytest.raises(gw.GradwitnessError, match=r"step = gw.watch\(step\)"), gw.watch(lambda p: p):
        pass
