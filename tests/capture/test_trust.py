"""No graph is believed: it is used only if it proves to be the loss, and its derivative that of the loss."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradwitness as gw

W = {"w": np.array([0.7, 1.3, 2.0])}
TO = torch.arange(1.0, 4.0).double()


def verified(loss: Any, params: Any = W, batch: Any = None, backend: str = "torch", **how: Any) -> gw.Report:
    return gw.verify({backend: loss}, params, batch, **({"dtypes": "float64"} | how))


def verdicts(report: gw.Report) -> set[str]:
    return {str(row.verdict) for row in report.rows}


def why_not(report: gw.Report) -> str:
    (why,) = {row.not_captured for row in report.rows}
    assert why is not None, "it was captured"
    return why


# Solvers


def halved(w: Any, where: Any, zeros: Any, threes: Any) -> Any:
    low, high = zeros, threes
    for _ in range(60):
        middle = (low + high) / 2
        below = middle**3 < w
        low, high = where(below, middle, low), where(below, high, middle)
    return low


def bisected(p: Any, b: Any) -> Any:
    return (halved(p["w"], torch.where, torch.zeros(3).double(), torch.full((3,), 3.0).double()) * TO + p["w"]).sum()


def bisected_in_jax(p: Any, b: Any) -> Any:
    return (halved(p["w"], jnp.where, jnp.zeros(3), jnp.full(3, 3.0)) + p["w"]).sum()


class Root(torch.autograd.Function):
    """The cube root by halves; its backward by the implicit function theorem."""

    factor = 1.0

    @staticmethod
    def forward(ctx: Any, w: Any) -> Any:
        root = halved(w, torch.where, torch.zeros_like(w), torch.full_like(w, 3.0))
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return Root.factor * g[0] / (3 * ctx.saved_tensors[0] ** 2)


def implicit(p: Any, b: Any) -> Any:
    return (Root.apply(p["w"]) * TO).sum()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("loss", "backend"), [(bisected, "torch"), (bisected_in_jax, "jax")])
def test_bisection_has_the_values_of_a_root_and_the_derivative_of_stairs(loss: Any, backend: str) -> None:
    """Traced, its derivative is that of w alone; 256-bit differences at 2^-110 are below its stairs, and confirm it."""
    report = verified(loss, backend=backend)
    assert verdicts(report) == {"disagree"}
    assert "its derivatives do not: does a step of it end on a comparison?" in why_not(report)


def test_an_implicit_rule_is_judged_by_the_values_of_its_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    right = verified(implicit)
    assert right, repr(right)
    assert "does a step of it end on a comparison?" in why_not(right)
    monkeypatch.setattr(Root, "factor", 1.001)
    assert verdicts(verified(implicit)) == {"disagree"}


def newton(w: Any, ones: Any, steps: int) -> Any:
    x = ones
    for _ in range(steps):
        x = x - (x**3 - w) / (3 * x**2)
    return x


@pytest.mark.parametrize("steps", [3, 8])
def test_newtons_steps_are_unrolled(steps: int) -> None:
    report = verified(lambda p, b: newton(p["w"], torch.ones_like(p["w"]), steps).sum())
    assert report, repr(report)
    assert all(row.captured for row in report.rows)


def test_a_fixed_point_that_ends_at_a_tolerance_is_judged_one_way_or_the_other() -> None:
    def settled(p: Any, b: Any) -> Any:
        x = torch.ones_like(p["w"])
        while ((x.cos() * p["w"] / 3 - x).abs().max() > 1e-14).item():
            x = x.cos() * p["w"] / 3
        return x.sum()

    report = verified(settled)
    assert verdicts(report) <= {"agree", "inconclusive"}, repr(report)


def test_a_while_loop_of_jax_is_unrolled_as_it_ran() -> None:
    @jax.custom_vjp
    def root(w: Any) -> Any:
        return jax.lax.while_loop(
            lambda x: jnp.max(jnp.abs(x**3 - w)) > 1e-12, lambda x: x - (x**3 - w) / (3 * x**2), jnp.ones_like(w)
        )

    root.defvjp(lambda w: (root(w),) * 2, lambda x, g: (g / (3 * x**2),))
    report = verified(lambda p, b: root(p["w"]).sum(), backend="jax")
    assert report, repr(report)
    assert any("when a while loop ends" in remark for row in report.rows for remark in row.remarks)


# Decisions


def routed(p: Any, b: Any) -> Any:
    weights, chosen = torch.softmax(p["r"], -1).topk(2)
    experts = torch.stack([(p["e"][j] * b["x"]).sum() for j in range(4)])
    return (weights / weights.sum() * experts[chosen]).sum()


def routed_wrongly(p: Any, b: Any) -> Any:
    weights, chosen = torch.softmax(p["r"], -1).topk(2)
    experts = torch.stack([(p["e"][j] * b["x"]).sum() for j in range(4)])
    return (weights / weights.sum().detach() * experts[chosen]).sum()


ROUTED = {"r": np.array([0.3, -1.0, 1.1, 0.2]), "e": np.random.default_rng(1).standard_normal((4, 3))}


def test_a_top_k_is_a_decision_and_is_listed() -> None:
    report = verified(routed, ROUTED, {"x": np.array([1.0, -2.0, 0.5])})
    assert report, repr(report)
    assert all(row.captured for row in report.rows)
    assert any("which elements topk picks is decided at the point" in r for row in report.rows for r in row.remarks)
    assert "which elements topk picks" in report.table()


def test_what_a_router_detaches_is_found_and_its_line_named() -> None:
    report = verified(routed_wrongly, ROUTED, {"x": np.array([1.0, -2.0, 0.5])})
    (row,) = (row for row in report.rows if row.parameter == "r")
    assert str(row.verdict) == "disagree"
    assert f"; it stops where the loss detaches: {__file__}:" in row.message


def read_out(p: Any, b: Any) -> Any:
    return (p["w"] * p["w"].sum().item()).sum()


def branching(p: Any, b: Any) -> Any:
    return (p["w"] ** 2).sum() if p["w"].sum() > 0 else p["w"].sum()


def test_a_number_that_is_read_out_is_caught_by_the_values_elsewhere() -> None:
    report = verified(read_out)
    assert verdicts(report) == {"disagree"}
    assert "the losses differ at seeded neighbour 1" in why_not(report)


def test_a_branch_on_a_number_is_taken_as_at_the_point_and_listed() -> None:
    report = verified(branching)
    assert report, repr(report)
    assert all("is read out of a tensor" in row.remarks[0] for row in report.rows)


# What is detached


class Doubling(torch.autograd.Function):
    """Detaches inside: what a rule does there is its own affair."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x.detach() * x

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return 2 * g[0] * ctx.saved_tensors[0]


