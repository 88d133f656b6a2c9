"""Autograd Functions of one layer, right and wrong ones, along every execution path."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import gradwitness as gw
from gradwitness import registry
from gradwitness_torch.paths import PATHS

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.standard_normal((4, 3))}
BATCH = {"x": RNG.standard_normal((8, 4))}
COMPILED = list(registry.backend("torch").capabilities.compiled_paths)
EAGER = [name for name in PATHS if name not in COMPILED]


class Square(torch.autograd.Function):
    """Right on every path."""

    @staticmethod
    def forward(x: Any) -> Any:
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return 2 * g * ctx.saved_tensors[0]

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any) -> Any:
        return Square.apply(x), in_dims[0]  # type: ignore[no-untyped-call]


class OldStyle(torch.autograd.Function):
    """Without setup_context."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return 2 * g * ctx.saved_tensors[0]


class WrongUnderVmap(Square):
    """Its rule for vmap takes the sign off."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any) -> Any:
        return x * x.abs(), in_dims[0]


class Unbatched(Square):
    """Without a rule for vmap."""

    vmap = torch.autograd.Function.vmap


class ReadsMemory(Square):
    """Its backward reads the input as it would lie in memory if that were contiguous."""

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x = ctx.saved_tensors[0]
        return 2 * g * torch.as_strided(x, x.shape, torch.empty(x.shape).stride(), x.storage_offset())


class NeedsNCHW(Square):
    """Its backward takes the channels for the second axis in memory."""

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x = ctx.saved_tensors[0]
        if x.is_contiguous(memory_format=torch.channels_last):
            return 2 * g * x.permute(0, 2, 3, 1).reshape(x.shape)
        return 2 * g * x


def layer(rule: Any, to: str = "mean") -> gw.Candidate:
    return gw.Candidate("torch", lambda p, d: getattr(rule(d["x"] @ p["w"]), to)())


def verify(candidate: gw.Candidate, paths: Any = EAGER, params: Any = PARAMS, batch: Any = BATCH, **more: Any) -> Any:
    return gw.verify({"mine": candidate}, params, batch, paths=paths, **more)


def verdicts(report: gw.Report) -> dict[str, str]:
    """By the row's label within "mine [...]"."""
    return {row.candidate.removeprefix("mine ").strip("[]"): str(row.verdict) for row in report.rows}


def message(report: gw.Report, path: str) -> str:
    return next(row.message for row in report.rows if row.candidate == f"mine [{path}]")
