"""Kernels that run in 16 bits only, judged by the graph of another candidate: right ones agree, wrong ones do not."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from jax.experimental import pallas as pl

import gradwitness as gw
from benchmarks.sixteen_bits.kernels import KERNELS, planted
from gradwitness import ops
from gradwitness.cli import cli
from gradwitness.errors import UnknownName
from gradwitness.report import Row

SWIGLU = KERNELS["swiglu"]
PARAMS = SWIGLU.drawn(0)
PLAIN = gw.Candidate("torch", SWIGLU.reference)
KERNEL = gw.Candidate("torch", SWIGLU.loss)


def verified(
    kernel: Any = KERNEL, plain: Any = PLAIN, params: Any = PARAMS, batch: Any = None, **how: Any
) -> gw.Report:
    """The kernel first, so that it runs before its referee."""
    asked: dict[str, Any] = {"dtypes": "bfloat16", "cotangent": "random", "referee": "plain"}
    return gw.verify({"mine": kernel, "plain": plain}, params, batch, **(asked | how))


def of_mine(report: gw.Report) -> dict[str, Row]:
    return {row.parameter or "": row for row in report.rows if row.candidate == "mine"}


def verdicts(report: gw.Report) -> dict[str, str]:
    return {path: str(row.verdict) for path, row in of_mine(report).items()}


def changed(**faults: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The kernels, whose gradients of some leaves are changed before they are rounded."""
    return planted(lambda name, g: faults[name](g) if name in faults else g)


def scaled(where: Any, factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(g: torch.Tensor) -> torch.Tensor:
        g = g.clone()
        g[where] *= factor
        return g

    return change


def applied(rule: Any, *x: Any) -> Any:
    return rule.apply(*x)


# Right and wrong kernels


def test_a_right_kernel_agrees_and_the_factor_is_printed_that_would_have_been_caught() -> None:
    report = verified()
    rows, table = of_mine(report), report.table()
    assert verdicts(report) == {"a": "agree", "b": "agree"}
    assert bool(report)
    most = max(rows.values(), key=lambda row: row.factor or 0.0)
    assert 1e-4 < (most.factor or 0.0) < 5e-3
    assert f"a constant factor of {1 + (most.factor or 0.0):.5g} would have been caught" in table
    assert "judged by the graph of 'plain'" in rows["a"].message
    assert "does not run in float64" not in table


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (
            {"a": scaled(..., 1.005), "b": scaled(9, 1.1)},
            {"a": r"1\.00\d+ times what it should be on average", "b": r"1\.\d+ times what it should be in \[9, :\]"},
        ),
        (
            {"a": scaled(..., 2.0), "b": scaled(np.s_[-8:], 1.03)},
            {"a": "times what it should be on average", "b": "in the last 8 along axis 0"},
        ),
    ],
)
def test_a_factor_is_caught_wherever_it_is(faults: Any, said: dict[str, str]) -> None:
    with changed(**faults):
        report = verified()
    assert verdicts(report) == {"a": "disagree", "b": "disagree"}
    for path, row in of_mine(report).items():
        assert re.search(said[path], row.message), row.message


def test_without_a_referee_what_rounding_may_reach_passes() -> None:
    with changed(a=scaled(..., 1.02)):
        assert verdicts(verified(referee=None)) == {"a": "agree", "b": "agree"}
        assert verdicts(verified()) == {"a": "disagree", "b": "agree"}


def test_float16_shows_a_thousandth_in_one_head() -> None:
    """Attention, whose heads are matrices."""
    attention = KERNELS["attention"]
    with changed(v=scaled(np.s_[:, 1], 1.003)):
        report = verified(
            gw.Candidate("torch", attention.loss),
            gw.Candidate("torch", attention.reference),
            attention.drawn(0),
            dtypes="float16",
        )
    assert verdicts(report) == {"q": "agree", "k": "agree", "v": "disagree"}
    assert "in [:, 1, :, :]" in of_mine(report)["v"].message


def test_a_gradient_where_it_should_be_zero_is_caught() -> None:
    loss = KERNELS["cross_entropy"]
    valid = torch.as_tensor(loss.batch["valid"])[:, None]
    kernel, plain = gw.Candidate("torch", loss.loss), gw.Candidate("torch", loss.reference)
    with changed(z=lambda g: torch.where(valid, g, 1e-5)):
        report = verified(kernel, plain, loss.drawn(0), loss.batch)
    assert verdicts(report) == {"z": "disagree"}


