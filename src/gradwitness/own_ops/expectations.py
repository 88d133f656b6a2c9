"""What a definition is refused for, each with a message that says what to change."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradwitness import registry
from gradwitness.errors import GradwitnessError, UnknownName
from gradwitness.evidence.exercise import exercise
from gradwitness.evidence.reference import BITS
from gradwitness.graph import Node, Tracer
from gradwitness.ops import BUILT_IN, OPS, Op, Spec, Value
from gradwitness.ops.samples import Sample
from gradwitness.ops.value import FLOAT
from gradwitness.ops.vocabulary import ROUNDINGS, Rounding
from gradwitness.problem import Problem
from gradwitness.protocol import Interpreter

__all__ = [
    "expect_backends",
    "expect_definition",
    "expect_kink",
    "expect_referee",
    "expect_rule",
    "expect_samples",
    "expect_signature",
    "origin_of",
    "rounding_of",
]

TAKEN = re.compile(r"v\d+|leaf|literal|output|leaves|loss|inf|nan")  # what a graph's source means something else by
WHAT_RUNS = (
    "It may use ufuncs, matmul (@) and what moves values about (reshape, transpose, where, concatenate, sum), "
    "and no math.exp, no einsum, no conversion to float"
)


def origin_of(name: str, shape: Callable[..., Any]) -> str:
    """Where the op is defined, module and function."""
    if not callable(shape):
        raise GradwitnessError(f"define_op takes a shape rule, a function of Specs, got {type(shape).__name__}")
    if not name.isidentifier() or keyword.iskeyword(name) or TAKEN.fullmatch(name):
        raise GradwitnessError(f"{name!r} cannot be the name of an op: give another, name=...")
    if name in BUILT_IN:
        raise GradwitnessError(f"{name}: there is an op of this name, ops.{name}: give another, name=...")
    origin = f"{shape.__module__}.{getattr(shape, '__qualname__', type(shape).__qualname__)}"
    if name in OPS and OPS[name].origin != origin:
        raise GradwitnessError(
            f"{name}: there is an op of this name, defined by {OPS[name].origin}: give another, name=..., "
            f"or gradwitness.own_ops.forget_op({name!r}) first"
        )
    return origin


def rounding_of(name: str, given: str | Rounding | None, definition: Any) -> Rounding | None:
    if (given is None) == (definition is None):
        raise GradwitnessError(
            f"{name}: give rounding=, one of {', '.join(ROUNDINGS)}, for an elementary op, "
            "or definition=, in ops that exist, for a fused one"
        )
    if isinstance(given, str) and given not in ROUNDINGS:
        raise UnknownName("rounding", given, ROUNDINGS)
    return ROUNDINGS[given] if isinstance(given, str) else given


def expect_backends(implementations: Mapping[str, Any], options: Iterable[str]) -> None:
    """Each key is a backend's name: a slip of the pen in one of the options looks like one."""
    for backend in implementations:
        if backend not in registry.backend_names():
            raise UnknownName("backend or option of define_op", backend, [*registry.backend_names(), *options])


def expect_signature(op: Op) -> None:
    uncounted = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    odd = [str(p.replace(annotation=p.empty)) for p in op.signature.parameters.values() if p.kind in uncounted]
    if odd or not op.operand_names:
        what = f"{', '.join(odd)} cannot be counted" if odd else "there is no array"
        raise GradwitnessError(
            f"{op.name}: {what}; the shape rule takes arrays as positional parameters, "
            "and attributes as keyword-only ones: (x, y, *, beta=1.0)"
        )


def expect_samples(op: Op) -> None:
    if not op.samples:
        raise GradwitnessError(f"{op.name}: give samples=[sample(real(2, 3)), ...], at least one, to verify it with")
    for one in op.samples:
        if not isinstance(one, Sample):
            raise GradwitnessError(f"{op.name}: a sample is made by sample(real(2, 3), ...), got {type(one).__name__}")
        _results(op, one)


def _results(op: Op, one: Sample) -> tuple[Spec, ...]:
    """What the shape rule gives for a sample."""
    specs = _specs(one)
    call = _call(op, specs, one.attributes)
    needed = [p.default is inspect.Parameter.empty for p in op.signature.parameters.values()][: len(op.operand_names)]
    if not len(specs) <= len(needed) or any(needed[len(specs) :]):
        raise GradwitnessError(f"{call}: a sample has {len(specs)} arrays, the op takes {', '.join(op.operand_names)}")
    try:
        result = op.rule(*specs, **op.attributes(specs, one.attributes))
    except GradwitnessError as error:
        raise GradwitnessError(f"{call}: a sample is refused: {error}") from None
    except Exception as error:
        raise GradwitnessError(f"{call}: the shape rule raised {type(error).__name__}: {error}") from error
    results = result if isinstance(result, tuple) else (result,)
    if not results or not all(isinstance(each, Spec) for each in results):
        kinds = ", ".join(type(each).__name__ for each in results)
        raise GradwitnessError(
            f"{call}: the shape rule must return a Spec, or a tuple of them, got {kinds or 'nothing'}"
        )
    return results


def _specs(one: Sample) -> list[Spec | None]:
    return [None if drawn is None else drawn.spec for drawn in one.operands]


def _call(op: Op, operands: Sequence[Any], attributes: Mapping[str, Any]) -> str:
    """`swish(float[2, 3], beta=1.5)`."""
    return f"{op.name}({', '.join([*map(str, operands), *(f'{k}={v!r}' for k, v in attributes.items())])})"


