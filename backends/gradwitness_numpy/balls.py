"""Arrays of balls: numbers of hundreds of bits, each with a bound on its error (python-flint's arb).

The rules are written against ufuncs and matmul, so they run on these arrays as they stand: what differs
for balls is in one table, by ufunc. A ball that straddles a branch compares False both ways, so here it
raises, except under a maximum or minimum: where balls overlap, the value covers them all, and the slope is that of
the largest midpoint.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import RLock
from typing import Any

import numpy as np

from gradwitness.dtypes import Array

__all__ = ["Balls", "UndecidedError", "balls", "precision", "same"]


_ONE_AT_A_TIME = RLock()


class UndecidedError(ArithmeticError):
    """A branch that the digits at hand cannot decide."""


class Balls(np.ndarray[Any, Any]):
    """An object array of balls, and of whole numbers among them. Not of floats: two of those add up in 53 bits."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """An array of no axes as what it holds: NumPy would put the array itself in the place of one element."""
        super().__setitem__(key, value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        plain = [_plain(x) for x in inputs]
        if out is not None:
            options["out"] = tuple(_plain(x) for x in out)
        special = _special(ufunc, method)
        result = getattr(ufunc, method)(*plain, **options) if special is None else special(*plain, **options)
        return out[0] if out is not None else _as_balls(result)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        result = super().__array_function__(function, types, arguments, options)
        if isinstance(result, int | tuple):  # np.ndim, np.shape
            return result
        return [_as_balls(x) for x in result] if isinstance(result, list) else _as_balls(result)


def balls(x: Any) -> Any:
    """An array (or number) of floats as exact balls, those among balls too; whole numbers and masks as they are."""
    array = np.asarray(x)
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
    elif array.dtype.kind != "O" or not any(isinstance(number, float) for number in array.flat):
        return _as_balls(x)
    ball = _ball()
    numbers = np.empty(array.size, object)
    numbers[:] = [ball(number) if isinstance(number, float) else number for number in array.reshape(-1).tolist()]
    return numbers.reshape(array.shape).view(Balls)


def same(x: Balls, y: Balls) -> Any:
    """Whether midpoints are equal: whose slope a maximum took. `==` asks for equal numbers, and may be undecided."""
    return np.asarray(np.frompyfunc(_same, 2, 1)(_plain(x), _plain(y))).astype(bool)


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Balls of so many bits inside. Other threads wait, as the setting is that of the process."""
    from flint import ctx

    with _ONE_AT_A_TIME:
        before = ctx.prec
        ctx.prec = bits
        try:
            yield
        finally:
            ctx.prec = before


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, Balls) else x


def _as_balls(x: Any) -> Any:
    """Object results as balls, arrays of no axes included; masks and indices as they are."""
    if isinstance(x, np.ndarray):
        return x.view(Balls) if x.dtype == object else x
    if isinstance(x, bool | np.generic):
        return x
    array = np.empty((), object)
    array[()] = x
    return array.view(Balls)


def _elementwise(function: Callable[..., Any], inputs: int, kind: type = object) -> Callable[..., Any]:
    vectorized = np.frompyfunc(function, inputs, 1)

    def apply(*operands: Any, out: Any = None, where: Any = True) -> Any:
        result = vectorized(*operands, where=where) if out is None else vectorized(*operands, out=out, where=where)
        return result if kind is object else np.asarray(result).astype(kind)[()]

    return apply


@cache
def _ball() -> Any:
    from flint import arb

    return arb


def _to_ball(x: Any) -> Any:
    return x if isinstance(x, _ball()) else _ball()(x)


# Comparisons


def _less(x: Any, y: Any) -> bool:
    if x < y:
        return True
    if x >= y:
        return False
    raise UndecidedError(f"undecided branch: {x} < {y}")


def _equal(x: Any, y: Any) -> bool:
    if x is y or x == y:
        return True
    if x != y:
        return False
    raise UndecidedError(f"undecided branch: {x} == {y}")


def _same(x: Any, y: Any) -> bool:
    return x is y or bool(_to_ball(x).mid() == _to_ball(y).mid())


def _sign(x: Any) -> int:
    return int(_less(0, x)) - int(_less(x, 0))


def _minus(x: Any, y: Any) -> Any:
    """The difference; of a number and itself that is 0, and no ball around it."""
    return _ball()(0) if x is y and _to_ball(x).is_finite() else x - y


# Extrema


