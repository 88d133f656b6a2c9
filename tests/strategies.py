"""Random graphs for Hypothesis: small programs made of the whole vocabulary.

Nothing here knows an op by name, but for those that adapt a value to an op: what an op takes is read from
its declaration (its samples, its shape rule). An operand is an earlier value, whether used before or not, or a
new leaf. Hypothesis decides which; an earlier value that the op cannot take is adapted (reshape,
index, broadcast_to; softplus + 0.2 where it must be positive), and a result whose size has drifted is scaled.

A gradient is asked for where there is one: `_Builder` runs each op forward, on its operands and beside
them, and refuses a call that has a kink, a jump or a pole right there (relu at exactly 0, the norm of zeros,
a comparison of equals). The derivative rules on trial have no part in that.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from gradwitness.errors import GradwitnessError
from gradwitness.graph import spec_of
from gradwitness.ops import OPS, Op
from gradwitness.ops.samples import Draw
from gradwitness.ops.value import BOOL, FLOAT
from gradwitness_numpy.rules import RULES
from tests.programs import Call, Operand, Program, first_results, leaf_values, real, results, specs_of

__all__ = ["programs"]

Array: TypeAlias = np.ndarray[Any, Any]
Shape: TypeAlias = tuple[int, ...]
Draws: TypeAlias = list[Draw | None]

MIXES = 32  # ways to mix the attributes of an op's samples
RECENT = 8  # how many earlier values an operand may be
LARGEST = 200  # elements of a value
TAME = (1 / 16, 4.0)  # typical sizes of what an operand may be
NEAR = 1e-4  # of a value's size: how far beside its operands an op is tried
STEEPEST = 50.0  # its steepest slope there
BENT = 0.1  # how much of NEAR the second difference may be: less than any kink, more than curvature
WHOLE = ("definite", "dominant", "labels")  # kinds that no other value is made into
OFFSET = 0.2  # the smallest that a positive sample draws

FLOATING = [name for name, op in OPS.items() if first_results(op)[0].dtype == FLOAT]
COMPARISONS = [name for name, op in OPS.items() if first_results(op)[0].dtype == BOOL]


@dataclass(frozen=True)
class Choice:
    """One op to add: at which sample, with which mix of the samples' attributes (0: its own), on what.

    picks: for each operand, 0 for a new leaf or how far back among the earlier values. All of it means something
    whatever came before, so that Hypothesis may leave out any other choice.
    """

    op: Op
    sample: int
    mix: int
    picks: tuple[int, ...]

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Those of the sample; or each from any of the samples or its default, if the op takes them so."""
        sample, mix, mixed = self.op.samples[self.sample], self.mix, {}
        for name, parameter in self.op.signature.parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                seen = [s.attributes.get(name, parameter.default) for s in self.op.samples]
                mix, chosen = divmod(mix, len(seen))
                mixed[name] = seen[(self.sample + chosen) % len(seen)]
        return mixed if self.mix and _takes(self.op, sample.operands, mixed) else sample.attributes


@st.composite
def _choices(draw: st.DrawFn) -> Choice:
    op = OPS[draw(st.sampled_from(FLOATING))]
    sample = draw(st.integers(0, len(op.samples) - 1))
    mix = draw(st.integers(0, MIXES)) if op.samples[sample].attributes else 0
    picks = tuple(draw(st.integers(0, RECENT)) for _ in op.samples[sample].operands)
    return Choice(op, sample, mix, picks)


def programs(*, largest: int = 8) -> st.SearchStrategy[Program]:
    """Programs of one op to `largest`, and what adapts their operands, with something to differentiate by."""
    # not lists(), most of which are short
    choices = st.integers(1, largest).flatmap(lambda n: st.lists(_choices(), min_size=n, max_size=n))
    return st.builds(_program, st.integers(0, 2**16), choices).filter(_has_floating_leaf)


def _has_floating_leaf(program: Program) -> bool:
    return any(isinstance(line, Draw) and line.kind in ("real", "positive") for line in program.lines)