def without_gradient(p: Any, b: Any) -> Any:
    with torch.no_grad():
        scale = p["w"].sum()
    return (p["w"] * scale).sum()


STOPPED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "detach": (lambda p, b: (p["w"].detach() * p["w"]).sum(), "torch"),
    ".data": (lambda p, b: (p["w"].data * p["w"]).sum(), "torch"),
    "no_grad": (without_gradient, "torch"),
    "stop_gradient": (lambda p, b: (jax.lax.stop_gradient(p["w"]) * p["w"]).sum(), "jax"),
}


@pytest.mark.parametrize("name", STOPPED)
def test_a_gradient_that_stops_is_no_derivative_and_the_line_is_named(name: str) -> None:
    loss, backend = STOPPED[name]
    (row,) = verified(loss, backend=backend).rows
    assert str(row.verdict) == "disagree"
    assert row.captured
    assert f"; it stops where the loss detaches: {__file__}:" in row.message


@pytest.mark.parametrize("name", STOPPED)
def test_where_that_is_intended_it_is_said_to_be(name: str) -> None:
    loss, backend = STOPPED[name]
    report = verified(loss, backend=backend, intended={"w": "a target that stands still"})
    assert verdicts(report) == {"intended"}


def test_what_a_rule_detaches_inside_is_its_own_affair() -> None:
    report = verified(lambda p, b: Doubling.apply(p["w"]).sum())  # type: ignore[no-untyped-call]
    assert report, repr(report)
    assert all(row.captured and not row.remarks for row in report.rows)


def test_a_softmax_of_jax_stops_at_its_maximum_and_is_right() -> None:
    report = verified(lambda p, b: (jax.nn.softmax(p["w"]) * b["x"]).sum(), batch={"x": np.arange(3.0)}, backend="jax")
    assert report, repr(report)
    assert all(row.captured and not row.remarks for row in report.rows)


