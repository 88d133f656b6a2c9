"""What people write in torch, read into a graph: its loss and its gradient are autograd's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradwitness as gw
from gradwitness.errors import CaptureError
from gradwitness.protocol import Interpreter
from gradwitness_torch import from_module

SAME = 1e-12  # of the largest element
DRAW = np.random.default_rng(0).standard_normal
PARAMS = {
    "m": DRAW((3, 4)),
    "n": DRAW((4, 4)) + 4 * np.eye(4),
    "v": DRAW(4),
    "image": DRAW((2, 4, 6, 5)),
    "line": DRAW((2, 4, 9)),
    "kernel": DRAW((4, 2, 3, 3)),
    "tap": DRAW((4, 4, 3)),
    "positive": np.abs(DRAW(5)) + 0.5,
    "heads": DRAW((2, 4, 3, 6)),
    "table": DRAW((5, 3)),
}
INDEX = torch.tensor([2, 0, 2, 1])
Params = dict[str, torch.Tensor]


def written_in_place(p: Params) -> Any:
    x = p["m"] * 1.0
    x[1:3] = p["v"] * x[0].clone()
    x.add_(1.0)
    x[:, 0].mul_(2.0)
    x[x > 2] = 0.5
    return x.sin()


def views_of_one_memory(p: Params) -> Any:
    x = torch.zeros(3, 4, dtype=p["m"].dtype)
    turned, row = x.t(), x[1]
    x[:, 1:3] = p["m"][:, :2]
    x.view(-1)[::5] += p["v"][:3]
    return turned.cumsum(0) + row.sum()


def buffers_filled_in_a_loop(p: Params) -> Any:
    out = torch.empty(4, 3, dtype=p["m"].dtype)
    for i in range(4):
        out[i] = p["m"][:, i] * i
    return out.exp()


def copied_over(p: Params) -> Any:
    x = torch.zeros_like(p["m"])
    x.copy_(p["v"])
    x.zero_()
    x[0].copy_(p["m"][0])
    return x.fill_diagonal_(2.0) * p["m"]


def in_place(p: Params) -> Any:
    x = p["m"] * 1.0
    x.addcmul_(p["m"], p["v"], value=0.5)
    x[1:].addcdiv_(p["v"], p["m"][1:].exp())
    return x.lerp_(p["m"].cos(), 0.3)


def volume(p: Params) -> Any:
    return torch.stack([p["image"], p["image"].cos(), p["image"] ** 2], dim=2)


def stacked(p: Params) -> Any:
    return torch.stack([p["n"], p["n"].flip(0)])


def definite(p: Params) -> Any:
    return p["n"] @ p["n"].T + torch.eye(4).double()


def recurrent(p: Params) -> Any:
    h = torch.zeros(4, dtype=p["v"].dtype)
    for row in p["m"]:
        h = torch.tanh(row + p["n"] @ h)
    return h


def scattered(p: Params) -> Any:
    x = torch.zeros(3, 4, dtype=p["m"].dtype)
    x = x.scatter_add(1, torch.tensor([[0, 0, 1, 3]] * 3), p["m"])
    x = x.index_add(0, torch.tensor([0, 0]), p["m"][1:])
    x = x.index_put((torch.tensor([0, 0, 2]), torch.tensor([1, 1, 3])), p["v"][:3], accumulate=True)
    return x.scatter(1, torch.tensor([[2]] * 3), p["m"][:, :1]).cos()


class Square(torch.autograd.Function):
    """Right going forward, wrong going backward, which a capture never sees."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        y = x.clone()
        y.mul_(x)
        return y

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0] * 2 * ctx.saved_tensors[0]


