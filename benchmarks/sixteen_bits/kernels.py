"""Five kernels as people write them for 16 bits: narrow tensors in, sums in float32, a backward by hand; and the same
functions in plain torch, which are the referees. The kernels refuse every other dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

__all__ = ["KERNELS", "Kernel", "planted"]

F = torch.nn.functional
NARROW = (torch.bfloat16, torch.float16)
Fault = Callable[[str, torch.Tensor], torch.Tensor]
EPS = 1e-6


class Narrow(torch.autograd.Function):
    """`values` and `gradients` compute in float32. fault: what becomes of a gradient before it is rounded."""

    names: ClassVar[tuple[str, ...]]
    dtype: ClassVar[torch.dtype]  # of the call that runs
    fault: ClassVar[Fault] = staticmethod(lambda name, g: g)

    @classmethod
    def forward(cls, ctx: Any, *tensors: torch.Tensor) -> torch.Tensor:
        narrow = [x for x in tensors if x.is_floating_point()]
        if any(x.dtype not in NARROW for x in narrow):
            raise TypeError(f"{cls.__name__} is compiled for bfloat16 and float16, got {narrow[0].dtype}")
        Narrow.dtype = narrow[0].dtype
        ctx.save_for_backward(*tensors)
        return cls.values(*[_float(x) for x in tensors]).to(narrow[0].dtype)

    @classmethod
    def backward(cls, ctx: Any, *cotangents: torch.Tensor) -> Any:
        tensors = ctx.saved_tensors
        Narrow.dtype = tensors[0].dtype
        found = cls.gradients(cotangents[0].float(), *[_float(x) for x in tensors])
        narrow = [Narrow.fault(name, g).to(tensors[0].dtype) for name, g in zip(cls.names, found, strict=True)]
        return (*narrow, *[None] * (len(tensors) - len(narrow)))

    @classmethod
    def values(cls, *tensors: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    @classmethod
    def gradients(cls, g: torch.Tensor, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise NotImplementedError


def _float(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.is_floating_point() else x


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """For a while, the kernels' gradients are what `fault` makes of them."""
    right, Narrow.fault = Narrow.fault, staticmethod(fault)
    try:
        yield
    finally:
        Narrow.fault = staticmethod(right)


class Attention(Narrow):
    """Causal; its backward recomputes the probabilities, and rounds them before they are multiplied, as is usual."""

    names = ("q", "k", "v")

    @staticmethod
    def probabilities(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, float]:
        scale = q.shape[-1] ** -0.5
        scores = q @ k.mT * scale
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return scores.masked_fill(later, -torch.inf).softmax(-1), scale

    @classmethod
    def values(cls, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return cls.probabilities(q, k)[0].to(Narrow.dtype).float() @ v

    @classmethod
    def gradients(  # type: ignore[override]
        cls, g: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        p, scale = cls.probabilities(q, k)
        dp = g @ v.mT
        ds = (p * (dp - (p * dp).sum(-1, keepdim=True))).to(Narrow.dtype).float()
        return ds @ k * scale, ds.mT @ q * scale, p.to(Narrow.dtype).float().mT @ g


class RMSNorm(Narrow):
    names = ("x", "w")

    @classmethod
    def values(cls, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt() * w

    @classmethod
    def gradients(cls, g: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        r = (x.square().mean(-1, keepdim=True) + EPS).rsqrt()
        m = g * w
        return r * m - r**3 * x * (x * m).mean(-1, keepdim=True), (g * x * r).sum(0)


class SwiGLU(Narrow):
    names = ("a", "b")

    @classmethod
    def values(cls, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return F.silu(a) * b

    @classmethod
    def gradients(cls, g: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        s = a.sigmoid()
        return g * b * s * (1 + a * (1 - s)), g * a * s


class CrossEntropy(Narrow):
    """A loss for each row, zero where the row is not valid."""

    names = ("z",)

    @classmethod
    def values(cls, z: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return valid * (z.logsumexp(-1) - z.gather(-1, labels[:, None])[:, 0])

    @classmethod
    def gradients(  # type: ignore[override]
        cls, g: torch.Tensor, z: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        return ((g * valid)[:, None] * (z.softmax(-1) - F.one_hot(labels, z.shape[-1])),)


class Rope(Narrow):
    names = ("x",)

    @classmethod
    def values(cls, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return rotated(x, 1)

    @classmethod
    def gradients(cls, g: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        return (rotated(g, -1),)


def rotated(x: torch.Tensor, sign: int) -> torch.Tensor:
    half = x.shape[-1] // 2
    rates = torch.logspace(0, -4, half, dtype=torch.float64)
    angles = (torch.arange(x.shape[-2])[:, None] * rates).to(torch.float64)
    cos, sin = angles.cos().to(x.dtype), sign * angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def cross_entropy(z: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    return valid * F.cross_entropy(z, labels, reduction="none")


@dataclass(frozen=True)
class Kernel:
    """rule: the kernel. plain: the same function in torch. shapes: of its operands, all centred. batch: what else it
    takes."""

    rule: type[Narrow]
    plain: Callable[..., torch.Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    batch: Mapping[str, Any] = field(default_factory=dict)

    def loss(self, params: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = self.rule.apply(*params.values(), *batch.values())  # type: ignore[no-untyped-call]
        return found

    def reference(self, params: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self.plain(*params.values(), *batch.values())

    def drawn(self, seed: int) -> dict[str, Any]:
        rng = np.random.default_rng([seed, 20])
        return {name: rng.standard_normal(shape) for name, shape in self.shapes.items()}


ROWS, COLUMNS = 72, 64  # 64 and 8 rows more: the last block is a part of one
HEADS = (1, 2, 40, 64)  # 32 positions and 8 more
LABELS = {
    "labels": np.random.default_rng(0).integers(0, COLUMNS, ROWS),
    "valid": np.random.default_rng(1).random(ROWS) < 0.8,
}
KERNELS = {
    "attention": Kernel(
        Attention,
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        dict.fromkeys("qkv", HEADS),
    ),
    "rms_norm": Kernel(
        RMSNorm,
        lambda x, w: F.rms_norm(x, (x.shape[-1],), w, EPS),
        {"x": (ROWS, COLUMNS), "w": (COLUMNS,)},
    ),
    "swiglu": Kernel(SwiGLU, lambda a, b: F.silu(a) * b, dict.fromkeys("ab", (ROWS, COLUMNS))),
    "cross_entropy": Kernel(CrossEntropy, cross_entropy, {"z": (ROWS, COLUMNS)}, LABELS),
    "rope": Kernel(Rope, lambda x: rotated(x, 1), {"x": HEADS}),
}
