"""A torch.autograd.Function with its own backward, held against autograd through the plain formula."""

from typing import Any

import torch
import torch.nn.functional as F

import gradwitness as gw


class ScaledSoftplus(torch.autograd.Function):
    """log(1 + exp(b x)) / b, whose backward keeps x and b alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, b)
        return F.softplus(b * x) / b

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (g,), (x, b) = gradients, ctx.saved_tensors
        slope = torch.sigmoid(b * x)
        by_b = g * (x * slope - F.softplus(b * x) / b) / b
        return g * slope, by_b.sum(dim=0)  # b is shared by the rows


def mine(params: Any, batch: Any) -> Any:
    """An array: its elements are weighed at random."""
    return ScaledSoftplus.apply(params["x"], params["b"])  # type: ignore[no-untyped-call]


def plain(params: Any, batch: Any) -> Any:
    """What autograd differentiates by itself."""
    x, b = params["x"], params["b"]
    return torch.log1p(torch.exp(-torch.abs(b * x))) / b + torch.relu(b * x) / b


def run() -> gw.Report:
    """Both by differences of their own, and held against each other."""
    torch.manual_seed(0)
    params = {"x": torch.randn(16, 5), "b": 1 + torch.rand(5)}
    candidates = {"mine": gw.Candidate("torch", mine), "plain": gw.Candidate("torch", plain)}
    return gw.verify(candidates, params, cotangent="random", dtypes=("float64", "float32"), name="softplus")


if __name__ == "__main__":
    report = run()
    print(report.table())
    raise SystemExit(not report)
