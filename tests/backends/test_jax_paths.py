"""Execution paths and custom rules in jax: each with a fault that shows on that path, or by that check, alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradwitness as gw
from gradwitness import registry
from gradwitness_jax.paths import PATHS

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.standard_normal((4, 3))}
BATCH = {"x": RNG.standard_normal((8, 4))}


def square(
    forward: Callable[..., Any] | None = None, backward: Callable[..., Any] | None = None, name: str = "square"
) -> Any:
    """x * x with a custom_vjp, of which parts may be another's."""

    def primal(x: Any) -> Any:
        return x * x

    primal.__name__ = name
    rule = jax.custom_vjp(primal)
    rule.defvjp(forward or (lambda x: (x * x, x)), backward or (lambda x, g: (2 * x * g,)))
    return rule


@jax.custom_jvp
def log1p_exp(x: Any) -> Any:
    """Its rule calls itself, as rules do."""
    return jnp.log1p(jnp.exp(x))


@log1p_exp.defjvp
def _log1p_exp_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    return log1p_exp(x), dx * jax.nn.sigmoid(x)


def layer(rule: Any, to: str = "mean") -> gw.Candidate:
    return gw.Candidate("jax", lambda p, d: getattr(jnp, to)(rule(d["x"] @ p["w"])))


def verify(candidate: gw.Candidate, paths: Any = "all", batch: Any = BATCH, **more: Any) -> gw.Report:
    return gw.verify({"mine": candidate}, PARAMS, batch, paths=paths, **more)


def verdicts(report: gw.Report) -> dict[str, str]:
    return {row.candidate.removeprefix("mine [").removesuffix("]"): str(row.verdict) for row in report.rows}


def custom(loss: Any) -> Any:
    (row,) = gw.verify(gw.Candidate("jax", loss), PARAMS, BATCH).rows
    return row.custom


def test_the_paths_declared_are_those_that_there_are() -> None:
    assert registry.backend("jax").capabilities.paths == tuple(PATHS)


@pytest.mark.parametrize(
    ("rule", "to", "dtypes"), [(square(), "mean", ("float64", "float32")), (log1p_exp, "sum", "float64")]
)
def test_a_right_rule_agrees_on_every_path(rule: Any, to: str, dtypes: Any) -> None:
    report = verify(layer(rule, to), dtypes=dtypes)
    assert verdicts(report) == dict.fromkeys(PATHS, "agree"), repr(report)
    assert {tuple((row.custom or {}).items()) for row in report.rows} == {((rule.__name__, True),)}


def test_a_range_measured_where_values_are_known_is_another_under_jit() -> None:
    def clipping(x: Any, g: Any) -> Any:
        top = kept["top"] if isinstance(x, jax.core.Tracer) else float(jnp.max(jnp.abs(x)))
        return (2 * jnp.clip(x, -top, top) * g,)

    kept = {"top": 0.1}  # that of some earlier batch
    report = verify(layer(square(backward=clipping)), ["eager", "jax.jit(grad)", "checkpoint"])
    assert verdicts(report) == {"eager": "agree", "jax.jit(grad)": "disagree", "checkpoint": "disagree"}, repr(report)


def test_a_residual_kept_in_python_leaks_where_forward_and_backward_are_traced_apart() -> None:
    kept: list[Any] = []

    def forward(x: Any) -> Any:
        kept[:] = [x]
        return x * x, None

    report = verify(layer(square(forward, lambda _, g: (2 * kept[0] * g,))), ["jax.grad(jit)", "checkpoint"])
    assert verdicts(report) == {"jax.grad(jit)": "error", "checkpoint": "error"}
    assert "UnexpectedTracerError" in repr(report)


def test_a_rule_wrong_for_one_example_is_at_fault_under_vmap() -> None:
    """It divides by the number of rows that it sees."""

    def backward(x: Any, g: Any) -> Any:
        return (2 * x * g * (8 / x.shape[0]) ** 0.5,)

    report = verify(layer(square(backward=backward)), ["eager", "vmap"])
    assert verdicts(report) == {"eager": "agree", "vmap": "disagree"}, repr(report)


