"""Sums of products: matmul, linear, convolution."""

from __future__ import annotations

from typing import Any

from gradwitness.ops.arrays import transpose
from gradwitness.ops.samples import real, sample
from gradwitness.ops.shapes import broadcast, expect, expect_dtype, pair, window_shape
from gradwitness.ops.value import FLOAT, Operand, Spec, Value
from gradwitness.ops.vocabulary import CONTRACTION, op

IntPair = int | tuple[int, int]


@op(
    rounding=CONTRACTION,
    samples=[
        sample(real(3, 4), real(4, 2)),
        sample(real(2, 1, 3, 4), real(5, 4, 2)),
        sample(real(5, 3, 4), real(4)),
        sample(real(4), real(2, 4, 3)),
        sample(real(6), real(6)),
    ],
)
def matmul(x: Operand, y: Operand) -> Spec:
    """x @ y: the last axis of x against the last but one of y; leading axes broadcast; vectors allowed."""
    expect_dtype(FLOAT, x=x, y=y)
    expect(x.ndim >= 1 and y.ndim >= 1, "both operands need at least one dimension; use * for scalars")
    inner, other = x.shape[-1], y.shape[-2 if y.ndim > 1 else 0]
    expect(inner == other, f"inner extents differ: {inner} and {other}")
    batch = broadcast(Spec(x.shape[:-2]), Spec(y.shape[:-2]))
    return Spec((*batch, *x.shape[-2:-1], *(y.shape[-1:] if y.ndim > 1 else ())))


def _linear(x: Value, weight: Value, bias: Value | None) -> Value:
    product = x @ transpose(weight)
    return product if bias is None else product + bias


@op(
    samples=[
        sample(real(3, 4), real(2, 4), real(2)),
        sample(real(2, 3, 5), real(4, 5), real(4)),
        sample(real(3, 4), real(2, 4), None),
        sample(real(5), real(3, 5), real(3)),
    ],
    definition=_linear,
)
def linear(x: Operand, weight: Operand, bias: Operand | None = None) -> Spec:
    """x @ weight.T + bias, with weight of shape (out, in) and bias of shape (out,)."""
    expect_dtype(FLOAT, x=x, weight=weight, bias=bias)
    expect(weight.ndim == 2, f"weight must have shape (out, in), got {list(weight.shape)}")
    expect(
        x.ndim >= 1 and x.shape[-1] == weight.shape[1],
        f"the last axis of x must be in = {weight.shape[1]}, got {list(x.shape)}",
    )
    expect(bias is None or bias.shape == weight.shape[:1], f"bias must have shape (out,) = ({weight.shape[0]},)")
    return Spec((*x.shape[:-1], weight.shape[0]))


def _pairs(spec: Spec, attributes: dict[str, Any]) -> dict[str, Any]:
    sizes = {name: pair(attributes[name], name) for name in ("stride", "padding", "dilation")}
    return {**attributes, **sizes}


_WINDOWS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (2, 0), "dilation": (1, 2)},
    {"groups": 2, "padding": 1},
]
_IMAGES = [
    (real(2, 3, 5, 6), real(4, 3, 3, 2), real(4)),
    (real(1, 2, 7, 5), real(3, 2, 3, 3), real(3)),
    (real(2, 2, 4, 7), real(3, 2, 2, 3), None),
    (real(2, 4, 5, 4), real(6, 2, 3, 3), real(6)),
]


@op(
    rounding=CONTRACTION,
    samples=[sample(*arrays, **window) for arrays, window in zip(_IMAGES, _WINDOWS, strict=True)],
    canonical=_pairs,
)
def conv2d(
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    *,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
) -> Spec:
    """Cross-correlation of images x (N, C, H, W) with weight (out, C / groups, height, width), plus bias (out,)."""
    expect_dtype(FLOAT, x=x, weight=weight, bias=bias)
    expect(x.ndim == 4, f"x must have shape (N, C, H, W), got {list(x.shape)}")
    expect(weight.ndim == 4, f"weight must have shape (out, C / groups, height, width), got {list(weight.shape)}")
    out, per_group = weight.shape[:2]
    expect(
        groups >= 1 and x.shape[1] == per_group * groups and out % groups == 0,
        f"groups={groups} must divide the output channels, and weight must have {x.shape[1]} / {groups} input channels",
    )
    expect(bias is None or bias.shape == (out,), f"bias must have shape (out,) = ({out},)")
    size = window_shape(x.shape[2:], weight.shape[2:], stride, padding, dilation)  # type: ignore[arg-type]  # pairs by now
    return Spec((x.shape[0], out, *size))
