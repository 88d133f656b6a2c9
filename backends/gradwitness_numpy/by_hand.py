"""A loss and its gradient that a user wrote in NumPy arrays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError
from gradwitness.lowering import Implementation, expect_one_number, expect_one_output, expect_unmodified

__all__ = ["PreparedByHand"]

Leaves = dict[str, Array]


class PreparedByHand:
    """The user's functions, on arrays in the candidate's dtype that they cannot write to."""

    not_alone = "its gradient is a function of its own, which runs its own forward"

    def __init__(self, implementation: Implementation, dtype: np.dtype[Any]) -> None:
        started = time.perf_counter()
        assert implementation.value_and_gradient is not None
        assert implementation.gradient is not None
        self._loss, self._gradient = implementation.loss, implementation.gradient
        self._value_and_gradient, self.dtype = implementation.value_and_gradient, dtype
        self._inputs = self.place(implementation.inputs)
        self.setup_seconds = time.perf_counter() - started

    def value(self, params: Mapping[str, Array]) -> float:
        return _number(self.forward(self.place(params))[0])

    def value_and_gradient(self, params: Mapping[str, Array]) -> tuple[float, dict[str, Array | None]]:
        value, gradient = _called(self._value_and_gradient, {**self._inputs, **self.place(params)})
        return _number(value), self.fetch(gradient)

    def in_more_digits(
        self, params: Mapping[str, Array], given: Mapping[str, Array | None]
    ) -> dict[str, Array | None] | None:
        """In long double, where that has more digits; None for a function that raises there, that gives fewer, or whose
        gradient depends on what was called before."""
        if not self._has_finer:
            return None
        leaves = {**self._inputs, **self.place(params)}
        try:
            again = self.fetch(_called(self._gradient, leaves))
            found = _called(self._gradient, {path: _long(x) for path, x in leaves.items()})
        except Exception:  # noqa: BLE001  # a user's function may raise anything on what it does not expect
            return None
        if any(g is not None and not np.array_equal(g, np.asarray(given.get(path))) for path, g in again.items()):
            return None
        arrays = [np.asarray(g) for g in found.values() if g is not None]
        if not arrays or any(g.dtype != np.longdouble for g in arrays):
            return None
        return {path: None if g is None else np.asarray(g, np.float64) for path, g in found.items()}

    def rounded_off(self, params: Mapping[str, Array]) -> float | None:
        """How far the loss is from what the same function gives in long double; None as above."""
        if not self._has_finer:
            return None
        leaves = {**self._inputs, **self.place(params)}
        try:
            value, finer = (
                _called(self._loss, leaves),
                _called(self._loss, {path: _long(x) for path, x in leaves.items()}),
            )
        except Exception:  # noqa: BLE001  # a user's function may raise anything on what it does not expect
            return None
        finer = np.asarray(finer)
        return abs(float(finer - np.asarray(value))) if finer.dtype == np.longdouble and finer.size == 1 else None

    @property
    def _has_finer(self) -> bool:
        """Whether long double has more digits than what it is called in."""
        return bool(self.dtype == np.float64 and np.finfo(np.longdouble).eps < np.finfo(np.float64).eps)

    def place(self, params: Mapping[str, Array]) -> Leaves:
        placed = {path: np.array(a, self.dtype if a.dtype.kind == "f" else a.dtype) for path, a in params.items()}
        for array in placed.values():
            array.flags.writeable = False
        return {path: array.view() for path, array in placed.items()}  # which nothing makes writable

    def forward(self, placed: Leaves) -> tuple[Any, Leaves]:
        leaves = {**self._inputs, **placed}
        return _called(self._loss, leaves), leaves

    def backward(self, tape: tuple[Any, Leaves]) -> dict[str, Any]:
        found: dict[str, Any] = _called(self._gradient, tape[1])
        return found

    def forward_backward(self, placed: Leaves) -> dict[str, Any]:
        found: dict[str, Any] = _called(self._value_and_gradient, {**self._inputs, **placed})[1]
        return found

    def wait(self, x: Any) -> None:
        """NumPy has finished when it returns."""

    def fetch(self, gradient: Mapping[str, Any]) -> dict[str, Array | None]:
        return {path: None if g is None else np.array(g, self.dtype) for path, g in gradient.items()}


def _long(x: Array) -> Array:
    found = np.array(x, np.longdouble if x.dtype.kind == "f" else x.dtype)
    found.flags.writeable = False
    return found


def _called(function: Callable[[Leaves], Any], leaves: Leaves) -> Any:
    """What the function gives. Overflow shows as inf in the result, where the verdict sees it."""
    with np.errstate(all="ignore"), expect_unmodified():
        return function(leaves)


def _number(value: Any) -> float:
    expect_one_output(value)
    number = np.asarray(value)
    if number.dtype.kind not in "fiub":
        raise GradwitnessError(f"the loss must return one real number, got {type(value).__name__} of {number.dtype}")
    expect_one_number(number.shape)
    return float(number.reshape(()))
