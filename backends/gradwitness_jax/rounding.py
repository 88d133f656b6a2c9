"""A jax program with the result of every operation perturbed: what the protocol `Perturbing` asks for.

jax writes a program down as a jaxpr, forward and backward alike, in which what jax.nn and jax.numpy fuse is taken
apart. Here it is evaluated in float64, equation by equation, and each result gets an error of the size that the dtype
on trial would give it (`RoundingErrors`), unless that dtype holds it exactly (`exactness`). What each primitive rounds
is one row of the table `RULES`. Beside each value goes that without errors, as far as anything is decided by it
(`decisions`); XLA leaves out what is not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwitness.arithmetic import RoundingErrors, Sums
from gradwitness.errors import NarrowerError, UnsupportedError
from gradwitness_jax.decisions import DECISIONS, Call, decides
from gradwitness_jax.exactness import EXACT_WHERE, Format, least_unit

__all__ = ["RULES", "Argument", "Perturbed", "Sum"]

Jaxpr = Any  # open or closed, which jax 0.12 no longer tells apart
Equation = Any
Arrays = Sequence[Any]
Sizes = Mapping[str, Any]
ONE_ROUNDING = Sums(0.0)
SUMS = ("sum", "matmul", "conv2d")  # the names under which a backend declares how its sums grow
QUICK = {  # to compile; it runs seventeen times
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
MOST = 2**27  # results in one run: their errors fill a gibibyte
DIGITS = np.finfo(np.float64).nmant
ADDITIONS = ("add", "add_any", "sub")
MANY = 4096  # copies of one number, from which on it tells that they are rounded alike
BINADES = 16
LARGEST = float(np.finfo(np.float64).max) / 2  # what is larger stands for an infinity, in a mask


@dataclass(frozen=True)
class Sum:
    """A primitive whose result is a sum of its operands, or of their products. On their squares it gives the moment
    of the sum, and on ones the number of its terms.

    op: one of `SUMS`. summed: the positions of the operands that are summed, all by default; the others say where.
    terms: their number, where shapes tell it.
    """

    op: str = "sum"
    summed: Sequence[int] | None = None
    terms: Callable[[Equation], float] | None = None


@dataclass(frozen=True)
class Argument:
    """A function f whose result is rounded, and its argument x as well: u |y| and u |x f'(x)|. So erfc(x) is computed
    from exp(-x^2), with a rounded x^2. position: of x among the operands.
    """

    position: int = 0


def _contracted(equation: Equation) -> float:
    (axes, _), _ = equation.params["dimension_numbers"]
    return float(math.prod(equation.invars[0].aval.shape[axis] for axis in axes))


def _reduced(equation: Equation) -> float:
    return float(equation.invars[0].aval.size / max(equation.outvars[0].aval.size, 1))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


EXACT = _names(  # copied or selected; whole numbers
    "abs, argmax, argmin, bitcast_convert_type, broadcast_in_dim, broadcast_to, ceil, clamp, concatenate, "
    "convert_element_type, copy, copy_p, cummax, cummin, device_put, dynamic_slice, dynamic_update_slice, empty, "
    "empty2, expand_dims, floor, gather, iota, max, min, name, neg, optimization_barrier, pad, pvary, reduce_max, "
    "reduce_min, reduce_precision, reduce_window_max, reduce_window_min, rem, reshape, rev, round, scatter, "
    "scatter-max, scatter-min, select_n, sharding_constraint, sign, slice, sort, split, squeeze, stack, stop_gradient, "
    "tile, top_k, transpose, unstack, zeros_like"
)
ROUNDED = _names(  # u |y|
    "acos, acosh, add, add_any, asin, asinh, atan, atan2, atanh, cbrt, cos, div, erf, exp, expm1, log, log1p, log2, "
    "logistic, mul, rsqrt, sin, sqrt, square, sub, tan, tanh"
)
RULES: dict[str, str | Argument | Sum] = {
    **dict.fromkeys(EXACT, "exact"),
    **dict.fromkeys(ROUNDED, "rounded"),
    **dict.fromkeys(("cosh", "erf_inv", "erfc", "exp2", "integer_pow", "sinh"), Argument()),
    "pow": Argument(1),
    "dot_general": Sum("matmul", terms=_contracted),
    "conv_general_dilated": Sum("conv2d"),
    "reduce_sum": Sum(terms=_reduced),
    "cumsum": Sum(),
    "reduce_window_sum": Sum(),
    "scatter-add": Sum(summed=(0, 2)),
    "select_and_scatter_add": Sum(summed=(0,)),  # the second operand is that which was pooled
}
CALLS = _names(  # of a program, in the one parameter that is a jaxpr
    "call, checkpoint, closed_call, core_call, custom_jvp_call, custom_vjp_call, custom_vjp_call_jaxpr, jit, pjit, "
    "remat, remat2"
)
PRINTS = ("debug_callback", "debug_print")  # left out


class Perturbed:
    """A function of jax arrays, with the result of every operation inside it perturbed.

    Made for arguments of these shapes, at the first of which it is compiled, once for all dtypes. count: how many
    normal numbers a run takes. Raises UnsupportedError, naming it, for what cannot be looked into.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._program, result = jax.make_jaxpr(function, return_shape=True)(*arguments)
        except Exception as error:  # a user's function may raise anything on tracers
            raise UnsupportedError(f"no jaxpr can be made of it ({type(error).__name__})") from error
        self._structure = jax.tree.structure(result)
        self.count = _count(self._program)
        if self.count > MOST:
            raise UnsupportedError(f"{self.count:,} results are more than can be perturbed (at most {MOST:,})")
        self._compiled = jax.jit(self._run, compiler_options=_known_options())

    def __call__(self, errors: RoundingErrors, noise: Any, *arguments: Any) -> Any:
        """One run. noise: shape (count,), standard normal, float64."""
        return self._compiled(_sizes(errors), noise, jax.tree.leaves(arguments))

    def _run(self, sizes: Sizes, noise: jax.Array, arguments: Arrays) -> Any:
        results, _ = _Run(sizes, noise).evaluate(self._program, arguments, arguments)
        return jax.tree.unflatten(self._structure, results)