LOSSES: dict[str, Callable[[Params], Any]] = {
    "in place": written_in_place,
    "views of one memory": views_of_one_memory,
    "a buffer filled in a loop": buffers_filled_in_a_loop,
    "copied over": copied_over,
    "recurrent": recurrent,
    "scattered": scattered,
    "an autograd.Function": lambda p: Square.apply(p["m"]),  # type: ignore[no-untyped-call]
    "a checkpoint": lambda p: torch.utils.checkpoint.checkpoint(lambda x: x.sin() * x, p["m"], use_reentrant=False),
    "vmap": lambda p: torch.func.vmap(lambda row: row.dot(p["v"]).tanh())(p["m"]),
    "einsum": lambda p: torch.einsum("ij,jk,k->i", p["m"], p["n"], p["v"]),
    "einsum of batches": lambda p: torch.einsum("bhqd,bhkd->bqk", p["heads"], p["heads"]),
    "bilinear": lambda p: F.bilinear(p["m"], p["m"], p["n"][None]),
    "flipped and rolled": lambda p: p["m"].flip(1).roll((1, 2), (0, 1)) * p["m"],
    "a triangle": lambda p: p["n"].tril(-1).exp() + p["n"].triu().sin(),
    "diagonals": lambda p: p["n"].diagonal(1).sin().sum() + torch.diag_embed(p["v"]).cos(),
    "unfolded": lambda p: p["line"].unfold(2, 3, 2).prod(-1),
    "windows": lambda p: F.unfold(p["image"], 2, stride=2).sin(),
    "repeated": lambda p: p["m"].repeat(2, 3).sin() + p["m"].repeat_interleave(2, 0).tile(1, 3),
    "gathered": lambda p: p["m"].gather(1, torch.tensor([[0, 3, 3]] * 3)).sin() * p["m"][:, INDEX[:3]],
    "indexed by arrays": lambda p: p["m"][INDEX, torch.tensor([0, 1, 1, 3])] * p["v"],
    "indexed by a mask": lambda p: p["m"][torch.tensor([True, False, True])].sin(),
    "padded by reflection": lambda p: F.pad(p["line"], (2, 1), mode="reflect").sin(),
    "padded by copies": lambda p: F.pad(p["image"], (1, 0, 2, 1), mode="replicate").sin(),
    "padded by a number": lambda p: F.pad(p["m"], (1, -1), value=3.0).sin(),
    "padded in a circle": lambda p: F.pad(p["line"], (2, 1), mode="circular").sin(),
    "embedding": lambda p: F.embedding(INDEX, p["table"]).sin(),
    "cumulative": lambda p: p["m"].cumsum(1).sin() + p["m"].cumprod(0) + p["m"].logcumsumexp(1),
    "a product": lambda p: p["m"].prod() + p["m"].prod(1).sum() + p["m"].prod(0, keepdim=True),
    "moments": lambda p: p["m"].std() + p["m"].var(1, correction=0).sum() + torch.var_mean(p["m"], 0)[0].sum(),
    "norms": lambda p: p["m"].norm() + p["m"].norm(p=1, dim=1).sum() + p["m"].norm(p=3) + F.normalize(p["m"], dim=1),
    "distances": lambda p: F.pairwise_distance(p["m"], p["m"].flip(0) + 1) + F.cosine_similarity(p["m"], p["m"].exp()),
    "sorted": lambda p: p["m"].sort(1).values * torch.arange(4.0, dtype=torch.float64) + p["m"].topk(2)[0].sum(),
    "extrema": lambda p: p["m"].max(1).values + p["m"].amin(1) + p["m"].median(1).values + p["m"].min(),
    "elementwise": lambda p: (
        p["m"].sin() + p["m"].exp2() + p["m"].tan() * 1e-3 + p["m"].erfc() + p["m"].reciprocal() * 1e-3
    ),
    "logarithms": lambda p: (
        p["positive"].log2() + p["positive"].log10() + p["positive"].log1p() + p["positive"].rsqrt()
    ),
    "powers": lambda p: (
        p["positive"] ** 2.5 + 2 ** p["positive"] + p["positive"] ** p["positive"] + p["positive"].square()
    ),
    "activations": lambda p: (
        F.mish(p["m"])
        + F.hardswish(p["m"])
        + F.selu(p["m"])
        + F.logsigmoid(p["m"])
        + F.softsign(p["m"])
        + F.tanhshrink(p["m"])
        + F.gelu(p["m"], approximate="tanh")
    ),
    "with thresholds": lambda p: (
        F.relu6(p["m"] * 4)
        + F.threshold(p["m"], 0.1, 20.0)
        + F.softplus(p["m"] * 9, beta=2, threshold=6)
        + F.hardshrink(p["m"])
        + F.softshrink(p["m"])
        + F.leaky_relu(p["m"], 0.2)
        + F.rrelu(p["m"], training=False)
    ),
    "gated": lambda p: F.glu(p["m"], 1).sum() + F.prelu(p["image"], p["v"]).sin(),
    "clamped by tensors": lambda p: p["m"].clamp(min=p["v"] - 1).clamp_max(p["v"] + 1),
    "chosen": lambda p: torch.where((p["m"] > 0) & ~(p["m"] > 1), p["m"].exp(), p["m"] * 2),
    "masked": lambda p: p["m"].masked_fill(torch.eye(3, 4).bool(), -1e9).softmax(-1),
    "truth as numbers": lambda p: (p["m"] > 0).to(p["m"].dtype) * p["m"] + p["m"] * (p["m"] < 1),
    "rounded to another dtype": lambda p: p["m"].sin().to(torch.float64) * p["m"],
    "conv1d": lambda p: F.conv1d(p["line"], p["tap"], p["v"], stride=2, padding=1),
    "conv2d in groups": lambda p: F.conv2d(p["image"], p["kernel"], padding="same", groups=2, dilation=2),
    "transposed convolutions": lambda p: (
        F.conv_transpose2d(p["image"], p["kernel"], stride=2, padding=1, output_padding=(1, 0), groups=2).sin().sum()
        + F.conv_transpose1d(p["line"], p["tap"], p["v"], stride=3, dilation=2).sin()
    ),
    "pooling": lambda p: (
        F.max_pool2d(p["image"], 3, 2, 1, ceil_mode=True).sum()
        + F.max_pool2d(p["image"], 2, 1, dilation=2).sum()
        + F.max_pool1d(p["line"], 2).sin().sum()
        + F.avg_pool2d(p["image"], 3, 2, 1, count_include_pad=False).sin()
    ),
    "more pooling": lambda p: (
        F.avg_pool1d(p["line"], 3, 2, 1, ceil_mode=True).sin().sum()
        + F.adaptive_avg_pool2d(p["image"], (4, 3)).sin().sum()
        + F.adaptive_max_pool2d(p["image"], 2).sum()
        + F.adaptive_avg_pool1d(p["line"], 4).sin().sum()
        + F.lp_pool1d(p["line"].exp(), 2, 3).sum()
    ),
    "upsampling": lambda p: (
        F.interpolate(p["image"], size=(9, 7), mode="bilinear", align_corners=False).sin().sum()
        + F.interpolate(p["image"], scale_factor=2, mode="nearest").sin().sum()
        + F.interpolate(p["line"], size=20, mode="linear", align_corners=True).sin().sum()
        + F.interpolate(p["image"], size=(9, 7), mode="bicubic").sin()
    ),
    "volumes": lambda p: (
        F.conv3d(volume(p), p["kernel"][:, :, :, None, :2], p["v"], (1, 2, 1), (2, 0, 1), (2, 1, 1), 2).sin().sum()
        + F.conv_transpose3d(volume(p), p["kernel"][:, :, None], p["v"][:2], 2, 1, 1).sin().sum()
        + F.max_pool3d(volume(p), 2).sin().sum()
        + F.avg_pool3d(volume(p), 2).sin().sum()
        + F.adaptive_max_pool3d(volume(p), 2).sin().sum()
        + F.adaptive_avg_pool3d(volume(p), (1, 2, 2)).sin()
    ),
    "in place, by ops without a rule": lambda p: in_place(p).sin(),
    "strided over memory": lambda p: p["m"].T.sin().as_strided((3, 2), (1, 3), 1) ** 2,
    "solved": lambda p: (
        torch.linalg.solve(p["n"], p["v"]).sum()
        + torch.linalg.solve(stacked(p), p["m"].T.expand(2, 4, 3)).sin().sum()
        + torch.linalg.solve(p["n"], p["m"], left=False).sin().sum()
        + torch.linalg.inv(stacked(p)).sin()
    ),
    "solved by triangles": lambda p: (
        torch.linalg.solve_triangular(p["n"], p["m"].T, upper=True).sin().sum()
        + torch.linalg.solve_triangular(p["n"], p["m"], upper=False, left=False, unitriangular=True).sin().sum()
        + torch.triangular_solve(p["m"].T, p["n"], transpose=True).solution.sin()
    ),
    "Cholesky factors": lambda p: (
        torch.linalg.cholesky(definite(p)).sin().sum()
        + torch.linalg.cholesky(definite(p), upper=True).sin().sum()
        + torch.cholesky_solve(p["m"].T, torch.linalg.cholesky(definite(p))).sin().sum()
        - torch.distributions.MultivariateNormal(p["v"], definite(p), validate_args=False).log_prob(p["m"])
    ),
    "determinants": lambda p: (
        torch.linalg.det(stacked(p)).sin().sum() + torch.slogdet(-p["n"]).logabsdet + torch.logdet(definite(p))
    ),
    "pixels shuffled": lambda p: F.pixel_shuffle(p["image"], 2).sin(),
    "normalised": lambda p: (
        F.layer_norm(p["m"], (4,), p["v"]) + F.layer_norm(p["m"], (3, 4)) + F.rms_norm(p["m"], (4,), p["v"])
    ),
    "group and instance norm": lambda p: (
        F.group_norm(p["image"], 2, p["v"], p["v"]).sin()
        + F.instance_norm(p["image"], weight=p["v"])
        + F.local_response_norm(p["image"], 3)
    ),
    "batch norm": lambda p: (
        F.batch_norm(p["image"], None, None, p["v"], p["v"], training=True).sin()
        + F.batch_norm(p["image"], torch.zeros(4).double(), torch.ones(4).double() * 2, training=False)
    ),
    "attention": lambda p: (
        F.scaled_dot_product_attention(p["heads"], p["heads"].sin(), p["heads"], is_causal=True)
        + F.scaled_dot_product_attention(p["heads"], p["heads"], p["heads"], attn_mask=torch.ones(3, 3).tril().bool())
        + F.scaled_dot_product_attention(p["heads"], p["heads"], p["heads"], attn_mask=torch.randn(3, 3).double())
    ),
    "shared heads": lambda p: F.scaled_dot_product_attention(
        p["heads"], p["heads"][:, :2], p["heads"][:, 2:], enable_gqa=True
    ),
    "losses of classes": lambda p: (
        F.cross_entropy(p["m"], INDEX[:3], weight=torch.arange(1.0, 5.0).double(), label_smoothing=0.1)
        + F.cross_entropy(p["m"], torch.tensor([1, -100, 3]))
        + F.nll_loss(p["m"].log_softmax(1), INDEX[:3], reduction="sum")
        + F.cross_entropy(p["image"], torch.ones(2, 6, 5).long())
        + F.multi_margin_loss(p["m"], INDEX[:3])
    ),
    "losses of numbers": lambda p: (
        F.smooth_l1_loss(p["m"], p["m"].sin(), beta=0.5)
        + F.huber_loss(p["m"], p["m"].cos(), delta=0.7)
        + F.l1_loss(p["m"], p["m"].cos())
        + F.gaussian_nll_loss(p["m"], p["m"].cos(), p["m"].exp())
        + F.poisson_nll_loss(p["m"], p["m"].exp())
    ),
    "losses of truth": lambda p: (
        F.binary_cross_entropy(p["m"].sigmoid(), torch.ones(3, 4).double() * 0.3)
        + F.binary_cross_entropy_with_logits(p["m"], torch.ones(3, 4).double(), pos_weight=torch.ones(4).double() * 3)
        + F.soft_margin_loss(p["m"], torch.ones(3, 4).double())
        + F.kl_div(p["m"], p["m"].exp(), reduction="batchmean")
        + F.triplet_margin_loss(p["m"], p["m"].sin(), p["m"].cos())
        + F.cosine_embedding_loss(p["m"], p["m"].sin(), torch.ones(3))
    ),
}


