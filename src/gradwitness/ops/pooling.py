"""Pooling over windows of images (N, C, H, W), floor mode."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwitness.ops.contractions import IntPair, conv2d
from gradwitness.ops.samples import real, sample
from gradwitness.ops.shapes import expect, expect_dtype, pair, window_shape
from gradwitness.ops.value import FLOAT, Operand, Spec, Value
from gradwitness.ops.vocabulary import EXACT, FIRST, op

_SAMPLES = [
    sample(real(2, 3, 4, 6), kernel_size=2),
    sample(real(1, 2, 7, 5), kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)),
    sample(real(2, 1, 5, 5), kernel_size=3, stride=1, padding=1),
]


def _pairs(spec: Spec, attributes: dict[str, Any]) -> dict[str, Any]:
    kernel = pair(attributes["kernel_size"], "kernel_size")
    stride = kernel if attributes["stride"] is None else pair(attributes["stride"], "stride")
    return {"kernel_size": kernel, "stride": stride, "padding": pair(attributes["padding"], "padding")}


def _pooled(x: Spec, kernel: Any, stride: Any, padding: Any) -> Spec:
    expect_dtype(FLOAT, x=x)
    expect(x.ndim == 4, f"x must have shape (N, C, H, W), got {list(x.shape)}")
    expect(
        all(2 * p <= k for p, k in zip(padding, kernel, strict=True)),
        f"padding {padding} exceeds half of kernel {kernel}",
    )
    return Spec((*x.shape[:2], *window_shape(x.shape[2:], kernel, stride, padding)))


@op(rounding=EXACT, samples=_SAMPLES, canonical=_pairs, kink=FIRST)
def max_pool2d(x: Operand, *, kernel_size: IntPair, stride: IntPair | None = None, padding: IntPair = 0) -> Spec:
    """The maximum of each window (stride defaults to the kernel); of tied elements the first takes the cotangent."""
    return _pooled(x, kernel_size, stride, padding)


def _avg_pool2d(x: Value, *, kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Value:
    channels, area = x.shape[1], kernel_size[0] * kernel_size[1]
    total = conv2d(x, np.ones((channels, 1, *kernel_size)), stride=stride, padding=padding, groups=channels)
    return total / area


@op(samples=_SAMPLES, canonical=_pairs, definition=_avg_pool2d)
def avg_pool2d(x: Operand, *, kernel_size: IntPair, stride: IntPair | None = None, padding: IntPair = 0) -> Spec:
    """The mean of each window, padding counted as zeros (stride defaults to the kernel)."""
    return _pooled(x, kernel_size, stride, padding)
