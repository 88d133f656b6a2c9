"""The calls of users' own rules on the way to a gradient: what went in, what arrived, what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradwitness.dtypes import Array
from gradwitness.errors import UnsupportedError
from gradwitness.protocol import MOST_CALLS, RuleCall
from gradwitness_jax.custom import around_rules, place_of

__all__ = ["calls_of_rules"]

Arrays = Sequence[Any]


def calls_of_rules(value: Callable[..., Any], placed: Any, inputs: Any) -> list[RuleCall]:
    """The first calls of each custom_vjp and custom_jvp that the derivative of a loss by `placed` uses, as they come:
    inside of scan, its last step first.

    The loss is differentiated once more, compiled, and a callback takes down what each rule gets and gives.
    """
    found: dict[str, list[RuleCall]] = {}

    def closed(p: Any, _: Any) -> Any:
        return value(p, inputs)  # which a rule may close over, also in its backward, where no tracer may stand for them

    noted = around_rules(closed, placed, inputs, partial(_noted, found=found))
    jax.block_until_ready(jax.jit(jax.grad(noted))(placed, inputs))
    jax.effects_barrier()
    return [call for each in found.values() for call in each]


def _noted(name: str, equation: Any, operands: Arrays, *, found: dict[str, list[RuleCall]]) -> Arrays:
    """The results, by a rule that does what the equation's own does, and says so."""
    moving: list[int] = []  # the operands by which it is differentiated
    results = partial(_bound, equation)

    @jax.custom_vjp
    def rule(*given: Any) -> Arrays:
        return results(given)

    def forward(*given: Any) -> Any:
        moving[:] = [i for i, x in enumerate(given) if x.perturbed and _is_float(x.value)]
        values = tuple(x.value for x in given)
        return results(values), values

    def backward(values: tuple[Any, ...], cotangents: Arrays) -> Any:
        def of_moving(*moved: Any) -> Arrays:
            return results(_replaced(values, dict(zip(moving, moved, strict=True))))

        primals, pull = jax.vjp(of_moving, *(values[i] for i in moving))
        arrived = [_dense(g, y) for g, y in zip(cotangents, primals, strict=True)]
        gradients = dict(zip(moving, pull(arrived), strict=True))
        floats = [g for g, y in zip(arrived, primals, strict=True) if _is_float(y)]
        taken = (values, floats, gradients)
        dtypes = jax.tree.map(lambda x: x.dtype, taken)
        jax.debug.callback(partial(_taken, partial(_keep, name, equation, found), dtypes), jax.tree.map(_halves, taken))
        return tuple(gradients.get(i) for i in range(len(values)))

    rule.defvjp(forward, backward, symbolic_zeros=True)
    return rule(*operands)


def _halves(x: Any) -> Any:
    """Without numbers of 64 bits: the thread that a callback runs in may not have them enabled."""
    return jax.lax.bitcast_convert_type(x, jnp.uint32) if x.dtype.itemsize == 8 else x


def _taken(keep: Callable[..., None], dtypes: Any, halves: Any) -> None:
    def whole(dtype: Any, x: Any) -> Array:
        host = np.ascontiguousarray(x)
        return host.view(dtype)[..., 0] if dtype.itemsize == 8 else host

    keep(*jax.tree.map(whole, dtypes, halves))


def _bound(equation: Any, operands: Arrays) -> list[Any]:
    """The results of an equation, with the rule that it has."""
    found = equation.primitive.get_bind_params(equation.params)
    functions, params = found if isinstance(found, tuple) else ((), found)
    return list(equation.primitive.bind(*functions, *operands, **params))


def _keep(
    name: str, equation: Any, found: dict[str, list[RuleCall]], operands: Arrays, cotangents: Arrays, gradients: Any
) -> None:
    calls = found.setdefault(name, [])
    if len(calls) == MOST_CALLS:
        return
    names = _names(equation, len(operands))
    weights = [_host(g) for g in cotangents]

    def loss(params: Any, batch: Any) -> Any:
        given = {**params, **batch}
        arguments = [given[path] for path in names]
        _expect_dtypes(equation, arguments)
        results = [y for y in _bound(equation, arguments) if _is_float(y)]
        return results if len(results) > 1 else results[0]

    calls.append(
        RuleCall(
            name,
            "jax",
            loss,
            {names[i]: _host(operands[i]) for i in gradients},
            {path: _host(x) for i, (path, x) in enumerate(zip(names, operands, strict=True)) if i not in gradients},
            weights if len(weights) > 1 else weights[0],
            {names[i]: _host(g) for i, g in gradients.items()},
            max((operands[i].dtype for i in gradients), key=_roundoff).name,
            place=place_of(equation),
        )
    )


def _expect_dtypes(equation: Any, operands: Arrays) -> None:
    """Raise UnsupportedError for others than those in which the rule was traced, whose constants it holds."""
    for x, atom in zip(operands, equation.invars, strict=True):
        if x.dtype != atom.aval.dtype:
            raise UnsupportedError(f"the rule was traced in {atom.aval.dtype}, and not in {x.dtype}")


def _names(equation: Any, count: int) -> list[str]:
    """Of the operands: the arguments, before which comes what the function closes over."""
    closed = equation.params.get("num_consts", 0)
    return [f"closed over {i}" if i < closed else f"input {i - closed}" for i in range(count)]


def _dense(g: Any, like: Any) -> Any:
    """A cotangent that may stand for zeros."""
    if isinstance(g, jax.custom_derivatives.SymbolicZero):
        return jnp.zeros(like.shape, like.dtype) if _is_float(like) else np.zeros(like.shape, jax.dtypes.float0)
    return g


def _replaced(values: Arrays, others: dict[int, Any]) -> list[Any]:
    return [others.get(i, x) for i, x in enumerate(values)]


def _roundoff(dtype: Any) -> float:
    return float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def _is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.floating))


def _host(x: Any) -> Array:
    host = np.asarray(x)
    return np.array(host, np.float64 if jnp.issubdtype(host.dtype, jnp.floating) else host.dtype)
