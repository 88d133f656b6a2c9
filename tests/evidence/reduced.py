"""torch with the matrix products of tensor cores, or of a CPU with AMX, on any machine: emulated below autograd, at
aten's own products."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gradwitness.arithmetic import Operands

__all__ = ["BFLOAT16", "TF32", "Accumulating", "ShortOperands", "by_onednn", "convolutions", "matrices", "shortened"]

TF32, BFLOAT16 = Operands(10), Operands(7)
aten = torch.ops.aten
FACTORS: Mapping[Any, tuple[int, ...]] = {  # the arguments that are multiplied
    aten.mm: (0, 1),
    aten.bmm: (0, 1),
    aten.mv: (0, 1),
    aten.dot: (0, 1),
    aten.addmm: (1, 2),
    aten.baddbmm: (1, 2),
    aten.convolution: (0, 1),
    aten.convolution_backward: (0, 1, 2),
}


def shortened(x: torch.Tensor, operands: Operands) -> torch.Tensor:
    """A float32 tensor with so few bits; others as they are."""
    if x.dtype != torch.float32:
        return x
    return torch.from_numpy(operands.rounded(x.detach().double().numpy())).float()


def convolutions(packet: Any, *factors: torch.Tensor) -> bool:
    """What torch reduces on tensor cores by default."""
    return packet in (aten.convolution, aten.convolution_backward)


def matrices(packet: Any, *factors: torch.Tensor) -> bool:
    """What `torch.set_float32_matmul_precision` is about."""
    return not convolutions(packet)


def by_onednn(packet: Any, *factors: torch.Tensor) -> bool:
    """Those that torch, at "medium", has multiplied in bfloat16 by a CPU with AMX: as oneDNN 3.12 decides it, from the
    sizes that reach it."""
    if convolutions(packet) or packet is aten.dot:
        return False
    a, b = factors[:2]
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1] if packet is not aten.mv else 1
    if a.ndim == 2 and n == 1 and packet is not aten.mv:  # such a result is taken for a matrix stored by columns
        m, n = 1, m
    if math.prod(a.shape) * b.shape[-1] ** (b.ndim > 1) <= 16 * 16 * 16 or m < 8:
        return False
    return a.ndim == 3 or not (k <= 16 or (m <= 32 and m * n <= 256))


class ShortOperands(TorchDispatchMode):
    """Inside, the factors of float32 products are rounded first, forward and backward.

    chosen: of these products, given aten's function and its factors; all by default.
    """

    def __init__(self, operands: Operands, chosen: Callable[..., bool] = lambda packet, *factors: True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        self.operands, self.chosen = operands, chosen

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = function.overloadpacket
        if packet not in FACTORS:
            return function(*args, **(kwargs or {}))
        places = FACTORS[packet]
        if not self.chosen(packet, *(args[i] for i in places)):
            return function(*args, **(kwargs or {}))
        short = [shortened(a, self.operands) if i in places else a for i, a in enumerate(args)]
        result = function(*short, **(kwargs or {}))
        if packet is aten.convolution_backward:  # the bias's gradient is a sum, no product
            return (*result[:2], function(*args, **(kwargs or {}))[2])
        return result


class Accumulating(TorchDispatchMode):
    """Inside, matrix products are summed in their own dtype, one term after another."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there

    PRODUCTS: Mapping[Any, Callable[..., torch.Tensor]] = {
        aten.mm: lambda a, b: _one_after_another(a, b),
        aten.addmm: lambda bias, a, b: bias + _one_after_another(a, b),
    }

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.PRODUCTS.get(function.overloadpacket, function)(*args, **(kwargs or {}))


def _one_after_another(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(a.shape[0], b.shape[1], dtype=a.dtype)
    for k in range(a.shape[1]):
        total = (total.float() + a[:, k : k + 1].float() * b[k : k + 1].float()).to(a.dtype)
    return total
