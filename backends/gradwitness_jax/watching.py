"""The steps of a training in jax as they are called: what `gradwitness.watch` takes down of a function of one step.

A step gives what it updates first, in the structure of its first argument. Its own numbers are looked at in each step.
Once they are not finite, the same step is run again op by op, and what is not finite is followed back to where it comes
from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var

from gradwitness.errors import GradwitnessError
from gradwitness.training import NonFinite, Training
from gradwitness_jax.custom import program_of
from gradwitness_jax.quiet import quiet
from gradwitness_jax.rounding import CALLS

__all__ = ["JaxWatcher"]

UNSEEN = "what it updates was not found: let the step return it first, in the structure of its first argument"
NOT_FOUND = "an op that was not found: a step that jax.jit compiles can be looked into"
HOME = str(Path(jax.__file__).parent)
KEEPING = (  # the same numbers, some of them, or with a number added
    "reshape",
    "transpose",
    "squeeze",
    "broadcast_in_dim",
    "convert_element_type",
    "gather",
    "slice",
    "dynamic_slice",
    "add",
)


class JaxWatcher:
    """Of a function of one step."""

    def __init__(self, function: Callable[..., Any], every: int) -> None:
        self.training, self._function, self._every = Training(), function, every
        self.step: Callable[..., Any] | None = self._called

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def _called(self, *arguments: Any, **options: Any) -> Any:
        training = self.training
        result = self._function(*arguments, **options)
        if training.steps == 0:
            self._expect_jax(result)
            if self._is_compiled:  # a plain function may have effects, and is called once
                training.logs |= dict.fromkeys(_logs_of_softmax(self._function, arguments, options))
        training.steps += 1
        both = _updated(arguments, result)
        training.unseen = UNSEEN if both is None else ""
        if training.nonfinite is None:
            if both is not None and (size := _moved(*both)) is not None:
                training.norms[training.steps] = float(size)
            if not bool(_finite(result)):
                training.nonfinite = self._found(arguments, options, result)
        if (training.steps - 1) % self._every == 0 or training.steps == 2:
            training.looked_at += 1
            for name, is_moved in _which_moved(*both) if both is not None else ():
                training.receive(name, is_moved)
        return result

    @property
    def _is_compiled(self) -> bool:
        return hasattr(self._function, "lower")

    def _expect_jax(self, result: Any) -> None:
        if not any(isinstance(x, jax.Array) for x in jax.tree.leaves(result)):
            raise GradwitnessError(
                f"watch takes a function of one step in jax, and this one returned no array of jax's: "
                f"{type(result).__name__}. A module of torch is watched by `with gw.watch(module) as seen:`"
            )

    def _found(self, arguments: tuple[Any, ...], options: Any, result: Any) -> NonFinite:
        step, what = self.training.steps, f"the result {_first_wrong(result)}"
        culprit = None
        if self._is_compiled:
            try:
                with quiet():
                    culprit = _culprit(self._function, arguments, options)
            except Exception:  # noqa: BLE001  # a step that cannot be traced as a whole, or whose buffers are gone
                culprit = None
        if culprit is not None and culprit.equation is not None:
            numbers = [x for _, x in _floats(result) if x.size == 1]
            backwards = bool(numbers) and bool(_finite(numbers))  # behind a loss that is finite
            place = f"jax's {culprit.equation.primitive.name}"
            return NonFinite(step, what, "op", place, _of(culprit.equation), backwards)
        return self._given(arguments, options, what) or NonFinite(step, what, "op", NOT_FOUND)

    def _given(self, arguments: tuple[Any, ...], options: Any, what: str) -> NonFinite | None:
        """What was given that is not finite: NaN before infinity, which a mask may mean."""
        step, named = self.training.steps, {**dict(enumerate(arguments)), **options}
        for is_wrong in (jnp.isnan, jnp.isinf):
            for number, argument in named.items():
                if place := _first_wrong(argument, is_wrong):
                    if number == 0:
                        return NonFinite(step, what, "parameter", place)
                    return NonFinite(step, what, "data", f"argument {number}, {place}{_rows(argument, is_wrong)}")
        return None


# Op by op


@dataclass(eq=False)
class _Made:
    """A number of a step that is run op by op: the equation that made it, and from what; None for what was given."""

    value: Any
    equation: Any = None
    operands: Sequence[_Made] = ()

    @property
    def is_finite(self) -> bool:
        return not jnp.issubdtype(jnp.result_type(self.value), jnp.inexact) or bool(jnp.isfinite(self.value).all())


def _culprit(function: Callable[..., Any], arguments: tuple[Any, ...], options: Any) -> _Made | None:
    """Where a result that is not finite comes from: from operand to operand, as far as these are not finite, to an op,
    or to what was given (no equation). It begins with the smallest result, such as the loss, as gradients are not
    finite behind that."""
    given = arguments, dict(options)
    program = jax.make_jaxpr(lambda both: function(*both[0], **both[1]))(given)
    results = _run(program.jaxpr, map(_Made, program.consts), map(_Made, jax.tree.leaves(given)))
    found = next((one for one in sorted(results, key=lambda one: np.size(one.value)) if not one.is_finite), None)
    while found is not None and (before := next((one for one in found.operands if not one.is_finite), None)):
        found = before
    return found


def _run(program: Any, constants: Iterable[_Made], given: Iterable[_Made]) -> list[_Made]:
    """Its results; programs that it calls are run op by op too, and loops as they are."""
    known: dict[Any, _Made] = dict(zip(program.constvars, constants, strict=True))
    known |= zip(program.invars, given, strict=True)

    def read(atom: Any) -> _Made:
        return known[atom] if isinstance(atom, Var) else _Made(atom.val)

    for equation in program.eqns:
        operands = [read(atom) for atom in equation.invars]
        if equation.primitive.name in CALLS:
            called = program_of(equation)
            program_in, consts = getattr(called, "jaxpr", called), getattr(called, "consts", ())
            results = _run(program_in, map(_Made, consts), operands)
        else:
            values = equation.primitive.bind(*(one.value for one in operands), **equation.params)
            several = values if equation.primitive.multiple_results else [values]
            results = [_Made(value, equation, operands) for value in several]
        known |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in program.outvars]


def _floats(tree: Any) -> list[tuple[str, Any]]:
    """The floating leaves by path, but for those whose buffers were donated."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = ((jax.tree_util.keystr(path), x) for path, x in leaves if hasattr(x, "dtype"))
    return [(name, x) for name, x in named if jnp.issubdtype(x.dtype, jnp.inexact) and not _is_gone(x)]


