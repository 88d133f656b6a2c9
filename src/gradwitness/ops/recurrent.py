"""Recurrent cells, one step each. Gates are stacked along axis 0 of the weights."""

from __future__ import annotations

from gradwitness.ops.contractions import linear
from gradwitness.ops.elementwise import sigmoid, tanh
from gradwitness.ops.samples import real, sample
from gradwitness.ops.shapes import expect, expect_dtype
from gradwitness.ops.value import FLOAT, Operand, Spec, Value
from gradwitness.ops.vocabulary import op


def _gates(stacked: Value, count: int) -> list[Value]:
    size = stacked.shape[-1] // count
    return [stacked[..., i * size : (i + 1) * size] for i in range(count)]


def _expect_cell(gates: int, x: Spec, h: Spec, weight_ih: Spec, weight_hh: Spec, bias_ih: Spec, bias_hh: Spec) -> None:
    expect_dtype(FLOAT, x=x, h=h, weight_ih=weight_ih, weight_hh=weight_hh, bias_ih=bias_ih, bias_hh=bias_hh)
    expect(x.ndim == 2 and h.ndim == 2 and x.shape[0] == h.shape[0], "x must be (batch, input) and h (batch, hidden)")
    rows, hidden = gates * h.shape[1], h.shape[1]
    expect(weight_ih.shape == (rows, x.shape[1]), f"weight_ih must be ({gates} hidden, input) = ({rows}, {x.shape[1]})")
    expect(weight_hh.shape == (rows, hidden), f"weight_hh must be ({gates} hidden, hidden) = ({rows}, {hidden})")
    expect(bias_ih.shape == (rows,) and bias_hh.shape == (rows,), f"biases must be ({gates} hidden,) = ({rows},)")


def _lstm_cell(
    x: Value, h: Value, c: Value, weight_ih: Value, weight_hh: Value, bias_ih: Value, bias_hh: Value
) -> tuple[Value, Value]:
    i, f, g, o = _gates(linear(x, weight_ih, bias_ih) + linear(h, weight_hh, bias_hh), 4)
    memory = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(memory), memory


@op(
    samples=[
        sample(real(3, 2), real(3, 4), real(3, 4), real(16, 2), real(16, 4), real(16), real(16)),
        sample(real(1, 5), real(1, 3), real(1, 3), real(12, 5), real(12, 3), real(12), real(12)),
        sample(real(4, 3), real(4, 2), real(4, 2), real(8, 3), real(8, 2), real(8), real(8)),
    ],
    definition=_lstm_cell,
)
def lstm_cell(
    x: Operand, h: Operand, c: Operand, weight_ih: Operand, weight_hh: Operand, bias_ih: Operand, bias_hh: Operand
) -> tuple[Spec, Spec]:
    """One LSTM step: (h, c) from x (batch, input) and h, c (batch, hidden); gates i, f, g, o.

    Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000.
    """
    _expect_cell(4, x, h, weight_ih, weight_hh, bias_ih, bias_hh)
    expect_dtype(FLOAT, c=c)
    expect(c.shape == h.shape, "c must have the shape of h")
    return Spec(h.shape), Spec(h.shape)


def _gru_cell(x: Value, h: Value, weight_ih: Value, weight_hh: Value, bias_ih: Value, bias_hh: Value) -> Value:
    r_x, z_x, n_x = _gates(linear(x, weight_ih, bias_ih), 3)
    r_h, z_h, n_h = _gates(linear(h, weight_hh, bias_hh), 3)
    reset, update = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    candidate = tanh(n_x + reset * n_h)
    return candidate + update * (h - candidate)


@op(
    samples=[
        sample(real(3, 2), real(3, 4), real(12, 2), real(12, 4), real(12), real(12)),
        sample(real(1, 5), real(1, 3), real(9, 5), real(9, 3), real(9), real(9)),
        sample(real(4, 3), real(4, 2), real(6, 3), real(6, 2), real(6), real(6)),
    ],
    definition=_gru_cell,
)
def gru_cell(
    x: Operand, h: Operand, weight_ih: Operand, weight_hh: Operand, bias_ih: Operand, bias_hh: Operand
) -> Spec:
    """One GRU step: h from x (batch, input) and h (batch, hidden); gates r, z, n, the reset after the matmul.

    Cho et al., arXiv:1406.1078, in the form that cuDNN and PyTorch compute.
    """
    _expect_cell(3, x, h, weight_ih, weight_hh, bias_ih, bias_hh)
    return Spec(h.shape)
