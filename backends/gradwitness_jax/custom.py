"""Which derivative rules of a user's own a gradient is made of, in jax: custom_vjp and custom_jvp."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradwitness_jax.rounding import CALLS

__all__ = ["custom_rules"]

CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
JAX = os.path.dirname(jax.__file__)
Arrays = Sequence[Any]


def custom_rules(value: Callable[..., Any], placed: Any, inputs: Any) -> dict[str, bool]:
    """The rules that a loss calls, by the names of their functions, and whether its derivative by `placed` uses them.
    jax's own, as that of jax.nn.relu, are left out.

    The loss is traced, and nothing is run. In the place of each function that has a rule of its own stands one that
    notes when a cotangent on its way to `placed` passes it: there its rule would have been called.
    """
    found: dict[str, bool] = {}
    program = jax.make_jaxpr(value)(placed, inputs)

    def watched(p: Any) -> Any:
        return _evaluate(program.jaxpr, program.consts, jax.tree.leaves((p, inputs)), found)[0]

    jax.make_jaxpr(jax.grad(watched))(placed)
    return found


def _evaluate(program: Any, consts: Arrays, arguments: Arrays, found: dict[str, bool]) -> list[Any]:
    values = dict(zip(program.constvars, consts, strict=True)) | dict(zip(program.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    for equation in program.eqns:
        values |= dict(
            zip(equation.outvars, _results(equation, [read(atom) for atom in equation.invars], found), strict=True)
        )
    return [read(atom) for atom in program.outvars]


def _results(equation: Any, operands: Arrays, found: dict[str, bool]) -> Arrays:
    name, params = equation.primitive.name, equation.params
    if name in CUSTOM:
        called = params.get("call_jaxpr", params.get("fun_jaxpr"))
        if rule := _name(called):
            found.setdefault(rule, False)
            return _passed(rule, operands, _evaluate(called.jaxpr, called.consts, operands, {}), found)
    if name in CALLS:
        (called,) = (p for p in params.values() if hasattr(getattr(p, "jaxpr", p), "eqns"))
        return _evaluate(getattr(called, "jaxpr", called), getattr(called, "consts", ()), operands, found)
    if name != "while":  # which has no derivative backwards
        params = {key: _watched(param, found) for key, param in params.items()}
    results = equation.primitive.bind(*operands, **params)
    return results if equation.primitive.multiple_results else [results]


def _watched(param: Any, found: dict[str, bool]) -> Any:
    """A program among the parameters of a loop, or of a choice, with notes inside."""
    if isinstance(param, tuple) and param and all(hasattr(p, "jaxpr") for p in param):
        return tuple(_watched(p, found) for p in param)
    if not hasattr(param, "jaxpr") or not hasattr(param, "in_avals"):
        return param
    return jax.make_jaxpr(lambda *given: _evaluate(param.jaxpr, param.consts, given, found))(*param.in_avals)


def _passed(rule: str, operands: Arrays, results: Arrays, found: dict[str, bool]) -> Arrays:
    """The results, which depend on the operands by a derivative of 0 and a note."""

    @jax.custom_vjp
    def note(floats: Arrays, results: Arrays) -> Arrays:
        return results

    def backward(floats: Arrays, cotangents: Arrays) -> Any:
        found[rule] = True
        return [jnp.zeros_like(x) for x in floats], cotangents

    note.defvjp(lambda floats, results: (results, floats), backward)
    floats = [x for x in operands if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    return note(floats, [jax.lax.stop_gradient(y) for y in results])


def _name(called: Any) -> str | None:
    """The name of a function that has a rule; None for one of jax's own."""
    name, _, place = str(getattr(called.jaxpr.debug_info, "func_src_info", None) or "?").partition(" at ")
    return None if place.startswith(JAX) else name
