"""Normalisations. eps is always explicit: a default that depends on the dtype would be two functions."""

from __future__ import annotations

from gradwitness.ops.elementwise import sqrt
from gradwitness.ops.reductions import mean, var
from gradwitness.ops.samples import positive, real, sample
from gradwitness.ops.shapes import expect, expect_dtype
from gradwitness.ops.value import FLOAT, Operand, Spec, Value
from gradwitness.ops.vocabulary import op


def _trailing(x: Value, weight: Value) -> tuple[int, ...]:
    return tuple(range(x.ndim - weight.ndim, x.ndim))


def _layer_norm(x: Value, weight: Value, bias: Value, *, eps: float) -> Value:
    axes = _trailing(x, weight)
    # Times 1, which rounds as the products with x itself in torch's vjp do, where x is far from its mean.
    centred = x * 1.0 - mean(x, axis=axes, keepdims=True)
    variance = mean(centred * centred, axis=axes, keepdims=True)
    return centred / sqrt(variance + eps) * weight + bias


def _expect_affine(x: Spec, weight: Spec, bias: Spec | None) -> None:
    expect_dtype(FLOAT, x=x, weight=weight, bias=bias)
    trailing = x.shape[x.ndim - weight.ndim :]
    expect(
        weight.ndim >= 1 and trailing == weight.shape,
        f"weight must have the trailing shape of x, got {list(weight.shape)}",
    )
    expect(bias is None or bias.shape == weight.shape, "bias must have the shape of weight")


@op(
    samples=[
        sample(real(3, 5), positive(5), real(5), eps=1e-5),
        sample(real(2, 3, 4, scale=2.0), positive(3, 4), real(3, 4), eps=1e-3),
        sample(real(2, 1, 7), positive(7), real(7), eps=1e-6),
    ],
    definition=_layer_norm,
)
def layer_norm(x: Operand, weight: Operand, bias: Operand, *, eps: float) -> Spec:
    """(x - mean) / sqrt(var + eps) * weight + bias over the trailing axes that weight spans.

    Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450, equation 3; biased variance.
    """
    _expect_affine(x, weight, bias)
    return Spec(x.shape)


def _rms_norm(x: Value, weight: Value, *, eps: float) -> Value:
    return x / sqrt(mean(x * x, axis=_trailing(x, weight), keepdims=True) + eps) * weight


@op(
    samples=[
        sample(real(3, 5), positive(5), eps=1e-5),
        sample(real(2, 3, 4, scale=2.0), positive(3, 4), eps=1e-3),
        sample(real(2, 1, 7), positive(7), eps=1e-6),
    ],
    definition=_rms_norm,
)
def rms_norm(x: Operand, weight: Operand, *, eps: float) -> Spec:
    """x / sqrt(mean(x^2) + eps) * weight over the trailing axes that weight spans.

    Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467, equation 4.
    """
    _expect_affine(x, weight, None)
    return Spec(x.shape)


def _batch_norm(x: Value, weight: Value, bias: Value, *, eps: float) -> Value:
    axes = tuple(a for a in range(x.ndim) if a != 1)
    channels = (-1,) + (1,) * (x.ndim - 2)
    centred = x - mean(x, axis=axes, keepdims=True)
    spread = sqrt(var(x, axis=axes, keepdims=True) + eps)
    return centred / spread * weight.reshape(channels) + bias.reshape(channels)


@op(
    samples=[
        sample(real(6, 3), positive(3), real(3), eps=1e-5),
        sample(real(3, 2, 4, 5, scale=2.0), positive(2), real(2), eps=1e-3),
        sample(real(4, 5, 3), positive(5), real(5), eps=1e-6),
    ],
    definition=_batch_norm,
)
def batch_norm(x: Operand, weight: Operand, bias: Operand, *, eps: float) -> Spec:
    """Batch normalisation with training statistics over all axes but axis 1, the channels.

    Ioffe and Szegedy, "Batch Normalization", arXiv:1502.03167, algorithm 1; biased variance.
    """
    expect_dtype(FLOAT, x=x, weight=weight, bias=bias)
    expect(x.ndim >= 2, f"x must have shape (N, C, ...), got {list(x.shape)}")
    channels = (x.shape[1],)
    expect(
        weight.shape == channels and bias.shape == channels, f"weight and bias must have shape (C,) = {list(channels)}"
    )
    expect(x.size > x.shape[1], "training statistics need more than one value per channel")
    return Spec(x.shape)
