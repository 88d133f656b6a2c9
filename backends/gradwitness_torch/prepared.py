"""A lowered loss with its arrays on a torch device, differentiated by autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradwitness.graph import Graph
from gradwitness.problem import Problem
from gradwitness.protocol import Array, Primals

__all__ = ["Tape", "TorchPrepared"]

Tensors = dict[str, torch.Tensor]
Gradients = dict[str, torch.Tensor | None]


@dataclass(frozen=True, slots=True)
class Tape:
    """One forward pass: its loss, which holds the residuals, and the leaves that it was taken at."""

    loss: torch.Tensor
    leaves: Tensors


class TorchPrepared:
    """A candidate whose loss is `loss(leaves)`, eager or compiled."""

    setup_seconds = 0.0

    def __init__(
        self, loss: Callable[[Mapping[str, Any]], Any], graph: Graph, problem: Problem, *, dtype: str, device: str
    ) -> None:
        self._loss = loss
        self._dtype, self._device = getattr(torch, dtype), torch.device(device)
        self._host = np.float64 if dtype == "float64" else np.float32
        self._paths = problem.differentiated
        self._reaching = [path for path in self._paths if path in graph.leaves]
        self._constants = {path: self._tensor(a) for path, a in problem.inputs(graph).items()}

    def value(self, params: Primals) -> float:
        return self.forward(self.place(params)).loss.item()

    def value_and_gradient(self, params: Primals) -> tuple[float, dict[str, Array | None]]:
        tape = self.forward(self.place(params))
        value = tape.loss.item()
        return value, {path: self._array(g) for path, g in self.backward(tape).items()}

    def place(self, params: Primals) -> Tensors:
        return {path: self._tensor(params[path]).requires_grad_() for path in self._reaching}

    def forward(self, placed: Tensors) -> Tape:
        with torch.enable_grad():  # whatever the caller's grad mode
            loss = self._loss({**self._constants, **placed})
            return Tape(loss.reshape(()), placed)

    def backward(self, tape: Tape) -> Gradients:
        gradients: Gradients = dict.fromkeys(self._paths)
        if tape.loss.requires_grad:
            found = torch.autograd.grad(tape.loss, list(tape.leaves.values()), allow_unused=True)
            gradients.update(zip(tape.leaves, found, strict=True))
        return gradients

    def forward_backward(self, placed: Tensors) -> Gradients:
        return self.backward(self.forward(placed))

    def wait(self, x: Any) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _tensor(self, array: Array) -> torch.Tensor:
        """A copy on the device: floats in the candidate's dtype, integers and booleans as they are."""
        tensor = torch.from_numpy(np.array(array, order="C"))
        return tensor.to(self._device, self._dtype if array.dtype.kind == "f" else tensor.dtype)

    def _array(self, tensor: torch.Tensor | None) -> Array | None:
        """A copy on the host: two leaves may share one gradient tensor."""
        return None if tensor is None else np.array(tensor.cpu().to(_WIDER[self._host]).numpy())


_WIDER = {np.float64: torch.float64, np.float32: torch.float32}
