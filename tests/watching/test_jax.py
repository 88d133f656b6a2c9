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


def test_buffers_may_be_donated() -> None:
    def step(p: Any, x: Any) -> Any:
        value, g = jax.value_and_grad(lambda p: jnp.sum(jnp.tanh(x @ p["w"]) ** 2))(p)
        return jax.tree.map(lambda a, b: a - 0.01 * b, p, g), value

    watched, p = gw.watch(jax.jit(step, donate_argnums=0)), params()
    for _ in range(4):
        p, _ = watched(p, np.ones((2, 4), np.float32))
    assert watched.training.steps == 4
    assert "not finite" not in [finding.kind for finding in watched.findings]


def test_a_plain_function_is_called_once_a_step() -> None:
    calls: list[Any] = []

    def step(p: Any) -> Any:
        calls.append(p["w"] + 1)
        return jax.tree.map(lambda a: a * 0.9, p), jnp.sum(jnp.log(p["w"]))

    watched, p = gw.watch(step), {"w": jnp.ones(3)}
    for number in range(5):
        p, _ = watched({"w": p["w"] * (0.0 if number == 3 else 1.0)})
    assert len(calls) == 5
    assert all(isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) for x in calls)
    assert "step 4" in str(watched.findings[0])


def test_what_is_not_jax_is_refused_by_name() -> None:
    with pytest.raises(gw.GradwitnessError, match=r"returned no array of jax's: float.*with gw.watch\(module\)"):
        gw.watch(lambda x: 3.0)(2)


def test_a_mask_of_infinities_is_not_blamed_for_another_op() -> None:
    @jax.jit
    def step(p: Any, mask: Any) -> Any:
        return p, jnp.sum(jax.nn.softmax(p["w"] + mask)) + jnp.sum(jnp.log(p["w"] * 0.0))

    mask = np.array([0.0, -np.inf, 0.0], np.float32)
    watched = gw.watch(step)
    watched({"w": jnp.ones(3)}, mask)
    assert "it came out of jax's log at " in str(watched.findings[0])


def test_data_by_keyword_is_looked_at() -> None:
    @jax.jit
    def step(p: Any, *, batch: Any) -> Any:
        return p, jnp.sum(p["w"] @ batch)

    batch = np.ones((4, 2), np.float32)
    batch[3, 1] = np.nan
    watched = gw.watch(step)
    watched({"w": jnp.ones((3, 4))}, batch=batch)
    assert "it came in with the data, argument batch, itself in row 3" in str(watched.findings[0])


def test_a_step_that_returns_its_loss_first_is_told_so() -> None:
    watched = gw.watch(jax.jit(lambda p: (jnp.sum(p["w"]), p)))
    watched({"w": jnp.ones(3)})
    assert "let the step return it first" in repr(watched)


def test_twenty_steps_tell_that_a_leaf_never_moves() -> None:
    watched = gw.watch(jax.jit(lambda p: ({"w": p["w"] * 0.9, "b": p["b"]}, jnp.sum(p["w"]))))
    p = {"w": jnp.ones(3), "b": jnp.ones(2)}
    for _ in range(20):
        p, _ = watched(p)
    assert [finding.kind for finding in watched.findings] == ["no gradient"]
    assert "['b']" in str(watched.findings[0])
