"""Rules of recurrent cells, one step each."""

from __future__ import annotations

import numpy as np

from gradwitness_numpy.numerics import sigmoid
from gradwitness_numpy.rule import Array, Cotangents, Rule, Step, sum_leading


def _affine_vjp(g: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Cotangents of x, weight and bias in x @ weight.T + bias."""
    return g @ weight, g.T @ x, sum_leading(g, 1)


def _lstm_cell(x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> tuple[Array, Array]:
    i, f, g, o = np.split(x @ w_ih.T + h @ w_hh.T + (b_ih + b_hh), 4, axis=1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    memory = f * c + i * g
    squashed = np.tanh(memory)
    return (o * squashed, memory), (i, f, g, o, squashed)


def _lstm_cell_vjp(cotangents: tuple[Array, Array], step: Step) -> Cotangents:
    by_h, by_c = cotangents
    i, f, g, o, squashed = step.saved
    x, h, c, w_ih, w_hh, _, _ = step.operands
    by_memory = by_c + by_h * o * (1 - squashed * squashed)
    gates = np.concatenate(
        [
            by_memory * g * i * (1 - i),
            by_memory * c * f * (1 - f),
            by_memory * i * (1 - g * g),
            by_h * squashed * o * (1 - o),
        ],
        axis=1,
    )
    dx, dw_ih, db = _affine_vjp(gates, x, w_ih)
    dh, dw_hh, _ = _affine_vjp(gates, h, w_hh)
    return dx, dh, by_memory * f, dw_ih, dw_hh, db, db


def _gru_cell(
    x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array
) -> tuple[Array, tuple[Array, ...]]:
    r_x, z_x, n_x = np.split(x @ w_ih.T + b_ih, 3, axis=1)
    r_h, z_h, n_h = np.split(h @ w_hh.T + b_hh, 3, axis=1)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    n = np.tanh(n_x + r * n_h)
    return n + z * (h - n), (r, z, n, n_h)


def _gru_cell_vjp(g: Array, step: Step) -> Cotangents:
    r, z, n, n_h = step.saved
    x, h, w_ih, w_hh, _, _ = step.operands
    by_n = g * (1 - z) * (1 - n * n)
    by_z = g * (h - n) * z * (1 - z)
    by_r = by_n * n_h * r * (1 - r)
    dx, dw_ih, db_ih = _affine_vjp(np.concatenate([by_r, by_z, by_n], axis=1), x, w_ih)
    dh, dw_hh, db_hh = _affine_vjp(np.concatenate([by_r, by_z, by_n * r], axis=1), h, w_hh)
    return dx, dh + g * z, dw_ih, dw_hh, db_ih, db_hh


RULES: dict[str, Rule] = {
    "lstm_cell": Rule(_lstm_cell, _lstm_cell_vjp, saves=True),
    "gru_cell": Rule(_gru_cell, _gru_cell_vjp, saves=True),
}