def test_python_control_flow_runs_in_eager_alone() -> None:
    def on_values(p: Any, d: Any) -> Any:
        return jnp.mean(d["x"] @ p["w"]) if d["x"][0, 0] > -9 else jnp.sum(p["w"])

    report = verify(gw.Candidate("jax", on_values), ["eager", "jax.jit(grad)", "jax.grad(jit)"])
    assert verdicts(report) == {"eager": "agree", "jax.jit(grad)": "error", "jax.grad(jit)": "error"}
    assert report.rows[0].custom is None, "of what cannot be traced"


def test_a_loss_that_is_no_sum_over_examples_has_no_vmap() -> None:
    coupled = gw.Candidate("jax", lambda p, d: jax.nn.logsumexp((d["x"] @ p["w"]).sum(1)))
    report = verify(coupled, ["eager", "vmap"])
    assert verdicts(report) == {"eager": "agree", "vmap": "unsupported"}
    assert "neither the sum nor the mean of the losses of its 8 examples" in report.table()


def test_rules_are_seen_inside_of_jit_loops_and_checkpoints() -> None:
    rule = square()

    def scanned(p: Any, d: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            return carry + jnp.sum(rule(x @ p["w"])), None

        return jax.lax.scan(step, jnp.zeros((), d["x"].dtype), d["x"])[0]

    def chosen(p: Any, d: Any) -> Any:
        return jax.lax.cond(d["x"][0, 0] > -9, lambda w: jnp.sum(rule(w)), lambda w: jnp.sum(w), p["w"])

    losses = {
        "jit": lambda p, d: jnp.sum(jax.jit(rule)(p["w"])),
        "checkpoint": lambda p, d: jnp.sum(jax.checkpoint(rule)(p["w"])),
        "vmap": lambda p, d: jnp.sum(jax.vmap(rule)(p["w"])),
        "scan": scanned,
        "cond": chosen,
    }
    for name, loss in losses.items():
        assert custom(loss) == {"square": True}, name


def test_a_rule_that_no_derivative_passes_never_ran() -> None:
    rule = square()
    assert custom(lambda p, d: jnp.sum(p["w"] ** 2) + jnp.sum(rule(d["x"]))) == {"square": False}
    assert custom(lambda p, d: jnp.sum(p["w"] ** 2) + jax.lax.stop_gradient(jnp.sum(rule(p["w"])))) == {"square": False}
    assert custom(lambda p, d: jnp.sum(rule(p["w"])) + jnp.sum(rule(d["x"]))) == {"square": True}
    assert custom(lambda p, d: jnp.sum(jax.nn.relu(p["w"])) + jax.nn.logsumexp(p["w"])) == {}, "jax's own rules"


@pytest.mark.parametrize("named", [log1p_exp, "log1p_exp"])
def test_a_rule_that_was_bypassed_is_an_error(named: Any) -> None:
    def bypassing(p: Any, d: Any) -> Any:
        held = jax.lax.stop_gradient(log1p_exp(d["x"] @ p["w"]))
        return jnp.mean(jax.nn.softplus(d["x"] @ p["w"]) + 0 * held)

    (row,) = gw.verify(gw.Candidate("jax", bypassing, custom=named), PARAMS, BATCH).rows
    assert row.message.startswith("the backward of log1p_exp never ran")
    used = gw.Candidate("jax", lambda p, d: jnp.mean(log1p_exp(d["x"] @ p["w"])), custom=named)
    assert gw.verify(used, PARAMS, BATCH)


def test_the_report_says_which_rules_ran_and_which_did_not() -> None:
    rule, other = square(), square(name="other")
    candidate = gw.Candidate("jax", lambda p, d: jnp.sum(rule(p["w"])) + jnp.sum(other(d["x"])))
    lines = verify(candidate, ["eager", "checkpoint"]).table().splitlines()
    assert "custom rule square ran in mine [eager], mine [checkpoint]" in lines
    assert "custom rule other was applied, but its backward never ran, in mine [eager], mine [checkpoint]" in lines
