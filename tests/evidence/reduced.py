"""torch with the matrix products of tensor cores, on any machine: emulated below autograd, at aten's own products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gradwitness.arithmetic import Operands

__all__ = ["BFLOAT16", "TF32", "Accumulating", "ShortOperands", "shortened"]

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


class ShortOperands(TorchDispatchMode):
    """Inside, the factors of float32 products are rounded first, forward and backward."""

    def __init__(self, operands: Operands) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        self.operands = operands

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = function.overloadpacket
        chosen = FACTORS.get(packet, ())
        short = [shortened(a, self.operands) if i in chosen else a for i, a in enumerate(args)]
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
