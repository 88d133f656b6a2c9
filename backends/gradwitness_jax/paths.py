"""The ways to a gradient that research code takes in jax: `Candidate.path` names one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradwitness.errors import GradwitnessError
from gradwitness.lowering import LossOfLeaves, expect_one_number, expect_one_output, reduction_over_examples
from gradwitness.problem import Problem

__all__ = ["PATHS", "Case", "Path", "one_number"]

Arrays = Mapping[str, jax.Array]
Value = Callable[[Arrays, Arrays], jax.Array]  # of the leaves to differentiate by, and the others
Both = Callable[[Arrays, Arrays], tuple[jax.Array, dict[str, jax.Array]]]


@dataclass(frozen=True)
class Case:
    """What a path is made for: a loss, as a function of leaves by path, of a problem."""

    loss: LossOfLeaves
    problem: Problem
    dtype: str

    def value(self, placed: Arrays, inputs: Arrays) -> jax.Array:
        return one_number(self.loss({**inputs, **placed}))


@dataclass(frozen=True)
class Path:
    """One way to (loss, gradients by path), which `both` makes of a case; without it the plain one, jitted or not."""

    both: Callable[[Case], Both] | None = None
    jit: bool = True


def one_number(loss: Any) -> jax.Array:
    """A loss as an array of no axes. Raises GradwitnessError for what is none."""
    expect_one_output(loss)
    if not isinstance(loss, jax.Array | np.ndarray | np.generic):
        without = "; return it without int(), float() or .item()" if isinstance(loss, int | float) else ""
        raise GradwitnessError(f"the loss must return a jax.Array of one number, got {type(loss).__name__}{without}")
    number = jnp.asarray(loss)
    expect_one_number(number.shape)
    if not jnp.issubdtype(number.dtype, jnp.floating):
        raise GradwitnessError(f"the loss must return a real number with a gradient, got one of {number.dtype}")
    return jnp.reshape(number, ())


def _per_example(case: Case) -> Both:
    """vmap over the examples of the gradient of each, which are then summed, or averaged."""
    total = getattr(jnp, reduction_over_examples(case.problem, *_host_value(case)))
    batched = case.problem.by_example

    def loss(placed: Arrays, one: Arrays, others: Arrays) -> jax.Array:
        return case.value(placed, {**others, **{path: x[None] for path, x in one.items()}})

    def both(placed: Arrays, inputs: Arrays) -> tuple[jax.Array, dict[str, jax.Array]]:
        one = {path: x for path, x in inputs.items() if path in batched}
        others = {path: x for path, x in inputs.items() if path not in batched}
        each = jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0, None))
        values, gradients = each(placed, one, others)
        return total(values, axis=0), {path: total(g, axis=0) for path, g in gradients.items()}

    return jax.jit(both)


def _host_value(case: Case) -> tuple[Callable[[Mapping[str, Any]], float], float]:
    """The loss of host arrays, in float64 where it runs there, and its unit roundoff."""

    def value(leaves: Mapping[str, Any], dtype: str = "float64") -> float:
        with jax.enable_x64(True):
            placed = {path: jnp.asarray(x, dtype if x.dtype.kind == "f" else x.dtype) for path, x in leaves.items()}
            return float(loss(placed))

    loss = jax.jit(lambda leaves: one_number(case.loss(leaves)))
    try:
        value(case.problem.leaves)
    except Exception:  # noqa: BLE001  # a kernel of one dtype may raise anything in another
        return lambda leaves: value(leaves, case.dtype), 2.0 ** -(1 + jnp.finfo(case.dtype).nmant)  # type: ignore[no-untyped-call]
    return value, 2.0**-53


PATHS: dict[str, Path] = {
    "eager": Path(jit=False),
    "jax.jit(grad)": Path(),
    "jax.grad(jit)": Path(lambda case: jax.value_and_grad(jax.jit(case.value))),
    "vmap": Path(_per_example),
    "checkpoint": Path(lambda case: jax.jit(jax.value_and_grad(jax.checkpoint(case.value)))),
}
