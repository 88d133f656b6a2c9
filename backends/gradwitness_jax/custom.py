"""Which derivative rules of a user's own a gradient is made of, in jax: custom_vjp and custom_jvp."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from gradwitness_jax.rounding import CALLS

__all__ = ["around_rules", "custom_rules", "place_of", "program_of"]

CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
JAX = os.path.dirname(jax.__file__)
Arrays = Sequence[Any]
Around = Callable[[str, Any, Arrays], Arrays]  # (a rule's name, the equation that calls it, its operands) -> results


def custom_rules(value: Callable[..., Any], placed: Any, inputs: Any) -> dict[str, bool]:
    """The rules that a loss calls, by the names of their functions, and whether its derivative by `placed` uses them.
    jax's own, as that of jax.nn.relu, are left out.

    The loss is traced, and nothing is run. In the place of each function that has a rule of its own stands one that
    notes when a cotangent on its way to `placed` passes it: there its rule would have been called.
    """
    found: dict[str, bool] = {}
    jax.make_jaxpr(jax.grad(around_rules(value, placed, inputs, partial(_passed, found=found))))(placed, inputs)
    return found


def around_rules(value: Callable[..., Any], placed: Any, inputs: Any, around: Around) -> Callable[..., Any]:
    """The same loss, traced at these arguments, with `around` in the place of each function of a user's own that has a
    rule; also inside of programs that it calls, loops and choices."""
    program = jax.make_jaxpr(value)(placed, inputs)
    return lambda p, others: _evaluate(program.jaxpr, program.consts, jax.tree.leaves((p, others)), around)[0]


def _evaluate(program: Any, consts: Arrays, arguments: Arrays, around: Around) -> list[Any]:
    values = dict(zip(program.constvars, consts, strict=True)) | dict(zip(program.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    for equation in program.eqns:
        values |= dict(
            zip(equation.outvars, _results(equation, [read(atom) for atom in equation.invars], around), strict=True)
        )
    return [read(atom) for atom in program.outvars]


def _results(equation: Any, operands: Arrays, around: Around) -> Arrays:
    name, params = equation.primitive.name, equation.params
    if name in CUSTOM and (rule := _name(equation)):
        return around(rule, equation, operands)
    if name in CALLS:
        called = program_of(equation)
        return _evaluate(getattr(called, "jaxpr", called), getattr(called, "consts", ()), operands, around)
    if name != "while":  # which has no derivative backwards
        params = {key: _inside(param, around) for key, param in params.items()}
    results = equation.primitive.bind(*operands, **params)
    return results if equation.primitive.multiple_results else [results]


def program_of(equation: Any) -> Any:
    """The program that an equation calls."""
    return next(p for p in equation.params.values() if hasattr(getattr(p, "jaxpr", p), "eqns"))


def _inside(param: Any, around: Around) -> Any:
    """A program among the parameters of a loop, or of a choice, with `around` inside."""
    if isinstance(param, tuple) and param and all(hasattr(p, "jaxpr") for p in param):
        return tuple(_inside(p, around) for p in param)
    if not hasattr(param, "jaxpr") or not hasattr(param, "in_avals"):
        return param
    return jax.make_jaxpr(lambda *given: _evaluate(param.jaxpr, param.consts, given, around))(*param.in_avals)


def _plainly(rule: str, equation: Any, operands: Arrays) -> Arrays:
    """What a function computes that has a rule, without that."""
    called = program_of(equation)
    return _evaluate(called.jaxpr, called.consts, operands, _plainly)


def _passed(rule: str, equation: Any, operands: Arrays, *, found: dict[str, bool]) -> Arrays:
    """The results, which depend on the operands by a derivative of 0 and a note."""
    found.setdefault(rule, False)

    @jax.custom_vjp
    def note(floats: Arrays, results: Arrays) -> Arrays:
        return results

    def backward(floats: Arrays, cotangents: Arrays) -> Any:
        found[rule] = True
        return [jnp.zeros_like(x) for x in floats], cotangents

    note.defvjp(lambda floats, results: (results, floats), backward)
    floats = [x for x in operands if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    return note(floats, [jax.lax.stop_gradient(y) for y in _plainly(rule, equation, operands)])


def _name(equation: Any) -> str | None:
    """The name of a function that has a rule; None where both are jax's own."""
    sources = _sources(equation)
    return None if all(place.startswith(JAX) for _, place in sources) else sources[-1][0]


def place_of(equation: Any) -> str:
    """Where a rule begins, as "file:line", or else the function that has it; empty where both are jax's own."""
    return next((place for _, place in _sources(equation) if not place.startswith(JAX)), "")


def _sources(equation: Any) -> list[tuple[str, str]]:
    """Of the rules of a function, and of the function itself, which is the last."""
    rules = [param for param in equation.params.values() if hasattr(param, "debug_info")]
    return [_source(function) for function in (*rules, program_of(equation).jaxpr)]


def _source(function: Any) -> tuple[str, str]:
    """(a function's name, its file and line)."""
    name, _, place = str(getattr(function.debug_info, "func_src_info", None) or "?").partition(" at ")
    return name, place