# Fewer digits inside


def in_float32(p: Any, b: Any) -> Any:
    hidden = torch.tanh((b["x"] @ p["w"].T).float()).to(p["w"].dtype)
    return (hidden * b["y"]).sum()


class Squashed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = torch.tanh(x.float())
        ctx.save_for_backward(y)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        y = ctx.saved_tensors[0].to(g[0].dtype)
        return g[0] * (1 - y * y) * (1 + 1e-4)


DATA = {"x": np.random.default_rng(2).standard_normal((6, 5)), "y": np.random.default_rng(3).standard_normal((6, 4))}
WEIGHTS = {"w": np.random.default_rng(4).standard_normal((4, 5))}


def test_a_loss_that_computes_in_float32_inside_is_judged_with_that_floor() -> None:
    report = verified(in_float32, WEIGHTS, DATA)
    assert report, repr(report)
    (row,) = report.rows
    assert row.captured
    assert row.floor is not None
    assert 1e-9 < row.floor < 1e-5


def test_no_such_floor_excuses_a_ten_thousandth() -> None:
    def wrong(p: Any, b: Any) -> Any:
        return (Squashed.apply(b["x"] @ p["w"].T) * b["y"]).sum()  # type: ignore[no-untyped-call]

    assert verdicts(verified(wrong, WEIGHTS, DATA)) == {"disagree"}


class InFloat32(torch.autograd.Function):
    """Right, but for its backward, which computes in float32 whatever it is given."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return (g[0].float() * ctx.saved_tensors[0].float().cos()).to(g[0].dtype)


def test_a_backward_in_float32_of_a_loss_in_float64_is_not_excused_by_itself() -> None:
    assert verdicts(verified(lambda p, b: InFloat32.apply(p["w"]).sum())) == {"disagree"}  # type: ignore[no-untyped-call]


# Rules


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0].mul_(ctx.saved_tensors[0].cos())


class Sine(Scale):
    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0] * ctx.saved_tensors[0].cos()


@pytest.mark.parametrize("first", [True, False])
def test_a_backward_that_writes_to_its_cotangent_is_named(first: bool) -> None:
    """Whichever of two branches gets the cotangent first: the other's gradient is wrong, or is not by chance."""
    params = {"a": DATA["x"], "b": DATA["x"][::-1].copy()}

    def residual(rule: Any) -> Any:
        def loss(p: Any, b: Any) -> Any:
            parts = [rule.apply(p["a"]), p["b"]]
            return ((sum(parts if first else parts[::-1]) - 1) ** 2).sum()

        return loss

    report = verified(residual(Scale), params)
    assert "Scale: error: fails to leave its arguments alone: its backward writes to grad_output" in repr(report)
    assert verified(residual(Sine), params)


class SummedNarrowly(torch.autograd.Function):
    """The gradient of w is a sum over rows, kept in the dtype of its terms."""

    in_wide = False

    @staticmethod
    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        x, w = ctx.saved_tensors
        terms = g[0] * x
        if SummedNarrowly.in_wide:
            return g[0] * w, terms.double().sum(0).to(w.dtype)
        total = torch.zeros_like(w)
        for term in terms:
            total = total + term
        return g[0] * w, total


@pytest.mark.parametrize("in_wide", [True, False])
def test_a_sum_in_sixteen_bits_is_not_excused_by_its_own_rounding(
    in_wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SummedNarrowly, "in_wide", in_wide)
    rng = np.random.default_rng(5)
    params = {"x": np.abs(rng.standard_normal((1024, 8))), "w": np.ones(8)}

    def loss(p: Any, b: Any) -> Any:
        return (SummedNarrowly.apply(p["x"], p["w"]) * b["y"]).sum()  # type: ignore[no-untyped-call]

    report = verified(loss, params, {"y": np.abs(rng.standard_normal((1024, 8)))}, dtypes="bfloat16")
    (row,) = (row for row in report.rows if row.parameter == "w")
    assert str(row.verdict) == ("agree" if in_wide else "inconclusive"), repr(report)
    assert in_wide or "only its own operations explain that" in row.message


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, scale: Any, times: int) -> Any:
        ctx.save_for_backward(scale)
        ctx.times = times
        return x * scale * times, x + 1

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return 0.5 * g[0] * ctx.saved_tensors[0] * ctx.times + g[1], None, None


