"""Where a result has no rounding error: whole numbers in floats, signs, masks, and products with powers of two.

A number's unit is the power of two of its last binary digit that is not zero. Each sum of numbers is a multiple of the
least of their units, each product of the units' product; and p digits hold a multiple of a unit up to 2^p times the
unit. Muller et al., "Handbook of Floating-Point Arithmetic" (2nd edition, 2018), sections 2.1 and 4.3 (2Sum).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["EXACT_WHERE", "Format", "least_unit"]

Equation = Any
Arrays = Sequence[Any]
STORED = np.finfo(np.float64).nmant  # digits behind the first
DIGITS = np.int64(2**STORED - 1)
EXPONENT = np.int64(0x7FF << STORED)


@dataclass(frozen=True)
class Format:
    """What a dtype holds, as numbers that a compiled program takes. units: 2^p of its p digits; tiny: its smallest
    number."""

    units: Any
    tiny: Any

    def holds(self, y: Any) -> Any:
        """Each element of a float64 array, exactly."""
        return self.sums(lax.abs(y), _unit(y))

    def sums(self, bound: Any, unit: Any) -> Any:
        """Whether a sum is exact in any order: each term is a multiple of `unit`, and their sizes add up to `bound`."""
        return (bound <= self.units * unit) & (unit >= self.tiny)


WIDE = Format(2.0 ** (STORED + 1), np.finfo(np.float64).smallest_normal)


def least_unit(x: Any) -> Any:
    """The least unit of an array's numbers; infinite if all are zero."""
    return jnp.min(_unit(x), initial=np.inf)


def _unit(x: Any) -> Any:
    """Infinite for zero and infinities, and not meant for the subnormal numbers of float64."""
    raw = lax.bitcast_convert_type(x, np.int64)
    digits = (raw & DIGITS) | (DIGITS + 1)
    last = lax.convert_element_type(digits & -digits, np.float64) * 2.0**-STORED
    return jnp.where(x == 0, np.inf, last * lax.bitcast_convert_type(raw & EXPONENT, np.float64))


def _sum(a: Any, b: Any, y: Any) -> Any:
    """2Sum: the error of y = a + b is zero."""
    part = y - a
    return (a - (y - part)) + (b - part) == 0


def _product(y: Any, *factors: Any) -> Any:
    unit = _unit(factors[0])
    for factor in factors[1:]:
        unit = unit * _unit(factor)
    return WIDE.sums(lax.abs(y), unit)


def _power(equation: Equation, operands: Arrays, y: Any) -> Any:
    """Of so many factors; a negative one is a quotient, which a power of two alone has."""
    exponent, (x,) = equation.params["y"], operands
    return _product(y, *[x] * exponent) if exponent > 0 else jnp.zeros(y.shape, bool)


# By primitive: where float64 gives its result y without an error.
EXACT_WHERE: dict[str, Callable[[Equation, Arrays, Any], Any]] = {
    **dict.fromkeys(("add", "add_any"), lambda _, operands, y: _sum(operands[0], operands[1], y)),
    "sub": lambda _, operands, y: _sum(operands[0], -operands[1], y),
    "mul": lambda _, operands, y: _product(y, *operands),
    "square": lambda _, operands, y: _product(y, *operands, *operands),
    "div": lambda _, operands, y: (y * operands[1] == operands[0]) & _product(operands[0], y, operands[1]),
    "sqrt": lambda _, operands, y: (y * y == operands[0]) & _product(operands[0], y, y),
    "integer_pow": _power,
}