@functools.cache
def _known_options() -> dict[str, Any]:
    """Those of `QUICK` that this version of jaxlib has."""

    def is_known(name: str) -> bool:
        try:
            jax.jit(lambda: 0, compiler_options={name: QUICK[name]})()
        except Exception:  # noqa: BLE001  # whatever it raises, it does without
            return False
        return True

    return {name: value for name, value in QUICK.items() if is_known(name)}


def _sizes(errors: RoundingErrors) -> Sizes:
    """The errors as numbers that a compiled program takes as arguments: one program serves every dtype."""
    growth = {op: errors.arithmetic.sums_of(op) or ONE_ROUNDING for op in SUMS}
    return {
        "roundoff": np.float64(errors.roundoff),
        "tiny": np.float64(errors.tiny),
        "units": np.float64(errors.amplification / errors.roundoff),
        "amplified": np.bool_(errors.amplification > 1),
        "one": np.float64(1.0),  # an argument as well: XLA would count the terms of a convolution as it compiles
        **{op: tuple(np.float64(x) for x in (sums.power, sums.free, sums.most)) for op, sums in growth.items()},
    }


def _count(program: Jaxpr) -> int:
    """How many normal numbers a run of a program takes."""
    return sum(_count_of(equation) for equation in _inside(program).eqns)


def _count_of(equation: Equation) -> int:
    name = equation.primitive.name
    if name in CALLS:
        return _count(_called(equation))
    if name in LOOPS:
        return LOOPS[name].count(equation.params)
    return 0 if name in PRINTS or _rule(equation) == "exact" else sum(v.aval.size for v in equation.outvars)


def _inside(program: Jaxpr) -> Any:
    return getattr(program, "jaxpr", program)


def _called(equation: Equation) -> Jaxpr:
    programs = [p for p in equation.params.values() if hasattr(_inside(p), "eqns")]
    if len(programs) != 1:
        raise _opaque(equation)
    return programs[0]


def _opaque(equation: Equation) -> UnsupportedError:
    return UnsupportedError(f"jax's {equation.primitive.name} cannot be looked into")


def _rule(equation: Equation) -> str | Argument | Sum:
    """What its primitive rounds. Raises UnsupportedError where nothing is known of it, or it computes in less than
    float64."""
    name, floats = equation.primitive.name, [v.aval.dtype for v in equation.outvars if _is_inexact(v)]
    if not floats and not equation.effects:
        return "exact"
    if name not in RULES or equation.effects:
        raise _opaque(equation)
    narrower = [str(dtype) for dtype in floats if dtype != np.float64]
    if name == "reduce_precision" and equation.params["mantissa_bits"] < DIGITS:  # what remat saves keeps them all
        narrower.append("fewer digits")
    if narrower:
        raise NarrowerError(f"{name} gives {narrower[0]} inside, where the loss is called in float64")
    return RULES[name]