def test_the_rule_that_is_wrong_is_named_and_no_other() -> None:
    def loss(p: Any, b: Any) -> Any:
        first, second = Halved.apply(Sine.apply(p["x"]), b["y"], 3)  # type: ignore[no-untyped-call]
        return (first * second).sum()

    (row,) = verified(loss, {"x": DATA["y"]}, {"y": DATA["y"]}).rows
    assert str(row.verdict) == "disagree"
    assert re.search(r"; wrong by itself: the backward of Halved \(input 0, by 0\.\d+ of its norm\)( |$)", row.message)


class Leaky(torch.autograd.Function):
    """It compares, as a solver does, and is none."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return torch.where(x > 0, x, 0.1 * x)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return torch.where(ctx.saved_tensors[0] > 0, g[0], 0.2 * g[0])


def test_a_rule_that_compares_is_named_once_its_graph_is_proven() -> None:
    (row,) = verified(lambda p, b: (Leaky.apply(p["x"]) * b["y"]).sum(), {"x": DATA["y"]}, {"y": DATA["y"]}).rows  # type: ignore[no-untyped-call]
    assert "; wrong by itself: the backward of Leaky (input 0, by 0." in row.message


def test_a_solver_is_named_by_its_own_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Root, "factor", 1.001)
    (row,) = verified(implicit).rows
    assert row.message.endswith("; wrong by itself: the backward of Root (input 0, refuted by differences)")


class OffWhereLarge(torch.autograd.Function):
    """Right at the first call that its backward sees, and wrong at the second."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        x = ctx.saved_tensors[0]
        return g[0] * 3 * x**2 * torch.where(x.abs().max() > 1, 1.5, 1.0)


def test_a_rule_is_looked_at_wherever_it_is_called() -> None:
    def loss(p: Any, b: Any) -> Any:
        return OffWhereLarge.apply(torch.tanh(OffWhereLarge.apply(p["w"]))).sum()  # type: ignore[no-untyped-call]

    (row,) = verified(loss).rows
    assert "; wrong by itself: the backward of OffWhereLarge (input 0, by 0.5 of its norm)" in row.message


def test_where_all_rules_are_right_none_is_named() -> None:
    def loss(p: Any, b: Any) -> Any:
        return (Sine.apply(p["w"]) * p["w"].detach()).sum()  # type: ignore[no-untyped-call]

    (row,) = verified(loss).rows
    assert str(row.verdict) == "disagree"
    assert "by itself" not in row.message


def test_values_alone_judge_where_that_is_asked_for() -> None:
    report = verified(branching, capture="never")
    assert report, repr(report)
    assert why_not(report) == 'capture="never" was asked for'


def test_what_is_too_large_for_a_graph_is_judged_by_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwitness.run.captured.LARGEST", 2)
    report = verified(branching)
    assert report, repr(report)
    assert why_not(report) == "it has 3 parameters, and graphs of up to 2 are held in memory beside them"


def test_a_subprocess_captures_what_this_process_does() -> None:
    here, there = verified(branching), verified(branching, timeout=60)
    assert [row.captured for row in there.rows] == [row.captured for row in here.rows] == [2]


# Elsewhere


def tanh_in_jax(p: Any, b: Any) -> Any:
    return jnp.tanh(p["w"] * jnp.arange(3.0)).sum()


ELSEWHERE = {"torch": (routed, ROUTED, {"x": np.array([1.0, -2.0, 0.5])}), "jax": (tanh_in_jax, W, {})}


@pytest.mark.parametrize(("backend", "others"), [("torch", ["numpy", "jax"]), ("jax", ["numpy", "torch"])])
def test_a_captured_loss_runs_on_the_backends_that_it_was_not_written_for(backend: str, others: list[str]) -> None:
    loss, params, batch = ELSEWHERE[backend]
    report = verified(loss, params, batch, backend, backends=others, dtypes=("float64", "float32"))
    assert {row.candidate for row in report.rows} == {backend, *others}
    assert {str(row.verdict) for row in report.rows if row.candidate in others} == {"agree"}


