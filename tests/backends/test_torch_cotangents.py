"""The path "strided cotangents": a backward that takes its cotangent for contiguous memory is caught in every loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

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


class OfRows(Cube):
    """Its rows may lie anywhere; within one it goes from each number to the next."""

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        x, rows = ctx.saved_tensors[0], g[0].stride(0) if g[0].ndim else 0
        memory = torch.as_strided(g[0], x.shape, (rows, *torch.empty(x.shape[1:]).stride()), g[0].storage_offset())
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


def verified(rule: Any, name: str) -> gw.Report:
    loss = LOSSES[name]
    params = {path: PARAMS[path] for path in ("x", "w")[: 1 + ("product" in name)]}
    return gw.verify({"t": gw.Candidate("torch", lambda p, b: loss(rule.apply, p))}, params, paths=["eager", PATH])


def verdicts(report: gw.Report) -> dict[str, str]:
    return {row.candidate: str(row.verdict) for row in report.rows if row.parameter in ("x", None)}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("rule", [OfMemory, OfRows])
def test_a_backward_that_takes_memory_as_it_comes_is_caught(rule: Any, name: str) -> None:
    assert verdicts(verified(rule, name))[f"t [{PATH}]"] in {"disagree", "error"}


@pytest.mark.parametrize("name", LOSSES)
def test_one_that_heeds_strides_agrees(name: str) -> None:
    report = verified(Cube, name)
    assert report, repr(report)
    assert verdicts(report) == {"t [eager]": "agree", f"t [{PATH}]": "agree"}


def test_without_a_rule_of_ones_own_the_path_does_not_apply() -> None:
    report = gw.verify({"t": gw.Candidate("torch", lambda p, b: (p["x"] ** 2).sum())}, {"x": PARAMS["x"]}, paths=[PATH])
    assert verdicts(report) == {f"t [{PATH}]": "unsupported"}
    assert "no autograd.Function of one's own runs" in report.rows[0].message