def differentiated(loss: Callable[[Params], Any]) -> tuple[float, dict[str, Any], gw.Graph]:
    def total(params: Params, batch: Any) -> Any:
        torch.manual_seed(0)
        return loss(params).sum()

    graph = gw.capture(gw.Candidate("torch", total), PARAMS, {})
    leaves = {path: torch.from_numpy(x.copy()).requires_grad_() for path, x in PARAMS.items()}
    value = total(leaves, {})
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return value.item(), dict(zip(leaves, found, strict=True)), graph


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_autograd(name: str, interpreter: Interpreter) -> None:
    value, expected, graph = differentiated(LOSSES[name])
    tape = interpreter.forward(graph, {**PARAMS, **graph.constants})
    assert abs(interpreter.loss(tape) - value) <= SAME * max(1.0, abs(value))
    found = interpreter.backward(tape, list(PARAMS))
    for path, g in expected.items():
        wanted = np.zeros(PARAMS[path].shape) if g is None else g.numpy()
        apart = np.abs(found.get(path, np.zeros(PARAMS[path].shape)) - wanted)
        assert np.max(apart) <= SAME * max(1.0, float(np.max(np.abs(wanted)))), path


@pytest.mark.parametrize("function", [F.hardsigmoid, lambda x: F.celu(x, 0.7)])
def test_constants_that_torch_holds_in_float32_are_found(function: Callable[[Any], Any]) -> None:
    """Its backwards of these two multiply by 1/6, and divide by alpha, in float32, whatever the dtype (torch 2.13)."""
    report = gw.verify({"torch": lambda p, b: function(p["m"]).sum()}, {"m": PARAMS["m"]}, dtypes="float64")
    assert [str(row.verdict) for row in report.rows] == ["disagree"], repr(report)
    assert all(row.captured and 1e-9 < row.error < 1e-7 for row in report.rows if row.error is not None)


