"""Execution paths and custom rules in torch: each with a fault that shows on that path, or by that check, alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradwitness as gw
from gradwitness import registry
from gradwitness_torch import from_module
from gradwitness_torch.paths import PATHS
from tests.backends.torch_rules import (
    BATCH,
    COMPILED,
    EAGER,
    PARAMS,
    NeedsNCHW,
    OldStyle,
    ReadsMemory,
    Square,
    Unbatched,
    WrongUnderVmap,
    layer,
    message,
    verdicts,
    verify,
)

RNG = np.random.default_rng(0)


def test_the_paths_declared_are_those_that_there_are() -> None:
    assert registry.backend("torch").capabilities.paths == tuple(PATHS)
    assert registry.backend("torch.compile").capabilities.paths == ()


@pytest.mark.parametrize("to", ["sum", "mean"])
def test_a_right_rule_agrees_on_every_path(to: str) -> None:
    report = verify(layer(Square.apply, to), dtypes=("float64", "float32"))
    assert report, repr(report)
    assert verdicts(report) == dict.fromkeys(EAGER, "agree") | {"channels-last": "unsupported"}
    assert {row.path for row in report.rows} == set(EAGER)
    assert message(report, "channels-last") == "no array has four axes"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # which torch.compile gives of torch
def test_compiled_paths_agree_and_a_wrong_rule_does_not() -> None:
    class Wrong(Square):
        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return 2.001 * g * ctx.saved_tensors[0]

    right = verify(layer(Square.apply), COMPILED, dtypes=("float64", "float32"))
    assert verdicts(right) == dict.fromkeys(COMPILED, "agree"), repr(right)
    assert all(row.custom is None for row in right.rows), "compiled code does not tell"
    wrong = verify(layer(Wrong.apply), COMPILED)  # made by the same lines as the right one
    assert verdicts(wrong) == dict.fromkeys(COMPILED, "disagree"), repr(wrong)
    plain = gw.verify(replace(layer(Wrong.apply), backend="torch.compile"), PARAMS, BATCH)
    assert {str(row.verdict) for row in plain.rows} == {"disagree"}


@pytest.mark.slow
def test_a_graph_break_is_reported_with_its_line_and_never_compared() -> None:
    def branching(p: Any, d: Any) -> Any:
        value = (d["x"] @ p["w"]).square().mean()
        return value if value > 0 else -value

    report = verify(gw.Candidate("torch", branching), ["eager", *COMPILED])
    assert verdicts(report) == {"eager": "agree"} | dict.fromkeys(COMPILED, "error")
    for path in COMPILED:
        assert "the graph breaks at test_torch_paths.py:" in message(report, path)
        assert "return value if value > 0 else -value: Data-dependent branching" in message(report, path)


@pytest.mark.slow
def test_the_compiled_gradient_takes_trees_and_weighed_losses() -> None:
    params = {"layers": [{"w": RNG.standard_normal((4, 3))}, (RNG.standard_normal(3),)]}

    def loss(p: Any, d: Any) -> Any:
        first, (bias,) = p["layers"]
        return torch.tanh(d["x"] @ first["w"] + bias)

    report = verify(gw.Candidate("torch", loss), ["torch.compile(grad)"], params, cotangent="random")
    assert report, repr(report)


def test_a_function_right_in_eager_and_wrong_under_vmap_is_at_fault_there() -> None:
    report = verify(layer(WrongUnderVmap.apply))
    assert {path for path, verdict in verdicts(report).items() if verdict not in ("agree", "unsupported")} == {"vmap"}
    assert verdicts(report)["vmap"] in ("disagree", "different-loss")


def test_a_function_that_assumes_contiguous_memory_is_at_fault_there() -> None:
    def loss(p: Any, d: Any) -> Any:
        return ReadsMemory.apply(p["w"]).sum()  # type: ignore[no-untyped-call]

    report = verify(gw.Candidate("torch", loss), ["eager", "checkpoint", "non-contiguous"])
    assert verdicts(report) == {"eager": "agree", "checkpoint": "agree", "non-contiguous": "disagree"}


def test_a_view_of_what_is_not_contiguous_is_an_error_there() -> None:
    report = verify(gw.Candidate("torch", lambda p, d: p["w"].view(-1).square().sum()), ["eager", "non-contiguous"])
    assert verdicts(report) == {"eager": "agree", "non-contiguous": "error"}
    assert "view size is not compatible" in message(report, "non-contiguous")


@pytest.mark.parametrize(("rule", "verdict"), [(Square, "agree"), (NeedsNCHW, "disagree")])
def test_channels_last_is_tried_where_there_are_four_axes(rule: Any, verdict: str) -> None:
    images, weight = RNG.standard_normal((2, 3, 4, 5)), RNG.standard_normal((3, 3, 2, 2))

    def loss(p: Any, d: Any) -> Any:
        return (rule.apply(p["image"]) * d["mask"]).sum() + F.conv2d(p["image"], d["weight"]).square().sum()

    params, batch = {"image": images}, {"mask": RNG.standard_normal(images.shape), "weight": weight}
    report = verify(gw.Candidate("torch", loss), ["eager", "channels-last"], params, batch)
    assert verdicts(report) == {"eager": "agree", "channels-last": verdict}, repr(report)


class LeavesInGrad(torch.autograd.Function):
    """A layer that its backward runs again, with a backward of its own that fills `.grad`: a reversible network."""

    factor = 1.0

    @staticmethod
    def forward(ctx: Any, x: Any, layer: Any) -> Any:
        ctx.layer, ctx.x = layer, x.detach()
        return layer(x).detach()

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        with torch.enable_grad():
            x = ctx.x.requires_grad_()
            ctx.layer(x).backward(cotangents[0] * LeavesInGrad.factor)
        return x.grad, None


class Layered(nn.Module):
    """Two layers, one of them, or both, behind what wants `loss.backward()`."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.first, self.second, self.way = nn.Linear(4, 4), nn.Linear(4, 4), way

    def forward(self, x: Any) -> Any:
        if self.way == "alone":  # x requires no gradient but for a trick, and autograd knows of no way to the layer
            return LeavesInGrad.apply(x.clone().requires_grad_(), self.second)  # type: ignore[no-untyped-call]
        if self.way == "stacked":
            for layer in (self.first, self.second):
                x = LeavesInGrad.apply(x.clone().requires_grad_(), layer).tanh()  # type: ignore[no-untyped-call]
            return x
        h = self.first(x).tanh()
        if self.way in ("reentrant", "checkpoint"):
            return checkpoint(self.second, h, use_reentrant=self.way == "reentrant")
        h = LeavesInGrad.apply(h, self.second)  # type: ignore[no-untyped-call]
        return self.second(h) if self.way == "shared" else h


