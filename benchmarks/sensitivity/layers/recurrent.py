"""Recurrent layers, unrolled: sequences NTI, the state at the last step comes out."""

from __future__ import annotations

from typing import Any

from benchmarks.sensitivity.layers.layer import Array, Layer

__all__ = ["Gru", "Lstm", "Rnn"]


class Rnn(Layer):
    """h <- tanh(x wx^T + h wh^T + b)."""

    floats = {"x": "nti", "wx": "hi", "wh": "hh", "b": "h"}
    sizes = {"n": 4, "t": 5, "i": 3, "h": 6}
    wide = {"n": 6, "t": 8, "i": 5, "h": 10}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, wx, wh, b = inputs
        states = [xp.zeros_like(x[:, 0] @ wx.T)]
        for t in range(x.shape[1]):
            states.append(xp.tanh(x[:, t] @ wx.T + states[-1] @ wh.T + b))
        return states[-1], (x, wx, wh, states)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, wx, wh, states = saved
        dxs, dwx, dwh, db, dh = [], 0, 0, 0, g
        for t in reversed(range(x.shape[1])):
            da = dh * (1 - states[t + 1] ** 2)
            dxs.append(da @ wx)
            dwx = dwx + da.T @ x[:, t]
            dwh = dwh + da.T @ states[t]
            db = db + da.sum(axis=0)
            dh = da @ wh
        return xp.stack(dxs[::-1], 1), dwx, dwh, db


class Lstm(Layer):
    """Gates i, f, g, o (Hochreiter and Schmidhuber 1997, with a forget gate)."""

    floats = {"x": "nti", "wi": "hj", "wf": "hj", "wg": "hj", "wo": "hj"}
    sizes = {"n": 3, "t": 4, "i": 3, "h": 5, "j": 8}
    wide = {"n": 4, "t": 6, "i": 5, "h": 7, "j": 12}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, wi, wf, wg, wo = inputs
        h = xp.zeros_like(x[:, 0] @ wi[:, : x.shape[2]].T)
        c, steps = xp.zeros_like(h), []
        for t in range(x.shape[1]):
            z = xp.concatenate([x[:, t], h], -1)
            i, f, o = (0.5 + 0.5 * xp.tanh(0.5 * (z @ w.T)) for w in (wi, wf, wo))
            k = xp.tanh(z @ wg.T)
            before, c = c, f * c + i * k
            h = o * xp.tanh(c)
            steps.append((z, i, f, k, o, before, c))
        return h, (x, inputs[1:], steps)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, (wi, wf, wg, wo), steps = saved
        inputs = x.shape[2]
        dxs, dwi, dwf, dwg, dwo = [], 0, 0, 0, 0
        dh, dc = g, 0
        for z, i, f, k, o, before, c in reversed(steps):
            tanh = xp.tanh(c)
            do = dh * tanh * o * (1 - o)
            dc = dc + dh * o * (1 - tanh**2)
            di = dc * k * i * (1 - i)
            df = dc * before * f * (1 - f)
            dk = dc * i * (1 - k**2)
            dwi, dwf, dwg, dwo = dwi + di.T @ z, dwf + df.T @ z, dwg + dk.T @ z, dwo + do.T @ z
            dz = di @ wi + df @ wf + dk @ wg + do @ wo
            dxs.append(dz[:, :inputs])
            dh = dz[:, inputs:]
            dc = dc * f
        return xp.stack(dxs[::-1], 1), dwi, dwf, dwg, dwo


class Gru(Layer):
    """One step: gates r and z, and the reset after the product (as cuDNN has it)."""

    floats = {"x": "ni", "s": "nh", "wr": "hj", "wz": "hj", "wn": "hi", "u": "hh"}
    data = ("x", "s")
    sizes = {"n": 5, "i": 4, "h": 6, "j": 10}
    wide = {"n": 8, "i": 6, "h": 10, "j": 16}

    def forward(self, xp: Any, *inputs: Array) -> tuple[Array, Any]:
        x, s, wr, wz, wn, u = inputs
        both = xp.concatenate([x, s], -1)
        r, z = (0.5 + 0.5 * xp.tanh(0.5 * (both @ w.T)) for w in (wr, wz))
        m = s @ u.T
        k = xp.tanh(x @ wn.T + r * m)
        return (1 - z) * k + z * s, (x, s, wr, wz, wn, u, both, r, z, m, k)

    def backward(self, xp: Any, saved: Any, g: Array) -> tuple[Array, ...]:
        x, s, wr, wz, wn, u, both, r, z, m, k = saved
        da = g * (1 - z) * (1 - k**2)
        dz = g * (s - k) * z * (1 - z)
        dr = da * m * r * (1 - r)
        dm = da * r
        dboth = dr @ wr + dz @ wz
        dx = da @ wn + dboth[:, : x.shape[1]]
        ds = g * z + dm @ u + dboth[:, x.shape[1] :]
        return dx, ds, dr.T @ both, dz.T @ both, da.T @ x, dm.T @ s