REFUSED: dict[str, tuple[Callable[[Params], Any], str]] = {
    "an op without a rule": (lambda p: torch.special.zeta(p["positive"] + 1, p["positive"]), "zeta"),
    "complex numbers": (lambda p: torch.fft.fft(p["line"]).abs(), "complex"),
    "a loss of nothing": (lambda p: torch.ones(2), "does not depend"),
    "a digamma": (lambda p: torch.digamma(p["positive"]), "digamma"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_named_with_its_line(name: str) -> None:
    loss, says = REFUSED[name]
    with pytest.raises(CaptureError, match=says) as refused:
        gw.capture(gw.Candidate("torch", lambda p, b: loss(p).sum()), PARAMS)
    if name != "a loss of nothing":
        assert f"at {__file__}:" in str(refused.value)


def test_a_node_knows_its_line_and_its_module() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Tanh(), nn.Linear(3, 2)))
    loss, params = from_module(module, lambda m, batch: m(batch["x"]).sum())
    graph = gw.capture(gw.Candidate("torch", loss), params, {"x": np.ones((5, 4))})
    modules = {node.op: node.line.module for node in graph.nodes if node.line is not None and node.is_op}
    assert modules["tanh"].endswith("1.0")
    assert modules["linear"].endswith("1.1")


def test_floats_of_the_batch_are_leaves_and_what_depends_on_no_float_is_constant() -> None:
    def loss(p: Params, b: Params) -> Any:
        mask = torch.ones(4, 4).tril()[:3].bool()
        return (b["x"] * p["m"]).masked_fill(mask, 0.0)[:, b["i"]].sum()

    graph = gw.capture(gw.Candidate("torch", loss), {"m": DRAW((3, 4))}, {"x": DRAW((3, 4)), "i": np.array([0, 2])})
    assert {"m", "x"} <= set(graph.leaves)
    assert all(x.dtype.kind != "f" or x.size == 1 for x in graph.constants.values())
