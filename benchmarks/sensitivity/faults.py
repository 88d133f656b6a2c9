"""The corpus: each fault is a line of a layer's code, and what stands there in its place.

It was written down before any tolerance was looked at, and is never fitted to what a checker sees. A change of it
is a new VERSION.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from benchmarks.sensitivity.cells import REGIMES, SEEDS, Cell, gradient_by_hand, seed_of
from benchmarks.sensitivity.layers import LAYERS, Layer, family

__all__ = ["FAULTS", "KINDS", "VERSION", "Fault", "corpus_hash", "effect", "planted"]

VERSION = "1"
KINDS = (
    "factor",  # a constant factor, a sign
    "sum",  # a sum that misses part of an axis
    "mean",  # a mean for a sum, a sum for a mean, another denominator
    "transposed",
    "path",  # one path of several is dropped, or counted twice
    "term",  # a term or a factor of the derivative is left out
    "detached",
    "accumulated",  # gradients of earlier calls are added
    "stale",  # what was saved is another call's
    "negative",  # wrong only where the input is negative, or below -3
    "border",
    "last",  # wrong only in the last row, column or coordinate
    "masked",
    "epsilon",  # another eps or ddof than in the forward pass
    "precision",  # a narrower dtype inside
)


@dataclass(frozen=True)
class Fault:
    """One line changed. old stands in the layer's source exactly once. regime, sizes: of the cell that it is shown in.

    reached: whether it shows at that cell's inputs at all.
    """

    name: str
    layer: str
    kind: str
    old: str
    new: str
    regime: str = "generic"
    sizes: Mapping[str, int] = field(default_factory=dict, hash=False)
    reached: bool = True

    @property
    def family(self) -> str:
        return family(self.layer)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Those in which it is one: what rounds to float32 changes nothing there."""
        return ("float64",) if "'float32'" in self.new else ("float64", "float32")

    @property
    def cell(self) -> Cell:
        return Cell(self.layer, self.regime, 0, self.sizes)