def _program(seed: int, choices: Sequence[Choice]) -> Program:
    builder = _Builder(seed)
    for choice in choices:
        if not builder.add(choice):
            builder.add(replace(choice, mix=0, picks=(0,) * len(choice.picks)))
    return Program(seed, tuple(builder.lines))


class _RefusedError(Exception):
    """A call that has no derivative where it stands, or that has grown too large."""


class _Builder:
    """Adds one op after another to a program, whose values it computes, and leaves out what cannot be added."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.lines: list[Draw | Call] = []
        self.values: list[Array] = []

    def add(self, choice: Choice) -> bool:
        """Whether the op could be added; the program is as it was if not."""
        lines, values = len(self.lines), len(self.values)
        try:
            for number in self._call(choice.op.name, *self._operands(choice), **choice.attributes):
                self._scale(number)
        except _RefusedError:
            del self.lines[lines:], self.values[values:]
            return False
        return True

    def _operands(self, choice: Choice) -> list[Operand]:
        draws: Draws = list(choice.op.samples[choice.sample].operands)
        picked: dict[int, int] = {}
        for i, back in enumerate(choice.picks):
            draw, earlier = draws[i], self._earlier(back)
            if draw is None or draw.kind in WHOLE or not earlier:
                continue
            for number in earlier:
                fitting = _fitting(choice, draws, i, self.values[number].shape, is_first=not picked)
                if fitting:
                    draws, picked[i] = fitting, number
                    break
            else:
                if not picked:  # one operand is adapted; two, and there would be little else
                    picked[i] = earlier[0]
        return [self._operand(draw, picked.get(i)) for i, draw in enumerate(draws)]

    def _earlier(self, back: int) -> list[int]:
        """The latest floats, from the one that far back on; none for 0."""
        recent = [n for n, v in enumerate(self.values) if v.dtype.kind == "f" and _is_tame(v)][: -RECENT - 1 : -1]
        start = (back - 1) % len(recent) if recent else 0
        return recent[start:] + recent[:start] if back else []

    def _operand(self, draw: Draw | None, number: int | None) -> Operand:
        """An earlier value made into what is drawn here, or a new leaf."""
        if draw is None:
            return None
        if number is None:
            return self._leaf(draw)
        number = self._adapted(number, draw.shape)
        if draw.kind == "boolean":
            comparison = COMPARISONS[len(self.lines) % len(COMPARISONS)]
            return self._one(comparison, number, self._leaf(real(*draw.shape)))
        if draw.kind == "positive" and not np.all(self.values[number] > OFFSET):
            return self._one("add", self._one("softplus", number), OFFSET)
        return number

    def _adapted(self, number: int, shape: Shape) -> int:
        """A value of that shape: as many elements of this one as it takes, repeated if they are too few."""
        size, wanted = self.values[number].size, math.prod(shape)
        if self.values[number].shape == shape:
            return number
        if size < wanted:
            flat = self._one("reshape", number, shape=(size,))
            number = self._one("broadcast_to", flat, shape=(-(-wanted // size), size))
        if self.values[number].size > wanted:
            number = self._one("index", self._one("reshape", number, shape=(-1,)), key=slice(0, wanted))
        return self._one("reshape", number, shape=shape)

    def _leaf(self, leaf: Draw) -> int:
        if math.prod(leaf.shape) > LARGEST:
            raise _RefusedError
        self.lines.append(leaf)
        self.values.append(leaf_values(self.seed, len(self.values), leaf))
        return len(self.values) - 1

    def _one(self, op: str, *operands: Operand, **attributes: Any) -> int:
        (number,) = self._call(op, *operands, **attributes)
        return number

    def _call(self, op: str, *operands: Operand, **attributes: Any) -> range:
        line = Call(op, operands, attributes)
        outputs = _smooth(OPS[op], line.of(self.values), attributes)
        self.lines.append(line)
        self.values += outputs
        return range(len(self.values) - len(outputs), len(self.values))

    def _scale(self, number: int) -> None:
        """Its product with a power of two, if it is too large or small to go on with."""
        value = self.values[number]
        if not _is_tame(value):
            self._one("multiply", number, 2.0 ** -round(math.log2(_typical(value))))


def _typical(x: Array) -> float:
    return float(np.sqrt(np.mean(x * x)))


def _is_tame(x: Array) -> bool:
    return not np.any(x) or TAME[0] <= _typical(x) <= TAME[1]


def _takes(op: Op, draws: Sequence[Draw | None], attributes: Mapping[str, Any]) -> bool:
    try:
        return all(0 < r.size <= LARGEST for r in results(op, specs_of(draws), attributes))
    except GradwitnessError:
        return False


def _fitting(choice: Choice, draws: Draws, i: int, shape: Shape, *, is_first: bool) -> Draws | None:
    """The draws, perhaps of other extents, with which the op takes a value of this shape as operand i."""
    draw = draws[i]
    assert draw is not None
    if shape == draw.shape:
        return draws
    resized = _resized(draws, draw.shape, shape) if is_first else None
    if resized and _takes(choice.op, resized, choice.attributes):
        return resized
    if any(d is not None and d.kind == "labels" for d in draws):  # which may not fit another extent
        return None
    as_it_is = [*draws[:i], replace(draw, shape=shape), *draws[i + 1 :]]
    return as_it_is if _takes(choice.op, as_it_is, choice.attributes) else None


def _resized(draws: Draws, old: Shape, new: Shape) -> Draws | None:
    """The draws with one shape, and every extent equal to one of it, changed alike; None if that cannot be."""
    extents = dict(zip(old, new, strict=False))
    if len(old) != len(new) or tuple(extents[n] for n in old) != new:
        return None

    def change(draw: Draw) -> Draw:
        return replace(draw, shape=tuple(extents.get(n, n) for n in draw.shape), high=extents.get(draw.high, draw.high))

    return [None if d is None else change(d) for d in draws]


def _smooth(op: Op, operands: Sequence[Any], attributes: Mapping[str, Any]) -> list[Array]:
    """The op's results. Raises _RefusedError unless it is smooth and not too steep around its operands.

    Nor may a result be 0 whatever moves: a root of the variance of one element has no derivative, though no kink.
    """
    rng = np.random.default_rng(0)
    here = _run(op, operands, attributes)
    for _ in range(3):
        directions = [_direction(o, rng) for o in operands]
        up, down = (_run(op, list(_moved(operands, directions, t)), attributes) for t in (NEAR, -NEAR))
        if not all(map(_is_smooth, up, here, down)):
            raise _RefusedError
    return here


def _run(op: Op, operands: Sequence[Any], attributes: Mapping[str, Any]) -> list[Array]:
    given = [*operands, *[None] * (len(op.operand_names) - len(operands))]
    filled = op.attributes([None if o is None else spec_of(o) for o in given], attributes)
    try:
        with np.errstate(all="ignore"):
            result, _ = RULES[op.name].run(given, filled)
    except IndexError:  # labels drawn for more classes than there are along this axis
        raise _RefusedError from None
    return [np.asarray(r) for r in (result if isinstance(result, (tuple, list)) else (result,))]


def _direction(operand: Any, rng: np.random.Generator) -> Any:
    if not isinstance(operand, np.ndarray) or operand.dtype.kind != "f":
        return None
    return (_typical(operand) or 1.0) * rng.standard_normal(operand.shape)


def _moved(operands: Sequence[Any], directions: Sequence[Any], t: float) -> Iterator[Any]:
    return (o if d is None else o + t * d for o, d in zip(operands, directions, strict=True))


def _is_smooth(up: Array, middle: Array, down: Array) -> bool:
    if middle.dtype.kind == "b":
        return bool(np.all((up == middle) & (middle == down)))
    size = 1.0 + np.abs(middle)
    slope, bend = np.abs(up - down) / (2 * NEAR), np.abs(up - 2 * middle + down) / NEAR
    return bool(np.any(up) and np.all(slope <= STEEPEST * size) and np.all(bend <= BENT * size))