def _larger(x: Any, y: Any) -> Any:
    """The larger of two; where they overlap, a ball that covers both, around the larger midpoint."""
    x, y = _to_ball(x), _to_ball(y)
    if x is y or x > y:
        return x
    if y > x:
        return y
    winner = y if y.mid() > x.mid() else x
    hull = x.union(y)
    radius = max((abs(end - winner.mid()) for end in (hull.lower(), hull.upper())), key=lambda r: r.upper())
    return winner if x.is_exact() and y.is_exact() else _ball()(winner.mid(), radius.upper())


def _smaller(x: Any, y: Any) -> Any:
    x, y = _to_ball(x), _to_ball(y)
    if x is y or x < y:
        return x
    return y if y < x else -_larger(-x, -y)


# Contractions


def _matmul(x: Array, y: Array, *, out: Any = None) -> Any:
    """Matrix products of balls, stacks of them included, by arb_mat."""
    row, column = np.ndim(x) == 1, np.ndim(y) == 1
    x, y = (x[None, :] if row else x), (y[:, None] if column else y)
    stack = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    result = np.empty((*stack, x.shape[-2], y.shape[-1]), object)
    x, y = np.broadcast_to(x, (*stack, *x.shape[-2:])), np.broadcast_to(y, (*stack, *y.shape[-2:]))
    for place in np.ndindex(stack):
        result[place] = _product(x[place], y[place])
    result = result[..., 0, :] if row else result
    result = result[..., 0] if column else result
    if out is not None:
        out[0][...] = result
    return result


def _product(x: Array, y: Array) -> Array:
    from flint import arb_mat

    if 0 in (*x.shape, *y.shape):
        return np.zeros((len(x), y.shape[1]), object)
    product = _matrix(x, arb_mat) * _matrix(y, arb_mat)
    return np.array(product.entries(), object).reshape(len(x), y.shape[1])


def _matrix(x: Array, arb_mat: Any) -> Any:
    return arb_mat(*x.shape, x.reshape(-1).tolist())


# Functions of statistics, which NumPy leaves to scipy


def _sigmoid(x: Any) -> Any:
    if x < 0:
        return x.exp() / (1 + x.exp())
    return 1 / (1 + (-x).exp())


def _gaussian_cdf(x: Any) -> Any:
    from flint import arb

    return (-x / arb(2).sqrt()).erfc() / 2


def _method(name: str) -> Callable[[Any], Any]:
    call = operator.methodcaller(name)

    def of(x: Any) -> Any:
        try:
            return call(x)
        except AttributeError:  # a whole number or a float
            return call(_to_ball(x))

    return of


_METHODS = ("exp", "log", "log1p", "expm1", "sqrt", "sin", "cos", "tanh", "erf")  # a ball's own, by NumPy's name
_UFUNCS: dict[str, Callable[..., Any]] = {
    "less": _elementwise(_less, 2, bool),
    "greater": _elementwise(lambda x, y: _less(y, x), 2, bool),
    "less_equal": _elementwise(lambda x, y: not _less(y, x), 2, bool),
    "greater_equal": _elementwise(lambda x, y: not _less(x, y), 2, bool),
    "equal": _elementwise(_equal, 2, bool),
    "not_equal": _elementwise(lambda x, y: not _equal(x, y), 2, bool),
    "sign": _elementwise(_sign, 1),
    "subtract": _elementwise(_minus, 2),
    "isfinite": _elementwise(lambda x: _to_ball(x).is_finite(), 1, bool),
    "maximum": _elementwise(_larger, 2),
    "minimum": _elementwise(_smaller, 2),
    "clip": _elementwise(lambda x, low, high: _smaller(_larger(x, low), high), 3),
    "matmul": _matmul,
    "expit": _elementwise(lambda x: _sigmoid(_to_ball(x)), 1),
    "ndtr": _elementwise(lambda x: _gaussian_cdf(_to_ball(x)), 1),
    **{name: _elementwise(_method(name), 1) for name in _METHODS},
}
_REDUCTIONS: dict[str, Callable[..., Any]] = {  # with an identity of None, NumPy may reduce over several axes
    "maximum": np.frompyfunc(_larger, 2, 1, identity=None).reduce,
    "minimum": np.frompyfunc(_smaller, 2, 1, identity=None).reduce,
}


def _special(ufunc: np.ufunc, method: str) -> Callable[..., Any] | None:
    return {"__call__": _UFUNCS, "reduce": _REDUCTIONS}.get(method, {}).get(ufunc.__name__)
