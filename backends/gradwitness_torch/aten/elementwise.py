"""What aten's elementwise ops are in the vocabulary, and its comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gradwitness import ops
from gradwitness.compositions import as_float, both, either, is_truth, negated, sign
from gradwitness.errors import GradwitnessError
from gradwitness.ops.value import FLOAT, Value
from gradwitness_torch.aten.operands import Operand, number, scaled

__all__ = ["RULES"]


def _on_floats(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *operands, **options: function(*map(number, operands), **options)


def _add(x: Operand, y: Operand, *, alpha: float = 1) -> Operand:
    return ops.add(number(x), number(scaled(y, alpha)))


def _sub(x: Operand, y: Operand, *, alpha: float = 1) -> Operand:
    return ops.subtract(number(x), number(scaled(y, alpha)))


def _mul(x: Operand, y: Operand) -> Operand:
    if is_truth(x) and is_truth(y):
        return both(x, y)
    return ops.multiply(number(x), number(y))


def _div(x: Operand, y: Operand, *, rounding_mode: str | None = None) -> Operand:
    if rounding_mode is not None:
        raise GradwitnessError("a division that is rounded to whole numbers has no rule")
    return ops.divide(number(x), number(y))


def _pow(x: Operand, y: Operand) -> Operand:
    if isinstance(y, int | float) and y == 2:
        return ops.multiply(x, x)
    return ops.power(number(x), number(y))


def _clamp(x: Operand, min: Any = None, max: Any = None) -> Operand:
    if isinstance(min, int | float | None) and isinstance(max, int | float | None):
        return ops.clip(x, min=None if min is None else float(min), max=None if max is None else float(max))
    x = x if min is None else ops.maximum(x, min)
    return x if max is None else ops.minimum(x, max)


def _elu(x: Operand, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Operand:
    if input_scale != 1:
        raise GradwitnessError("an elu of a scaled input has no rule")
    return scaled(ops.elu(x, alpha=float(alpha)), scale)


def _softplus(x: Operand, beta: float = 1, threshold: float = 20) -> Operand:
    """Above the threshold torch returns x itself."""
    z = scaled(x, beta)
    smooth = scaled(ops.softplus(ops.minimum(z, float(threshold))), 1 / beta)
    return ops.where(ops.greater(z, float(threshold)), x, smooth)


def _threshold(x: Operand, threshold: float, value: float) -> Operand:
    return ops.where(ops.greater(x, float(threshold)), x, float(value))


def _where(condition: Operand, x: Operand, y: Operand) -> Operand:
    return ops.where(condition, number(x), number(y))


def _masked_fill(x: Operand, mask: Operand, value: Operand) -> Operand:
    return ops.where(mask, number(value) if isinstance(value, Value | np.ndarray) else float(value), x)


def _log_sigmoid(x: Operand) -> Any:
    return ops.negative(ops.softplus(ops.negative(x))), None


def _logical(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*operands: Operand) -> Operand:
        truths = [x if is_truth(x) else ops.not_equal(x, 0.0) for x in operands]
        return function(*truths)

    return apply


def _cast(x: Operand, dtype: Any = None, **ignored: Any) -> Operand:
    """Fewer digits are a rounding, and `1 *` is where it happens."""
    if isinstance(x, Value) and x.dtype != FLOAT:
        return x if dtype is None or not dtype.is_floating_point else as_float(x)
    return x * 1.0 if x.builder.narrow else x


def _rrelu(
    x: Operand, noise: Operand, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *rest: Any
) -> Operand:
    if training:
        raise GradwitnessError("it draws its slopes: give training=False, or model.eval()")
    return ops.leaky_relu(x, negative_slope=(lower + upper) / 2)


RULES: dict[str, Callable[..., Any]] = {
    "add": _add,
    "sub": _sub,
    "rsub": lambda x, y, alpha=1: _sub(y, x, alpha=alpha),
    "mul": _mul,
    "div": _div,
    "true_divide": _div,
    "pow": _pow,
    "square": lambda x: ops.multiply(x, x),
    "maximum": _on_floats(ops.maximum),
    "minimum": _on_floats(ops.minimum),
    "fmax": _on_floats(ops.maximum),
    "fmin": _on_floats(ops.minimum),
    "where": _where,
    "masked_fill": _masked_fill,
    "neg": ops.negative,
    "abs": ops.abs,
    "sign": sign,
    "exp": ops.exp,
    "exp2": lambda x: ops.exp(ops.multiply(x, math.log(2.0))),
    "log": ops.log,
    "log2": lambda x: ops.divide(ops.log(x), math.log(2.0)),
    "log10": lambda x: ops.divide(ops.log(x), math.log(10.0)),
    "log1p": ops.log1p,
    "expm1": ops.expm1,
    "erf": ops.erf,
    "erfc": lambda x: ops.subtract(1.0, ops.erf(x)),
    "sqrt": ops.sqrt,
    "rsqrt": lambda x: ops.divide(1.0, ops.sqrt(x)),
    "reciprocal": lambda x: ops.divide(1.0, x),
    "sin": ops.sin,
    "cos": ops.cos,
    "tan": lambda x: ops.divide(ops.sin(x), ops.cos(x)),
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "log_sigmoid_forward": _log_sigmoid,
    "relu": ops.relu,
    "relu6": lambda x: ops.clip(x, min=0.0, max=6.0),
    "leaky_relu": lambda x, negative_slope=0.01: ops.leaky_relu(x, negative_slope=float(negative_slope)),
    "elu": _elu,
    "gelu": lambda x, *, approximate="none": ops.gelu(x, approximate=approximate),
    "silu": ops.silu,
    "mish": lambda x: ops.multiply(x, ops.tanh(ops.softplus(x))),
    "softplus": _softplus,
    "hardtanh": lambda x, low=-1.0, high=1.0: ops.clip(x, min=float(low), max=float(high)),
    "hardsigmoid": lambda x: ops.divide(ops.clip(ops.add(x, 3.0), min=0.0, max=6.0), 6.0),
    "hardswish": lambda x: ops.multiply(x, ops.divide(ops.clip(ops.add(x, 3.0), min=0.0, max=6.0), 6.0)),
    "threshold": _threshold,
    "clamp": _clamp,
    "clamp_min": lambda x, low: _clamp(x, low),
    "clamp_max": lambda x, high: _clamp(x, None, high),
    "rrelu_with_noise": _rrelu,
    "zero": lambda x: np.zeros(np.shape(x)),
    "fill": lambda x, value: value if isinstance(value, Value) else np.full(np.shape(x), float(value)),
    "_to_copy": _cast,
    "to": _cast,
    "convert_element_type": _cast,
    # truth
    "eq": ops.equal,
    "ne": ops.not_equal,
    "lt": ops.less,
    "le": ops.less_equal,
    "gt": ops.greater,
    "ge": ops.greater_equal,
    "logical_and": _logical(both),
    "logical_or": _logical(either),
    "logical_not": _logical(negated),
    "bitwise_and": both,
    "bitwise_or": either,
    "bitwise_not": negated,
}
