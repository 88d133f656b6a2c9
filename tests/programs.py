"""Losses as data: leaves and ops on them, in a form that prints as the Python that gives it back.

`CONTRIBUTING.md` says how to replay one. `tests/strategies.py` draws them at random.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from gradwitness import ops
from gradwitness.ops import OPS, Op, Spec, Value
from gradwitness.ops.samples import Draw, boolean, definite, dominant, labels, positive, real
from gradwitness.ops.value import BOOL, FLOAT, INT
from gradwitness.problem import Problem

__all__ = [
    "Call",
    "Operand",
    "Program",
    "boolean",
    "call",
    "definite",
    "dominant",
    "first_results",
    "labels",
    "leaf_values",
    "positive",
    "real",
    "results",
    "specs_of",
]

Array: TypeAlias = np.ndarray[Any, Any]
Operand: TypeAlias = int | float | None  # the number of a value, a literal, or not given


@dataclass(frozen=True)
class Call:
    """An op on earlier values, by their numbers. An op with several results takes several numbers."""

    op: str
    operands: tuple[Operand, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        given = [repr(o) for o in self.operands] + [f"{k}={v!r}" for k, v in self.attributes.items()]
        return f"call({', '.join([repr(self.op), *given])})"

    def of(self, values: Sequence[Any]) -> list[Any]:
        """Its operands among the values of a program."""
        return [values[o] if type(o) is int else o for o in self.operands]


def call(op: str, *operands: Operand, **attributes: Any) -> Call:
    return Call(op, operands, attributes)


@dataclass(frozen=True)
class Program:
    """A loss: leaves and calls, whose results are numbered from 0. The seed draws the leaves' values.

    Every float that no call uses is contracted with random numbers of its own, and the loss is the sum.
    """

    seed: int
    lines: tuple[Draw | Call, ...]

    def __repr__(self) -> str:
        lines = "".join(f"    {_line(line)},  # {number}\n" for number, line in _numbered(self.lines))
        return f"Program({self.seed}, (\n{lines}))"

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(line for line in self.lines if isinstance(line, Call))

    @property
    def op_names(self) -> tuple[str, ...]:
        """The ops called, in order, repeats included."""
        return tuple(c.op for c in self.calls)

    @property
    def uses(self) -> tuple[int, ...]:
        """The numbers of the values that calls use, repeats included."""
        return tuple(o for c in self.calls for o in c.operands if type(o) is int)

    def problem(self, name: str = "program") -> Problem:
        """The loss, differentiated by every floating leaf: `v3` is value 3."""
        leaves = {
            f"v{number}": leaf_values(self.seed, number, line)
            for number, line in _numbered(self.lines)
            if isinstance(line, Draw)
        }
        params = {path: a for path, a in leaves.items() if a.dtype.kind == "f"}
        data = {path: a for path, a in leaves.items() if path not in params}
        return Problem(name, functools.partial(_loss, self), params, data)


def leaf_values(seed: int, number: int, leaf: Draw) -> Array:
    return np.asarray(leaf.array(np.random.default_rng([seed, number])))


def results(op: Op, operands: Sequence[Spec | None], attributes: Mapping[str, Any]) -> tuple[Spec, ...]:
    """What the op gives for these operands. Raises GradwitnessError if it does not take them."""
    given = [*operands, *[None] * (len(op.operand_names) - len(operands))]
    result = op.rule(*given, **op.attributes(given, attributes))
    return result if isinstance(result, tuple) else (result,)


def first_results(op: Op) -> tuple[Spec, ...]:
    """What it gives at its first sample."""
    return results(op, specs_of(op.samples[0].operands), op.samples[0].attributes)


def specs_of(draws: Sequence[Draw | None]) -> list[Spec | None]:
    kinds = {"labels": INT, "boolean": BOOL}
    return [None if d is None else Spec(d.shape, kinds.get(d.kind, FLOAT)) for d in draws]


def _line(line: Draw | Call) -> str:
    if isinstance(line, Call):
        return repr(line)
    given = [*map(str, line.shape)]
    given += [f"scale={line.scale}"] if line.scale != 1.0 else []
    given += [f"high={line.high}"] if line.kind == "labels" else []
    return f"{line.kind}({', '.join(given)})"


def _numbered(lines: Sequence[Draw | Call]) -> Iterator[tuple[int, Draw | Call]]:
    """Each line with the number of its first result."""
    number = 0
    for line in lines:
        yield number, line
        number += 1 if isinstance(line, Draw) else len(first_results(OPS[line.op]))


def _loss(program: Program, params: Any, batch: Any) -> Value:
    leaves = {**params, **batch}
    values: list[Value] = []
    for number, line in _numbered(program.lines):
        if isinstance(line, Draw):
            values.append(leaves[f"v{number}"])
        else:
            result = getattr(ops, line.op)(*line.of(values), **line.attributes)
            values += result if isinstance(result, tuple) else (result,)
    unused = set(range(len(values))) - set(program.uses)
    rng = np.random.default_rng([program.seed, len(values)])
    return functools.reduce(ops.add, [_contracted(values[n], rng) for n in sorted(unused) if values[n].dtype == FLOAT])


def _contracted(value: Value, rng: np.random.Generator) -> Value:
    size = math.prod(value.shape)
    return ops.matmul(value.reshape(-1), rng.standard_normal(size) / math.sqrt(size))