FAULTS: tuple[Fault, ...] = (
    # dense
    Fault("dense bias mean", "Dense", "mean", "g.sum(axis=0)", "g.mean(axis=0)"),
    Fault("dense bias of first example", "Dense", "sum", "db = g.sum(axis=0)", "db = g[0]"),
    Fault("dense bias without last example", "Dense", "last", "g.sum(axis=0)", "g[:-1].sum(axis=0)"),
    Fault("dense weight doubled", "Dense", "factor", "dw = g.T @ x", "dw = 2 * g.T @ x"),
    Fault("dense input sign", "Dense", "factor", "dx = g @ w", "dx = -g @ w"),
    Fault("dense input off by 1e-2", "Dense", "factor", "dx = g @ w", "dx = 1.01 * g @ w"),
    Fault("dense input off by 1e-4", "Dense", "factor", "dx = g @ w", "dx = 1.0001 * g @ w"),
    Fault("dense input off by 1e-6", "Dense", "factor", "dx = g @ w", "dx = 1.000001 * g @ w"),
    Fault("dense weight over batch", "Dense", "mean", "dw = g.T @ x", "dw = g.T @ x / x.shape[0]"),
    Fault("dense input through w^T", "Dense", "transposed", "dx = g @ w", "dx = g @ w.T", sizes={"o": 12}),
    Fault("dense weight transposed", "Dense", "transposed", "dw = g.T @ x", "dw = x.T @ g", sizes={"o": 12}),
    Fault("dense input detached", "Dense", "detached", "dx = g @ w", "dx = xp.zeros_like(x)"),
    Fault(
        "dense weight accumulated",
        "Dense",
        "accumulated",
        "dw = g.T @ x",
        "dw = self.dw = getattr(self, 'dw', 0) + g.T @ x",
    ),
    Fault(
        "dense cache of first call", "Dense", "stale", "x, w = saved", "x, w = vars(self).setdefault('first', saved)"
    ),
    Fault(
        "dense cache of last call",
        "Dense",
        "stale",
        "x, w = saved",
        "x, w, self.last = *getattr(self, 'last', saved), saved",
    ),
    Fault("dense weight in float32", "Dense", "precision", "g.T @ x", "xp.through('float32', g.T @ x)"),
    Fault("dense weight in float16", "Dense", "precision", "g.T @ x", "xp.through('float16', g.T @ x)"),
    Fault(
        "dense one weight off by 1e-2",
        "Dense",
        "last",
        "dw = g.T @ x",
        "dw = g.T @ x; dw = dw + 0.01 * xp.only(517, dw)",
        regime="wide",
    ),
    Fault(
        "dense one bias off by 1e-2",
        "Dense",
        "last",
        "db = g.sum(axis=0)",
        "db = g.sum(axis=0); db = db + 0.01 * xp.only(8, db)",
    ),
    Fault("dense last weight row missing", "Dense", "last", "g.T @ x", "(g * (xp.arange(9) < 8)).T @ x"),
    Fault("perceptron mask of negatives", "Perceptron", "negative", "xp.where(a > 0, dh, 0.0)", "dh"),
    Fault("perceptron mask shifted", "Perceptron", "masked", "xp.where(a > 0, dh", "xp.where(a > 0.1, dh"),
    Fault("perceptron output weight from a", "Perceptron", "term", "dwo = g.T @ h", "dwo = g.T @ a"),
    Fault("perceptron hidden detached", "Perceptron", "detached", "dh = g @ wo", "dh = xp.zeros_like(h)"),
    Fault("perceptron bias past the mask", "Perceptron", "masked", "da.sum(axis=0)", "dh.sum(axis=0)"),
    # activation
    Fault("leaky slope forgotten", "LeakyRelu", "negative", "xp.where(x > 0, g, 0.1 * g)", "xp.where(x > 0, g, 0 * g)"),
    Fault(
        "leaky slope of 0.11", "LeakyRelu", "negative", "xp.where(x > 0, g, 0.1 * g)", "xp.where(x > 0, g, 0.11 * g)"
    ),
    Fault("elu slope for negatives", "Elu", "negative", "g * e)", "g * (e - 1))"),
    Fault("elu clipped below -3", "Elu", "negative", "g * e)", "g * e * (x > -3))", regime="large"),
    Fault("gelu polynomial factor", "Gelu", "factor", "3 * 0.044715 * x**2)", "0.044715 * x**2)"),
    Fault("gelu constant mistyped", "Gelu", "factor", "(1 + 3 * 0.044715 ", "(1 + 3 * 0.044175 "),
    Fault("gelu inner term dropped", "Gelu", "term", "+ 0.5 * x * (1 - t**2) * inner", ""),
    Fault("gelu zero below -3", "Gelu", "negative", "(g * slope,)", "(g * slope * (x > -3),)", regime="large"),
    Fault(
        "gelu zero below -3, not reached",
        "Gelu",
        "negative",
        "(g * slope,)",
        "(g * slope * (x > -3),)",
        regime="small",
        reached=False,
    ),
    Fault("softplus of -x", "Softplus", "negative", "xp.where(x > 0, 1.0, e)", "xp.where(x > 0, e, 1.0)"),
    Fault("softplus naive for negatives", "Softplus", "negative", "xp.where(x > 0, 1.0, e)", "1.0"),
    Fault(
        "softplus one above 3", "Softplus", "border", "1.0, e) / (1 + e)", "1.0, e) / (1 + e * (x < 3))", regime="large"
    ),
    # normalization
    Fault("batch norm mean detached", "BatchNorm", "path", "dxhat - dxhat.mean(axis=0) - xhat", "dxhat - xhat"),
    Fault("batch norm variance detached", "BatchNorm", "path", " - xhat * (dxhat * xhat).mean(axis=0)", ""),
    Fault(
        "batch norm ddof",
        "BatchNorm",
        "epsilon",
        "(dxhat * xhat).mean",
        "g.shape[0] / (g.shape[0] - 1) * (dxhat * xhat).mean",
    ),
    Fault("batch norm eps", "BatchNorm", "epsilon", "inv = 1 / xp.sqrt(var + 1e-5)", "inv = 1 / xp.sqrt(var + 1e-3)"),
    Fault(
        "batch norm eps forgotten", "BatchNorm", "epsilon", "inv = 1 / xp.sqrt(var + 1e-5)", "inv = 1 / xp.sqrt(var)"
    ),
    Fault("batch norm gamma forgotten", "BatchNorm", "term", "dxhat = g * gamma", "dxhat = g"),
    Fault("batch norm gamma of x", "BatchNorm", "term", "(g * xhat).sum", "(g * centred).sum"),
    Fault("batch norm beta mean", "BatchNorm", "mean", "dbeta = g.sum", "dbeta = g.mean"),
    Fault("layer norm mean term dropped", "LayerNorm", "path", "dxhat - mean - xhat", "dxhat - xhat"),
    Fault(
        "layer norm slope over batch",
        "LayerNorm",
        "transposed",
        "(dxhat * xhat).mean(axis=-1)[..., None]",
        "(dxhat * xhat).mean(axis=0)",
    ),
    Fault("layer norm ddof", "LayerNorm", "epsilon", "xhat * slope", "xhat * slope * g.shape[1] / (g.shape[1] - 1)"),
    Fault(
        "layer norm eps twice",
        "LayerNorm",
        "epsilon",
        "xhat = centred * inv",
        "xhat = centred / xp.sqrt(1 / inv**2 + 1e-5)",
    ),
    Fault(
        "layer norm gamma first example",
        "LayerNorm",
        "sum",
        "dgamma = (g * xhat).sum(axis=0)",
        "dgamma = (g * xhat)[0]",
    ),
    Fault(
        "layer norm in float32",
        "LayerNorm",
        "precision",
        "xhat = centred * inv",
        "xhat = xp.through('float32', centred * inv)",
    ),
    Fault("rms norm power of inv", "RmsNorm", "term", "inv**3 * x", "inv**2 * x"),
    Fault("rms norm sum for mean", "RmsNorm", "mean", "(dxhat * x).mean", "(dxhat * x).sum"),
    Fault("rms norm denominator detached", "RmsNorm", "path", "inv * dxhat - inv**3 * x * dot", "inv * dxhat"),
    Fault("rms norm gamma unscaled", "RmsNorm", "term", "(g * x * inv).sum", "(g * x).sum"),
    # convolution
    Fault(
        "conv kernel unflipped",
        "Conv2d",
        "transposed",
        "2 - i : 2 - i + height, 2 - j : 2 - j + width",
        "i : i + height, j : j + width",
    ),
    Fault("conv channels swapped", "Conv2d", "transposed", '"nohw,oc->nchw"', '"nchw,oc->nohw"', sizes={"o": 3}),
    Fault("conv bias of top row", "Conv2d", "sum", "g.sum(axis=(0, 2, 3))", "g[:, :, 0].sum(axis=(0, 2))"),
    Fault("conv bias over batch", "Conv2d", "mean", "g.sum(axis=(0, 2, 3))", "g.sum(axis=(2, 3)).mean(axis=0)"),
    Fault(
        "conv weight without last row",
        "Conv2d",
        "last",
        '"nohw,nchw->oc", g, patch',
        '"nohw,nchw->oc", g[:, :, :-1], patch[:, :, :-1]',
    ),
    Fault(
        "conv corner of the kernel",
        "Conv2d",
        "border",
        "rows.append(xp.stack(columns, -1))",
        "rows.append(xp.stack([*columns[:2], columns[i]], -1))",
    ),
    Fault("conv input border", "Conv2d", "border", "return dx, dw, db", "return dx * (xp.arange(width) > 0), dw, db"),
    Fault("conv1d overlap assigned", "Conv1d", "sum", "xp.add_at", "xp.set_at"),
    Fault(
        "conv1d weight of last window",
        "Conv1d",
        "sum",
        '"nso,nskc->okc", g, windows',
        '"nso,nskc->okc", g[:, -1:], windows[:, -1:]',
    ),
    Fault(
        "conv1d last window missing",
        "Conv1d",
        "last",
        '"nso,okc->sknc", g, w',
        '"nso,okc->sknc", g * (xp.arange(g.shape[1]) < g.shape[1] - 1)[:, None], w',
    ),
    # pooling
    Fault(
        "max pool to all four",
        "MaxPool",
        "masked",
        "xp.where(is_largest, g[:, :, :, None, :, None], 0.0)",
        "xp.where(is_largest, 0.0, 0.0) + g[:, :, :, None, :, None]",
    ),
    Fault(
        "max pool mask of positives",
        "MaxPool",
        "negative",
        "blocks == y[:, :, :, None, :, None]",
        "(blocks > 0) & (blocks == y[:, :, :, None, :, None])",
    ),
    Fault("avg pool undivided", "AvgPool", "factor", "2:]) / 3", "2:])"),
    Fault(
        "avg pool counts what is inside",
        "AvgPool",
        "border",
        "return (dx,)",
        "at = xp.arange(g.shape[2]); return (dx * xp.where((at > 0) & (at < g.shape[2] - 1), 1.0, 1.5),)",
    ),
    Fault(
        "avg pool last column", "AvgPool", "last", "p = xp.pad(g, 1, 1)", "p = xp.pad(g * (xp.arange(11) < 10), 1, 1)"
    ),
    # recurrent
    Fault("rnn truncated to one step", "Rnn", "detached", "dh = da @ wh", "dh = 0 * da"),
    Fault("rnn state of the wrong step", "Rnn", "stale", "da.T @ states[t]", "da.T @ states[t + 1]"),
    Fault("rnn slope of the state before", "Rnn", "stale", "1 - states[t + 1] ** 2", "1 - states[t] ** 2"),
    Fault("rnn hidden weight transposed", "Rnn", "transposed", "dh = da @ wh", "dh = da @ wh.T"),
    Fault("rnn inputs in reverse", "Rnn", "transposed", "dxs[::-1]", "dxs"),
    Fault("rnn bias of one step", "Rnn", "sum", "db = db + da.sum(axis=0)", "db = da.sum(axis=0)"),
    Fault("rnn weight without first step", "Rnn", "border", "da.T @ x[:, t]", "da.T @ x[:, t] * (t > 0)"),
    Fault("lstm forget path of the cell", "Lstm", "path", "dc = dc * f", "dc = 0 * dc"),
    Fault("lstm cell kept whole", "Lstm", "term", "dc = dc * f", "dc = 1 * dc"),
    Fault("lstm cell not carried", "Lstm", "path", "dc = dc + dh * o", "dc = dh * o"),
    Fault("lstm cell after for before", "Lstm", "stale", "df = dc * before", "df = dc * c"),
    Fault("lstm output gate slope", "Lstm", "term", "dh * tanh * o * (1 - o)", "dh * tanh * o"),
    Fault("lstm tanh of cell", "Lstm", "term", "o * (1 - tanh**2)", "o"),
    Fault("lstm state through output gate", "Lstm", "path", "dk @ wg + do @ wo", "dk @ wg"),
    Fault("gru reset gate dropped", "Gru", "path", "dboth = dr @ wr + dz @ wz", "dboth = dz @ wz"),
    Fault("gru direct path dropped", "Gru", "path", "ds = g * z + dm @ u", "ds = dm @ u"),
    Fault("gru direct path twice", "Gru", "path", "ds = g * z + dm @ u", "ds = 2 * g * z + dm @ u"),
    Fault("gru reset before the product", "Gru", "term", "dm.T @ s", "da.T @ (r * s)"),
    Fault("gru update sign", "Gru", "factor", "(s - k)", "(k - s)"),
    # attention
    Fault("softmax diagonal only", "Softmax", "term", "p * (g - dot)", "p * (1 - p) * g"),
    Fault("softmax sum over batch", "Softmax", "transposed", "(g * p).sum(axis=-1)[..., None]", "(g * p).sum(axis=0)"),
    Fault("softmax dot dropped", "Softmax", "path", "p * (g - dot)", "p * g"),
    Fault("softmax mean for sum", "Softmax", "mean", "(g * p).sum", "(g * p).mean"),
    Fault("attention mask forgotten", "Attention", "masked", 'xp.where(mask, scores, -float("inf"))', "scores"),
    Fault("attention mask without diagonal", "Attention", "masked", "ds = p *", "ds = xp.where(mask.T & mask, 0, p) *"),
    Fault("attention last row", "Attention", "last", "ds = p *", "ds = p * (xp.arange(6) < 5)[:, None] *"),
    Fault("attention key scale", "Attention", "factor", "ds, q) * scale", "ds, q)"),
    Fault("attention scale twice", "Attention", "factor", "ds, k) * scale", "ds, k) * scale**2"),
    Fault("attention scores transposed", "Attention", "transposed", '"nts,ntd->nsd", ds', '"nst,ntd->nsd", ds'),
    Fault("attention values transposed", "Attention", "transposed", '"nts,ntd->nsd", p', '"nst,ntd->nsd", p'),
    Fault("attention row sum dropped", "Attention", "path", "(dp - (dp * p).sum(axis=-1)[..., None])", "dp"),
    Fault("attention queries detached", "Attention", "detached", "return dq, dk, dv", "return 0 * dq, dk, dv"),
    Fault(
        "attention in float32",
        "Attention",
        "precision",
        'p = softmax(xp, xp.where(mask, scores, -float("inf")))\n        dp',
        "p = xp.through('float32', softmax(xp, xp.where(mask, scores, -float('inf'))))\n        dp",
    ),
    Fault(
        "attention in float32, saturated",
        "Attention",
        "precision",
        'p = softmax(xp, xp.where(mask, scores, -float("inf")))\n        dp',
        "p = xp.through('float32', softmax(xp, xp.where(mask, scores, -float('inf'))))\n        dp",
        regime="large",
    ),
    # embedding
    Fault("embedding repeats assigned", "Embedding", "sum", "xp.add_at", "xp.set_at"),
    Fault("embedding padding receives", "Embedding", "masked", "rows = xp.where(is_token, g, 0.0)", "rows = g"),
    Fault("embedding over batch", "Embedding", "mean", "g.sum(axis=0)", "g.mean(axis=0)"),
    Fault(
        "embedding last position", "Embedding", "last", "g.sum(axis=0)", "(g * (xp.arange(5) < 4)[:, None]).sum(axis=0)"
    ),
    Fault("embedding positions masked", "Embedding", "masked", "dposition = g.sum", "dposition = rows.sum"),
    Fault("embedding detached", "Embedding", "detached", "return dtable", "return 0 * dtable"),
    Fault("bag repeats assigned", "EmbeddingBag", "sum", "xp.add_at", "xp.set_at"),
    Fault(
        "bag sum for mean",
        "EmbeddingBag",
        "mean",
        "g[:, None, :] / tokens.shape[1]",
        "g[:, None, :] + 0 * weight[..., None]",
    ),
    Fault("bag weight forgotten", "EmbeddingBag", "term", "rows * weight[..., None]", "rows + 0 * weight[..., None]"),
    Fault(
        "bag last row of the table",
        "EmbeddingBag",
        "last",
        "return dtable,",
        "return dtable * (xp.arange(7) < 6)[:, None],",
    ),
    # loss
    Fault("cross entropy over all examples", "CrossEntropy", "mean", "g * dx / counted.sum()", "g * dx / x.shape[0]"),
    Fault("cross entropy summed", "CrossEntropy", "mean", "g * dx / counted.sum()", "g * dx"),
    Fault("cross entropy ignored labels", "CrossEntropy", "masked", "dx * counted[:, None]", "dx"),
    Fault("cross entropy without labels", "CrossEntropy", "term", "softmax(xp, x) - target", "softmax(xp, x)"),
    Fault(
        "cross entropy last class",
        "CrossEntropy",
        "last",
        "softmax(xp, x) - target",
        "softmax(xp, x) - target * (xp.arange(6) < 5)",
    ),
    Fault("cross entropy ignores g", "CrossEntropy", "path", "g * dx / counted.sum()", "dx / counted.sum()"),
    Fault("mse without 2", "MeanSquaredError", "factor", "g * 2 * difference", "g * difference"),
    Fault("mse over batch only", "MeanSquaredError", "mean", "* difference.shape[1]", "* 1"),
    Fault("mse target sign", "MeanSquaredError", "factor", "-dx", "dx"),
    Fault("mse target detached", "MeanSquaredError", "detached", "-dx", "0 * dx"),
    Fault("bce sigmoid of -x", "BinaryCrossEntropy", "negative", "xp.where(x > 0, 1.0, e) / (1 + e)", "1 / (1 + e)"),
    Fault(
        "bce clipped at 1e-2",
        "BinaryCrossEntropy",
        "border",
        "g * (p - target)",
        "g * (xp.clip(p, 0.01, 0.99) - target)",
        regime="large",
    ),
    Fault(
        "bce clipped at 1e-2, not reached",
        "BinaryCrossEntropy",
        "border",
        "g * (p - target)",
        "g * (xp.clip(p, 0.01, 0.99) - target)",
        regime="small",
        reached=False,
    ),
    Fault(
        "bce mean over outputs",
        "BinaryCrossEntropy",
        "mean",
        "(p - target) / x.shape[0]",
        "(p - target) / x.shape[0] / x.shape[1]",
    ),
    Fault("huber unclipped", "Huber", "border", "xp.where(abs(x) < 1, x, xp.sign(x))", "x"),
    Fault("huber linear part unsigned", "Huber", "negative", "xp.sign(x))", "1.0)"),
    Fault(
        "huber unclipped, not reached",
        "Huber",
        "border",
        "xp.where(abs(x) < 1, x, xp.sign(x))",
        "x",
        regime="small",
        reached=False,
    ),
    # fan-out
    Fault("residual skip dropped", "Residual", "path", "dx = g + da @ w", "dx = da @ w"),
    Fault("residual branch dropped", "Residual", "path", "dx = g + da @ w", "dx = g"),
    Fault("residual skip twice", "Residual", "path", "dx = g + da @ w", "dx = 2 * g + da @ w"),
    Fault("residual through w^T", "Residual", "transposed", "dx = g + da @ w", "dx = g + da @ w.T"),
    Fault("tied decoder path dropped", "TiedAutoencoder", "path", "dw = h.T @ g + da.T @ x", "dw = da.T @ x"),
    Fault("tied encoder path dropped", "TiedAutoencoder", "path", "dw = h.T @ g + da.T @ x", "dw = h.T @ g"),
    Fault("tied encoder slope", "TiedAutoencoder", "term", "(g @ w.T) * (1 - h**2)", "g @ w.T"),
    Fault("siamese cache of second use", "Siamese", "stale", "da = g * (1 - h**2)", "da = g * (1 - h2**2)"),
    Fault("siamese input of second use", "Siamese", "stale", "dw = da.T @ x +", "dw = da.T @ x2 +"),
    Fault("siamese second use dropped", "Siamese", "path", "db = (da + da2).sum", "db = da.sum"),
    Fault(
        "siamese accumulated",
        "Siamese",
        "accumulated",
        "dw = da.T @ x +",
        "dw = self.dw = getattr(self, 'dw', 0) + da.T @ x +",
    ),
    Fault("siamese second input sign", "Siamese", "factor", "da @ w, da2 @ w", "da @ w, -da2 @ w"),
    Fault("gated value path dropped", "GatedUnit", "path", "dx = da @ w + dv @ wv", "dx = da @ w"),
    Fault("gated gate detached", "GatedUnit", "detached", "da = g * v", "da = 0 * g * v"),
    Fault("gated sigmoid slope", "GatedUnit", "term", "(s + a * s * (1 - s))", "s"),
    Fault("gated in float32", "GatedUnit", "precision", "dv = g * a * s", "dv = xp.through('float32', g * a * s)"),
)


