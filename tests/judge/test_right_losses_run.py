"""Right losses that once were errors or had no gradient run, and no loss is called with what it was not given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradwitness as gw
from gradwitness_torch import from_module
from tests.judge.cases import Case, each

BOTH = ("float64", "float32")


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def verdicts(report: gw.Report) -> dict[str | None, str]:
    return {row.parameter: str(row.verdict) for row in report.rows}


# A power whose exponents are whole numbers


def power(loss: Callable[[Any, Any], Any], dtypes: Any = "float64", kind: Any = np.int32) -> Case:
    batch = {"n": np.array([3, 2, 1], kind), "r": np.array([1.0, -2.0, 0.5])}
    return Case({"jax": loss}, {"w": np.array([0.7, 1.3, 2.0])}, batch, verdicts=["agree"], how={"dtypes": dtypes})


POWERS = {
    "w ** n": power(lambda p, b: (p["w"] ** b["n"]).sum()),
    "w ** n, float32": power(lambda p, b: (p["w"] ** b["n"]).sum(), "float32"),
    "w ** n, 64 bits": power(lambda p, b: jnp.power(p["w"], b["n"]).sum(), kind=np.int64),
    "w ** -n": power(lambda p, b: (p["w"] ** -b["n"]).sum()),
    "all by all": power(lambda p, b: (p["w"][:, None] ** b["n"][None]).prod(0).sum()),
    "a discounted return": power(lambda p, b: (0.99 ** jnp.arange(3) * b["r"] * jnp.tanh(p["w"])).sum()),
    "a decay by a count": power(lambda p, b: (p["w"] / (1 - 0.9 ** b["n"])).sum(), BOTH),
    "w ** 3": power(lambda p, b: (p["w"] ** 3).sum()),
}


@each({"a power": POWERS})
def test_a_right_loss_agrees(case: Case) -> None:
    report = case.report()
    assert case.holds(report), repr(report)
    assert report


# Modules whose backward runs them again


class Adjoint(torch.autograd.Function):
    """Its backward runs the layer again, with the parameters that it has by then."""

    @staticmethod
    def forward(ctx: Any, x: Any, layer: Any, *parameters: Any) -> Any:
        ctx.layer, ctx.count = layer, len(parameters)
        ctx.save_for_backward(x)
        return layer(x).detach()

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            parameters = list(ctx.layer.parameters())
            found = torch.autograd.grad(ctx.layer(x), [x, *parameters], g[0])
        return found[0], None, *found[1:]


ADJOINT: Any = Adjoint


class Again(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.first, self.second, self.way = nn.Linear(6, 5), nn.Linear(5, 2), way

    def forward(self, x: Any) -> Any:
        inner = nn.Sequential(self.first, nn.Tanh())
        if self.way == "adjoint":
            return self.second(ADJOINT.apply(x, inner, *inner.parameters()))
        x = x.clone().requires_grad_() if self.way == "reentrant" else x
        return self.second(checkpoint(inner, x, use_reentrant=self.way == "reentrant"))


def of_module(module: nn.Module, batch: dict[str, Any], **how: Any) -> gw.Report:
    loss, params = from_module(module, lambda m, b: m(b["x"]).pow(2).mean())
    return gw.verify({"torch": loss}, params, batch, **how)


def seeded(make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return make()


@pytest.mark.parametrize("dtypes", BOTH)
@pytest.mark.parametrize("way", ["checkpoint", "reentrant", "adjoint"])
def test_a_module_that_runs_again_in_its_backward_agrees(way: str, dtypes: str) -> None:
    report = of_module(seeded(lambda: Again(way)), {"x": normal(0, 4, 6)}, dtypes=dtypes)
    assert report, repr(report)
    assert len(report.rows) == 4


def test_such_a_module_has_the_gradient_by_its_batch_too() -> None:
    assert of_module(seeded(lambda: Again("checkpoint")), {"x": normal(0, 4, 6)}, wrt=["x"], dtypes="float32")


class Embedded(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.embed, self.block, self.head = (
            nn.Embedding(9, 6),
            nn.Sequential(nn.Linear(6, 6), nn.Tanh()),
            nn.Linear(6, 3),
        )
        self.reentrant = reentrant

    def forward(self, x: Any) -> Any:
        return self.head(checkpoint(self.block, self.embed(x), use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_a_reentrant_checkpoint_lacks_gradients_only_behind_frozen_layers(frozen: bool, reentrant: bool) -> None:
    module = seeded(lambda: Embedded(reentrant)).double()
    module.embed.weight.requires_grad_(not frozen)
    report = of_module(module, {"x": torch.arange(8) % 9})
    lacking = {"block.0.weight", "block.0.bias"} if frozen and reentrant else set()
    found = verdicts(report)
    assert found == {path: "missing" if path in lacking else "agree" for path in found}
    assert len(found) == (4 if frozen else 5)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_and_the_reason_is_told() -> None:
    module = seeded(lambda: Embedded(True)).double()
    module.embed.weight.requires_grad_(False)
    said = {row.parameter: row.message for row in of_module(module, {"x": torch.arange(8) % 9}).rows}
    assert "a reentrant checkpoint whose inputs require no gradient" in said["block.0.weight"]
    assert said["head.weight"] == ""


# An example is left out only where nothing else has so many


def cut(seen: Counter[Any], total: Callable[[Any, Any], Any], *names: str) -> Callable[[Any, Any], Any]:
    """Counts the extents that the loss is called with."""

    def loss(p: Any, b: Any) -> Any:
        seen[tuple(len(b[name] if name in b else p[name]) for name in names)] += 1
        return total(p, b)

    return loss


def distances(p: Any, b: Any) -> Any:
    """As a kernel of dynamic time warping: distances in params, lengths in the batch."""
    return (p["D"] * b["scale"]).sum((1, 2))[: len(b["lengths"])].sum()


LENGTHS = {"lengths": np.full((3, 2), 4), "scale": np.array(2.0)}


@pytest.mark.parametrize("size", [(3, 4, 5), (3, 2, 3)])
@pytest.mark.parametrize("backend", ["torch", "jax", "numpy"])
def test_an_example_is_not_left_out_beside_params_that_keep_theirs(backend: str, size: tuple[int, ...]) -> None:
    seen: Counter[Any] = Counter()
    gradient = None if backend != "numpy" else lambda p, b: {"D": np.ones(size) * b["scale"]}
    options = {"jit": False} if backend == "jax" else {}
    mine = gw.Candidate(backend, cut(seen, distances, "D", "lengths"), gradient=gradient, options=options)
    report = gw.verify({"mine": mine}, {"D": np.ones(size)}, LENGTHS, dtypes="float64")
    assert report, repr(report)
    assert set(seen) == {(3, 3)}, "no other extents are given"
    assert "not tried with a batch of another size, as D has an extent of 3 too" in report.rows[0].message


def test_nor_beside_an_extent_elsewhere_in_the_batch() -> None:
    """An adjacency of nodes: (3, 3), and as many graphs as nodes."""
    seen: Counter[Any] = Counter()
    total = lambda p, b: (b["x"] @ p["w"]).sum() + b["adjacency"][:, : len(b["x"])].sum()  # noqa: E731
    loss = cut(seen, total, "x", "adjacency")
    batch = {"x": normal(0, 3, 2), "adjacency": normal(1, 5, 3)}
    assert gw.verify(gw.Candidate("torch", loss), {"w": normal(2, 2)}, batch, dtypes="float64")
    assert set(seen) == {(3, 5)}


def test_where_all_is_cut_alike_it_is_left_out() -> None:
    seen: Counter[Any] = Counter()
    loss = cut(seen, lambda p, b: ((b["x"] @ p["w"] - b["y"]) ** 2).mean(), "x", "y")
    batch = {"x": normal(0, 7, 2), "y": normal(1, 7)}
    assert gw.verify(gw.Candidate("torch", loss), {"w": normal(2, 2)}, batch, dtypes="float64")
    assert set(seen) == {(7, 7), (6, 6)}


# An inner gradient: what does not take it is unsupported, no error


def penalty(p: Any, b: Any) -> Any:
    x = b["x"].detach().clone().requires_grad_()
    out = (nn.functional.silu(x @ p["w1"]) @ p["w2"])[:, 0]
    (g,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    return out.mean() + ((g.norm(dim=1) - 1) ** 2).mean()


def test_paths_that_take_no_inner_gradient_are_unsupported() -> None:
    params, batch = {"w1": normal(3, 3, 5), "w2": normal(4, 5, 1)}, {"x": normal(5, 6, 3)}
    report = gw.verify({"torch": penalty}, params, batch, paths=["eager", "torch.func.grad", "vmap", "backward"])
    assert report, repr(report)
    found = {(row.path, str(row.verdict)) for row in report.rows}
    assert found == {
        ("eager", "agree"),
        ("backward", "agree"),
        ("torch.func.grad", "unsupported"),
        ("vmap", "unsupported"),
    }
