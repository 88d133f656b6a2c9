"""What averages tell of a gradient that rounds to half a percent.

The projection of a gradient g on the true one r, g.r / r.r - 1, has the noise of one element divided by the root of
their number: in bfloat16, where a right gradient of 4,096 elements is 3e-3 off by norm, the projection is 3e-4 off. A
factor of 1.005, which no element shows, is seen so; and a factor in one row by that row's.

How far rounding moves each projection is measured by perturbed runs (`noise_floor`) at several points, and taken from
Student's t with as many degrees of freedom as there were runs (Welch, Biometrika 34 (1947)). Right kernels are biased
as well: by what each number in the loss loses that the dtype cannot hold, and by what a kernel that is known to be
right loses at the same inputs. Both are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gradwitness.arithmetic import Arithmetic
from gradwitness.dtypes import Array, find_dtype, round_to
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.norms import norm
from gradwitness.evidence.own_floors import as_gradient
from gradwitness.evidence.parts import Family, families
from gradwitness.evidence.perturbed_runs import RUNS, PerturbedRuns
from gradwitness.evidence.reach import FALSE_ALARM
from gradwitness.graph import LITERAL, Graph

__all__ = ["EVENLY", "Noise", "Projections", "noise_at", "projections"]

Leaves = Mapping[str, Array]
EVENLY = 3**-0.5  # of a unit of roundoff: an error of at most that, evenly spread; perturbed runs take all of it
ONE_BY_ONE = 8  # numbers that are rounded each for itself; what the others move is taken together
RESOLUTION = 1e-12  # of a projection in float64


@dataclass(frozen=True, eq=False)
class Projections:
    """Of one leaf's gradient, by part of it: how far its projection is from 1, and what rounding explains.

    families: the kinds of parts, one after another in each array. found: the projections less 1. spread, freedom: their
    noise, and of how many runs that is known. bias: what right kernels lose. tiny: elements below the smallest normal
    number of the dtype, which are left out. error, beside: the median error of an element over its noise, of this
    kernel and of the one beside it; NaN where there is none. elements: how many of these there are. coherence: what is
    left without a factor common to all, over the root of its own squares: noise has one of 1.
    """

    families: Sequence[Family]
    found: Array
    spread: Array
    freedom: Array
    bias: Array
    tiny: int
    error: float
    beside: float
    elements: int
    coherence: Array

    @cached_property
    def _shares(self) -> Array:
        """The chance of a false alarm of each, on either side: shared out among the kinds of parts, and within a kind
        among its parts (Bonferroni's inequality)."""
        sizes = [family.size for family in self.families]
        return np.asarray(FALSE_ALARM / (2 * len(sizes) * np.repeat(sizes, sizes)))

    @cached_property
    def reach(self) -> Array:
        """How far from 0 rounding may take each."""
        from scipy.special import stdtrit

        reach: Array = -stdtrit(self.freedom, self._shares) * self.spread + self.bias + RESOLUTION
        return reach

    @property
    def has_pattern(self) -> bool:
        """Whether some part errs as one. The sum of independent errors of either sign is over the root of their squares
        beyond t with a chance of at most exp(-t^2 / 2) (Hoeffding, J. Am. Stat. Assoc. 58 (1963))."""
        return bool(np.any(self.coherence > np.sqrt(-2 * np.log(self._shares))))

    @property
    def ratio(self) -> float:
        """Of the part that stands out most: beyond 1 it is wrong."""
        return float(np.max(np.abs(self.found) / self.reach, initial=0.0))

    @property
    def worst(self) -> int:
        """The number of the part that stands out most: the whole, if it does and no part errs otherwise."""
        ratios = np.abs(self.found) / self.reach
        return 0 if ratios[0] > 1 and not self.has_pattern else int(np.argmax(ratios))

    @property
    def where(self) -> str:
        """Which part that is, in words."""
        number = self.worst
        for family in self.families:
            if number < family.size:
                return family.name(number)
            number -= family.size
        raise IndexError(number)

    @property
    def limit(self) -> float:
        """The smallest constant factor, less 1, by which this gradient would have been caught had it been larger or
        smaller, wherever its own noise has taken it."""
        return float(np.min((self.reach + np.abs(self.found)) / np.maximum(1 - np.abs(self.found), RESOLUTION)))


@dataclass(eq=False)
class Noise:
    """What rounding does to projections on the gradient of one leaf at one place.

    families: the kinds of parts, one after another in each array over parts. scale: what everything is divided by, as
    squares of squares would underflow. sizes: the squares of the gradient, variance: those of what a run moves the
    products with it by, biases: by how much each number that the dtype cannot hold moves them: added up over each part.
    elements: how far a run moves each element. tiny: how many are below the smallest normal number, and left out.
    """

    truth: Array
    families: Sequence[Family]
    scale: float
    weights: Array
    tiny: int
    sizes: Array
    variance: Array
    elements: Array
    biases: list[Array] = field(default_factory=list)

    @classmethod
    def of(cls, leaf: Array, truth: Array, masks: Leaves, scale: float, dtype: str) -> Noise:
        """Before the first run."""
        normal = np.abs(truth) >= find_dtype(dtype).smallest_normal
        tiny = int(np.count_nonzero(~normal & (truth != 0)))
        weights, kinds = np.where(normal, truth / scale, 0.0), families(leaf, truth, masks)
        sizes = np.concatenate([family.sums(weights**2) for family in kinds])
        return cls(truth, kinds, scale, weights, tiny, sizes, np.zeros(sizes.shape), np.zeros(truth.shape))

    def sums(self, x: Array) -> Array:
        """Of products of the true gradient with another array, over each part."""
        products = self.weights * (x / self.scale)
        return np.concatenate([family.sums(products) for family in self.families])

    def add(self, deviation: Array) -> None:
        """One perturbed run."""
        self.variance += self.sums(deviation) ** 2 / RUNS
        self.elements = np.hypot(self.elements, deviation / np.sqrt(RUNS))

    def left(self, gradient: Array) -> Array:
        """The errors of the elements, but for a factor that is common to all."""
        error = gradient - self.truth
        common = float(self.sums(error)[0]) / float(self.sizes[0] or 1.0)
        return np.asarray(error - common * self.truth)

    def errors(self, gradient: Array) -> Array:
        """The same over how far a run moves them."""
        usable = (self.elements > 0) & (self.weights != 0)
        return np.asarray(np.abs(self.left(gradient)[usable]) / self.elements[usable])

    def squares(self, x: Array) -> Array:
        """Of the products that are added up, over each part."""
        products = self.weights * (x / self.scale)
        return np.concatenate([family.sums(products**2) for family in self.families])


def noise_at(
    known: FromGraph, arithmetic: Arithmetic, place: Leaves, *, masks: Leaves, number: int = 0
) -> dict[str, Noise]:
    """Of each leaf whose gradient is finite there. place: leaves that are not the problem's own, the number of which
    decides the perturbations. arithmetic: how the candidate's sums round. masks: arrays of booleans that the loss is
    given, by path."""
    graph, leaves = known.problem.graph.decomposed(), {**known.problem.leaves, **place}
    seed = (known.seed, 14, number)
    runs = PerturbedRuns(known.interpreter, graph, leaves, known.dtype, seed, arithmetic)
    truth, deviations = runs.gradients(known.paths)
    noise = {
        path: Noise.of(leaves[path], g, masks, norm(known.gradients[path].high) or 1.0, known.dtype)
        for path, g in truth.items()
        if np.all(np.isfinite(g))
    }
    for _, moved in deviations:
        for path, one in noise.items():
            one.add(moved[path])
    for moved in _with_rounded_numbers(known, graph, leaves):
        for path, one in noise.items():
            one.biases.append(one.sums(moved[path] - truth[path]))
    return noise


def _with_rounded_numbers(known: FromGraph, graph: Graph, leaves: Leaves) -> Iterator[dict[str, Array]]:
    """The gradients with one number after another of the loss as the dtype holds it."""
    literals = [node.attributes["value"] for node in graph.nodes if node.op == LITERAL]
    numbers = {x: _rounded(x, known.dtype) for x in literals if isinstance(x, float)}
    arrays = {path: round_to(x, known.dtype) for path, x in graph.constants.items() if x.dtype.kind == "f"}
    lost: list[float | str] = [x for x, held in numbers.items() if held != x]
    lost += [path for path, held in arrays.items() if not np.array_equal(held, graph.constants[path])]
    for chosen in _grouped(lost):
        changed = graph.with_literals({x: numbers[x] for x in chosen if isinstance(x, float)})
        held = {path: x for path, x in arrays.items() if path in chosen}
        yield known.interpreter.backward(known.interpreter.forward(changed, {**leaves, **held}), known.paths)


def _grouped(lost: Sequence[float | str]) -> list[Sequence[float | str]]:
    single = [[x] for x in lost[:ONE_BY_ONE]]
    return [*single, *([lost[ONE_BY_ONE:]] if lost[ONE_BY_ONE:] else [])]


def _rounded(x: float, dtype: str) -> float:
    return float(round_to(np.array(x), dtype))


def projections(
    noise: Sequence[Noise], given: Sequence[Array | None], beside: Sequence[Array | None]
) -> Projections | None:
    """Of one leaf's gradient at several places, as if it were one of all their elements. None where nothing is known.

    given: at each place; beside: by a kernel that is known to be right. Neither is used where it is no finite gradient.
    """
    sound = [(n, g, b) for n, g, b in zip(noise, given, beside, strict=True) if _is_sound(g, n.truth.shape)]
    if not sound or not np.any(sizes := _added([n.sizes for n, _, _ in sound])):
        return None
    usable, divisor = sizes > 0, np.where(sizes > 0, sizes, 1.0)
    variance = _added([n.variance for n, _, _ in sound])
    squares = _added([n.variance**2 for n, _, _ in sound]) / RUNS
    scattered = usable & (squares > 0)
    bias = _added([np.abs(_added(parts)) for parts in zip(*(n.biases for n, _, _ in sound), strict=True)])
    right = [(n, as_gradient(b, n.truth.shape)) for n, _, b in sound if _is_sound(b, n.truth.shape)]
    if len(right) == len(sound):
        bias = bias + np.abs(_added([n.sums(b - n.truth) for n, b in right]))
    mine = [(n, as_gradient(g, n.truth.shape)) for n, g, _ in sound]
    left = np.abs(_added([n.sums(n.left(g)) for n, g in mine]))
    squares_left = _added([n.squares(n.left(g)) for n, g in mine])
    return Projections(
        sound[0][0].families,
        np.where(usable, _added([n.sums(g - n.truth) for n, g in mine]) / divisor, 0.0),
        np.where(usable, EVENLY * np.sqrt(variance) / divisor, np.inf),
        np.where(scattered, variance**2 / np.where(scattered, squares, 1.0), RUNS),
        np.where(usable, bias / divisor, 0.0),
        sum(n.tiny for n, _, _ in sound),
        _median([n.errors(g) for n, g in mine]),
        _median([n.errors(b) for n, b in right] if len(right) == len(sound) else []),
        sum(n.truth.size for n, _, _ in sound),
        left / np.sqrt(np.where(squares_left > 0, squares_left, np.inf)),
    )


def _added(parts: Sequence[Array]) -> Array:
    return np.asarray(sum(parts))


def _is_sound(gradient: Array | None, shape: tuple[int, ...]) -> bool:
    return gradient is not None and gradient.shape == shape and bool(np.all(np.isfinite(gradient)))


def _median(values: Sequence[Array]) -> float:
    joined = np.concatenate([np.zeros(0), *values])
    return float(np.median(joined)) if joined.size else np.nan
