"""What a rule is: how an op is computed, and how a cotangent is pulled back through it by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.errors import GradwitnessError

__all__ = ["Array", "Cotangents", "Rule", "Slab", "Step", "binary", "own_rule", "sum_leading", "unary", "unbroadcast"]

Array = Any  # a float or object array, or a NumPy scalar: everything here is ufuncs and matmul
Cotangents = Sequence[Any]


@dataclass(slots=True)
class Step:
    """One op as it was executed: what its vjp may look at.

    `saved` is what the forward kept for the vjp beside operands and output; `needs[i]` says whether
    the cotangent of operand i is wanted.
    """

    rule: Rule
    operands: Sequence[Any]
    attributes: Mapping[str, Any]
    output: Any
    saved: Any
    needs: Sequence[bool]

    def with_operands(self, operands: Sequence[Any]) -> Step:
        """The same op executed on other operands."""
        output, saved = self.rule.run(operands, self.attributes)
        return Step(self.rule, operands, self.attributes, output, saved, self.needs)

    def pull(self, cotangent: Array) -> Cotangents:
        """The cotangents of the operands (None where not needed)."""
        return self.rule.vjp(cotangent, self)


@dataclass(frozen=True)
class Rule:
    """`forward(*operands, **attributes)` gives the output, or (output, saved) if it `saves`.

    `vjp(cotangent, step)` gives one cotangent per operand. Forward mode has its own (`gradwitness.derivatives`).
    """

    forward: Callable[..., Any]
    vjp: Callable[[Any, Step], Cotangents]
    saves: bool = False

    def run(self, operands: Sequence[Any], attributes: Mapping[str, Any]) -> tuple[Any, Any]:
        result = self.forward(*operands, **attributes)
        return result if self.saves else (result, None)


@dataclass(frozen=True, slots=True)
class Slab:
    """A cotangent that is zero but for `array[key]`: summed in place, so that slicing T steps costs T slices."""

    shape: tuple[int, ...]
    key: Any
    values: Array

    def dense(self) -> Array:
        array = np.zeros_like(self.values, shape=self.shape)
        array[self.key] = self.values
        return array


def unbroadcast(cotangent: Array, like: Any) -> Array:
    """The reverse of broadcasting `like`: the sum over the axes along which it was repeated."""
    shape = np.shape(like)
    if np.shape(cotangent) == shape:
        return cotangent
    extra = np.ndim(cotangent) - len(shape)
    if extra:
        cotangent = sum_leading(cotangent, extra)
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and cotangent.shape[i] != 1)
    return cotangent.sum(axis=repeated, keepdims=True) if repeated else cotangent


def sum_leading(x: Array, axes: int) -> Array:
    """The sum over the first `axes` axes, as a product with ones: BLAS sums in blocks, faster and closer."""
    rows = math.prod(x.shape[:axes])
    return (np.ones(rows, x.dtype) @ x.reshape(rows, -1)).reshape(x.shape[axes:])


def unary(forward: Callable[..., Array], vjp: Callable[..., Array]) -> Rule:
    """An elementwise rule of one operand: `vjp(g, y, x, **attributes)`."""

    def pull(g: Array, step: Step) -> Cotangents:
        return (vjp(g, step.output, step.operands[0], **step.attributes),)

    return Rule(forward, pull)


def binary(forward: Callable[..., Array], by_x: Callable[..., Array], by_y: Callable[..., Array]) -> Rule:
    """An elementwise rule of two operands that broadcast: `by_x(g, z, x, y)` and `by_y(g, z, x, y)`."""

    def pull(g: Array, step: Step) -> Cotangents:
        pulls = zip((by_x, by_y), step.operands, step.needs, strict=True)
        return [unbroadcast(by(g, step.output, *step.operands), o) if need else None for by, o, need in pulls]

    return Rule(forward, pull)


def own_rule(name: str, given: Any) -> Rule:
    """The rule of a user's own op: as it is, or made of a pair of functions.

    (forward, vjp): `forward(*operands, **attributes)` and `vjp(g, y, *operands, **attributes)`, which gives a cotangent
    for each operand, or that of the only one. Raises GradwitnessError for anything else.
    """
    if isinstance(given, Rule):
        return given
    if not (isinstance(given, tuple) and len(given) == 2 and all(map(callable, given))):
        raise GradwitnessError(f"{name}: NumPy takes a pair of functions, (forward, vjp), got {_kind(given)}")
    forward, vjp = given

    def compute(*operands: Any, **attributes: Any) -> Any:
        return _in_full("forward", forward(*operands, **attributes), operands)

    def pull(g: Any, step: Step) -> Cotangents:
        sent = vjp(g, step.output, *step.operands, **step.attributes)
        parts = sent if isinstance(sent, tuple | list) else (sent,)
        return [_in_full("vjp", part, step.operands) for part in parts]

    return Rule(compute, pull)


def _kind(given: Any) -> str:
    return f"a tuple of {len(given)}" if isinstance(given, tuple) else type(given).__name__


def _in_full(what: str, result: Any, operands: Sequence[Any]) -> Any:
    """The result. Raises TypeError where it has lost the digits of the balls that it was made of."""
    if isinstance(result, tuple):
        return tuple(_in_full(what, part, operands) for part in result)
    if _dtype(result).kind == "f" and any(_dtype(operand).kind == "O" for operand in operands):
        raise TypeError(f"its {what} made {_dtype(result)} of numbers of 256 bits")
    return result


def _dtype(x: Any) -> np.dtype[Any]:
    return getattr(x, "dtype", np.dtype(bool))