def test_another_loss_is_said_before_any_gradient_is_judged() -> None:
    report = verified(gw.Candidate("torch", lambda p, b: 1.5 * SWIGLU.loss(p, b)))
    assert set(verdicts(report).values()) == {"different-loss"}
    assert "at the given point" in of_mine(report)["a"].message


# Sums that are kept in few digits


class Scale(torch.autograd.Function):
    """x w, whose gradient of w is summed over the rows: in bfloat16 or not."""

    narrow = False

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.bfloat16:
            raise TypeError("compiled for bfloat16")
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        (g,), (x, w) = cotangents, ctx.saved_tensors
        terms = g * x
        total = sum(terms.unbind(0), torch.zeros_like(w)) if Scale.narrow else terms.float().sum(0).to(w.dtype)
        return g * w, total


SCALED = gw.Candidate("torch", lambda p, b: applied(Scale, p["x"], p["w"]))
ROWS = {"x": np.random.default_rng(0).normal(size=(256, 16)), "w": np.random.default_rng(1).normal(size=16)}
MULTIPLIED = gw.Candidate("torch", lambda p, b: p["x"] * p["w"])


@pytest.mark.parametrize(("narrow", "verdict"), [(False, "agree"), (True, "reduced-precision")])
def test_a_sum_in_bfloat16_is_told_from_one_in_float32(
    monkeypatch: pytest.MonkeyPatch, narrow: bool, verdict: str
) -> None:
    monkeypatch.setattr(Scale, "narrow", narrow)
    report = verified(SCALED, MULTIPLIED, ROWS)
    assert verdicts(report) == {"x": "agree", "w": verdict}
    if narrow:
        assert "times what 'plain' loses in bfloat16" in of_mine(report)["w"].message


def test_a_factor_is_no_sum_in_few_digits() -> None:
    def larger(p: Any, b: Any) -> Any:
        p["w"].register_hook(lambda g: 1.25 * g)
        return applied(Scale, p["x"], p["w"])

    assert verdicts(verified(gw.Candidate("torch", larger), MULTIPLIED, ROWS))["w"] == "disagree"


# Kernels elsewhere


def _forward(a: Any, b: Any, out: Any) -> None:
    x = a[...].astype(jnp.float32)
    out[...] = (x * jax.nn.sigmoid(x) * b[...].astype(jnp.float32)).astype(out.dtype)


def _backward(g: Any, a: Any, b: Any, da: Any, db: Any, *, factor: float) -> None:
    c, x, y = (ref[...].astype(jnp.float32) for ref in (g, a, b))
    s = jax.nn.sigmoid(x)
    da[...] = (factor * c * y * s * (1 + x * (1 - s))).astype(da.dtype)
    db[...] = (c * x * s).astype(db.dtype)


def pallas(factor: float) -> Callable[[Any, Any], Any]:
    """A kernel in bfloat16, interpreted, whose gradient of a is so many times what it should be."""

    @jax.custom_vjp
    def swiglu(a: Any, b: Any) -> Any:
        if a.dtype != jnp.bfloat16:
            raise TypeError("compiled for bfloat16")
        return pl.pallas_call(_forward, out_shape=jax.ShapeDtypeStruct(a.shape, a.dtype), interpret=True)(a, b)

    def pulled(saved: Any, g: Any) -> Any:
        shape = jax.ShapeDtypeStruct(g.shape, g.dtype)
        backward = partial(_backward, factor=factor)
        return tuple(pl.pallas_call(backward, out_shape=(shape, shape), interpret=True)(g, *saved))

    swiglu.defvjp(lambda a, b: (swiglu(a, b), (a, b)), pulled)
    return lambda params, batch: swiglu(params["a"], params["b"])


def test_a_pallas_kernel_is_judged_by_torch() -> None:
    assert verdicts(verified(gw.Candidate("jax", pallas(1.01)))) == {"a": "disagree", "b": "agree"}


def test_a_kernel_beside_a_traced_loss_is_held_against_it_by_averages_as_well() -> None:
    def loss(params: Any, batch: Any) -> Any:
        return ops.silu(params["a"]) * params["b"]

    mine = {"mine": KERNEL}
    with changed(a=scaled(..., 1.01)):
        report = gw.verify(
            loss, PARAMS, candidates=mine, backends="torch", dtypes="bfloat16", cotangent="random", referee="torch"
        )
    assert verdicts(report) == {"a": "disagree", "b": "agree"}


