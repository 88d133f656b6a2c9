"""Random graphs for Hypothesis: small losses made of the whole vocabulary, each described as data.

A `Program` is a list of leaves and calls, and a seed for the values. It prints as Python that gives it back
(`CONTRIBUTING.md` says how to replay one). Nothing here knows an op by name, but for those that adapt a value to
an op: what an op takes is read from its declaration (its samples, its shape rule).

An operand is an earlier value, whether used before or not, or a new leaf. Hypothesis decides which; an
earlier value that the op cannot take is adapted (reshape, index, broadcast_to; softplus + 0.2 where it
must be positive), and one whose size has drifted is scaled by a power of two.

A gradient is asked for where there is one: `_Builder` runs each op forward, on its operands and beside
them, and refuses a call that has a kink, a jump or a pole right there (relu at exactly 0, the norm of zeros,
a comparison of equals). The derivative rules on trial have no part in that.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from gradwitness import ops
from gradwitness.errors import GradwitnessError
from gradwitness.graph import spec_of
from gradwitness.ops import OPS, Op, Spec, Value
from gradwitness.ops.samples import Draw, Sample, boolean, labels, positive, real
from gradwitness.ops.value import BOOL, FLOAT
from gradwitness.problem import Problem
from gradwitness_numpy.rules import RULES

__all__ = ["Call", "Program", "boolean", "call", "labels", "positive", "programs", "real"]

Array: TypeAlias = np.ndarray[Any, Any]
Operand: TypeAlias = int | float | None  # the number of a value, a literal, or not given

RECENT = 8  # how far back an operand may reach
LARGEST = 200  # elements of a value
NEAR = 1e-4  # of a value's size: how far beside its operands an op is tried
STEEPEST = 50.0  # its steepest slope there
BENT = 0.1  # how much of NEAR the second difference may be: less than any kink, more than curvature
OFFSET = 0.2  # the smallest that a positive sample draws


@dataclass(frozen=True)
class Call:
    """An op on earlier values, by their numbers. An op with several results takes several numbers."""

    op: str
    operands: tuple[Operand, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        given = [repr(o) for o in self.operands] + [f"{k}={v!r}" for k, v in self.attributes.items()]
        return f"call({', '.join([repr(self.op), *given])})"


def call(op: str, *operands: Operand, **attributes: Any) -> Call:
    return Call(op, operands, attributes)


@dataclass(frozen=True)
class Program:
    """A loss as data: leaves and calls, whose results are numbered from 0; the seed draws the leaves' values.

    Every float that no call uses is contracted with random numbers of its own, and the loss is the sum.
    """

    seed: int
    lines: tuple[Draw | Call, ...]

    def __repr__(self) -> str:
        return f"Program({self.seed}, (\n" + "".join(f"    {_line(line)},\n" for line in self.lines) + "))"

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(line for line in self.lines if isinstance(line, Call))

    @property
    def op_names(self) -> tuple[str, ...]:
        """The ops called, in order, repeats included."""
        return tuple(c.op for c in self.calls)

    @property
    def uses(self) -> list[int]:
        """The numbers of the values that calls use, repeats included."""
        return [o for c in self.calls for o in c.operands if type(o) is int]

    def problem(self, name: str = "program") -> Problem:
        """The loss, differentiated by every floating leaf."""
        leaves, sinks = _leaves(self), _sinks(self)
        rng = np.random.default_rng([self.seed, len(self.lines)])
        cotangents = {f"c{n}": rng.standard_normal(spec.size) / math.sqrt(spec.size) for n, spec in sinks.items()}
        params = {path: a for path, a in leaves.items() if a.dtype.kind == "f"}
        data = {path: a for path, a in leaves.items() if path not in params}
        return Problem(name, functools.partial(_loss, self, tuple(sinks)), params, {**data, **cotangents})


def _line(line: Draw | Call) -> str:
    if isinstance(line, Call):
        return repr(line)
    given = [*map(str, line.shape)]
    given += [f"scale={line.scale}"] if line.scale != 1.0 else []
    given += [f"high={line.high}"] if line.kind == "labels" else []
    return f"{line.kind}({', '.join(given)})"


def _leaves(program: Program) -> dict[str, Array]:
    """The leaves by path: `v3` is value 3."""
    leaves: dict[str, Array] = {}
    for number, line in _numbered(program.lines):
        if isinstance(line, Draw):
            leaves[f"v{number}"] = _values(program.seed, number, line)
    return leaves


def _values(seed: int, number: int, leaf: Draw) -> Array:
    return np.asarray(leaf.array(np.random.default_rng([seed, number])))


def _numbered(lines: Sequence[Draw | Call]) -> Iterator[tuple[int, Draw | Call]]:
    """Each line with the number of its first result."""
    number = 0
    for line in lines:
        yield number, line
        number += 1 if isinstance(line, Draw) else len(_first_results(OPS[line.op]))


def _sinks(program: Program) -> dict[int, Spec]:
    """The floats that nothing uses, by number."""
    specs: list[Spec] = []
    for line in program.lines:
        specs += [_spec(line)] if isinstance(line, Draw) else _results_of(line, specs)
    used = set(program.uses)
    return {n: s for n, s in enumerate(specs) if n not in used and s.dtype == FLOAT}


def _loss(program: Program, sinks: Sequence[int], params: Any, batch: Any) -> Value:
    leaves = {**params, **batch}
    values: list[Value] = []
    for number, line in _numbered(program.lines):
        if isinstance(line, Draw):
            values.append(leaves[f"v{number}"])
            continue
        operands = [values[o] if type(o) is int else o for o in line.operands]
        result = getattr(ops, line.op)(*_together(line, operands), **line.attributes)
        values += result if isinstance(result, tuple) else (result,)
    terms = [ops.matmul(values[n].reshape(-1), batch[f"c{n}"]) for n in sinks]
    return functools.reduce(ops.add, terms)


def _together(line: Call, operands: list[Any]) -> list[Any]:
    return [operands] if OPS[line.op].variadic else operands


def _spec(draw: Draw) -> Spec:
    return Spec(draw.shape, {"labels": "int", "boolean": BOOL}.get(draw.kind, FLOAT))


def _specs(draws: Sequence[Draw | None]) -> list[Spec | None]:
    return [None if d is None else _spec(d) for d in draws]


def _results(op: Op, specs: Sequence[Spec | None], attributes: Mapping[str, Any]) -> tuple[Spec, ...]:
    """What the op gives for these operands. Raises GradwitnessError if it does not take them."""
    given = [*specs, *[None] * (len(op.operand_names) - len(specs))]
    result = op.rule(*given, **op.attributes(given, attributes))
    return result if isinstance(result, tuple) else (result,)


def _first_results(op: Op) -> tuple[Spec, ...]:
    """What it gives at its first sample."""
    return _results(op, _specs(op.samples[0].operands), op.samples[0].attributes)


def _results_of(line: Call, specs: Sequence[Spec]) -> tuple[Spec, ...]:
    operands = [specs[o] if type(o) is int else None if o is None else Spec(()) for o in line.operands]
    return _results(OPS[line.op], operands, line.attributes)


def _takes(op: Op, specs: Sequence[Spec | None], attributes: Mapping[str, Any]) -> bool:
    try:
        return all(0 < r.size <= LARGEST for r in _results(op, specs, attributes))
    except GradwitnessError:
        return False


# What Hypothesis draws: choices that mean something whatever came before, so that any of them may be left out.


FLOATING = [name for name, op in OPS.items() if _first_results(op)[0].dtype == FLOAT]
COMPARISONS = [name for name, op in OPS.items() if _first_results(op)[0].dtype == BOOL]


@dataclass(frozen=True)
class Choice:
    """One op to add: at which sample, with the attributes of which (0: its own), on what.

    picks: for each operand, 0 for a new leaf or how far back among the earlier values.
    """

    op: Op
    sample: int
    attributes: int
    axis: int
    flips: int
    picks: tuple[int, ...]


@st.composite
def _choices(draw: st.DrawFn) -> Choice:
    op = OPS[draw(st.sampled_from(FLOATING))]
    sample = draw(st.integers(0, len(op.samples) - 1))
    attributes = draw(st.integers(0, len(op.samples) - 1)) if op.samples[sample].attributes else 0
    axis = draw(st.integers(-3, 2)) if attributes else 0
    flips = draw(st.integers(0, 3)) if attributes else 0
    picks = tuple(draw(st.integers(0, RECENT)) for _ in op.samples[sample].operands)
    return Choice(op, sample, attributes, axis, flips, picks)


def programs(*, largest: int = 8) -> st.SearchStrategy[Program]:
    """Programs of up to `largest` ops, and of what adapts their operands."""
    # not lists(), most of which are short
    choices = st.integers(1, largest).flatmap(lambda n: st.lists(_choices(), min_size=n, max_size=n))
    return st.builds(_program, st.integers(0, 2**16), choices).filter(lambda p: bool(_leaves_to_differentiate(p)))


def _leaves_to_differentiate(program: Program) -> list[Draw]:
    return [line for line in program.lines if isinstance(line, Draw) and line.kind in ("real", "positive")]


def _program(seed: int, choices: Sequence[Choice]) -> Program:
    builder = _Builder(seed)
    for choice in choices:
        if not builder.add(choice):
            builder.add(replace(choice, attributes=0, picks=(0,) * len(choice.picks)))
    return Program(seed, tuple(builder.lines))


class _Refused(Exception):
    """A call that has no derivative where it stands, or that has grown too large."""


class _Builder:
    """Adds one op after another to a program, whose values it computes, and leaves out what cannot be added."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.lines: list[Draw | Call] = []
        self.values: list[Array] = []
        self.floats: list[int] = []  # the numbers of the values that an operand may be
        self.truths: list[int] = []

    def add(self, choice: Choice) -> bool:
        """Whether the op could be added; the program is as it was if not."""
        kept = len(self.lines), len(self.values), len(self.floats), len(self.truths)
        try:
            operands, attributes = self._operands(choice)
            self.floats += [self._scaled(n) for n in self._call(choice.op.name, *operands, **attributes)]
        except _Refused:
            for grown, size in zip((self.lines, self.values, self.floats, self.truths), kept, strict=True):
                del grown[size:]
            return False
        return True

    def _leaf(self, leaf: Draw) -> int:
        if math.prod(leaf.shape) > LARGEST:
            raise _Refused
        self.lines.append(leaf)
        self.values.append(_values(self.seed, len(self.values), leaf))
        number = len(self.values) - 1
        if leaf.kind in ("real", "positive"):
            self.floats.append(number)
        return number

    def _call(self, op: str, *operands: Operand, **attributes: Any) -> list[int]:
        line = Call(op, operands, attributes)
        results = _results_of(line, [spec_of(v) for v in self.values])
        arrays = [self.values[o] if type(o) is int else o for o in operands]
        outputs = _smooth(OPS[op], arrays, attributes)
        if any(r.size > LARGEST for r in results):
            raise _Refused
        self.lines.append(line)
        self.values += outputs
        return list(range(len(self.values) - len(outputs), len(self.values)))

    def _one(self, op: str, *operands: Operand, **attributes: Any) -> int:
        (number,) = self._call(op, *operands, **attributes)
        return number

    def _operands(self, choice: Choice) -> tuple[list[Operand], Mapping[str, Any]]:
        op, draws = choice.op, list(choice.op.samples[choice.sample].operands)
        attributes = _attributes(choice)
        picked: list[int | None] = [None] * len(draws)
        for i, (draw, back) in enumerate(zip(draws, choice.picks, strict=True)):
            if draw is None or not back or draw.kind == "labels":
                continue
            if draw.kind == "boolean":
                picked[i] = self._truth(op, draws, i, attributes, back)
            elif self.floats:
                draws, picked[i] = self._pick(op, draws, i, attributes, back, first=all(n is None for n in picked))
            if picked[i] is not None:
                draws[i] = replace(draw, shape=self.values[picked[i]].shape)
        numbers: list[Operand] = []
        for draw, number in zip(draws, picked, strict=True):
            if draw is None:
                numbers.append(None)
            elif number is None:
                numbers.append(self._leaf(draw))
            else:
                numbers.append(self._positive(number) if draw.kind == "positive" else number)
        return numbers, attributes

    def _pick(
        self, op: Op, draws: list[Draw | None], i: int, attributes: Mapping[str, Any], back: int, *, first: bool
    ) -> tuple[list[Draw | None], int | None]:
        """An earlier value for operand i, and the draws that go with it; None where a new leaf must do.

        Of the recent ones, from `back` on, the first that the op takes; adapted if it takes none, once in a call.
        """
        recent = self.floats[: -RECENT - 1 : -1]
        start = (back - 1) % len(recent)
        for earlier in recent[start:] + recent[:start]:
            fitting = self._fitting(op, draws, i, attributes, self.values[earlier].shape, first=first)
            if fitting is not None:
                return fitting, earlier
        draw = draws[i]
        assert draw is not None
        return draws, self._adapted(recent[start], draw.shape) if first else None

    def _fitting(
        self, op: Op, draws: list[Draw | None], i: int, attributes: Mapping[str, Any], shape: tuple[int, ...],
        *, first: bool,
    ) -> list[Draw | None] | None:
        """The draws, perhaps of other extents, with which the op takes a value of this shape as operand i."""
        draw = draws[i]
        assert draw is not None
        if shape == draw.shape:
            return draws
        resized = _resized(draws, i, shape) if first else None
        if resized is not None and _takes(op, _specs(resized), attributes):
            return resized
        as_it_is = [*draws[:i], replace(draw, shape=shape), *draws[i + 1 :]]
        return as_it_is if not _has_labels(draws) and _takes(op, _specs(as_it_is), attributes) else None

    def _adapted(self, number: int, shape: tuple[int, ...]) -> int:
        """A value of that shape: as many elements of this one as it takes, repeated if they are too few."""
        size, wanted = self.values[number].size, math.prod(shape)
        if size != wanted:
            if size < wanted:
                flat = self._one("reshape", number, shape=(size,))
                number = self._one("broadcast_to", flat, shape=(-(-wanted // size), size))
            if self.values[number].ndim != 1:
                number = self._one("reshape", number, shape=(-1,))
            if self.values[number].size != wanted:
                number = self._one("index", number, key=slice(0, wanted))
        return number if self.values[number].shape == shape else self._one("reshape", number, shape=shape)

    def _truth(
        self, op: Op, draws: list[Draw | None], i: int, attributes: Mapping[str, Any], back: int
    ) -> int | None:
        """A mask: an earlier one, or an earlier value compared with a new leaf."""

        def fits(number: int) -> bool:
            return _takes(op, _specs([*draws[:i], boolean(*self.values[number].shape), *draws[i + 1 :]]), attributes)

        masks = [n for n in self.truths if fits(n)]
        if masks and back % 2 == 0:
            return masks[-1]
        fitting = [n for n in self.floats[-RECENT:] if fits(n)]
        if not fitting:
            return None
        number = fitting[-1 - back % len(fitting)]
        other = self._leaf(real(*self.values[number].shape))
        self.truths.append(self._one(COMPARISONS[back % len(COMPARISONS)], number, other))
        return self.truths[-1]

    def _positive(self, number: int) -> int:
        return number if np.all(self.values[number] > OFFSET) else self._one("add", self._one("softplus", number), OFFSET)

    def _scaled(self, number: int) -> int:
        """The value, or, where its size has drifted, its product with a power of two."""
        value = self.values[number]
        typical = float(np.sqrt(np.mean(value * value)))
        if typical == 0 or 1 / 16 <= typical <= 4:
            return number
        return self._one("multiply", number, 2.0 ** -round(math.log2(typical)))


def _attributes(choice: Choice) -> Mapping[str, Any]:
    """Those of the sample, or of another one with an axis and truths of their own, if the op takes them."""
    op, sample = choice.op, choice.op.samples[choice.sample]
    other: Sample = op.samples[(choice.sample + choice.attributes) % len(op.samples)]
    changed = dict(other.attributes)
    for position, name in enumerate(op.attributes(_specs(other.operands), other.attributes)):
        value = changed.get(name, op.signature.parameters[name].default)
        if isinstance(value, bool):
            changed[name] = value ^ bool(choice.flips >> position % 2 & 1)
        elif name == "axis" and isinstance(value, int):
            changed[name] = choice.axis
    usable = choice.attributes and _takes(op, _specs(sample.operands), changed)
    return changed if usable else sample.attributes


def _has_labels(draws: Sequence[Draw | None]) -> bool:
    return any(d is not None and d.kind == "labels" for d in draws)


def _resized(draws: Sequence[Draw | None], i: int, shape: tuple[int, ...]) -> list[Draw | None] | None:
    """The draws with operand i in that shape, and every equal extent elsewhere changed alike; None if that cannot be."""
    old = draws[i]
    assert old is not None
    if len(old.shape) != len(shape):
        return None
    extents = dict(zip(old.shape, shape, strict=True))
    if tuple(extents[n] for n in old.shape) != shape:
        return None

    def change(draw: Draw) -> Draw:
        return replace(draw, shape=tuple(extents.get(n, n) for n in draw.shape), high=extents.get(draw.high, draw.high))

    return [None if d is None else change(d) for d in draws]


def _smooth(op: Op, operands: Sequence[Any], attributes: Mapping[str, Any]) -> list[Array]:
    """The op's results. Raises _Refused unless it is smooth and not too steep around its operands."""
    filled = op.attributes([None if o is None else spec_of(o) for o in operands], attributes)
    operands = [*operands, *[None] * (len(op.operand_names) - len(operands))]

    def run(t: float, directions: Sequence[Any]) -> list[Array]:
        moved = [o if d is None else o + t * d for o, d in zip(operands, directions, strict=True)]
        try:
            result, _ = RULES[op.name].run(moved, filled)
        except IndexError:  # labels drawn for more classes than there are along this axis
            raise _Refused from None
        return [np.asarray(r) for r in (result if isinstance(result, (tuple, list)) else (result,))]

    rng = np.random.default_rng(0)
    still: list[Any] = [None] * len(operands)
    with np.errstate(all="ignore"):
        here = run(0.0, still)
        for _ in range(3):
            directions = [_direction(o, rng) for o in operands]
            for up, middle, down in zip(run(NEAR, directions), here, run(-NEAR, directions), strict=True):
                if not _is_smooth(up, middle, down) or not (np.any(up) or np.any(middle)):
                    raise _Refused
    return here


def _direction(operand: Any, rng: np.random.Generator) -> Any:
    if not isinstance(operand, np.ndarray) or operand.dtype.kind != "f":
        return None
    typical = float(np.sqrt(np.mean(operand * operand))) or 1.0
    return typical * rng.standard_normal(operand.shape)


def _is_smooth(up: Array, middle: Array, down: Array) -> bool:
    if middle.dtype.kind == "b":
        return bool(np.all((up == middle) & (middle == down)))
    size = 1.0 + np.abs(middle)
    slope, bend = np.abs(up - down) / (2 * NEAR), np.abs(up - 2 * middle + down) / NEAR
    return bool(np.all(slope <= STEEPEST * size) and np.all(bend <= BENT * size))