def expect_referee(op: Op, implementations: Mapping[str, Any]) -> None:
    """The interpreter has a rule, by which the others are judged, or runs the definition."""
    referee = registry.interpreter_name()
    if referee in implementations:
        return
    if op.definition is None:
        raise GradwitnessError(
            f"{op.name}: give {referee}=(forward, vjp), by which the other backends are judged, "
            "or definition=, in ops that exist"
        )
    if op.kink or op.regions:
        raise GradwitnessError(
            f"{op.name}: without {referee}=(forward, vjp) it is seen through its definition, whose ops have kinks and "
            "regions of their own: leave out kink= and regions="
        )


def expect_kink(op: Op) -> None:
    if op.kink is None or op.kink.kind == "smooth":
        return
    if op.kink.kind != "bend":
        raise GradwitnessError(
            f"{op.name}: kink= takes bends(...), the points at which an elementwise op has two slopes"
        )
    for one in op.samples:
        if len(op.operand_names) != 1 or _results(op, one) != (one.operands[0] and one.operands[0].spec,):
            raise GradwitnessError(f"{op.name}: an op with bends has one array, and a result of its shape")


def expect_definition(op: Op) -> None:
    """It gives what the shape rule says, for each sample."""
    for one in op.samples if op.definition is not None else ():
        tracer = Tracer()
        specs = _specs(one)
        values = [s and tracer.leaf(op.name_of_operand(i), s) for i, s in enumerate(specs)]
        call, absent = _call(op, specs, one.attributes), [None] * (len(op.operand_names) - len(values))
        assert op.definition is not None
        try:
            found = op.definition(*values, *absent, **op.attributes(specs, one.attributes))
        except Exception as error:
            raise GradwitnessError(f"{call}: the definition raised {type(error).__name__}: {error}") from error
        results = found if isinstance(found, tuple) else (found,)
        got = [v.spec if isinstance(v, Value) else type(v).__name__ for v in results]
        if got != (expected := list(_results(op, one))):
            raise GradwitnessError(
                f"{call}: the definition gives {_listed(got)}, and the shape rule says {_listed(expected)}"
            )


def _listed(specs: Sequence[Any]) -> str:
    return ", ".join(map(str, specs))


def expect_rule(op: Op, problem: Problem) -> None:
    """The interpreter's rule gives the right number of arrays of the right shapes, and runs in 256 bits."""
    interpreter = registry.interpreter()
    forward, vjp = _Check(op, "forward"), _Check(op, "vjp")
    with forward.said("raised"):
        tape = interpreter.forward(problem.graph, problem.leaves, on_value=forward.on_value)
    with vjp.said("raised"):
        interpreter.backward(tape, problem.differentiated, on_cotangent=vjp.on_cotangent)
    with _Check(op, "kink or regions").said("cannot be told:"):
        exercise(interpreter, problem)  # of this op, and of the few that the problem is made with
    with _Check(op, "rule").said(f"does not run on numbers of 256 bits, in which it is checked. {WHAT_RUNS}:"):
        _in_256_bits(interpreter, problem)


def _in_256_bits(interpreter: Interpreter, problem: Problem) -> None:
    with interpreter.extended(BITS) as wide:
        leaves = {path: wide.numbers(leaf) for path, leaf in problem.leaves.items()}
        wide.backward(wide.forward(problem.graph, leaves), problem.differentiated)


class _Check:
    """Hooks for the interpreter that look at what one op's rule gives. `part` is the one on trial."""

    def __init__(self, op: Op, part: str) -> None:
        self.op, self.part = op, part

    @contextmanager
    def said(self, what: str) -> Iterator[None]:
        """What the user's functions raise, as an error that says which of them it was."""
        try:
            yield
        except GradwitnessError:
            raise
        except Exception as error:
            raise GradwitnessError(
                f"{self.op.name}: NumPy's {self.part} {what} {type(error).__name__}: {error}"
            ) from error

    def on_value(self, node: Node, step: Any) -> Any:
        if node.op == self.op.name:
            expected = node.spec if isinstance(node.spec, tuple) else (node.spec,)
            results = step.output if isinstance(step.output, tuple) else (step.output,)
            self._expect(node, [_shape(r) for r in results], [spec.shape for spec in expected], "results")
        return step.output

    def on_cotangent(self, node: Node, step: Any, cotangent: Any, sent: Sequence[Any]) -> Sequence[Any]:
        if node.op == self.op.name:
            inputs = [None if i is None else i.spec for i in node.inputs]
            expected = [s.shape if s is not None and s.dtype == FLOAT else None for s in inputs]
            got = [None if part is None else _shape(part) for part in sent]
            if len(got) == len(expected):  # what an array is sent that is not differentiated, no one looks at
                got = [g if needed else e for g, e, needed in zip(got, expected, step.needs, strict=True)]
            self._expect(node, got, expected, "cotangents, one for each array")
        return sent

    def _expect(self, node: Node, got: Sequence[Any], expected: Sequence[Any], what: str) -> None:
        if list(got) != list(expected):
            inputs = [None if i is None else i.spec for i in node.inputs]
            raise GradwitnessError(
                f"{_call(self.op, inputs, node.attributes)}: NumPy's {self.part} must give {len(expected)} {what}, "
                f"of shape {_shapes(expected)}; it gave {_shapes(got)}"
            )


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(getattr(x, "shape", np.shape(x)))


def _shapes(shapes: Sequence[Any]) -> str:
    return ", ".join("None" if shape is None else str(list(shape)) for shape in shapes) or "none"
