"""What is wrong with gradients that may be right: each kind a rule, with its threshold, its remedy and its source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gradwitness.diagnosis.flow import Passing
from gradwitness.diagnosis.stages import Stage
from gradwitness.diagnosis.units import FAR, Observed
from gradwitness.dtypes import Array, find_dtype
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.norms import norm
from gradwitness.evidence.reach import node_reach
from gradwitness.findings import Finding, Rule, found

__all__ = ["RULES", "Facts", "findings_of"]

LEAST = 16  # values of a unit, below which being 0 on all of them says little
FEWEST = 3  # stages of which it is said that the gradient vanishes or explodes


@dataclass(frozen=True)
class Facts:
    """What the rules read. passing: the reference's, of each stage. gradients: the reference, by parameter; reached:
    those parameters from which a path leads to the loss. floors: of each gradient, in `dtype` and in float64."""

    stages: Sequence[Stage]
    passing: Sequence[Passing]
    gradients: Mapping[str, Array]
    reached: frozenset[str]
    floors: Mapping[str, Mapping[str, TensorFloor]]
    observed: Observed
    dtype: str

    def rounded(self, path: str, dtype: str) -> float:
        """What rounding in a dtype may reach of a gradient, by norm."""
        floor = self.floors[dtype].get(path)
        return 0.0 if floor is None else node_reach(floor).norm * floor.norm

    def is_rounding(self, path: str, dtype: str) -> bool:
        """Whether nothing of a gradient is beyond that; where something overflows, that is not known."""
        return norm(self.gradients[path]) <= self.rounded(path, dtype) < math.inf


RULES: Mapping[str, Rule] = {
    "not finite": Rule("look at its inputs; gw.watch names the step and the op in a training", "IEEE 754"),
    "vanishing": Rule(
        "try ReLU with He initialisation, residual connections, or normalisation",
        "Glorot & Bengio 2010; Pascanu et al. 2013",
        threshold=1e-3,
    ),
    "exploding": Rule(
        "clip the gradient by its norm, or start from smaller weights", "Pascanu et al. 2013", threshold=1e3
    ),
    "dead units": Rule(
        "try leaky_relu, and a lower learning rate", "Lu et al. 2020, Dying ReLU and initialization", threshold=0.10
    ),
    "saturated units": Rule(
        "start from smaller weights, or normalise what goes in", "Glorot & Bengio 2010", threshold=0.50
    ),
    "exp overflows": Rule("subtract the maximum first, as softmax and logsumexp do", "IEEE 754"),
    "log of zero": Rule("use log_softmax, log1p or an offset that the dtype can hold", "IEEE 754"),
    "log of softmax": Rule("use log_softmax, which loses no small probability", "Blanchard et al. 2021"),
    "underflow in float16": Rule(
        "scale the loss", "Micikevicius et al. 2018, Mixed precision training", threshold=0.01
    ),
    "all rounding": Rule("compute in a wider dtype", "docs/verdict.md, noise floor"),
    "zero but for rounding": Rule(
        "leave it out: what comes after it cancels it, as batch norm does a bias", "docs/verdict.md, noise floor"
    ),
    "not reached": Rule("use it in the loss, or leave it out", "no path leads from it to the loss"),
    "zero everywhere": Rule("look at what it is multiplied by", "its gradient is 0 in every element"),
}


def findings_of(facts: Facts) -> list[Finding]:
    """By every rule, in their order."""
    return [finding for look in LOOKS for finding in look(facts)]


_finding = partial(found, RULES)


def _finite(facts: Facts) -> Iterator[Finding]:
    """Where values, or else cotangents, stop being finite first."""
    both = list(zip(facts.stages, facts.passing, strict=True))
    wrong = next((stage for stage, one in both if not math.isfinite(one.signal)), None)
    if wrong is not None:
        yield _finding("not finite", wrong.name, "what it gives is NaN or infinite, in float64")
        return
    wrong = next((stage for stage, one in reversed(both) if not math.isfinite(one.cotangent)), None)
    if wrong is not None:
        yield _finding("not finite", wrong.name, "the derivative by what it gives is NaN or infinite, in float64")
        return
    for path, g in facts.gradients.items():
        if not np.all(np.isfinite(g)):
            yield _finding("not finite", path, "its gradient is NaN or infinite, in float64")


def _flow(facts: Facts) -> Iterator[Finding]:
    """Whether the cotangent shrinks or grows from the last stage, of several ends the one of most weight, to the
    first."""
    sizes = [one.cotangent for one in facts.passing]
    if len(sizes) < FEWEST or not all(size > 0 and math.isfinite(size) for size in sizes):
        return
    inner = frozenset[int]().union(*(stage.before for stage in facts.stages))
    end = max((number for number in range(len(sizes)) if number not in inner), key=lambda number: sizes[number])
    first, last, at_first, at_last = facts.stages[0], facts.stages[end], sizes[0], sizes[end]
    if end < FEWEST - 1:
        return
    ratio = at_first / at_last
    each = ratio ** (1 / end)
    said = f"the cotangent is {at_last:.2g} at {last.name} and {at_first:.2g} here: {each:.2g} times at each stage"
    if ratio < RULES["vanishing"].threshold:
        yield _finding("vanishing", first.name, said)
    if ratio > RULES["exploding"].threshold:
        yield _finding("exploding", first.name, said)


def _units(facts: Facts) -> Iterator[Finding]:
    for one in facts.observed.units:
        where = one.layer
        seen = one.op == "relu" and one.count and one.values >= LEAST * one.count
        if seen and one.dead > RULES["dead units"].threshold * one.count:
            yield _finding("dead units", where, f"{one.dead} of {one.count} ReLU units are 0 on the whole batch")
        if one.op in FAR and one.far > RULES["saturated units"].threshold * one.values:
            yield _finding(
                "saturated units",
                where,
                f"{one.far / one.values:.0%} of what goes into its {one.op} lies beyond {FAR[one.op]:g} from 0, where "
                "the slope is below 7% of the largest",
            )


def _numbers(facts: Facts) -> Iterator[Finding]:
    for dtype in dict.fromkeys((facts.dtype, "float16")):
        info = find_dtype(dtype)
        for one in facts.observed.numbers:
            place = f" ({one.place})" if one.place else ""
            if one.op == "exp" and one.most > math.log(info.largest):
                yield _finding("exp overflows", one.layer, f"in {dtype}: exp of {one.most:.3g}{place}")
            if one.op == "log" and one.least < info.smallest_subnormal / 2:
                yield _finding("log of zero", one.layer, f"in {dtype}: log of {one.least:.3g}{place}")
    for one in facts.observed.numbers:
        if one.op == "log" and one.after_softmax:
            place = f" ({one.place})" if one.place else ""
            yield _finding("log of softmax", one.layer, f"the smallest probability is {one.least:.3g}{place}")


def _underflow(facts: Facts) -> Iterator[Finding]:
    """Whether a gradient in float16 would lose elements, and which power of two would save them."""
    half = find_dtype("float16")
    least = half.smallest_subnormal / 2  # below which a number becomes 0
    given = [np.abs(g).reshape(-1) for path, g in facts.gradients.items() if not facts.is_rounding(path, facts.dtype)]
    every = np.concatenate([*given, np.zeros(0)])
    alive = every[(every > 0) & np.isfinite(every)]
    lost = float(np.mean(alive < least)) if alive.size else 0.0
    if lost > RULES["underflow in float16"].threshold:
        power = math.floor(math.log2(half.largest / 2 / float(alive.max())))
        saved = float(np.mean(alive * 2.0**power >= least))
        yield _finding(
            "underflow in float16",
            "",
            f"{lost:.0%} of all elements of gradients that are not 0 become 0",
            f"scale the loss by 2**{power}, the most that float16 can hold here, and {saved:.0%} of them stay",
        )


def _parameters(facts: Facts) -> Iterator[Finding]:
    for path, g in facts.gradients.items():
        if path not in facts.reached:
            yield _finding("not reached", path, "the loss does not depend on it")
        elif not np.any(g):
            yield _finding("zero everywhere", path, f"all {g.size} elements of its gradient are 0")
        elif facts.is_rounding(path, "float64"):
            yield _finding("zero but for rounding", path, f"its gradient has a norm of {norm(g):.2g} in float64")
        elif facts.is_rounding(path, facts.dtype):
            reached = facts.rounded(path, facts.dtype)
            said = f"its gradient has a norm of {norm(g):.2g}, and rounding in {facts.dtype} explains {reached:.2g}"
            yield _finding("all rounding", path, said)


LOOKS: Sequence[Callable[[Facts], Iterator[Finding]]] = (_finite, _flow, _units, _numbers, _underflow, _parameters)