def layered(way: str, paths: Any = (), **more: Any) -> Any:
    torch.manual_seed(0)
    loss, params = from_module(Layered(way), lambda m, d: m(d["x"]).square().mean())
    return gw.verify({"torch": loss}, params, BATCH, paths=paths, **more)


@pytest.mark.parametrize("way", ["within", "shared", "alone", "stacked", "reentrant"])
def test_what_is_left_in_grad_is_part_of_the_gradient(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after loss.backward(), on the plain path and on that of its name; and a fault in it is found."""
    for paths in ((), ["backward"]):
        report = layered(way, paths, dtypes=("float64", "float32"))
        assert report, repr(report)
        assert len({row.parameter for row in report.rows if row.reference}) == (2 if way == "alone" else 4)
        if way != "reentrant":
            monkeypatch.setattr(LeavesInGrad, "factor", 1.001)
            wrong = layered(way, paths, dtypes="float64")
            found = {row.parameter for row in wrong.rows if str(row.verdict) == "disagree"}
            assert found >= {"second.weight", "second.bias"}, repr(wrong)
            monkeypatch.undo()


def test_a_rule_that_counts_a_gradient_twice_is_at_fault() -> None:
    """It returns it and leaves it in .grad: torch.autograd.grad alone would look right."""

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, w: Any) -> Any:
            ctx.save_for_backward(x, w)
            ctx.w = w
            return x @ w

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            x, w = ctx.saved_tensors
            g = x.T @ cotangents[0]
            ctx.w.grad = g.clone()
            return cotangents[0] @ w.T, g

    twice = gw.Candidate("torch", lambda p, d: Twice.apply(d["x"], p["w"]).square().mean())  # type: ignore[no-untyped-call]
    assert {str(row.verdict) for row in gw.verify(twice, PARAMS, BATCH).rows} == {"disagree"}


@pytest.mark.parametrize(("way", "paths"), [("plain", ["eager", "backward"]), ("reentrant", ["eager"])])
@pytest.mark.filterwarnings("ignore:the loss reads")
def test_the_gradients_of_what_a_loss_closes_over_are_left_alone(way: str, paths: Any) -> None:
    layer, head = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    for p in layer.parameters():
        p.grad = torch.ones_like(p)

    def loss(p: Any, d: Any) -> Any:
        y = layer(d["x"] @ p["w"])
        return (checkpoint(torch.tanh, y, use_reentrant=True) if way == "reentrant" else head(y)).square().mean()

    report = verify(gw.Candidate("torch", loss), paths)
    assert report, repr(report)
    assert all(p.grad is not None and torch.all(p.grad == 1) for p in layer.parameters())
    assert all(p.grad is None for p in head.parameters())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_a_reentrant_checkpoint_of_what_requires_no_gradient_is_told() -> None:
    torch.manual_seed(0)
    module = Layered("reentrant")
    module.first.requires_grad_(False)
    loss, params = from_module(module, lambda m, d: m(d["x"]).square().mean() + m.second.bias.sum())
    found = {row.parameter: row for row in gw.verify({"torch": loss}, params, BATCH).rows}
    assert str(found["second.weight"].verdict) == "missing"
    assert REENTRANT in found["second.weight"].message


REENTRANT = "a reentrant checkpoint whose inputs require no gradient"


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("timeout", [None, 120.0])
def test_the_reason_crosses_from_a_subprocess(timeout: float | None) -> None:
    def loss(p: Any, d: Any) -> Any:
        return checkpoint(lambda x: (x @ p["w"]).tanh(), d["x"], use_reentrant=True).mean() + p["b"].sum()

    candidate = gw.Candidate("torch", loss)
    report = gw.verify(candidate, {"w": np.ones((3, 2)), "b": np.ones(2)}, {"x": np.eye(3)}, timeout=timeout)
    found = {row.parameter: row for row in report.rows}
    assert str(found["w"].verdict) == "missing"
    assert REENTRANT in found["w"].message
    assert "reentrant" not in found["b"].message, "which gets one"


def penalized(p: Any, d: Any) -> Any:
    x = d["x"].clone().requires_grad_()
    (slope,) = torch.autograd.grad((x @ p["w"]).tanh().sum(), x, create_graph=True)
    return slope.square().mean()


def test_a_tensor_made_inside_a_loss_is_not_closed_over() -> None:
    """Warnings are errors here."""
    report = verify(gw.Candidate("torch", penalized), ["eager", "backward", "checkpoint"])
    assert verdicts(report) == dict.fromkeys(("eager", "backward", "checkpoint"), "agree"), repr(report)


def test_an_inner_gradient_of_autograd_is_not_for_torch_func() -> None:
    report = verify(gw.Candidate("torch", penalized), ["torch.func.grad", "vmap"])
    assert verdicts(report) == dict.fromkeys(("torch.func.grad", "vmap"), "unsupported"), repr(report)
    assert "take inner gradients by torch.func.grad" in message(report, "vmap")


def with_a_checkpoint(p: Any, d: Any) -> Any:
    return checkpoint(torch.tanh, d["x"] @ p["w"], use_reentrant=False).square().mean()


def test_a_checkpoint_inside_a_loss_is_not_for_torch_func() -> None:
    report = verify(gw.Candidate("torch", with_a_checkpoint))
    refused = dict.fromkeys(("torch.func.grad", "vmap", "channels-last", "strided cotangents"), "unsupported")
    assert verdicts(report) == dict.fromkeys(EAGER, "agree") | refused, repr(report)


@pytest.mark.slow
def test_a_compilation_that_fails_leaves_other_paths_alone() -> None:
    loss, params = from_module(Layered("checkpoint"), lambda m, d: m(d["x"]).square().mean())
    report = verify(gw.Candidate("torch", loss), ["torch.compile(grad)", "checkpoint"], params)
    found = verdicts(report)
    assert found["torch.compile(grad)"] in ("error", "unsupported")
    assert found["checkpoint"] == "agree", repr(report)


@pytest.mark.slow
def test_an_inner_gradient_of_autograd_is_not_compiled() -> None:
    report = verify(gw.Candidate("torch", penalized), COMPILED)
    assert verdicts(report) == dict.fromkeys(COMPILED, "unsupported"), repr(report)


def test_a_cache_that_a_second_forward_finds_is_an_error_under_checkpointing() -> None:
    cache: dict[int, Any] = {}

    def remembering(p: Any, d: Any) -> Any:
        w = p["w"]
        if id(w) not in cache:
            cache[id(w)] = w, torch.tanh(d["x"] @ w)
        return cache[id(w)][1].square().mean()

    report = verify(gw.Candidate("torch", remembering), ["eager", "checkpoint"])
    assert verdicts(report) == {"eager": "agree", "checkpoint": "error"}, repr(report)
    assert "CheckpointError" in message(report, "checkpoint")


def test_a_loss_that_is_no_sum_over_examples_has_no_vmap() -> None:
    coupled = gw.Candidate("torch", lambda p, d: torch.logsumexp((d["x"] @ p["w"]).sum(1), 0))
    report = verify(coupled, ["eager", "vmap"])
    assert verdicts(report) == {"eager": "agree", "vmap": "unsupported"}
    assert "neither the sum nor the mean of the losses of its 8 examples" in message(report, "vmap")
    alone = verify(gw.Candidate("torch", lambda p, d: p["w"].square().sum()), ["vmap", "eager"], batch={})
    assert "the batch has no array of examples" in message(alone, "vmap")


def test_an_array_of_losses_is_weighed_example_by_example() -> None:
    report = verify(gw.Candidate("torch", lambda p, d: torch.tanh(d["x"] @ p["w"])), ["vmap"], cotangent="random")
    assert verdicts(report) == {"vmap": "agree"}, repr(report)


def test_what_a_function_lacks_for_a_path_is_said_with_how_to_mend_it() -> None:
    old = verify(layer(OldStyle.apply), ["eager", "torch.func.grad"])
    assert old, "what cannot be tried on a path is no fault"
    assert "setup_context(ctx, inputs, output)" in message(old, "torch.func.grad")
    unbatched = verify(layer(Unbatched.apply), ["eager", "vmap"])
    assert verdicts(unbatched) == {"eager": "agree", "vmap": "unsupported"}
    assert "generate_vmap_rule = True" in message(unbatched, "vmap")


def test_the_report_says_once_why_paths_do_not_apply() -> None:
    table = verify(layer(OldStyle.apply), EAGER, dtypes=("float64", "float32")).table()
    assert table.count("setup_context(ctx") == 1
    assert "\nloss mine [torch.func.grad], mine [vmap]: unsupported: torch.func needs" in table


def test_what_torch_uses_to_call_backwards_is_as_it_was() -> None:
    before = dict(vars(torch.autograd.function.BackwardCFunction))

    def raising(p: Any, d: Any) -> Any:
        raise ValueError("no")

    verify(gw.Candidate("torch", raising))
    verify(layer(Square.apply), ["eager"])
    assert dict(vars(torch.autograd.function.BackwardCFunction)) == before


def test_a_traced_loss_takes_paths_as_well() -> None:
    def loss(p: Any, d: Any) -> Any:
        return gw.ops.mse(gw.ops.tanh(gw.ops.matmul(d["x"], p["w"])), d["y"], reduction="mean", half=False)

    batch = {**BATCH, "y": RNG.standard_normal((8, 3))}
    report = gw.verify(loss, PARAMS, batch, backends=("numpy", "torch"), paths=["torch.func.grad", "non-contiguous"])
    assert report, repr(report)
    assert [row.candidate for row in report.rows] == ["numpy", "torch [torch.func.grad]", "torch [non-contiguous]"]