def _is_inexact(variable: Any) -> bool:
    return bool(jnp.issubdtype(getattr(variable.aval, "dtype", bool), jnp.inexact))


class _Run:
    """One run through a program with its errors. noise: standard normal numbers, handed out in order.

    Each value is there twice, `moved` by the errors and `still` without: one object, where there is no difference.
    """

    def __init__(self, sizes: Sizes, noise: jax.Array) -> None:
        self.sizes, self._noise, self._used = sizes, noise, 0
        self._format = Format(sizes["units"], sizes["tiny"])
        self._copied: dict[Any, Equation] = {}  # by variable, what broadcasts into it

    def evaluate(self, program: Jaxpr, moved: Arrays, still: Arrays) -> tuple[Arrays, Arrays]:
        inside = _inside(program)
        consts = getattr(program, "consts", ())
        variables = [*inside.constvars, *inside.invars]
        values = dict(zip(variables, zip([*consts, *moved], [*consts, *still], strict=True), strict=True))

        def read(atoms: Sequence[Any]) -> tuple[Arrays, Arrays]:
            pairs = [(atom.val, atom.val) if hasattr(atom, "val") else values[atom] for atom in atoms]
            return [moved for moved, _ in pairs], [still for _, still in pairs]

        for equation in inside.eqns:
            if equation.primitive.name == "broadcast_in_dim":
                self._copied[equation.outvars[0]] = equation
            results = self._equation(equation, *read(equation.invars))
            values |= dict(zip(equation.outvars, zip(*results, strict=True), strict=True))
        return read(inside.outvars)

    def noise(self, count: int) -> jax.Array:
        start, self._used = self._used, self._used + count
        return lax.slice(self._noise, [start], [self._used])

    def _equation(self, equation: Equation, moved: Arrays, still: Arrays) -> tuple[Arrays, Arrays]:
        name = equation.primitive.name
        if name in CALLS:
            return self.evaluate(_called(equation), moved, still)
        if name in LOOPS:
            return LOOPS[name].run(equation.params, moved, still, self)
        if name in PRINTS:
            return [], []
        rule, results = _rule(equation), _bound(equation, moved)
        rightly = results
        if not _alike(moved, still):
            rightly = _bound(equation, still)
            if decides(equation):
                results = DECISIONS[name](Call(equation, moved, still, results, rightly, self.sizes["amplified"]))
        if rule == "exact":
            return results, rightly
        (y,) = results
        return [self._perturbed(y, *self._size(rule, equation, moved, y), self._errors(equation, moved, y))], rightly

    def _size(self, rule: str | Argument | Sum, equation: Equation, operands: Arrays, y: Any) -> tuple[Any, Any]:
        """Of its error, in roundoffs, c(k) sqrt(y^2 + m); and where there is none."""
        if isinstance(rule, Sum):
            return self._size_of_sum(rule, equation, operands, y)
        exact = EXACT_WHERE.get(equation.primitive.name)
        is_exact = exact(equation, operands, y) & self._format.holds(y) if exact else False
        if isinstance(rule, Argument):
            return _root(y, lax.square(_by_argument(rule, equation, operands))), is_exact
        return lax.abs(y), is_exact

    def _size_of_sum(self, rule: Sum, equation: Equation, operands: Arrays, y: Any) -> tuple[Any, Any]:
        """The sizes of its terms add up to sqrt(k m) at most (Cauchy and Schwarz)."""
        (moment,) = _bound(equation, _with_summed(rule, operands, lax.square))
        terms, one, (power, free, most) = self._terms(rule, equation, operands), self.sizes["one"], self.sizes[rule.op]
        growth = lax.clamp(one, (lax.max(terms, lax.broadcast(one, terms.shape)) / free) ** power, most)
        units = [least_unit(_as_float(operands[place])) for place in _places(rule, operands)]
        unit = functools.reduce(lax.min if rule.op == "sum" else lax.mul, units)
        return growth * _root(y, moment), self._format.sums(lax.sqrt(lax.abs(terms * moment)), unit)

    def _terms(self, rule: Sum, equation: Equation, operands: Arrays) -> Any:
        """k."""
        one = self.sizes["one"]
        if rule.terms is not None:
            return one * rule.terms(equation)
        (terms,) = _bound(equation, _with_summed(rule, operands, lambda x: lax.broadcast(one, x.shape)))
        return terms

    def _errors(self, equation: Equation, operands: Arrays, y: Any) -> Any:
        """Standard normal, one for each element. A number added to many that are larger is rounded to the units of
        their last digits, so in the same way wherever these are the same: in each binade."""
        own = self.noise(y.size).reshape(y.shape)
        if equation.primitive.name not in ADDITIONS:
            return own
        for place, x in enumerate(operands):
            copies = self._copies(equation.invars[place], y.shape)
            if copies is not None:
                other = lax.abs(operands[1 - place])
                shared = own.ravel()[BINADES * copies + (lax.bitcast_convert_type(other, np.int64) >> DIGITS) % BINADES]
                own = jnp.where(lax.abs(x) <= other, shared, own)
        return own

    def _copies(self, atom: Any, shape: tuple[int, ...]) -> Any:
        """Of which element of something smaller each one is a copy, an array of this shape; None if there are few."""
        made = None if hasattr(atom, "val") else self._copied.get(atom)
        source = (made.invars[0] if made else atom).aval.shape
        if math.prod(source) * MANY > math.prod(shape):
            return None
        places = jnp.arange(math.prod(source)).reshape(source)
        return jnp.broadcast_to(_bound(made, [places])[0] if made else places, shape)

    def _perturbed(self, y: Any, size: Any, is_exact: Any, errors: Any) -> Any:
        moved = y + (self.sizes["roundoff"] * size + self.sizes["tiny"]) * errors
        return jnp.where((size > 0) & (size < LARGEST) & ~jnp.asarray(is_exact), moved, y)


