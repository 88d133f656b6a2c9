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


def by_square(p: Any, b: Any) -> Any:
    return (ops.linear(b["x"], p["w"]) ** 2.0).sum() * 1e300


PLANTED: dict[str, tuple[str, Problem, Problem]] = {  # kind: (where, with it, without it)
    "not finite": ("w", small(by_square, w=1e10 * W), small(by_square, w=1e-10 * W)),
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
    report = gw.health({"torch": loss}, params, {"x": torch.randn(32, 6)}, backends="numpy,torch")
    assert [s.layer for s in report.stages] == ["0.up", "0.down", "1.up", "1.down"]
    assert [s.activation for s in report.stages] == ["relu", "", "relu", ""]
    assert ("dead units", "1.up") in [(f.kind, f.where) for f in report.findings]
    assert ("dead units", "0.up") not in [(f.kind, f.where) for f in report.findings]
    assert not report
    assert all(flow.used <= 1 and not flow.why for flow in report.flows.values())


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_parameter_of_which_nothing_is_used_is_not_reached(backend: str) -> None:
    def loss(p: Any, b: Any) -> Any:
        return ((b["x"] @ p["w"]) ** 2).mean()

    params, batch = {"w": np.ones((4, 2)), "u": np.ones(3)}, {"x": np.random.default_rng(0).normal(size=(5, 4))}
    report = gw.health({backend: loss}, params, batch, backends="numpy")
    assert [(f.kind, f.where) for f in report.findings if f.kind == "not reached"] == [("not reached", "u")]
    assert not report


@pytest.mark.parametrize("order", [("a", "c"), ("c", "a")])
def test_a_gradient_that_is_nan_is_found_in_any_order(order: tuple[str, str]) -> None:
    def loss(p: Any, b: Any) -> Any:
        return (p["a"] * b["x"]).sum() + (p["c"] * b["nan"]).sum()

    params = {name: np.ones(3) for name in order}
    report = gw.health(Problem("nan", loss, params, {"x": np.ones(3), "nan": np.array([1.0, np.nan, 2.0])}))
    assert "not finite" in [finding.kind for finding in report.findings]
    assert not report
    assert not any(flow.is_other for flow in report.flows.values()), "nothing can be said of them"


def test_ends_of_little_weight_make_no_trunk_explode() -> None:
    rng = np.random.default_rng(0)
    trunk = [{"weight": rng.normal(0, 0.3, (10, 10)), "bias": np.zeros(10)} for _ in range(4)]
    heads = {name: {"weight": rng.normal(size=(3, 10)), "bias": np.zeros(3)} for name in ("main", "aux")}
    batch = {"x": rng.normal(size=(32, 10)), "y": rng.normal(size=(32, 3))}

    def loss(p: Any, b: Any) -> Any:
        x = b["x"]
        for layer in p["trunk"]:
            x = ops.tanh(ops.linear(x, **layer))
        parts = [ops.mse(ops.linear(x, **p[name]), b["y"], reduction="mean", half=True) for name in ("main", "aux")]
        return parts[0] + 1e-5 * parts[1]

    kinds = {kind for kind, _ in found(Problem("heads", loss, {"trunk": trunk, **heads}, batch))}
    assert not kinds & {"vanishing", "exploding"}


@pytest.mark.parametrize("shape", [(64, 3, 4, 4), (64, 4, 4, 3), (64, 3, 8)])
def test_dead_channels_are_found_wherever_they_are(shape: tuple[int, ...]) -> None:
    axis = shape.index(3)

    def loss(p: Any, b: Any) -> Any:
        return (ops.relu(b["x"] + p["shift"]) * b["x"]).sum()

    shift = np.zeros([3 if place == axis else 1 for place in range(len(shape))])
    shift[(0,) * axis + (1,)] = -50.0
    batch = {"x": np.random.default_rng(0).normal(size=shape)}
    (finding,) = (
        f
        for f in gw.health(Problem("dead", loss, {"shift": shift}, batch), backends="numpy").findings
        if f.kind == "dead units"
    )
    assert "1 of 3 ReLU units" in finding.message


def test_a_batch_too_small_says_nothing_of_dead_units() -> None:
    problem = deep(ops.relu, 1.4, bias=-1.5)
    batch = {name: x[:4] for name, x in problem.batch.items()}
    few = Problem("few", problem.loss, problem.params, batch)
    assert "dead units" not in [kind for kind, _ in found(few)]