def test_a_graph_that_is_not_the_loss_says_nothing_of_it_elsewhere() -> None:
    """In jax the stairs of a bisection have the derivative that 256 bits confirm, 0."""
    report = verified(implicit, backends=["numpy", "jax"])
    found = {row.candidate: str(row.verdict) for row in report.rows}
    assert found == {"torch": "agree", "numpy": "inconclusive", "jax": "inconclusive"}
    assert all("was not shown to be the loss" in row.message for row in report.rows if row.candidate != "torch")


def test_weights_are_drawn_before_a_loss_runs_elsewhere() -> None:
    report = verified(lambda p, b: p["w"].sin(), backends=["numpy"], cotangent="random")
    assert report, repr(report)


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_an_iteration_that_ends_at_a_tolerance_is_no_better_than_that(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The implicit rule is right to 1e-12; its unrolled steps have another derivative in the last digits."""
    monkeypatch.setattr(Steps, "factor", factor)
    report = verified(lambda p, b: Steps.apply(p["w"]).sum())  # type: ignore[no-untyped-call]
    assert verdicts(report) == ({"agree"} if factor == 1.0 else {"disagree"}), repr(report)


class Steps(torch.autograd.Function):
    """x = cos(x) w / 3, by as many steps as leave 1e-13 of it."""

    factor = 1.0

    @staticmethod
    def forward(ctx: Any, w: Any) -> Any:
        x = torch.ones_like(w)
        for _ in range(70):
            x = x.cos() * w / 3
        ctx.save_for_backward(x, w)
        return x

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        x, w = ctx.saved_tensors
        return Steps.factor * g[0] * x.cos() / 3 / (1 + x.sin() * w / 3)


def test_slopes_that_cancel_at_a_kink_excuse_no_rule_that_differences_refute() -> None:
    """log(exp(x) + exp(y)) as jax composes it has a maximum and an absolute value, and no kink."""

    @jax.custom_vjp
    def added(x: Any, y: Any) -> Any:
        return jnp.logaddexp(x, y)

    added.defvjp(lambda x, y: (added(x, y), ()), lambda _, g: (g, 0 * g))
    same = {"x": np.zeros(3), "y": np.zeros(3)}
    report = verified(lambda p, b: (added(p["x"], p["y"]) * jnp.arange(1.0, 4.0)).sum(), same, backend="jax")
    assert verdicts(report) <= {"disagree", "inconclusive"}, repr(report)
    assert not report


def test_what_a_mask_writes_follows_the_mask() -> None:
    def loss(p: Any, b: Any) -> Any:
        x = p["w"] * 1.0
        x[x > 1.0] = 0.5
        flags = torch.zeros(3).double()
        flags[p["w"] > 1.0] = 1.0
        return (x * x + flags * p["w"]).sum()

    report = verified(loss)
    assert report, repr(report)
    assert all(row.captured and not row.remarks for row in report.rows)


def test_indices_that_are_used_are_decisions_and_others_are_not() -> None:
    def used(p: Any, b: Any) -> Any:
        return (b["y"].gather(1, p["w"].max(1, keepdim=True).indices) * p["w"]).sum()

    def unused(p: Any, b: Any) -> Any:
        return p["w"].max(1, keepdim=True).values.sum()

    params = {"w": WEIGHTS["w"]}
    graphs = [gw.capture(gw.Candidate("torch", f), params, {"y": WEIGHTS["w"]}) for f in (used, unused)]
    assert [[remark.kind for remark in graph.remarks] for graph in graphs] == [["decision"], []]


def test_a_graph_stands_wherever_a_traced_loss_does() -> None:
    graph = gw.capture(gw.Candidate("torch", branching), W)
    assert gw.verify(graph, W, backends=["numpy", "torch"])
    assert gw.Problem("captured", graph, W, {}).graph is graph


def test_what_cannot_be_captured_cannot_run_elsewhere() -> None:
    with pytest.raises(gw.GradwitnessError, match=r"none could be read:\ntorch in float64: .*zeta"):
        verified(lambda p, b: torch.special.zeta(p["w"] + 1, p["w"]).sum(), backends="numpy")
    with pytest.raises(gw.GradwitnessError, match="capture takes a Candidate"):
        gw.capture(branching, W)  # type: ignore[arg-type]