def _alike(moved: Arrays, still: Arrays) -> bool:
    return all(a is b for a, b in zip(moved, still, strict=True))


def _root(y: Any, moment: Any) -> Any:
    return lax.sqrt(lax.square(y) + lax.abs(moment))


def _by_argument(rule: Argument, equation: Equation, operands: Arrays) -> Any:
    """x f'(x)."""
    operands = [_as_float(a) for a in operands]
    before, x, after = operands[: rule.position], operands[rule.position], operands[rule.position + 1 :]
    before = [lax.abs(a) for a in before]  # the base of a power, for the sake of its logarithm
    return jax.jvp(lambda x: _bound(equation, [*before, x, *after])[0], [x], [x])[1]


def _bound(equation: Equation, operands: Arrays) -> Arrays:
    results = equation.primitive.bind(*operands, **equation.params)
    return results if equation.primitive.multiple_results else [results]


def _with_summed(rule: Sum, operands: Arrays, change: Callable[[Any], Any]) -> Arrays:
    """The operands with those changed that are summed; indices are not."""
    summed = _places(rule, operands)
    return [change(_as_float(x)) if place in summed else x for place, x in enumerate(operands)]


def _places(rule: Sum, operands: Arrays) -> Sequence[int]:
    return range(len(operands)) if rule.summed is None else rule.summed


def _as_float(x: Any) -> Any:
    """An exponent, or a factor, may be an integer beside floats; as a float64 it has a derivative, and a square."""
    return x if jnp.issubdtype(jnp.result_type(x), jnp.floating) else lax.convert_element_type(x, np.float64)


@dataclass(frozen=True)
class _Loop:
    """A primitive that runs programs many times, or one of several. count: the normal numbers that it takes."""

    count: Callable[[Mapping[str, Any]], int]
    run: Callable[[Mapping[str, Any], Arrays, Arrays, _Run], tuple[Arrays, Arrays]]


