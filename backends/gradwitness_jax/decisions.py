"""What a program decides by comparing numbers: masks, places of maxima, orders, whole numbers.

Where errors are put on every result, a number that is compared with itself, or lies on a whole number, is moved to
one side or the other, which no rounding of a dtype does to it. So what is decided on an edge is decided without the
errors. What lies beside an edge may fall over it, as it may in the dtype; but not where errors are amplified.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax

__all__ = ["DECISIONS", "Call", "decides"]

Equation = Any
Arrays = Sequence[Any]


@dataclass(frozen=True)
class Call:
    """One equation's operands and results, with errors (`moved`) and without (`still`).

    everywhere: the unperturbed operands decide beside edges as well.
    """

    equation: Equation
    moved: Arrays
    still: Arrays
    moved_results: Arrays
    still_results: Arrays
    everywhere: Any

    def chosen(self, on_edge: Any, still: Any, moved: Any) -> Any:
        return jnp.where(on_edge | self.everywhere, still, moved)

    def bound(self, *operands: Any) -> Any:
        """Its results on other operands: one, or a list."""
        return self.equation.primitive.bind(*operands, **self.equation.params)


def decides(equation: Equation) -> bool:
    """Whether it decides by floats."""
    return equation.primitive.name in DECISIONS and any(
        jnp.issubdtype(getattr(v.aval, "dtype", bool), jnp.floating) for v in equation.invars
    )


def _between(is_edge: Callable[..., Any]) -> Callable[[Call], Arrays]:
    """A result that changes at edges alone."""
    return lambda call: [call.chosen(is_edge(*call.still), call.still_results[0], call.moved_results[0])]


def _converted(call: Call) -> Arrays:
    """To an integer or a bool, by cutting off; of another float it is a copy."""
    if jnp.issubdtype(call.equation.params["new_dtype"], jnp.inexact):
        return call.moved_results
    return _between(lambda x: x == lax.floor(x))(call)


def _remainder(call: Call) -> Arrays:
    """x - k y, with the k of the unperturbed where x is a multiple of y."""
    (x, y), (moved_x, moved_y), (rest,) = call.still, call.moved, call.still_results
    return [call.chosen(rest == 0, moved_x - lax.round((x - rest) / y) * moved_y, call.moved_results[0])]


def _place(call: Call) -> Arrays:
    """Of the largest number, or the smallest: on an edge where that at the place found is as large."""
    (axis,), (x,) = call.equation.params["axes"], call.still
    (found,), (place,) = call.moved_results, call.still_results
    there, right = (jnp.squeeze(jnp.take_along_axis(x, jnp.expand_dims(i, axis), axis), axis) for i in (found, place))
    return [call.chosen(there == right, place, found)]


def _sorted(call: Call) -> Arrays:
    """On an edge where the order found puts the first of the unperturbed keys in order as well."""
    keys, axis = call.equation.params["num_keys"], call.equation.params["dimension"]
    results = call.bound(*call.still[:keys], *call.moved)[keys:]
    there = call.bound(*call.moved[:keys], *call.still)[keys]
    on_edge = jnp.all(there == call.still_results[0], axis, keepdims=True)
    return [call.chosen(on_edge, *pair) for pair in zip(results, call.moved_results, strict=True)]


def _top(call: Call) -> Arrays:
    """On an edge where the numbers at the places found are as large."""
    axis = call.equation.params.get("axis", call.still[0].ndim - 1)  # older versions know the last alone
    (values, places), found = call.still_results, call.moved_results[1]
    on_edge = jnp.all(jnp.take_along_axis(call.still[0], found, axis) == values, axis, keepdims=True)
    results = jnp.take_along_axis(call.moved[0], places, axis), places
    return [call.chosen(on_edge, *pair) for pair in zip(results, call.moved_results, strict=True)]


def _scattered(call: Call) -> Arrays:
    """Back to the places of maxima: on an edge where the number at the place found is as large."""
    (source, found), right = call.moved, call.still[1]
    dilations = dict.fromkeys(("base_dilation", "window_dilation"), (1,) * right.ndim)
    there, largest = (
        lax.select_and_gather_add_p.bind(right, key, **call.equation.params, **dilations) for key in (found, right)
    )
    by_right = call.chosen(there == largest, source, 0.0)
    return [call.bound(by_right, right) + call.bound(source - by_right, found)]


# By primitive: its results, with what is decided on an edge taken from the unperturbed.
DECISIONS: dict[str, Callable[[Call], Arrays]] = {
    **dict.fromkeys(("eq", "ne"), _between(lambda a, b: jnp.ones(a.shape, bool))),
    **dict.fromkeys(("lt", "le", "gt", "ge", "lt_to", "le_to"), _between(lambda a, b: a == b)),
    **dict.fromkeys(("floor", "ceil"), _between(lambda x: x == lax.floor(x))),
    "round": _between(lambda x: x - lax.floor(x) == 0.5),
    "sign": _between(lambda x: x == 0),
    "rem": _remainder,
    "convert_element_type": _converted,
    **dict.fromkeys(("argmax", "argmin"), _place),
    "sort": _sorted,
    "top_k": _top,
    "select_and_scatter_add": _scattered,
}