def planted(fault: Fault) -> type[Layer]:
    """The layer with the fault in it. Raises ValueError if the line to change does not stand there exactly once."""
    layer = LAYERS[fault.layer]
    source = inspect.getsource(layer)
    if source.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: {fault.old!r} stands {source.count(fault.old)} times in {fault.layer}")
    changed = source.replace(fault.old, fault.new)
    filename = f"<{fault.name} {next(_serial)}>"
    linecache.cache[filename] = (len(changed), None, changed.splitlines(keepends=True), filename)  # for tracebacks
    namespace = dict(vars(sys.modules[layer.__module__]))
    exec(compile(changed, filename, "exec"), namespace)  # noqa: S102  # a line of the corpus in a layer of ours
    found: type[Layer] = namespace[fault.layer]
    return found


_serial = count()


def effect(fault: Fault) -> float:
    """How far the fault moves the gradient at its cell: of the input that it moves most, by norm, relative to the
    right one. In float64, after a call elsewhere, as a fault may lie in what is kept between calls."""
    cell, layer = fault.cell, planted(fault)()
    gradient_by_hand(layer, cell, cell.elsewhere)
    point = tuple(cell.floats.values())
    wrong, right = gradient_by_hand(layer, cell, point), gradient_by_hand(LAYERS[fault.layer](), cell, point)
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(wrong, right, strict=True))


def corpus_hash() -> str:
    """Of what decides what is run: the layers' code, the faults, and how the points are drawn."""
    sources = [*map(inspect.getsource, LAYERS.values()), inspect.getsource(Cell), inspect.getsource(seed_of)]
    parts = [*sources, *map(repr, FAULTS), repr(REGIMES), repr(SEEDS)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