def _scan(params: Mapping[str, Any], moved: Arrays, still: Arrays, run: _Run) -> tuple[Arrays, Arrays]:
    program, length = params["jaxpr"], params["length"]
    (consts, first, rest), (still_consts, still_first, still_rest) = (_scanned(params, x) for x in (moved, still))
    carried = len(first)

    def step(carry: Any, given: Any) -> Any:
        noise, rest, differing = given
        still_rest = [differing.get(str(place), x) for place, x in enumerate(rest)]
        results, rightly = _Run(run.sizes, noise).evaluate(
            program, [*consts, *carry[0], *rest], [*still_consts, *carry[1], *still_rest]
        )
        return (results[:carried], rightly[:carried]), (results[carried:], rightly[carried:])

    noise = run.noise(length * _count(program)).reshape(length, _count(program))
    differing = {str(place): b for place, (a, b) in enumerate(zip(rest, still_rest, strict=True)) if a is not b}
    carry, stacked = lax.scan(
        step, (first, still_first), (noise, rest, differing), length=length, reverse=params["reverse"]
    )
    return [*carry[0], *stacked[0]], [*carry[1], *stacked[1]]


def _scanned(params: Mapping[str, Any], operands: Arrays) -> tuple[list[Any], list[Any], list[Any]]:
    """What stays the same, what is carried on, and what is gone through."""
    if "ft_in" in params:  # from jax 0.11 on
        consts, first, rest = params["ft_in"].update(operands).unpack()
    else:
        a, b = params["num_consts"], params["num_consts"] + params["num_carry"]
        consts, first, rest = operands[:a], operands[a:b], operands[b:]
    return list(consts), list(first), list(rest)


def _while(params: Mapping[str, Any], moved: Arrays, still: Arrays, run: _Run) -> tuple[Arrays, Arrays]:
    """How often it goes round is not known beforehand, so it draws its own numbers, by a seed that is one of the
    others. With errors and without it may do so for another number of times; each stops for itself."""
    a, b = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    condition, body = params["cond_jaxpr"], params["body_jaxpr"]
    seed = lax.bitcast_convert_type(run.noise(1), np.uint32).reshape(2)

    def within(program: Jaxpr, key: jax.Array, consts: slice, values: Arrays, rightly: Arrays) -> Any:
        noise = jax.random.normal(key, (_count(program),), np.float64)
        return _Run(run.sizes, noise).evaluate(program, [*moved[consts], *values], [*still[consts], *rightly])

    def goes_on(key: jax.Array, values: Arrays, rightly: Arrays) -> tuple[Any, Any]:
        (going,), (rightly_going,) = within(condition, key, slice(a), values, rightly)
        return going, rightly_going

    def step(state: Any) -> Any:
        before, (going, rightly_going), values, rightly = state
        key, *own = jax.random.split(before, 3)
        near = _each_where(rightly_going, rightly, values)  # where it has stopped, what has errors decides
        new, rightly_new = within(body, own[0], slice(a, b), values, near)
        values, rightly = _each_where(going, new, values), _each_where(rightly_going, rightly_new, rightly)
        return key, goes_on(own[1], values, rightly), values, rightly

    key, first = jax.random.wrap_key_data(seed, impl="threefry2x32"), (list(moved[b:]), list(still[b:]))
    state = lax.while_loop(lambda state: (state[1][0] | state[1][1]).any(), step, (key, goes_on(key, *first), *first))
    return state[2], state[3]


def _each_where(going: Any, new: Arrays, old: Arrays) -> Arrays:
    """Of a loop under vmap, what still goes on; the leading axes are its own."""
    return [
        lax.select(lax.broadcast_in_dim(going, a.shape, range(going.ndim)), a, b) for a, b in zip(new, old, strict=True)
    ]


def _cond(params: Mapping[str, Any], moved: Arrays, still: Arrays, run: _Run) -> tuple[Arrays, Arrays]:
    """By the index with errors. Where it is another without, what is decided inside is decided with them."""
    noise = run.noise(_count_of_branches(params))
    (index, *operands), (rightly_index, *others) = moved, still
    rightly: Arrays = others
    if index is not rightly_index:
        rightly = _each_where(index == rightly_index, rightly, operands)

    def branch(program: Jaxpr) -> Callable[..., Any]:
        return lambda *given: _Run(run.sizes, noise).evaluate(program, *given)

    results: tuple[Arrays, Arrays] = lax.switch(
        index, [branch(program) for program in params["branches"]], operands, rightly
    )
    return results


def _count_of_branches(params: Mapping[str, Any]) -> int:
    return max(_count(program) for program in params["branches"])


LOOPS = {
    "scan": _Loop(lambda params: params["length"] * _count(params["jaxpr"]), _scan),
    "while": _Loop(lambda params: 1, _while),
    "cond": _Loop(_count_of_branches, _cond),
}
