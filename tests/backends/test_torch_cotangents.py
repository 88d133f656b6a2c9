"""The path "strided cotangents": a backward that takes its cotangent for contiguous memory is caught in every loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

import gradwitness as gw

PATH = "strided cotangents"
PARAMS = {"x": np.random.default_rng(0).standard_normal((6, 4)), "w": np.random.default_rng(1).standard_normal((4, 4))}


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0] * 3 * ctx.saved_tensors[0] ** 2


class OfMemory(Cube):
    """As a kernel does that is given a pointer: it reads as many numbers as there are, from the first on."""

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        x = ctx.saved_tensors[0]
        memory = torch.as_strided(g[0], x.shape, torch.empty(x.shape).stride(), g[0].storage_offset())
        return memory * 3 * x**2


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "squared": lambda rule, p: (rule(p["x"]) ** 2).mean(),
    "summed": lambda rule, p: rule(p["x"]).sum(),
    "weighed": lambda rule, p: (rule(p["x"]) * torch.arange(24.0).reshape(6, 4).to(p["x"].dtype)).sum(),
    "before a product": lambda rule, p: (rule(p["x"]) @ p["w"]).cos().sum(),
    "behind a product": lambda rule, p: rule(p["x"] @ p["w"]).sin().sum(),
    "one of two branches": lambda rule, p: ((rule(p["x"]) + p["x"]) ** 2).sum(),
    "a softmax of it": lambda rule, p: torch.softmax(rule(p["x"]), -1)[:, 0].sum(),
}


def verified(rule: Any, name: str, paths: Any = PATH) -> gw.Report:
    loss = LOSSES[name]
    params = {path: PARAMS[path] for path in ("x", "w")[: 1 + ("product" in name)]}
    return gw.verify({"t": gw.Candidate("torch", lambda p, b: loss(rule.apply, p))}, params, paths=paths)


def verdicts(report: gw.Report) -> dict[str, str]:
    return {row.candidate: str(row.verdict) for row in report.rows if row.parameter in ("x", None)}


@pytest.mark.parametrize("name", LOSSES)
def test_a_backward_that_takes_memory_as_it_comes_is_caught(name: str) -> None:
    assert verdicts(verified(OfMemory, name))[f"t [{PATH}]"] in {"disagree", "error"}


@pytest.mark.parametrize("name", LOSSES)
def test_one_that_heeds_strides_agrees(name: str) -> None:
    report = verified(Cube, name)
    assert report, repr(report)
    assert verdicts(report) == {f"t [{PATH}]": "agree"}


# Seven rules, each of which takes something else of its cotangent for granted


def from_a_pointer(g: Any, x: Any) -> Any:
    """As many numbers as there are, from the first on."""
    return torch.as_strided(g, g.shape, torch.empty(g.shape).stride(), g.storage_offset())


def by_rows(g: Any, x: Any) -> Any:
    """Rows may lie anywhere; within one it goes from each number to the next."""
    return torch.as_strided(g, g.shape, (*g.stride()[:-1], 1), g.storage_offset())


def dense_rows(g: Any, x: Any) -> Any:
    """It asks whether a row is without gaps, and takes it that rows follow on each other."""
    return from_a_pointer(g if g.stride(-1) == 1 else g.contiguous(), x)


def from_the_beginning(g: Any, x: Any) -> Any:
    """It heeds strides, and forgets where in its memory an array begins."""
    return torch.as_strided(g, g.shape, g.stride(), 0)


def as_the_input_lies(g: Any, x: Any) -> Any:
    return torch.as_strided(g, g.shape, x.stride(), g.storage_offset())


def one_number(g: Any, x: Any) -> Any:
    """Of what is expanded along the first axis, it takes the first number for all."""
    return g if g.stride(0) else g.reshape(-1)[0].expand(g.shape)


def emptied(g: Any, x: Any) -> Any:
    """It works in what it was given, if it can."""
    if not g.is_contiguous():
        return g
    kept = g.clone()
    g.zero_()
    return kept


def as_it_is(g: Any, x: Any) -> Any:
    return g


class Reading(torch.autograd.Function):
    """`forward(x, *others)`, whose backward is autograd's own of what `read` makes of the cotangent."""

    @staticmethod
    def forward(ctx: Any, function: Any, read: Any, *inputs: Any) -> Any:
        ctx.function, ctx.read = function, read
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        inputs = [x.detach().requires_grad_(x.is_floating_point()) for x in ctx.saved_tensors]
        with torch.enable_grad():
            y = ctx.function(*inputs)
        read = ctx.read(g[0], inputs[0])
        return None, None, *torch.autograd.grad(y, [x for x in inputs if x.requires_grad], read), *_nones(inputs)


