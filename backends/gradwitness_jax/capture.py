"""A loss in jax, as its user wrote it, as a graph over the vocabulary.

jax writes the loss down as a jaxpr, which is gone through here equation by equation. One none of whose operands depends
on a floating leaf gives constants, which are computed. Any other has a rule (`primitives.RULES`), or is a program of
its own, which is entered: a custom_vjp or custom_jvp by its function, and not by its rule; loops and choices as they
run at the point. Its numbers there are computed for what decides by them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import gradwitness_jax
from gradwitness import ops
from gradwitness.compositions import eliminated, exchanged
from gradwitness.dtypes import Array
from gradwitness.errors import CaptureError, GradwitnessError
from gradwitness.graph import Graph, Place
from gradwitness.ops.value import FLOAT, Value
from gradwitness.recording import AT_THE_POINT, IS_DETACHED, Recorder, folders_of
from gradwitness_jax.custom import program_of
from gradwitness_jax.primitives import (
    IDENTITIES,
    MOVES,
    NAMED,
    RULES,
    added_by_scatter,
    by_labels,
    multiplied_by_scatter,
    picked_by_sort,
)
from gradwitness_jax.rounding import CALLS

__all__ = ["capture"]

JAX = os.path.dirname(jax.__file__) + os.sep
OURS = folders_of(jax, gradwitness_jax)
DECIDED = frozenset(("floor", "ceil", "round", "argmax", "argmin"))
SCATTERS = {"scatter-add": added_by_scatter, "scatter-mul": multiplied_by_scatter}
MOST = 100_000  # equations of one capture, loops unrolled


class _Made:
    """Numbers at the point, computed when somebody asks for them: that compiles, and few are asked for."""

    def __init__(self, given: Sequence[_Item], make: Callable[..., Sequence[Any]]) -> None:
        self._given, self._make = given, make
        self._found: Sequence[Any] | None = None

    def __getitem__(self, place: int) -> Any:
        waiting = [self] if self._found is None else []
        while waiting:  # no recursion: a loop that is unrolled is thousands deep
            last = waiting[-1]
            before = [item.made for item in last._given if isinstance(item.made, _Made) and item.made._found is None]
            waiting += before
            if not before:
                waiting.pop()._compute()
        assert self._found is not None
        return self._found[place]

    def _compute(self) -> None:
        if self._found is None:
            self._found = self._make(*(item.number for item in self._given))
            self._given = ()


@dataclass(frozen=True, slots=True)
class _Item:
    """A number, or array, at the point, and its value if it depends on what is differentiated.

    made: the number, or what makes it, and others; place: which of those it is.
    """

    made: Any
    value: Value | None = None
    place: int = 0

    @property
    def number(self) -> Any:
        return self.made[self.place] if isinstance(self.made, _Made) else self.made

    def operand(self, hosts: dict[int, tuple[Any, Array]]) -> Any:
        """What a rule takes: constants as host arrays, the same one for the same array."""
        if self.value is not None:
            return self.value
        if id(self.number) not in hosts:
            host = np.asarray(self.number)
            wide = np.float64 if jax.numpy.issubdtype(host.dtype, np.floating) else host.dtype
            hosts[id(self.number)] = self.number, host.astype(wide)
        return hosts[id(self.number)][1]


def capture(
    loss: Callable[[dict[str, Any], dict[str, Any]], Any],
    placed: dict[str, Any],
    inputs: dict[str, Any],
    known: Mapping[str, Array],
    *,
    stops: bool = False,
) -> Graph:
    """The graph of `loss(placed, inputs)`, differentiated by `placed`.

    known: all leaves on the host, in float64. stops: whether no derivative goes through a stop_gradient. Raises
    CaptureError, with the primitive and the line, for what has no rule; what tracing the loss raises passes.
    """
    program = jax.make_jaxpr(loss)(placed, inputs)
    recorder = Recorder(known, tuple(placed))
    seen = _Capture(recorder, placed, stops)
    paths = [*(("placed", p) for p in sorted(placed)), *(("inputs", p) for p in sorted(inputs))]
    given = []
    for kind, path in paths:
        number = (placed if kind == "placed" else inputs)[path]
        if jax.numpy.issubdtype(number.dtype, np.floating):
            given.append(_Item(number, recorder.leaf_at(path)))
        else:
            seen.hosts[id(number)] = number, known[path]
            given.append(_Item(number))
    (found,) = seen.run(program.jaxpr, [_Item(c) for c in program.consts], given)
    if found.value is None:
        raise CaptureError("the loss does not depend on what it is differentiated by")
    try:
        return recorder.recorded(found.value)
    except GradwitnessError as error:
        raise CaptureError(str(error)) from None


class _Capture:
    def __init__(self, recorder: Recorder, placed: Mapping[str, Any], stops: bool) -> None:
        self.recorder, self.stops = recorder, stops
        self.hosts: dict[int, tuple[Any, Array]] = {}
        self.digits = min((_eps(x.dtype) for x in placed.values()), default=0.0)
        self.count = 0
        self.place: Place | None = None
        self.stopped: dict[int, Value] = {}  # what jax itself stops, by the node that it becomes

    def run(self, program: Any, consts: Sequence[_Item], given: Sequence[_Item]) -> list[_Item]:
        """What a program returns."""
        items = dict(zip(program.constvars, consts, strict=True)) | dict(zip(program.invars, given, strict=True))

        def read(atom: Any) -> _Item:
            return _Item(atom.val) if hasattr(atom, "val") else items[atom]

        for equation in program.eqns:
            self.count += 1
            if self.count > MOST:
                raise CaptureError(f"more than {MOST:,} equations\n  at {self.place}")
            results = self._equation(equation, [read(atom) for atom in equation.invars])
            items |= dict(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in program.outvars]

    def _equation(self, equation: Any, given: Sequence[_Item]) -> Sequence[_Item]:
        if not any(item.value is not None for item in given):
            return [_Item(number) for number in _bound(equation, [item.number for item in given])]
        name, place = equation.primitive.name, self._place(equation)
        try:
            if (entered := self._entered(equation, name, given)) is not None:
                return entered
            self.recorder.at(place, self._narrow(equation))
            values = self._values(equation, name, given)
        except CaptureError:
            raise
        except GradwitnessError as error:
            raise CaptureError(f"{name}: {error}\n  at {place}") from None
        made = _Made(given, lambda *numbers: _bound(equation, numbers))
        shapes = [variable.aval.shape for variable in equation.outvars]
        return [_item(made, i, *both) for i, both in enumerate(zip(values, shapes, strict=True))]

    # Programs within programs

    def _entered(self, equation: Any, name: str, given: Sequence[_Item]) -> Sequence[_Item] | None:
        params = equation.params
        if name == "while":
            return self._while(given, **params)
        if name == "scan":
            return self._scan(given, **params)
        if name == "cond":
            which, *rest = given
            branches = params["branches"]
            self.recorder.decide("which branch of a cond is taken", [which.value])
            return self._call(branches[int(np.clip(int(which.number), 0, len(branches) - 1))], rest)
        if name == "custom_linear_solve":
            return self._linear_solve(given, **params)
        called = _called(equation)
        if called is None:
            return None
        own = NAMED.get(_named(called)) if len(given) == 1 else None
        if own is None:
            return self._call(called, given)
        self.recorder.at(self.place, self._narrow(equation))
        return [_Item(_Made(given, lambda *numbers: _evaluated(called, numbers)), own(given[0].value))]

    def _place(self, equation: Any) -> Place | None:
        """The user's line that an equation stands for; within jax's own functions, that which called them."""
        self.place = _place(equation) or self.place
        return self.place

    def _call(self, called: Any, given: Sequence[_Item]) -> list[_Item]:
        consts = [_Item(c) for c in getattr(called, "consts", ())]
        return self.run(getattr(called, "jaxpr", called), consts, given)

    def _linear_solve(self, given: Sequence[_Item], *, const_lengths: Any, jaxprs: Any) -> list[_Item]:
        """By its `solve`, and not by the rules that differentiate it."""
        first = const_lengths.matvec + const_lengths.vecmat
        rest = first + const_lengths.solve + const_lengths.transpose_solve
        return self._call(jaxprs.solve, [*given[first : first + const_lengths.solve], *given[rest:]])

    def _while(
        self,
        given: Sequence[_Item],
        *,
        cond_jaxpr: Any,
        body_jaxpr: Any,
        cond_nconsts: int,
        body_nconsts: int,
        **rest: Any,
    ) -> list[_Item]:
        tests, bodies = given[:cond_nconsts], given[cond_nconsts : cond_nconsts + body_nconsts]
        state = list(given[cond_nconsts + body_nconsts :])
        depends = False
        while True:
            (goes_on,) = self._call(cond_jaxpr, [*tests, *state])
            depends |= self.recorder.depends(goes_on.value)
            if not bool(goes_on.number):
                break
            state = self._call(body_jaxpr, [*bodies, *state])
        if depends:
            self.recorder.remark("decision", f"when a while loop ends {AT_THE_POINT}")
        return state

    def _scan(
        self,
        given: Sequence[_Item],
        *,
        jaxpr: Any,
        length: int,
        reverse: bool,
        num_consts: int = 0,
        num_carry: int = 0,
        **rest: Any,
    ) -> list[_Item]:
        consts, state = list(given[:num_consts]), list(given[num_consts : num_consts + num_carry])
        columns = given[num_consts + num_carry :]
        rows: list[list[_Item]] = []
        for i in reversed(range(length)) if reverse else range(length):
            found = self._call(jaxpr, [*consts, *state, *(_row(x, i) for x in columns)])
            state = found[:num_carry]
            rows.append(found[num_carry:])
        rows = rows[::-1] if reverse else rows
        return [*state, *(self._stacked(column) for column in zip(*rows, strict=True))]

    def _stacked(self, column: Sequence[_Item]) -> _Item:
        made = _Made(column, lambda *numbers: [jax.numpy.stack(numbers)])
        if not any(item.value is not None for item in column):
            return _Item(made)
        return _Item(made, ops.stack(*(item.operand(self.hosts) for item in column), axis=0))

    # Equations

    def _values(self, equation: Any, name: str, given: Sequence[_Item]) -> Sequence[Any]:
        operands = [item.operand(self.hosts) for item in given]
        if name in IDENTITIES:
            if name == "stop_gradient" and not _is_of_the_user(equation):
                return [self._stopped(operands[0])]
            if name == "stop_gradient":
                self.recorder.remark("detached", IS_DETACHED)
                return [ops.stop_gradient(operands[0])] if self.stops else operands
            return operands
        if name == "sort":
            return self._sorted(given, operands, **equation.params)
        if name == "lu":
            _, _, order = _bound(equation, [given[0].number])
            whole = self.stopped.get(operands[0].node.id, operands[0])  # a solve stops before its factors
            return [eliminated(exchanged(whole, np.asarray(order))), None, None]
        if name == "top_k":
            self.recorder.decide("which elements top_k picks", operands)
            ordered = picked_by_sort(-np.asarray(given[0].number), operands[0], -1)
            return [ordered[(..., slice(0, equation.params["k"]))], None]
        if not any(_is_float_or_bool(v.aval.dtype) for v in equation.outvars) or name in DECIDED:
            self.recorder.decide(name, operands)
            return [None] * len(equation.outvars)
        if name in SCATTERS:
            return [SCATTERS[name](equation, operands)]
        if name in MOVES:
            if any(item.value is not None and item.value.dtype != FLOAT for item in given):
                raise CaptureError(f"{name} at indices that depend on what is differentiated\n  at {self.place}")
            return by_labels(equation, operands)
        if name not in RULES:
            raise CaptureError(f"{name}: there is no rule for this primitive\n  at {self.place}")
        return [RULES[name](*operands, **equation.params)]

    def _stopped(self, x: Value) -> Value:
        """A shift that cancels, as in a softmax."""
        found = ops.stop_gradient(x)
        self.stopped[found.node.id] = x
        return found

    def _sorted(
        self, given: Sequence[_Item], operands: Sequence[Any], *, dimension: int, num_keys: int, **rest: Any
    ) -> list[Any]:
        if num_keys != 1:
            raise GradwitnessError("a sort by several keys has no rule")
        self.recorder.decide("an order", operands)
        keys = np.asarray(given[0].number)
        return [picked_by_sort(keys, x, dimension) if isinstance(x, Value) else None for x in operands]

    def _narrow(self, equation: Any) -> str | None:
        """The dtype of what is computed with fewer digits than the leaves have."""
        for variable in equation.outvars:
            dtype = variable.aval.dtype
            if jax.numpy.issubdtype(dtype, np.complexfloating):
                raise GradwitnessError("complex numbers have no rule")
            if jax.numpy.issubdtype(dtype, np.floating) and _eps(dtype) > self.digits:
                return str(dtype)
        return None


def _eps(dtype: Any) -> float:
    return float(jax.numpy.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def _item(made: _Made, place: int, value: Any, shape: tuple[int, ...]) -> _Item:
    if isinstance(value, Value) and value.shape != shape:
        raise CaptureError(f"the rule gives {value.spec} for {list(shape)}")
    return _Item(made, value if isinstance(value, Value) else None, place)


def _row(x: _Item, i: int) -> _Item:
    return _Item(_Made([x], lambda number: [number[i]]), None if x.value is None else x.value[i])


def _called(equation: Any) -> Any:
    """The program that an equation calls; None if it is no call."""
    return program_of(equation) if equation.primitive.name in CALLS else None


def _evaluated(called: Any, numbers: Sequence[Any]) -> list[Any]:
    program, consts = getattr(called, "jaxpr", called), getattr(called, "consts", ())
    found: list[Any] = jax.core.eval_jaxpr(program, consts, *numbers)
    return found


def _bound(equation: Any, numbers: Sequence[Any]) -> Sequence[Any]:
    """What an equation gives at the point."""
    called = _called(equation)
    if called is not None:
        return _evaluated(called, numbers)
    found = equation.primitive.bind(*numbers, **equation.params)
    return found if equation.primitive.multiple_results else [found]


def _is_float_or_bool(dtype: Any) -> bool:
    return bool(jax.numpy.issubdtype(dtype, np.floating) or dtype == np.bool_)


def _named(called: Any) -> str:
    """The name of one of jax's own functions; empty for a user's."""
    name, _, place = str(getattr(getattr(called, "jaxpr", called).debug_info, "func_src_info", "")).partition(" at ")
    return name if place.startswith(JAX) else ""


def _frames(equation: Any) -> list[Any]:
    traceback = equation.source_info.traceback
    return [] if traceback is None else list(traceback.frames)


def _place(equation: Any) -> Place | None:
    """The user's line that an equation stands for."""
    for frame in _frames(equation):
        if not frame.file_name.startswith(OURS):
            return Place(frame.file_name, frame.line_num)
    return None


def _is_of_the_user(equation: Any) -> bool:
    """Whether the user's own code calls stop_gradient, and not a function of jax."""
    frames = _frames(equation)
    called = [i for i, frame in enumerate(frames) if frame.function_name == "stop_gradient"]
    after = [f for f in frames[called[-1] + 1 :] if not f.file_name.endswith("tree_util.py")] if called else []
    return bool(after) and not after[0].file_name.startswith(JAX)
