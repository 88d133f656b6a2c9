"""Each kind of finding is planted, and found where it was; the same network without it is healthy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import gradwitness as gw
from gradwitness import ops
from gradwitness.diagnosis.findings import RULES
from gradwitness.problem import Problem

RNG = np.random.default_rng(0)
WIDTH, DEPTH, BATCH = 16, 8, 64


def deep(activation: Callable[..., Any], gain: float, *, bias: float = 0.0, scale: float = 1.0) -> Problem:
    """Layers of one width, weights of variance gain^2 / width. scale: of the loss."""
    rng = np.random.default_rng(1)
    weights = [rng.normal(0.0, gain / WIDTH**0.5, (WIDTH, WIDTH)) for _ in range(DEPTH)]
    params = {"layers": [{"weight": w, "bias": np.full(WIDTH, bias)} for w in weights]}
    batch = {"x": rng.normal(size=(BATCH, WIDTH)), "target": rng.normal(size=(BATCH, WIDTH))}

    def loss(p: Any, b: Any) -> Any:
        x = b["x"]
        for layer in p["layers"]:
            x = activation(ops.linear(x, **layer))
        return ops.mse(x, b["target"], reduction="mean", half=True) * scale

    return Problem("deep", loss, params, batch)


def small(loss: Callable[..., Any], **params: Any) -> Problem:
    batch = {"x": np.random.default_rng(2).normal(size=(8, 4)), "y": np.arange(8) % 3}
    return Problem("small", loss, {name: np.asarray(x, float) for name, x in params.items()}, batch)


W = np.random.default_rng(3).normal(size=(3, 4))


def entropy(logits: Any, batch: Any) -> Any:
    return ops.cross_entropy(logits, batch["y"], reduction="mean")


def by_exp(p: Any, b: Any) -> Any:
    e = ops.exp(ops.linear(b["x"], p["w"]))
    return ops.log(e.sum(axis=1)).mean()


def by_log(p: Any, b: Any) -> Any:
    return -ops.log(ops.relu(ops.linear(b["x"], p["w"])) * p["scale"] + p["eps"]).mean()


def log_of_softmax(p: Any, b: Any) -> Any:
    return -ops.log(ops.softmax(ops.linear(b["x"], p["w"]), axis=1)).mean()


def log_softmax(p: Any, b: Any) -> Any:
    return -ops.log_softmax(ops.linear(b["x"], p["w"]), axis=1).mean()


def normalized(p: Any, b: Any) -> Any:
    hidden = ops.linear(b["x"], p["w"], p["bias"])
    return entropy(ops.batch_norm(hidden, p["scale"], p["shift"], eps=1e-5), b)


def shifted(p: Any, b: Any) -> Any:
    return entropy(ops.linear(b["x"], p["w"]) * p["scale"] + p["shift"], b)


def unused(p: Any, b: Any) -> Any:
    return entropy(ops.linear(b["x"], p["w"]), b) + 0.0 * ops.stop_gradient(p["left_out"]).sum()


def times_zero(p: Any, b: Any) -> Any:
    return entropy(ops.linear(b["x"], p["w"]) + 0.0 * p["left_out"], b)


def used(p: Any, b: Any) -> Any:
    return entropy(ops.linear(b["x"], p["w"]) + p["left_out"], b)


NORMALIZED = {"w": W, "bias": np.ones(3), "scale": np.ones(3), "shift": np.zeros(3)}
SHIFTED = {"w": W, "scale": np.ones(3), "shift": np.zeros(3)}

PLANTED: dict[str, tuple[str, Problem, Problem]] = {  # kind: (where, with it, without it)
    "vanishing": ("layers.0", deep(ops.sigmoid, 1.0), deep(ops.tanh, 1.2)),
    "exploding": ("layers.0", deep(ops.leaky_relu, 6.0), deep(ops.leaky_relu, 1.4)),
    "dead units": ("layers.1", deep(ops.relu, 1.4, bias=-1.5), deep(ops.leaky_relu, 1.4, bias=-1.5)),
    "saturated units": ("layers.1", deep(ops.tanh, 8.0), deep(ops.tanh, 1.2)),
    "exp overflows": ("w", small(by_exp, w=40 * W), small(by_exp, w=W)),
    "log of zero": (
        "scale",
        small(by_log, w=W, scale=1.0, eps=1e-12),
        small(by_log, w=W, scale=1.0, eps=1e-2),
    ),
    "log of softmax": ("w", small(log_of_softmax, w=W), small(log_softmax, w=W)),
    "underflow in float16": ("", deep(ops.tanh, 1.2, scale=1e-4), deep(ops.tanh, 1.2, scale=100.0)),
    "zero but for rounding": ("bias", small(normalized, **NORMALIZED), small(shifted, **SHIFTED)),
    "not reached": ("left_out", small(unused, w=W, left_out=np.ones(3)), small(used, w=W, left_out=np.ones(3))),
    "zero everywhere": ("left_out", small(times_zero, w=W, left_out=np.ones(3)), small(used, w=W, left_out=np.ones(3))),
}


def found(problem: Problem, **how: Any) -> list[tuple[str, str]]:
    report = gw.health(problem, backends="numpy", **how)
    return [(finding.kind, finding.where) for finding in report.findings]


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_is_found_where_it_is(kind: str) -> None:
    where, problem, _ = PLANTED[kind]
    assert (kind, where) in found(problem)


@pytest.mark.parametrize("kind", PLANTED)
def test_without_it_there_is_none(kind: str) -> None:
    _, _, problem = PLANTED[kind]
    assert kind not in [name for name, _ in found(problem)]


def test_a_gradient_that_is_all_rounding_in_its_dtype_alone() -> None:
    """Of a sum of large numbers that nearly cancel: float64 has some digits of it, float16 none."""

    def loss(p: Any, b: Any) -> Any:
        return ((p["w"] + 1e4) * b["x"] - 1e4 * b["x"]).sum() * p["scale"] + (p["w"] ** 2).sum()

    batch = {"x": np.array([1.0, 1.0 + 2**-9, -2.0])}
    problem = Problem("cancelling", loss, {"w": np.array([0.1, 0.2, 0.3]), "scale": np.array(1.0)}, batch)
    assert ("all rounding", "scale") in found(problem, dtype="float16")
    assert ("all rounding", "scale") not in found(problem, dtype="float64")


def test_every_kind_is_planted() -> None:
    assert {*PLANTED, "all rounding"} == set(RULES)


def test_a_remedy_says_by_how_much_to_scale_the_loss() -> None:
    _, problem, _ = PLANTED["underflow in float16"]
    (finding,) = (f for f in gw.health(problem, backends="numpy").findings if f.kind == "underflow in float16")
    scale = 2.0 ** int(finding.remedy.split()[4].removeprefix("2**").rstrip(","))
    largest = max(float(np.abs(g).max()) for g in gradients(problem).values())
    assert 65504 / 4 < scale * largest <= 65504 / 2 * 1.0001


def gradients(problem: Problem) -> dict[str, np.ndarray]:
    from gradwitness import registry

    interpreter = registry.interpreter()
    return interpreter.backward(interpreter.forward(problem.graph, problem.leaves), problem.differentiated)


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(6, 24), torch.nn.Linear(24, 6)

    def forward(self, x: Any) -> Any:
        return x + self.down(torch.relu(self.up(x)))


def test_layers_of_a_module_have_its_own_names() -> None:
    from gradwitness_torch import from_module

    torch.manual_seed(0)
    first, second = Block(), Block()
    second.up.bias.data -= 3.0
    module = torch.nn.Sequential(first, second)
    loss, params = from_module(module, lambda m, b: (m(b["x"]) ** 2).mean())
    report = gw.health({"torch": loss}, params, {"x": torch.randn(9, 6)}, backends="numpy,torch")
    assert [s.layer for s in report.stages] == ["0.up", "0.down", "1.up", "1.down"]
    assert [s.activation for s in report.stages] == ["relu", "", "relu", ""]
    assert ("dead units", "1.up") in [(f.kind, f.where) for f in report.findings]
    assert ("dead units", "0.up") not in [(f.kind, f.where) for f in report.findings]
    assert not report
    assert all(flow.used <= 1 and not flow.why for flow in report.flows.values())