def _nones(inputs: Any) -> list[None]:
    return [None] * sum(not x.requires_grad for x in inputs)


def attention(q: Any, k: Any, v: Any) -> Any:
    return torch.softmax(q @ k.mT / 2, -1) @ v


DRAW = np.random.default_rng(5).standard_normal
SEVEN: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "gelu": (torch.nn.functional.gelu, from_a_pointer, {"x": DRAW((5, 4))}),
    "layer norm": (lambda x: torch.nn.functional.layer_norm(x, (4,)), by_rows, {"x": DRAW((5, 4))}),
    "softmax": (lambda x: torch.softmax(x, -1), dense_rows, {"x": DRAW((5, 4))}),
    "cumsum": (lambda x: torch.cumsum(x, 0), from_the_beginning, {"x": DRAW((5, 4))}),
    "attention": (attention, as_the_input_lies, {"q": DRAW((2, 5, 4)), "k": DRAW((2, 5, 4)), "v": DRAW((2, 5, 4))}),
    "linear": (torch.nn.functional.linear, one_number, {"x": DRAW((5, 4)), "w": DRAW((3, 4))}),
    "embedding": (lambda w, i: torch.nn.functional.embedding(i, w), emptied, {"w": DRAW((7, 4))}),
}


def of_seven(name: str, read: Any, paths: Any) -> gw.Report:
    function, _, params = SEVEN[name]
    labels = [torch.tensor([0, 2, 2, 6, 1])] if name == "embedding" else []

    def loss(p: Any, b: Any) -> Any:
        return Reading.apply(function, read, *p.values(), *labels)  # type: ignore[no-untyped-call]

    return gw.verify({"t": gw.Candidate("torch", loss)}, params, cotangent="random", paths=paths)


@pytest.mark.parametrize("name", SEVEN)
def test_what_a_rule_takes_for_granted_of_its_cotangent_is_found_on_this_path_alone(name: str) -> None:
    report = of_seven(name, SEVEN[name][1], ["eager", PATH])
    rows = [row for row in report.rows if row.parameter]
    assert {str(row.verdict) for row in rows if row.path == "eager"} == {"agree"}, repr(report)
    assert "disagree" in {str(row.verdict) for row in rows if row.path == PATH}, repr(report)


@pytest.mark.parametrize("name", SEVEN)
def test_a_rule_that_takes_nothing_for_granted_agrees(name: str) -> None:
    report = of_seven(name, as_it_is, [PATH])
    assert report, repr(report)
    assert {str(row.verdict) for row in report.rows} == {"agree"}


class Spending(Cube):
    """It works in what it saved for itself, and so can run only once."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(3 * x**2)
        return x**3

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return ctx.saved_tensors[0].mul_(g[0])


def test_a_backward_that_can_run_only_once_is_not_accused() -> None:
    report = verified(Spending, "squared", ["eager", PATH])
    assert verdicts(report) == {"t [eager]": "agree", f"t [{PATH}]": "unsupported", "t Spending": "unsupported"}
    assert report, repr(report)
    assert "the backward of Spending writes to what it saved, so it can run only once" in report.table()


class Freeing(Cube):
    """It lets go of what it needs no longer."""

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        slope = ctx.slope
        del ctx.slope
        return g[0] * slope

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.slope = 3 * x**2
        return x**3


def test_a_backward_that_frees_what_it_used_agrees() -> None:
    assert verified(Freeing, "squared")


def test_a_rule_inside_a_checkpoint_is_unpacked_once() -> None:
    def loss(p: Any, b: Any) -> Any:
        return (checkpoint(Cube.apply, p["x"], use_reentrant=False) ** 2).sum()

    report = gw.verify({"t": gw.Candidate("torch", loss)}, {"x": PARAMS["x"]}, paths=[PATH])
    assert report, repr(report)


def test_without_a_rule_of_ones_own_the_path_does_not_apply() -> None:
    report = gw.verify({"t": gw.Candidate("torch", lambda p, b: (p["x"] ** 2).sum())}, {"x": PARAMS["x"]}, paths=[PATH])
    assert verdicts(report) == {f"t [{PATH}]": "unsupported"}
    assert "no autograd.Function of one's own runs" in report.rows[0].message