def _is_gone(x: Any) -> bool:
    return isinstance(x, jax.Array) and x.is_deleted()


def _finite(result: Any) -> Any:
    """Whether all floats of it are finite, as one number that may still be on its way."""
    checks = [jnp.isfinite(x).all() for _, x in _floats(result)]
    return jnp.stack(checks).all() if checks else True


def _first_wrong(tree: Any, is_wrong: Callable[[Any], Any] = lambda x: ~jnp.isfinite(x)) -> str:
    """The path of the first leaf that holds such a number; empty where there is none."""
    return next((name or "itself" for name, x in _floats(tree) if bool(is_wrong(x).any())), "")


def _rows(tree: Any, is_wrong: Callable[[Any], Any]) -> str:
    """Which rows of the first such leaf hold one."""
    x = next(np.asarray(is_wrong(x)) for _, x in _floats(tree) if bool(is_wrong(x).any()))
    if x.ndim == 0:
        return ""
    wrong = np.flatnonzero(x.reshape(len(x), -1).any(axis=1))
    return f" in row {', '.join(map(str, wrong[:3]))}" if wrong.size < len(x) else ""


def _updated(arguments: tuple[Any, ...], result: Any) -> tuple[Any, Any] | None:
    """(what was to be updated, what came of it); None where the function gives nothing of that structure."""
    if not arguments:
        return None
    structure: Any = jax.tree.structure(arguments[0])
    candidates = [result, *(result[:1] if isinstance(result, tuple) else ())]
    found = next((one for one in candidates if jax.tree.structure(one) == structure), None)
    return None if found is None else (arguments[0], found)


def _pairs(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each floating leaf that is no single number, such as a rate, before and after: (path, old, new)."""
    before, after = dict(_floats(old)), dict(_floats(new))
    for path, x in before.items():
        if path in after and after[path].shape == x.shape and x.ndim:
            yield path, x, after[path]


def _moved(old: Any, new: Any) -> Any:
    """The norm of the update; None where there is none, as where the old buffers were donated."""
    squares = [jnp.sum((b.astype(jnp.float32) - a) ** 2) for _, a, b in _pairs(old, new)]
    return jnp.sqrt(sum(squares)) if squares else None


def _which_moved(old: Any, new: Any) -> Iterator[tuple[str, bool]]:
    for path, a, b in _pairs(old, new):
        yield path, not np.array_equal(np.asarray(a), np.asarray(b))


def _logs_of_softmax(function: Callable[..., Any], arguments: tuple[Any, ...], options: Any) -> Iterator[str]:
    """The lines of logs whose operand is a softmax, as far as the step can be traced."""
    try:
        with quiet():
            program = jax.make_jaxpr(lambda *given: function(*given, **options))(*arguments)
    except Exception:  # noqa: BLE001  # a step that cannot be traced as a whole
        return
    lines: list[str] = []
    _soft_results(program.jaxpr, lines)
    yield from dict.fromkeys(lines)


def _soft_results(program: Any, lines: list[str]) -> list[bool]:
    """Which results of a program are those of a softmax; to `lines` goes that of each log of one, inside too."""
    made: dict[Any, Any] = {}  # equations, by what they give
    soft: set[Any] = set()
    for equation in program.eqns:
        op, operands = equation.primitive.name, [v for v in equation.invars if isinstance(v, Var)]
        takes_soft = any(v in soft for v in operands)
        if op == "log" and takes_soft:
            lines.append(_of(equation))
        if (op == "div" and _is_softmax(operands, made)) or (op in KEEPING and takes_soft):
            soft.update(equation.outvars)
        made |= dict.fromkeys(equation.outvars, equation)
        for inner in _inner(equation):
            found = _soft_results(inner, lines)
            soft.update(v for v, is_soft in zip(equation.outvars, found, strict=False) if is_soft)
    return [isinstance(v, Var) and v in soft for v in program.outvars]


def _is_softmax(operands: Sequence[Any], made: Mapping[Any, Any]) -> bool:
    """Whether these are an exp, and the sum of that."""
    if len(operands) != 2 or getattr(made.get(operands[0]), "primitive", None) is None:
        return False
    above, below = operands
    while (equation := made.get(below)) is not None and equation.primitive.name in KEEPING:
        (below,) = equation.invars[:1]
    is_sum = equation is not None and equation.primitive.name == "reduce_sum" and equation.invars[0] is above
    return made[above].primitive.name == "exp" and is_sum


def _inner(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            program = getattr(one, "jaxpr", one)
            if hasattr(program, "eqns"):
                yield program


def _of(equation: Any) -> str:
    """The user's line."""
    frames = equation.source_info.traceback
    found = [] if frames is None else [f for f in frames.frames if not f.file_name.startswith(HOME)]
    own = [f for f in found if f.file_name != __file__]
    return f"{own[0].file_name}:{own[0].line_num}" if own else "a log"
