"""An attention that never holds all its weights, with a backward of its own, against torch's: by its inputs."""

from typing import Any

import torch
import torch.nn.functional as F

import gradwitness as gw


class Attention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d)) v. The backward computes the weights anew, from the logarithm of their sums."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        scores = q @ k.mT * q.shape[-1] ** -0.5
        log_sums = scores.logsumexp(dim=-1, keepdim=True)
        output = (scores - log_sums).exp() @ v
        ctx.save_for_backward(q, k, v, log_sums, output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (g,), (q, k, v, log_sums, output) = gradients, ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        weights = (q @ k.mT * scale - log_sums).exp()
        by_scores = weights * (g @ v.mT - (g * output).sum(dim=-1, keepdim=True)) * scale
        return by_scores @ k, by_scores.mT @ q, weights.mT @ g


def mine(params: Any, batch: Any) -> Any:
    return Attention.apply(batch["q"], batch["k"], batch["v"])  # type: ignore[no-untyped-call]


def reference(params: Any, batch: Any) -> Any:
    return F.scaled_dot_product_attention(batch["q"], batch["k"], batch["v"])


def run() -> gw.Report:
    """A kernel has inputs, and no params: wrt= names them."""
    torch.manual_seed(0)
    inputs = {"q": torch.randn(2, 3, 7, 8), "k": torch.randn(2, 3, 9, 8), "v": torch.randn(2, 3, 9, 8)}
    candidates = {"mine": gw.Candidate("torch", mine), "torch": gw.Candidate("torch", reference)}
    return gw.verify(
        candidates, {}, inputs, wrt=tuple(inputs), cotangent="random", dtypes=("float64", "float32"), name="attention"
    )


if __name__ == "__main__":
    report = run()
    print(report.table())
    raise SystemExit(not report)
