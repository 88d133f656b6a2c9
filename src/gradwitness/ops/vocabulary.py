"""What an op is, and the table of all of them.

An op is declared by a function that maps the specs of its operands to the spec of its result:

    @op(rounding=ROUNDED, samples=[sample(real(2, 3)), sample(real(4)), sample(real(1, 5, 2))])
    def tanh(x): return x

Positional parameters are operands (arrays), keyword-only ones are static attributes. The decorated
name records the op when a user calls it inside a traced loss. Nothing here computes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, ParamSpec, overload

from gradwitness.errors import GradwitnessError, TraceError, UnknownName
from gradwitness.ops.samples import Sample
from gradwitness.ops.value import Builder, Spec, Value

__all__ = [
    "ADDITION",
    "BALL",
    "CONTRACTION",
    "EXACT",
    "FIRST",
    "GATHER",
    "OPS",
    "REDUCTION",
    "ROUNDED",
    "ROUNDINGS",
    "SHARED",
    "SMOOTH",
    "Bend",
    "Kink",
    "Op",
    "Regions",
    "Rounding",
    "bends",
    "find_op",
    "fused",
    "op",
    "recorder",
    "regions_of",
    "tails",
]


@dataclass(frozen=True)
class Rounding:
    """What floating point does to an elementary op's value and to the cotangents that it sends back.

    exact        copied or selected: no rounding at all
    rounded      one rounding of the result: u |y|
    contraction  a sum of products: u |y| and, for the roundings inside, u sqrt(sum a^2 b^2)
    sum          the same for a plain sum
    """

    value: str
    cotangent: str


EXACT = Rounding("exact", "exact")
ROUNDED = Rounding("rounded", "rounded")
CONTRACTION = Rounding("contraction", "contraction")
ADDITION = Rounding("rounded", "exact")  # copies coming back
REDUCTION = Rounding("sum", "exact")  # sums going forward, copies coming back
GATHER = Rounding("exact", "sum")  # copies going forward, sums coming back
ROUNDINGS = {
    "exact": EXACT,
    "rounded": ROUNDED,
    "contraction": CONTRACTION,
    "addition": ADDITION,
    "reduction": REDUCTION,
    "gather": GATHER,
}


@dataclass(frozen=True)
class Bend:
    """A point at which an elementwise op has two slopes.

    at: the point. left, right: the slopes on its sides. own: the slope that the vocabulary uses there.
    """

    at: float
    left: float
    right: float
    own: float


@dataclass(frozen=True)
class Kink:
    """Where an op has no single derivative, and which local ones it may use there: the convex hull of those nearby.

    bend    elementwise: any slope between that on the left and that on the right of each of `bends(attributes)`
    tie     of the operands that tie for an extremum each has a weight >= 0, and the weights add up to 1;
            `shares`: equally is the vocabulary's own choice, else the first one takes all
    ball    a norm at 0: any vector of the ball whose surface are the gradients nearby; 0 is the vocabulary's own
    smooth  none, though the definition of a fused op takes kinks to compute it

    A fused op with a Kink is looked at as a whole, any other through its definition.
    """

    kind: Literal["bend", "tie", "ball", "smooth"]
    bends: Callable[[Mapping[str, Any]], Sequence[Bend]] = lambda attributes: ()
    shares: bool = True


def bends(where: Callable[..., Sequence[Bend]]) -> Kink:
    """The Kink of an elementwise op. where: a function that returns its Bends for its attributes."""
    return Kink("bend", lambda attributes: where(**attributes))


@dataclass(frozen=True)
class Regions:
    """Where an op is another function, or one of another character: a quantity of each unit, divided at points.

    at: a function that returns these points for the op's attributes. The bends of its kink divide it as well.
    of: a function of operands and attributes that returns the quantity, a number or a boolean for each unit, or None if
    nothing is divided. By default it is the first operand.
    names: the regions in words, from the lowest. By default these are "below -3", "between -3 and 3" and "above 3",
    with `what` before them.

    A fused op with Regions counts as a whole, any other fused op through its definition.
    """

    at: Callable[..., Sequence[float]] = lambda **attributes: ()
    of: Callable[..., Any] = lambda x, *others, **attributes: x
    names: tuple[str, ...] = ()
    what: str = ""


def tails(*points: float) -> Regions:
    """The Regions of an op that saturates, or is nearly linear, beyond these points."""
    return Regions(lambda **attributes: points)


def regions_of(kink: Kink | None, regions: Regions | None) -> Regions | None:
    """What an op declares; where it declares a bend alone, the regions on both sides of it."""
    return Regions() if regions is None and kink is not None and kink.kind == "bend" else regions


SHARED = Kink("tie")
FIRST = Kink("tie", shares=False)
BALL = Kink("ball")
SMOOTH = Kink("smooth")


@dataclass(frozen=True)
class Op:
    """One op of the vocabulary: how it is called, what shape it gives, what rounding does to it, where it has kinks.

    A fused op carries its `definition` in elementary ops; `canonical` rewrites attributes into the
    one form that adapters see (axes as a tuple of non-negative ints, say). An op without `regions` has one.
    `origin`: where a user's own op was defined; empty for those of the vocabulary.
    """

    name: str
    rule: Callable[..., Spec | tuple[Spec, ...]]
    rounding: Rounding | None
    samples: tuple[Sample, ...]
    canonical: Callable[[Spec, dict[str, Any]], dict[str, Any]] | None = None
    broadcasts: bool = False
    definition: Callable[..., Any] | None = field(default=None, compare=False)
    kink: Kink | None = field(default=None, compare=False)
    regions: Regions | None = field(default=None, compare=False)
    origin: str = ""

    def __call__(self, *operands: Any, **attributes: Any) -> Any:
        """Record the op in the trace that one of the operands is of. Raises TraceError if none is of any."""
        arrays = _operands(self, operands, attributes)
        return _builder(self, arrays).apply(self.name, arrays, attributes)

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.rule)

    @functools.cached_property
    def operand_names(self) -> tuple[str, ...]:
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return tuple(p.name for p in self.signature.parameters.values() if p.kind in kinds)

    @functools.cached_property
    def variadic(self) -> bool:
        """Whether the op takes a sequence of arrays (concatenate, stack)."""
        return any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in self.signature.parameters.values())

    @property
    def family(self) -> str:
        """The module that declares it, of the same name in every adapter; "own" for users' own ops."""
        return "own" if self.origin else self.rule.__module__.rpartition(".")[2]

    def name_of_operand(self, position: int) -> str:
        return f"arrays[{position}]" if self.variadic else self.operand_names[position]

    def dividing_points(self, attributes: Mapping[str, Any]) -> tuple[float, ...]:
        """The points between its regions, ascending; none where it has one."""
        bends = () if self.kink is None else self.kink.bends(attributes)
        declared = () if self.regions is None else self.regions.at(**attributes)
        return tuple(sorted({*(bend.at for bend in bends), *declared}))

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.rule) or "").split("\n", maxsplit=1)[0]

    def attributes(self, operands: Sequence[Spec | None], given: Mapping[str, Any]) -> dict[str, Any]:
        """`given` with the defaults filled in, in the one form that adapters see."""
        known = [p for p in self.signature.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
        filled = {p.name: given.get(p.name, p.default) for p in known}
        missing = [name for name, value in filled.items() if value is inspect.Parameter.empty]
        extra = sorted(set(given) - set(filled))
        if missing or extra:
            what = f"needs {', '.join(missing)}=" if missing else f"does not take {', '.join(extra)}="
            raise TraceError(f"{self.name} {what}; its attributes are: {', '.join(filled) or 'none'}")
        first = operands[0]
        return self.canonical(first, filled) if self.canonical and first is not None else filled


OPS: dict[str, Op] = {}

P = ParamSpec("P")


def find_op(name: str) -> Op:
    """The op of that name. Raises UnknownName, listing what there is."""
    try:
        return OPS[name]
    except KeyError:
        raise UnknownName("op", name, OPS) from None


def fused(fact: str) -> frozenset[str]:
    """The names of the fused ops that declare this fact ("kink", "regions"): looked at as a whole for its sake."""
    return frozenset(op.name for op in OPS.values() if op.definition is not None and getattr(op, fact) is not None)


def recorder(declared: Op) -> Callable[..., Any]:
    """The function that users call in a traced loss: the op, with the name and the text of its rule."""

    @functools.wraps(declared.rule)
    def record(*operands: Any, **attributes: Any) -> Any:
        return declared(*operands, **attributes)

    record.__name__ = declared.name
    return record


class _Declaration:
    """Gives the decorated function its callable face: a Value for a Spec, a pair for a pair."""

    def __init__(self, **facts: Any) -> None:
        self.facts = facts

    @overload
    def __call__(self, rule: Callable[P, Spec]) -> Callable[P, Value]: ...
    @overload
    def __call__(self, rule: Callable[P, tuple[Spec, Spec]]) -> Callable[P, tuple[Value, Value]]: ...
    def __call__(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        declared = Op(rule.__name__, rule, **self.facts)
        if declared.name in OPS:
            raise GradwitnessError(f"op {declared.name!r} is declared twice")
        OPS[declared.name] = declared
        return recorder(declared)


def op(
    *,
    rounding: Rounding | None = None,
    samples: Sequence[Sample],
    canonical: Callable[[Spec, dict[str, Any]], dict[str, Any]] | None = None,
    broadcasts: bool = False,
    definition: Callable[..., Any] | None = None,
    kink: Kink | None = None,
    regions: Regions | None = None,
) -> _Declaration:
    """Declare an op: elementary with its `rounding`, or fused with its `definition`.

    kink: where it has no single derivative. regions: where it is another function; one with bends has those
    between them in any case.
    """
    if (rounding is None) == (definition is None):
        raise GradwitnessError("an op has either a rounding (elementary) or a definition (fused)")
    return _Declaration(
        rounding=rounding,
        samples=tuple(samples),
        canonical=canonical,
        broadcasts=broadcasts,
        definition=definition,
        kink=kink,
        regions=regions_of(kink, regions),
    )


def _operands(declared: Op, given: Sequence[Any], attributes: dict[str, Any]) -> list[Any]:
    """Operands in order, those given by keyword included (and taken out of `attributes`)."""
    if declared.variadic:
        return list(given[0] if len(given) == 1 else given)
    names = declared.operand_names
    if len(given) > len(names):
        raise TraceError(f"{declared.name} takes {len(names)} arrays ({', '.join(names)}), got {len(given)}")
    arrays = list(given)
    for name in names[len(given) :]:
        default = declared.signature.parameters[name].default
        value = attributes.pop(name, default)
        if value is inspect.Parameter.empty:
            raise TraceError(f"{declared.name} needs {name}; it takes: {', '.join(names)}")
        arrays.append(value)
    return arrays


def _builder(declared: Op, operands: Sequence[Any]) -> Builder:
    for operand in operands:
        if isinstance(operand, Value):
            return operand.builder
    kinds = ", ".join(type(o).__name__ for o in operands)
    raise TraceError(
        f"ops.{declared.name} got no traced value ({kinds}). The ops describe a loss and compute nothing: "
        f"call them on what trace() or verify() hands to your loss(params, batch)."
    )