def test_a_kernel_in_float32_is_judged_by_the_graph_and_by_no_averages() -> None:
    class Single(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            if x.dtype != torch.float32:
                raise TypeError("compiled for float32")
            ctx.save_for_backward(x)
            return x.tanh()

        @staticmethod
        def backward(ctx: Any, *g: torch.Tensor) -> Any:
            return g[0] * (1 - ctx.saved_tensors[0].tanh() ** 2) * Single.factor

        factor = 1.0

    tanh = gw.Candidate("torch", lambda p, b: applied(Single, p["x"]))
    params, plain = {"x": np.linspace(-2, 2, 30)}, gw.Candidate("torch", lambda p, b: p["x"].tanh())
    (right,) = of_mine(verified(tanh, plain, params, dtypes="float32")).values()
    assert (str(right.verdict), right.factor) == ("agree", None)
    assert (right.limit or 1) < 1e-4, "where differences in float32 saw hundredths"
    Single.factor = 1.0001
    assert verdicts(verified(tanh, plain, params, dtypes="float32")) == {"x": "disagree"}


class Wide(torch.autograd.Function):
    """Runs in every dtype."""

    factors: ClassVar[dict[torch.dtype, float]] = {}

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, *g: torch.Tensor) -> Any:
        return g[0] * (1 - ctx.saved_tensors[0].tanh() ** 2) * Wide.factors.get(g[0].dtype, 1.0)


@pytest.mark.parametrize(
    ("dtype", "said"), [(torch.bfloat16, "times what it should be"), (torch.float64, "wrong in float64 as well")]
)
def test_what_runs_in_float64_as_well_is_judged_in_both(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, said: str
) -> None:
    wide = gw.Candidate("torch", lambda p, b: applied(Wide, p["x"]))
    plain, params = gw.Candidate("torch", lambda p, b: p["x"].tanh()), {"x": PARAMS["a"]}
    monkeypatch.setattr(Wide, "factors", {dtype: 1.006})
    report = verified(wide, plain, params)
    assert verdicts(report) == {"x": "disagree"}
    assert said in of_mine(report)["x"].message


# Referees


def test_a_referee_is_one_of_the_candidates() -> None:
    with pytest.raises(UnknownName, match="unknown referee 'plane'; did you mean 'plain'"):
        verified(referee="plane")


def both() -> Any:
    """What the command verifies."""
    return {"mine": SCALED, "plain": MULTIPLIED}, ROWS, None


def test_the_command_line_names_one_as_well() -> None:
    target = f"{__name__}:both"
    done = CliRunner().invoke(cli, ["verify", target, "--dtype", "bfloat16", "--referee", "plane"])
    assert done.exit_code == 2
    assert "unknown referee 'plane'; did you mean 'plain'" in done.output


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (lambda p, b: p["x"] * p["w"] + 0 * torch.special.digamma(0 * p["x"] + 1), "there is no rule"),
        (lambda p, b: 1 / 0, "it did not run in bfloat16"),
    ],
)
def test_a_referee_that_cannot_judge_is_named_with_the_reason(loss: Any, why: str) -> None:
    mine = of_mine(verified(SCALED, gw.Candidate("torch", loss), ROWS))
    assert all(row.factor is None for row in mine.values())
    for row in mine.values():
        assert re.search(f"not judged by 'plain': .*{why}", row.message, re.DOTALL), row.message


def test_a_gradient_that_is_meant_to_differ_is_left_to_what_was_declared() -> None:
    report = verified(SCALED, MULTIPLIED, ROWS, intended={"x": "straight-through"})
    assert "not judged by 'plain': gradients are declared to be other" in of_mine(report)["w"].message


@pytest.mark.parametrize(("factor", "verdict"), [(0.0, "agree"), (0.5, "agree"), (0.9, "inconclusive")])
def test_a_loss_that_is_judged_by_its_values_says_too_what_rounding_hides(factor: float, verdict: str) -> None:
    """x + c - d with large c and d, off in float32 alone."""

    def gradient(p: Any, b: Any) -> Any:
        off = 1 if p["x"].dtype == np.float64 else p["x"].dtype.type(1 + factor)
        return {"x": 2 * ((p["x"] + b["c"]) - b["d"]) * off}

    mine = gw.Candidate("numpy", lambda p, b: np.sum(((p["x"] + b["c"]) - b["d"]) ** 2), gradient=gradient)
    x, far = 0.1 * np.random.default_rng(0).normal(size=8), np.array(1e4 + 0.123)
    (row,) = gw.verify(mine, {"x": x}, {"c": far, "d": far}, dtypes="float32").rows
    assert str(row.verdict) == verdict
    assert ("rounding in float32 hides errors of more than 1% here" in row.message) == (verdict == "agree")
