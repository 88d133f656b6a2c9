"""Backward passes written by hand, with the bugs that people write: an autograd.Function, a custom_vjp, NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.adversary.corpus import Draw, Subject, Wrong
from benchmarks.adversary.frameworks import Framework, Loss, Tree
from benchmarks.adversary.kinds.points import normal, uniform

__all__ = ["SUBJECTS", "handwritten"]

BOTH = ("float64", "float32")
Backward = Callable[..., tuple[Any, ...]]
Forward = Callable[..., Any]
ROOT = math.sqrt(2 / math.pi)


def handwritten(
    name: str,
    forward: Forward,
    right: Backward,
    wrong: Mapping[str, tuple[Backward, float, tuple[str, ...]]],
    params: Draw,
    output: int | tuple[int, ...],
    **options: Any,
) -> Subject:
    """forward(f, *leaves), its right backward and wrong ones, each with what it is off by and the leaves at fault.

    The loss is the sum of the forward's elements, of shape `output`, each times its weight.
    """

    leaves = tuple(params(np.random.default_rng(0)))

    def loss(backward: Backward) -> Loss:
        return lambda f, p, b: (f.rule(forward, backward)(*(p[k] for k in leaves)) * b["c"]).sum()

    def plain(f: Framework, p: Tree, b: Tree) -> Any:
        return (forward(f, *(p[k] for k in leaves)) * b["c"]).sum()

    faults = tuple(Wrong(k, off, loss=loss(b), leaves=at) for k, (b, off, at) in wrong.items())
    given: dict[str, Any] = {"dtypes": BOTH, "demanded": BOTH, "batch": uniform(-1.0, 2.0, c=output)} | options
    return Subject(name, loss(right), params, faults, plain=plain, **given)


def _mean(x: Any) -> Any:
    return x.mean(-1)[..., None]


def _sum(x: Any) -> Any:
    return x.sum(-1)[..., None]


def _dense(f: Framework, x: Any, w: Any, b: Any) -> Any:
    return x @ w.T + b


DENSE = handwritten(
    "dense layer",
    _dense,
    lambda f, g, x, w, b: (g @ w, g.T @ x, g.sum(0)),
    {
        "bias: mean for sum": (lambda f, g, x, w, b: (g @ w, g.T @ x, g.mean(0)), 0.5, ("b",)),
        "bias: first row only": (lambda f, g, x, w, b: (g @ w, g.T @ x, g[0]), 0.3, ("b",)),
        "weight transposed": (lambda f, g, x, w, b: (g @ w, x.T @ g, g.sum(0)), 0.3, ("w",)),
        "input through w^T": (lambda f, g, x, w, b: (g @ w.T, g.T @ x, g.sum(0)), 0.3, ("x",)),
        "bias summed over features": (lambda f, g, x, w, b: (g @ w, g.T @ x, g[:4].sum(1)), 0.3, ("b",)),
        "weight without the last example": (
            lambda f, g, x, w, b: (g @ w, g[:-1].T @ x[:-1], g.sum(0)),
            0.05,
            ("w",),
        ),
    },
    normal(x=(6, 4), w=(4, 4), b=4),
    (6, 4),
)


def _softmax_backward(f: Framework, g: Any, x: Any) -> tuple[Any]:
    s = f.softmax(x, -1)
    return (s * (g - _sum(g * s)),)


SOFTMAX = handwritten(
    "softmax",
    lambda f, x: f.softmax(x, -1),
    _softmax_backward,
    {
        "sum term missing": (lambda f, g, x: (f.softmax(x, -1) * g,), 0.1, ()),
        "mean for sum": (lambda f, g, x: (f.softmax(x, -1) * (g - _mean(g * f.softmax(x, -1))),), 0.1, ()),
        "diagonal alone": (lambda f, g, x: (f.softmax(x, -1) * (1 - f.softmax(x, -1)) * g,), 0.1, ()),
    },
    normal(x=(3, 5)),
    (3, 5),
)


def _log_softmax(f: Framework, x: Any) -> Any:
    return x - f.log(_sum(f.exp(x)))


LOG_SOFTMAX = handwritten(
    "log-softmax",
    _log_softmax,
    lambda f, g, x: (g - f.softmax(x, -1) * _sum(g),),
    {
        "identity": (lambda f, g, x: (g,), 0.1, ()),
        "softmax for its sum": (lambda f, g, x: (g - f.softmax(x, -1) * g,), 0.1, ()),
    },
    normal(x=(3, 5)),
    (3, 5),
)


def _layer_norm(f: Framework, x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    centred = x - _mean(x)
    return weight * centred / f.sqrt(_mean(centred**2) + eps) + bias


def _layer_norm_backward(mean: float = 1.0, variance: float = 1.0, eps: float = 1e-5, scaled: bool = True) -> Backward:
    def backward(f: Framework, g: Any, x: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
        centred = x - _mean(x)
        inverse = 1 / f.sqrt(_mean(centred**2) + eps)
        normed = centred * inverse
        d = g * weight if scaled else g
        dx = inverse * (d - mean * _mean(d) - variance * normed * _mean(d * normed))
        return dx, (g * normed).sum(0), g.sum(0)

    return backward


LAYER_NORM = handwritten(
    "layer norm",
    _layer_norm,
    _layer_norm_backward(),
    {
        "mean term missing": (_layer_norm_backward(mean=0.0), 0.05, ("x",)),
        "variance term missing": (_layer_norm_backward(variance=0.0), 0.05, ("x",)),
        "weight forgotten": (_layer_norm_backward(scaled=False), 0.1, ("x",)),
        "eps of 0.05 for 1e-5": (_layer_norm_backward(eps=0.05), 0.005, ("x",)),
    },
    normal(x=(4, 6), weight=6, bias=6),
    (4, 6),
)


def _rms_norm(f: Framework, x: Any, weight: Any) -> Any:
    return weight * x / f.sqrt(_mean(x**2) + 1e-6)


def _rms_norm_backward(power: int = 3, mean: bool = True) -> Backward:
    def backward(f: Framework, g: Any, x: Any, weight: Any) -> tuple[Any, ...]:
        inverse = 1 / f.sqrt(_mean(x**2) + 1e-6)
        d = g * weight
        along = _mean(d * x) if mean else _sum(d * x)
        return inverse * d - inverse**power * x * along, (g * x * inverse).sum(0)

    return backward


RMS_NORM = handwritten(
    "rms norm",
    _rms_norm,
    _rms_norm_backward(),
    {
        "power of the inverse": (_rms_norm_backward(power=2), 0.01, ("x",)),
        "sum for mean": (_rms_norm_backward(mean=False), 0.1, ("x",)),
    },
    normal(x=(4, 6), weight=6),
    (4, 6),
)


def _batch_norm(f: Framework, x: Any) -> Any:
    centred = x - x.mean(0)
    return centred / f.sqrt((centred**2).mean(0) + 1e-5)


def _batch_norm_backward(mean: float = 1.0, variance: float = 1.0) -> Backward:
    def backward(f: Framework, g: Any, x: Any) -> tuple[Any]:
        centred = x - x.mean(0)
        inverse = 1 / f.sqrt((centred**2).mean(0) + 1e-5)
        normed = centred * inverse
        return (inverse * (g - mean * g.mean(0) - variance * normed * (g * normed).mean(0)),)

    return backward


BATCH_NORM = handwritten(
    "batch norm",
    _batch_norm,
    _batch_norm_backward(),
    {
        "mean detached": (_batch_norm_backward(mean=0.0), 0.1, ()),
        "variance detached": (_batch_norm_backward(variance=0.0), 0.1, ()),
        "one degree of freedom less": (_batch_norm_backward(variance=7 / 6), 0.005, ()),
    },
    normal(x=(7, 4)),
    (7, 4),
)


def _gelu(f: Framework, x: Any) -> Any:
    return 0.5 * x * (1 + f.erf(x / math.sqrt(2)))


def _gelu_backward(f: Framework, g: Any, x: Any) -> tuple[Any]:
    return (g * (0.5 * (1 + f.erf(x / math.sqrt(2))) + x * f.exp(-x * x / 2) / math.sqrt(2 * math.pi)),)


def _tanh_gelu_backward(f: Framework, g: Any, x: Any) -> tuple[Any]:
    t = f.tanh(ROOT * (x + 0.044715 * x**3))
    return (g * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * ROOT * (1 + 3 * 0.044715 * x**2)),)


GELU = handwritten(
    "gelu",
    _gelu,
    _gelu_backward,
    {
        "tanh's for erf's": (_tanh_gelu_backward, 2e-4, ()),
        "density missing": (lambda f, g, x: (g * 0.5 * (1 + f.erf(x / math.sqrt(2))),), 0.05, ()),
    },
    normal(1.5, x=12),
    12,
)


def _silu_slope(f: Framework, x: Any) -> Any:
    s = f.sigmoid(x)
    return s * (1 + x * (1 - s))


SILU = handwritten(
    "silu",
    lambda f, x: x * f.sigmoid(x),
    lambda f, g, x: (g * _silu_slope(f, x),),
    {
        "times 1.05": (lambda f, g, x: (1.05 * g * _silu_slope(f, x),), 0.049, ()),
        "second term missing": (lambda f, g, x: (g * f.sigmoid(x),), 0.05, ()),
    },
    normal(1.5, x=12),
    12,
)
CUBE = handwritten(
    "cube",
    lambda f, x: x**3,
    lambda f, g, x: (3 * g * x**2,),
    {
        "3.06 for 3": (lambda f, g, x: (3.06 * g * x**2,), 0.019, ()),
        "of the magnitude": (lambda f, g, x: (3 * g * x * abs(x),), 0.3, ()),
    },
    normal(x=9),
    9,
)
TANH = handwritten(
    "tanh",
    lambda f, x: f.tanh(x),
    lambda f, g, x: (g * (1 - f.tanh(x) ** 2),),
    {
        "not squared": (lambda f, g, x: (g * (1 - f.tanh(x)),), 0.1, ()),
        "of tanh(x) again": (lambda f, g, x: (g * (1 - f.tanh(f.tanh(x)) ** 2),), 0.03, ()),
    },
    normal(x=9),
    9,
)


def _unit(f: Framework, x: Any) -> Any:
    return x / f.sqrt(_sum(x * x))


UNIT = handwritten(
    "normalised to length 1",
    _unit,
    lambda f, g, x: ((g - _unit(f, x) * _sum(g * _unit(f, x))) / f.sqrt(_sum(x * x)),),
    {"projection missing": (lambda f, g, x: (g / f.sqrt(_sum(x * x)),), 0.05, ())},
    normal(x=(3, 4)),
    (3, 4),
)
MASK = np.tril(np.ones((5, 5)))


def _attention(causal: bool = True, scale: float = 0.5) -> Forward:
    def forward(f: Framework, q: Any, k: Any, v: Any) -> Any:
        scores = q @ k.T * scale
        if causal:
            scores = f.where(f.constant(MASK, q) > 0, scores, -1e9)
        return f.softmax(scores, -1) @ v

    return forward


def _attention_backward(causal: bool = True, scale: float = 0.5, summed: bool = True) -> Backward:
    def backward(f: Framework, g: Any, q: Any, k: Any, v: Any) -> tuple[Any, ...]:
        scores = q @ k.T * scale
        if causal:
            scores = f.where(f.constant(MASK, q) > 0, scores, -1e9)
        s = f.softmax(scores, -1)
        ds = g @ v.T
        ds = s * (ds - _sum(ds * s)) if summed else s * ds
        return ds @ k * scale, ds.T @ q * scale, s.T @ g

    return backward


ATTENTION = handwritten(
    "causal attention",
    _attention(),
    _attention_backward(),
    {
        "mask dropped": (_attention_backward(causal=False), 0.1, ("q", "k", "v")),
        "sum term missing": (_attention_backward(summed=False), 0.1, ("q", "k")),
        "another scale": (_attention_backward(scale=0.45), 0.02, ("q", "k", "v")),
    },
    normal(q=(5, 4), k=(5, 4), v=(5, 3)),
    (5, 3),
)
COUNTS = np.eye(4)[[0, 2, 2, 3, 2, 0]]


def _embedding(f: Framework, table: Any) -> Any:
    return f.constant(COUNTS, table) @ table


EMBEDDING = handwritten(
    "embedding",
    _embedding,
    lambda f, g, table: (f.constant(COUNTS, table).T @ g,),
    {
        "rows that repeat are averaged": (
            lambda f, g, table: (f.constant(COUNTS / COUNTS.sum(0).clip(1), table).T @ g,),
            0.2,
            (),
        ),
        "index shifted": (lambda f, g, table: (f.constant(np.roll(COUNTS, 1, 1), table).T @ g,), 0.5, ()),
    },
    normal(table=(4, 3)),
    (6, 3),
)


def _log_sum_exp(f: Framework, x: Any) -> Any:
    return f.log(f.exp(x).sum(-1))


LOG_SUM_EXP = handwritten(
    "logsumexp",
    _log_sum_exp,
    lambda f, g, x: (g[..., None] * f.softmax(x, -1),),
    {"over the other axis": (lambda f, g, x: (g[..., None] * f.softmax(x, 0),), 0.1, ())},
    normal(x=(3, 4)),
    3,
)


def _shared(detached: str = "") -> Loss:
    """An autoencoder with one weight, that is used twice."""

    def loss(f: Framework, p: Tree, b: Tree) -> Any:
        first, second = (f.detach(p["w"]) if detached == path else p["w"] for path in ("first", "second"))
        return ((f.tanh(b["x"] @ first.T) @ second - b["x"]) ** 2).mean()

    return loss


SHARED = Subject(
    "a weight used twice",
    _shared(),
    normal(0.7, w=(3, 5)),
    tuple(Wrong(f"{path} path dropped", 0.05, loss=_shared(path)) for path in ("first", "second")),
    normal(x=(6, 5)),
    dtypes=BOTH,
    demanded=BOTH,
)


def _residual(dropped: bool = False, centre: bool = True) -> Loss:
    def loss(f: Framework, p: Tree, b: Tree) -> Any:
        h = b["x"] @ p["u"].T
        h = (f.detach(h) if dropped else h) + f.tanh(h @ p["w"].T)
        middle = _mean(h) if centre else f.detach(_mean(h))
        return ((h - middle) ** 3 * b["c"]).mean()

    return loss


RESIDUAL = Subject(
    "residual and centring",
    _residual(),
    normal(0.6, u=(4, 3), w=(4, 4)),
    (
        Wrong("residual detached", 0.05, loss=_residual(dropped=True), leaves=("u",)),
        Wrong("mean detached", 0.05, loss=_residual(centre=False)),
    ),
    normal(x=(6, 3), c=(6, 4)),
    dtypes=BOTH,
    demanded=BOTH,
)
SUBJECTS = (
    DENSE,
    SOFTMAX,
    LOG_SOFTMAX,
    LAYER_NORM,
    RMS_NORM,
    BATCH_NORM,
    GELU,
    SILU,
    CUBE,
    TANH,
    UNIT,
    ATTENTION,
    EMBEDDING,
    LOG_SUM_EXP,
    SHARED,
    RESIDUAL,
)
