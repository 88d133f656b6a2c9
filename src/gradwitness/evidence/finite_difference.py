"""Numerical derivatives along a line, each with a bound on its own error.

Central differences at three halved steps, extrapolated twice (Richardson 1911; Ridders, "Accurate
computation of F'(x) and F'(x) F''(x)", Adv. Eng. Software 4 (1982)). The bound adds what halving the step changed in
the first extrapolation (truncation), the rounding of the loss and of the point over the step, and the jump
between the one-sided derivatives (a kink), extrapolated from second differences, which vanishes where the loss
is smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradwitness.dtypes import Array, find_dtype, round_to
from gradwitness.evidence.computational_noise import noise_along
from gradwitness.evidence.norms import norm, typical

__all__ = [
    "BENT",
    "EXTRAPOLATED",
    "LADDER",
    "SIGMAS",
    "START",
    "UNIT_ROUNDOFF",
    "Differencing",
    "Line",
    "Probe",
    "Slope",
    "textbook_difference",
]

Along = Callable[[float], float]
Seed = Sequence[int]

# Steps in parts of the scale of what is moved. A search begins at START. Where rounding drowns the difference it goes
# on to longer steps; where a kink, a pole or a curve spoils it, to shorter ones.
LADDER = (0.3, 6e-2, 1e-2, 2e-3, 4e-5, 8e-7, 1.6e-8, 3e-10)
START = 3
TRIES = 6  # steps that one search may take
SHORT = (1e-7, 1e-10)  # plain differences at these steps unmask longer ones that skipped structure between them
TINIEST = (1e-11, 1e-12)
TEXTBOOK_STEP = 1e-5
EXTRAPOLATED = 4.1  # by how much the twice extrapolated difference is noisier than one value over its step
SIGMAS = 6.0  # rounding errors of the loss are taken to stay within this many standard deviations
UNIT_ROUNDOFF = 2.0**-53
NOISY = 1e-12  # noise of this part of the loss: longer steps are tried as well
SMALLEST = 2.0**-1022  # where a loss underflows, so much of it may become zero
PRECISE = 1e-8  # a bound below this part of what a derivative is made of needs no other step
DROWNED = 10.0  # roundings: a bound that is no larger may be noise alone, as the jump's has a sigma of two of them
COHERENT = 1e-2  # of a slope: what two steps may differ by, beyond their bounds, where they refute a gradient together
FINER = "below a step of 1e-7 the loss is another function (a staircase? tighten its solver)"
ALMOST = 0.3  # of a slope: what two steps that tell the same may differ by
TREADS = "the loss is a staircase: on its treads it stands still, as the gradient says, and by long steps it climbs"
BENT = "the loss has a kink at this very point, whose sides may cancel along a line"
NOISE = (
    "the loss is as noisy as it is variable; if it is constant by itself, as the sum of a softmax, give its output and "
    'cotangent="random"'
)
COLLAPSED = 1e-3  # of the bound of the step before: too little for the next one's, if that was noise
AMPLIFIED = 10.0  # roundings of a difference: at most so much noise has a jump, from its three steps
CANCELLED = 1e-3  # of what a claim is off by: so little of a jump may be left where those of many units cancel
TREAD = 2 * 2.0**-24  # of a loss: by less a staircase of float32 may stand still
LITTLE = 3e-2  # of what a loss moves by in all: so much of it may be noise
TOOTH = 4.0  # a loss that stands still where it should move by so many units of its last place is a staircase


@dataclass(frozen=True)
class Probe:
    """One numerical derivative.

    It is by coordinate `index` (flat) of a leaf, or along `direction` (the leaf's shape). moved: by how much of either,
    as far as that is known.
    """

    value: float
    bound: float
    index: int | None = None
    direction: Array | None = None
    textbook: float | None = None
    moved: float = math.inf

    def of(self, gradient: Array) -> float:
        """The same derivative according to a gradient of the leaf."""
        if self.direction is not None:
            return float(np.vdot(self.direction, gradient))
        return float(gradient.reshape(-1)[self.index])


@dataclass(frozen=True)
class Slope:
    """A derivative along a line at its origin.

    value: NaN where no step gives one. bound: on its error. step: at which it was taken, its place on the ladder.
    moves: by how much the loss moved there, over the step. still: the loss had the same value wherever it was taken.
    doubt: why it cannot speak for the point itself; empty where it can. suspect: shorter steps contradict it.
    """

    value: float = math.nan
    bound: float = math.inf
    step: int = START
    moves: float = 0.0
    still: bool = False
    doubt: str = ""
    suspect: bool = False

    def contradicts(self, other: Slope) -> bool:
        """Whether these are derivatives of two functions, as far as their bounds can tell."""
        return abs(self.value - other.value) > self.bound + other.bound

    def refutes(self, claim: float, slack: float = 0.0) -> bool:
        """Whether this derivative cannot be `claim`."""
        return not self.doubt and math.isfinite(self.bound) and not abs(claim - self.value) <= self.bound + slack


@dataclass(frozen=True)
class Line:
    """The loss along a direction, by the distance t in parts of a scale; `loss` is its value at 0.

    noise: the standard deviation of its rounding error. point: by how much rounding of the points that it is taken at
    moves it. size: what the derivative is made of, the norm of gradient times direction.
    """

    along: Along
    loss: float
    noise: float
    point: float = 0.0
    size: float = 0.0

    def slope(self, start: int = START, enough: float = 0.0) -> Slope:
        """The derivative with the smallest bound among some steps.

        No further step is tried once the bound is precise, or `enough`. A shorter step that contradicts longer ones
        which agree may be on a tooth of a staircase: then the slope is suspect.
        """
        best, place, tried = Slope(), start, dict[int, Slope]()
        while 0 <= place < len(LADDER) and place not in tried and len(tried) < TRIES:
            found = tried[place] = self._at(place)
            if best.contradicts(found) and place < best.step:
                break  # the longer step is too long
            if best.contradicts(found) or (found.still and not all(s.still for s in tried.values())):
                if (longer := next(self._coherent(tried, place - 1), None)) is not None:
                    return replace(longer, suspect=True)
                best = found
            previous = tried.get(place - 1, found)
            if found.bound < COLLAPSED * previous.bound and self._climbs(previous, tried):
                return replace(found, doubt=FINER)
            best = found if not found.bound >= best.bound else best
            if found.bound <= max(PRECISE * max(self.size, abs(found.value)), enough):
                break
            drowned = found.bound <= DROWNED * self._rounding(LADDER[place], found.value)
            place += -1 if drowned else 1
        return best

    def _climbs(self, previous: Slope, tried: dict[int, Slope]) -> bool:
        """Whether shorter steps have wider bounds, though they tell the same: the noise of a staircase.

        On a tread of it a bound collapses. At a kink bounds narrow, and beside a pole steps contradict each other.
        """
        longest = tried.get(0) or tried.setdefault(0, self._at(0))
        return previous.bound >= 2 * longest.bound and not previous.contradicts(longest)

    def _coherent(self, tried: dict[int, Slope], shortest: int) -> Iterator[Slope]:
        """The better of each two neighbouring steps, none shorter than this, that tell the same slope; shortest first.

        Beside a kink no slope exceeds its bound, and where more and more kinks are crossed it grows with the step.
        """
        for place in range(shortest, 0, -1):
            one, other = (tried.get(p) or tried.setdefault(p, self._at(p)) for p in (place, place - 1))
            told = all(abs(s.value) > s.bound for s in (one, other))
            if told and abs(one.value - other.value) <= ALMOST * abs(other.value):
                yield min(one, other, key=lambda s: s.bound)

    def second(self, first: Slope, claim: float) -> Slope:
        """The first, with a doubt unless another step refutes the claim too, and no other scale sides with it."""
        if self._stands_still(first) and abs(claim) * SHORT[-1] <= math.ulp(self.loss):
            return replace(first, doubt=TREADS)
        if first.still and self._is_on_a_tread(first, claim):
            return replace(first, doubt=FINER)
        if doubt := self._not_repeated(first, claim):
            return replace(first, doubt=doubt)
        if self._is_another_below(first, claim) or self._is_another_above(first, claim):
            return replace(first, doubt=FINER)
        return first

    def bends_here(self, apart: float) -> bool:
        """Whether the slope jumps at the point itself, by anything that matters beside `apart`.

        The bound has the jump along the line. Where thousands of units are at their kinks (ReLUs behind weights of
        zero), their jumps cancel, and what their slopes are off by does not.
        """
        h = AMPLIFIED * self._rounding(1.0, 0.0) / (CANCELLED * apart)
        if h > LADDER[START]:
            return False
        steps = (h, h / 2, h / 4)
        return abs(_jump([(self.along(x) - 2 * self.loss + self.along(-x)) / x for x in steps])) > CANCELLED * apart

    def _not_repeated(self, first: Slope, claim: float) -> str:
        """Why no other step refutes the claim by the same derivative; empty if one does."""
        for place in (first.step + 1, first.step - 1, first.step + 2):
            if not 0 <= place < len(LADDER):
                continue
            found = self._at(place)
            if not math.isfinite(found.bound) or found.bound > abs(claim - first.value):
                continue
            allowed = found.bound + first.bound + COHERENT * max(abs(found.value), abs(first.value))
            if abs(found.value - first.value) <= allowed and found.refutes(claim):
                return ""
            return "differences at two steps do not agree"
        return "differences at one step alone refute it"

    def _is_another_below(self, first: Slope, claim: float) -> bool:
        """Whether shorter steps are nearer to the claim, two of them that are neighbours: it skips a wave.

        Noise grows as a step shrinks. The longest is that at which a bound of noise is twice what is between the two (a
        plain difference is a sixth as noisy as an extrapolated one), the shortest that of rounding in float64, as what
        was measured as noise may be the wave. A loss that stands still tells nothing.
        """
        apart, step = abs(claim - first.value), LADDER[first.step]
        h = step * max(first.bound, self._rounding(step, first.value)) / (2 * apart)
        shortest = max(self._rounded._rounding(1.0, first.value) / (6 * apart), UNIT_ROUNDOFF)
        while h >= shortest:
            if all(x != 0 and abs(x - claim) < apart / 2 for x in (self.plain(h), self.plain(3 * h))):
                return True
            h /= 10
        return False

    def _is_another_above(self, first: Slope, claim: float) -> bool:
        """Whether longer steps, of one accord, contradict it and are nearer to the claim: it climbs a tooth."""
        return any(
            longer.contradicts(first) and abs(longer.value - claim) < abs(longer.value - first.value)
            for longer in self._coherent({}, first.step - 1)
        )

    def _is_on_a_tread(self, first: Slope, claim: float) -> bool:
        """Whether the loss stands still at this step alone.

        Then longer steps move it, or none of them refutes the claim, which is so little that rounding to float32
        somewhere inside would hide it at this step.
        """
        longer = [self._at(place) for place in range(first.step)]
        if any(s.refutes(first.value, first.bound) for s in longer):
            return True

        def is_hidden(s: Slope) -> bool:
            return abs(claim) * LADDER[s.step] < TREAD * abs(self.loss)

        return is_hidden(first) and not any(s.refutes(claim) for s in longer if not (s.still and is_hidden(s)))

    def checked(self, slope: Slope, enough: float = 0.0, varies: float = 0.0) -> Slope:
        """The slope, if very short steps do not contradict it; else with a doubt, or with a wider bound.

        Where the loss stands still, or short steps contradict one another as well, it is a staircase or noise. What it
        moves by between neighbouring points then counts as its noise, and longer steps decide. That noise must be
        little beside what the loss moves by in all (at least `varies`), or a loss that oscillates would pass for noise.
        """
        if all(self._is_near(slope, h, self.plain(h)) for h in SHORT):
            return slope if self._is_quiet(slope, varies) else replace(slope, doubt=NOISE)
        shortest, other = self.plain(SHORT[-1]), self.plain(10 * SHORT[-1])
        rounding = self._rounding(SHORT[-1], shortest)
        is_smooth = abs(shortest - other) <= 2 * rounding + 1e-3 * abs(other)
        if (is_smooth and not self._stands_still(slope)) or self._is_resolved():
            return replace(slope, doubt=FINER)
        noisy = replace(self, noise=max(noise_along(self.along, thorough=True), self.noise))
        found = noisy.slope(slope.step, enough)
        is_explained = all(noisy._is_near(found, h, self.plain(h)) for h in SHORT)
        return found if is_explained and noisy._is_quiet(found, varies) else replace(found, doubt=FINER)

    def _is_resolved(self) -> bool:
        """Whether the tiniest steps tell the same slope, which is not 0: that of a fine wave, where noise has none.

        As far as rounding in float64 lets them: what was measured as noise may be the wave.
        """
        far, near = (self.plain(h) for h in TINIEST)
        rounding = self._rounded._rounding(TINIEST[-1], max(abs(far), abs(near)))
        return abs(near) > 2 * rounding and abs(far - near) <= rounding + 1e-2 * abs(near)

    def _is_quiet(self, slope: Slope, varies: float) -> bool:
        """Whether its noise is little beside what the loss moves by."""
        return slope.still or self.noise <= LITTLE * max(slope.moves * LADDER[slope.step], varies)

    def one_sided(self, side: float) -> tuple[float, float]:
        """(derivative, bound on its error) from the right for side 1, from the left for -1."""
        found = []
        for step in LADDER[START : START + 3] if self.noise <= NOISY * abs(self.loss) else LADDER[: START + 3]:
            h = step * side
            slopes = [(self.along(part) - self.loss) / part for part in (h, h / 2, h / 4)]
            once = 2 * slopes[1] - slopes[0], 2 * slopes[2] - slopes[1]  # the terms in h removed
            bound = abs(once[1] - once[0]) + 2 * self._rounding(step / 4, 0.0)
            found.append(((4 * once[1] - once[0]) / 3, bound if np.isfinite(bound) else np.inf))
        return min(found, key=lambda pair: pair[1])

    def brief(self, h: float) -> Slope:
        """The plain central difference at one step, in two values; what the loss bends by within it is its bound."""
        up, down = self.along(h), self.along(-h)
        value = (up - down) / (2 * h)
        bound = abs(up - 2 * self.loss + down) / h + self._rounding(h, value)
        return Slope(value, bound) if math.isfinite(bound) else Slope()

    def _at(self, place: int) -> Slope:
        """The twice extrapolated central difference at one step of the ladder."""
        h = LADDER[place]
        steps = (h, h / 2, h / 4)
        pairs = [(self.along(h), self.along(-h)) for h in steps]
        slopes = [(up - down) / (2 * h) for (up, down), h in zip(pairs, steps, strict=True)]
        jumps = [(up - 2 * self.loss + down) / h for (up, down), h in zip(pairs, steps, strict=True)]
        once = (4 * slopes[1] - slopes[0]) / 3, (4 * slopes[2] - slopes[1]) / 3
        value = (16 * once[1] - once[0]) / 15
        jump = _jump(jumps)
        # Generous factors: with a kink inside the smallest step, each part sees less than all of it.
        bound = abs(once[1] - once[0]) + 2 * abs(jump) + self._rounding(h, value)
        if not np.isfinite(bound):
            return Slope(step=place)
        far = max(abs(x - self.loss) for pair in pairs for x in pair)
        return Slope(value, bound, place, far / h, still=far == 0)

    @property
    def _rounded(self) -> Line:
        """The same without any noise but that of rounding to float64."""
        return replace(self, noise=UNIT_ROUNDOFF * abs(self.loss))

    def _rounding(self, step: float, value: float) -> float:
        """What rounding may do to the difference (64 D(h/4) - 20 D(h/2) + D(h)) / 45: of the loss, of the points."""
        point = max(self.point, UNIT_ROUNDOFF * abs(value))
        return SIGMAS * EXTRAPOLATED * (max(self.noise, SMALLEST) + point) / step

    def plain(self, h: float) -> float:
        """The plain central difference at a step."""
        return (self.along(h) - self.along(-h)) / (2 * h)

    def _is_near(self, slope: Slope, h: float, plain: float) -> bool:
        """Whether a plain difference at a short step is near the slope, as far as it can tell."""
        rounding = self._rounding(h, max(abs(plain), abs(slope.value)))
        return abs(plain - slope.value) <= slope.bound + rounding + 1e-6 * abs(plain)

    def _stands_still(self, slope: Slope) -> bool:
        """Whether the loss has the same value where it should move by several units of its last place."""
        h = SHORT[-1]
        return self.loss == self.along(h) == self.along(-h) and abs(slope.value) * h > TOOTH * math.ulp(self.loss)


def _jump(bends: Sequence[float]) -> float:
    """The jump of the one-sided derivatives, of second differences over their steps h, h/2 and h/4: they have odd
    powers of h, of which the first and the third are removed."""
    once = 2 * bends[1] - bends[0], 2 * bends[2] - bends[1]
    return (8 * once[1] - once[0]) / 7


def _rounded_to(values: Sequence[float]) -> float:
    """The unit roundoff of the narrower dtype that a loss is rounded to, 0 for none.

    It holds all of these values exactly, and they are not all the same.
    """
    for name in ("bfloat16", "float16"):
        if len(set(values)) > 1 and all(float(round_to(np.array(v), name)) == v for v in values):
            return find_dtype(name).unit_roundoff
    return 0.0


@dataclass(frozen=True)
class Differencing:
    """Takes differences of a loss at one point.

    value: the loss with some leaves replaced, by path; NaN outside of its domain. primals: the leaves (float64). loss:
    the value at the primals; noise: the standard deviation of its rounding error.
    """

    value: Callable[[Mapping[str, Array]], float]
    primals: Mapping[str, Array]
    loss: float
    noise: float

    @classmethod
    def of(
        cls, value: Callable[[Mapping[str, Array]], float], primals: Mapping[str, Array], roundoff: float, seed: Seed
    ) -> Differencing:
        """With the noise measured, as a loss called in float64 may compute in less; at least `roundoff` of the loss.

        Along all leaves at once, moved as leaves, and each element by itself: a kink beside a small one is no noise.
        """
        rng, loss = np.random.default_rng([*seed]), value({})
        drawn = {path: np.asarray(rng.standard_normal(x.shape)) for path, x in primals.items()}
        scales = {path: typical(x) for path, x in primals.items()}

        def by_leaf(t: float) -> float:
            return value({path: x + t * scales[path] * drawn[path] for path, x in primals.items()})

        def by_element(t: float) -> float:
            return value({path: x + t * (drawn[path] * x) for path, x in primals.items()})

        noise = min(map(noise_along, (by_leaf, by_element)))
        moved = [by_leaf(t) for t in (0.1, -0.1)]
        rounding = max(roundoff, _rounded_to([loss, *moved])) * abs(loss)
        return cls(value, primals, loss, max(noise, rounding) if math.isfinite(noise) else rounding)

    def line(self, path: str, v: Array, *, slope_by: Array | None = None) -> Line:
        """The loss along a direction within one leaf, of its shape. slope_by: the gradient, if it is known."""
        x = self.primals[path]
        g = np.zeros(x.shape) if slope_by is None else slope_by
        moved = np.where(v == 0, 0.0, x)
        return Line(
            lambda t: self.value({path: x + t * v}), self.loss, self.noise, UNIT_ROUNDOFF * norm(g * moved), norm(g * v)
        )

    def coordinate(self, path: str, index: int) -> tuple[Array, float]:
        """(the direction of one coordinate (a flat index) within its leaf, its length)."""
        x = self.primals[path]
        v = np.zeros(x.shape)
        v.flat[index] = max(abs(float(x.flat[index])), typical(x))
        return v, float(v.flat[index])

    def by_coordinates(self, path: str, indices: Sequence[int]) -> tuple[Probe, ...]:
        """By single coordinates (flat indices) of a leaf; those without a derivative are left out.

        Each moves by the leaf's scale, or by its own where the leaf's tells nothing.
        """
        probes = [self._by_coordinate(path, index) for index in indices]
        return tuple(p for p in probes if np.isfinite(p.bound))

    def briefly(self, path: str, index: int) -> tuple[Probe, ...]:
        """By one coordinate as the textbook has it, in two values; none where that has no derivative."""
        v, length = self.coordinate(path, index)
        slope = self.line(path, v).brief(TEXTBOOK_STEP / length)
        found = Probe(slope.value / length, slope.bound / length, index, textbook=slope.value / length)
        return (found,) if np.isfinite(found.bound) else ()

    def _by_coordinate(self, path: str, index: int) -> Probe:
        v, length = self.coordinate(path, index)
        line = self.line(path, v)
        slope = line.checked(line.slope())
        own = abs(float(self.primals[path].flat[index]))
        if 0 < own < length and (slope.doubt or not slope.bound <= 1e-2 * abs(slope.value)):
            v, length = v * (own / length), own
            line = self.line(path, v)
            slope = line.checked(line.slope())
        bound = np.inf if slope.doubt else slope.bound / length
        plain = line.plain(TEXTBOOK_STEP / length) / length
        return Probe(slope.value / length, bound, index, textbook=plain, moved=LADDER[slope.step] * length)

    def one_sided(self, path: str, index: int) -> tuple[float, float, float]:
        """(left derivative, right derivative, bound on the error of both) by a coordinate: what a kink is made of."""
        v, length = self.coordinate(path, index)
        (left, left_bound), (right, right_bound) = (self.line(path, v).one_sided(side) for side in (-1.0, 1.0))
        return left / length, right / length, max(left_bound, right_bound) / length

    def one_sided_along(self, path: str, v: Array) -> tuple[float, float]:
        """(derivative, bound on its error) in the direction v of a leaf, from the side that v points to."""
        scale = typical(self.primals[path])
        value, bound = self.line(path, v * scale).one_sided(1.0)
        return value / scale, bound / scale


def textbook_difference(gradients: Mapping[str, Array], probes: Mapping[str, Sequence[Probe]]) -> float | None:
    """||a - n|| / (||a|| + ||n||) over all coordinates differenced at step 1e-5: the textbook rule. None for 0 / 0.

    a is the gradient, n the plain central difference; the rule asks for less than 1e-5.
    """
    analytic, numeric = [], []
    for path, found in probes.items():
        for probe in found:
            if probe.textbook is not None:
                analytic.append(float(gradients[path].reshape(-1)[probe.index]))
                numeric.append(probe.textbook)
    a, n = np.array(analytic), np.array(numeric)
    total = float(np.linalg.norm(a) + np.linalg.norm(n))
    return float(np.linalg.norm(a - n)) / total if total else None
