"""Export the script of a fault planted in torch's tanh: `python -m tests.repro.faulty_torch bug.py`."""

from __future__ import annotations

import sys
from typing import Any

import torch

import gradwitness as gw
from gradwitness.networks import network
from gradwitness_torch.functions import FUNCTIONS

__all__ = ["WrongTanh"]


class WrongTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (y,) = ctx.saved_tensors
        return g * (1 - y)  # the square is missing


if __name__ == "__main__":
    FUNCTIONS["tanh"] = WrongTanh.apply
    gw.verify(network("mlp"), dtypes="float32", backends="torch").export_repro(sys.argv[1])
