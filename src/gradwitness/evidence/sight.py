"""What numerical derivatives see of a gradient: every element, along few directions.

Elements of all leaves are grouped by the decade of their share (`groups`), as the gradient on trial has it, and each
group is differenced along Gaussian directions of its own. So large elements, of their own leaf or of another, do not
drown small ones. What is claimed to be zero is a group too, whose derivative must vanish, and an element that is
claimed in the wrong decade stands out in the one where it is.

A group that is refuted, or seen too coarsely, is taken apart: by leaf, then by halves (Dorfman, "The detection of
defective members of large populations", Ann. Math. Statist. 14 (1943)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.evidence.finite_difference import (
    BENT,
    EXTRAPOLATED,
    LADDER,
    SIGMAS,
    START,
    UNIT_ROUNDOFF,
    Differencing,
    Line,
    Probe,
    Slope,
)
from gradwitness.evidence.groups import (
    BY_ELEMENT,
    BY_NORM,
    DECADES,
    FEW,
    NEGLIGIBLE,
    PROMISED,
    Group,
    Part,
    Seen,
    by_decade,
    largest_of,
)
from gradwitness.evidence.norms import norm, typical

__all__ = ["Refutation", "Sight", "Slack", "look"]

Slack = Callable[[Mapping[str, tuple[Array, Array]]], tuple[float, float]]

DIRECTIONS = 3  # of each group
OWN = 0.1  # an element that is so much smaller than its leaf is also moved by its own scale
BEYOND_CHECKS = 1e-8  # and one that is so small has structure that no check at the leaf's scale could see
NOTHING = 1e-10  # of the last place of the loss: a derivative that moves it by less is none
APART = 32  # elements that are taken apart to the last
CLEAR = 1e3  # bounds that a jump between one-sided derivatives exceeds, where it is said
TOGETHER = "differences refute it together with other leaves, and none of them alone"
BEST = SIGMAS * EXTRAPOLATED / LADDER[0]  # roundings of the loss, the least that any step leaves of them
SPARE = 3000  # values of the loss that may be spent on taking groups apart


@dataclass(frozen=True)
class Refutation:
    """A derivative that a gradient does not have: `claim` is what the gradient says in its place."""

    probe: Probe
    claim: float


@dataclass(frozen=True)
class Sight:
    """What differences have seen of one leaf's gradient of `size` elements.

    refuted: what they say against it. seen: how many elements of it would have shown an error as large as themselves,
    each alone. unseen: how many belong to a group of which less than PROMISED was seen; doubt: why, at: the largest of
    them, by its flat index. limit: an error by norm that would have been seen; limit_element: of one element. faint:
    all of it lies below NEGLIGIBLE, and no more is known than that. still: nothing that was moved in this problem has
    moved the loss. probes: by single coordinates, for the reader.
    """

    size: int
    refuted: Refutation | None = None
    seen: int = 0
    unseen: int = 0
    doubt: str = ""
    at: int | None = None
    limit: float = math.inf
    limit_element: float = math.inf
    faint: bool = False
    still: bool = False
    probes: tuple[Probe, ...] = ()

    def with_probes(self, probes: Sequence[Probe]) -> Sight:
        """The same with further derivatives for the reader."""
        return replace(self, probes=(*self.probes, *probes))

    def refuted_by(self, probe: Probe, gradient: Array, slack: float) -> Sight:
        """The same, refuted if this derivative is not the gradient's within its bound and `slack`."""
        claim = probe.of(gradient)
        if self.refuted is not None or abs(claim - probe.value) <= probe.bound + slack:
            return self
        return replace(self, refuted=Refutation(probe, claim))


def look(
    differencing: Differencing, gradients: Mapping[str, Array], slack: Slack, *, seed: Sequence[int], spare: int = SPARE
) -> dict[str, Sight]:
    """What is seen of each gradient by path, finite, in float64. Elements that are NaN are left out.

    slack: of elements of leaves, moved together by so much each, (what rounding in the gradient may add to their
    derivative, what it surely cannot exceed); asked for only where a difference does not agree.
    """
    return _Look(differencing, gradients, slack, tuple(seed), spare).sights()


@dataclass
class _Look:
    """One look at all gradients: groups are examined one after another, and what was seen of them is kept."""

    differencing: Differencing
    gradients: Mapping[str, Array]
    slack: Slack
    seed: tuple[int, ...]
    spare: int
    found: list[Seen] = field(default_factory=list)
    scale: float = 0.0  # the largest share, as far as it is known
    start: int = START  # the step at which the last group was seen best
    refuted: dict[str, Refutation] = field(default_factory=dict)

    def sights(self) -> dict[str, Sight]:
        for group in self._groups():
            self._examine(group)
        if self.scale == 0:  # a stationary point: by how much the loss moves is the measure
            self.scale = max((seen.moves for seen in self.found), default=0.0)
        still = self._is_constant()
        return {path: replace(self._sight(path), still=still) for path in self.gradients}

    def _is_constant(self) -> bool:
        """Whether nothing leads to the loss, as far as differences and the gradients tell.

        Leaves of tiny values are also moved as if they were near 1: their own scale, which is all that the differences
        move them by, may be too small to show anything.
        """
        nothing = NOTHING * math.ulp(self.differencing.loss)
        scales = {path: max(scale, 1.0) for path, scale in self.typical.items()}
        if any(largest_of(g) * scales[path] > nothing for path, g in self.gradients.items()):
            return False
        return all(seen.still for seen in self.found) and self._stands_still(scales)

    def _stands_still(self, scales: Mapping[str, float]) -> bool:
        """Whether the loss has the same value as all leaves move by a step in parts of these scales."""
        rng = np.random.default_rng([*self.seed, len(self.found)])
        primals = self.differencing.primals
        drawn = {path: scales[path] * rng.standard_normal(x.shape) for path, x in primals.items()}
        moved = [{path: x + h * drawn[path] for path, x in primals.items()} for h in (LADDER[START], -LADDER[START])]
        return all(self.differencing.value(leaves) == self.differencing.loss for leaves in moved)

    @cached_property
    def typical(self) -> dict[str, float]:
        return {path: typical(x) for path, x in self.differencing.primals.items()}

    def _groups(self) -> Iterator[Group]:
        """Elements by the decade of their share, the largest first; last those that are claimed to be zero."""
        largest = {path: largest_of(g) * self.typical[path] for path, g in self.gradients.items()}
        top = max(largest.values()) or 1.0
        decades = {path: by_decade(g.reshape(-1), self.typical[path], top) for path, g in self.gradients.items()}
        for decade in range(DECADES + 1):
            parts = {path: np.flatnonzero(d == decade) for path, d in decades.items()}
            parts = {path: x for path, x in parts.items() if x.size}
            if parts:
                yield Group(parts, (decade,))

    def _examine(self, group: Group) -> None:
        """See it, and take it apart where that tells more."""
        seen = self._best(group)
        if self._is_good(seen):
            self._keep(seen)
            return
        if seen.refuted is not None and len(group.parts) == 1:
            self._locate(group, seen)
        elif group.count > 1 and self.spare > 0 and self._take_apart(group):
            if seen.refuted is not None and not self.refuted.keys() & group.parts.keys():
                self._keep(replace(seen, refuted=None, doubt=TOGETHER))
            return
        self._keep(seen)

    def _by_size(self, group: Group) -> Group:
        """The same with the elements of its only leaf in order of their size, so that halves are of one size."""
        if len(group.parts) > 1 or not self._smallest(group) < OWN:
            return group
        ((path, index),) = group.parts.items()
        size = np.abs(self.differencing.primals[path].reshape(-1)[index])
        return replace(group, parts={path: index[np.argsort(size, kind="stable")]})

    def _take_apart(self, group: Group) -> bool:
        """Whether the parts tell more than the whole; of a large group, whether a half of it is seen, or refuted."""
        parts = self._by_size(group).taken_apart()
        if len(group.parts) == 1 and group.count > APART:
            found = [self._best(part) for part in parts]
            good = [self._is_good(seen) for seen in found]
            if not any(good) and all(s.refuted is None for s in found):
                return False
            for part, seen, is_good in zip(parts, found, good, strict=True):
                if is_good:
                    self._keep(seen)
                else:
                    self._examine(part)
            return True
        for part in parts:
            self._examine(part)
        return True

    def _keep(self, seen: Seen) -> None:
        self.found.append(seen)
        if seen.refuted is None and seen.bound <= PROMISED * seen.norm:
            self.scale = max(self.scale, seen.norm)

    def _best(self, group: Group) -> Seen:
        """By the leaves' scale; where that tells too little, by the elements' own."""
        by_leaf = self._seen(group, own=False)
        if self._is_good(by_leaf):
            return by_leaf
        smallest = self._smallest(group)
        if not smallest < OWN or (by_leaf.refuted is not None and smallest >= BEYOND_CHECKS):
            return by_leaf
        by_own = self._seen(group, own=True)
        if by_own.refuted is not None or by_own.sees(self.scale):
            return by_own
        doubt = "at the scale of its leaf differences refute it, at its own they cannot tell"
        return by_leaf if by_leaf.refuted is None else replace(by_leaf, refuted=None, doubt=doubt)

    def _smallest(self, group: Group) -> float:
        """The smallest element that is not 0, as part of what is typical of its leaf."""
        found = 1.0
        for path, index in group.parts.items():
            x = np.abs(self.differencing.primals[path].reshape(-1)[index])
            found = min(found, float(np.min(x[x > 0], initial=math.inf)) / self.typical[path])
        return found

    def _seen(self, group: Group, *, own: bool) -> Seen:
        """What differences of a group show, direction by direction, until one refutes it or cannot tell."""
        seen = Seen({path: self._part(path, index, own) for path, index in group.parts.items()}, own, alone=group.alone)
        for number, v in enumerate(self._directions(group, own)):
            line, claim = self._line(group, v)
            is_checked = number == 0 or group.count <= FEW  # further directions go through the same elements
            slope = self._slope(line, seen, is_checked)
            if not slope.doubt and slope.refutes(claim):
                slope = self._confirmed(line, slope, claim, group, v, checked=is_checked)
            seen = replace(seen, slopes=(*seen.slopes, slope))
            if slope.refutes(claim):
                return replace(seen, refuted=(slope, claim, v))
            if slope.doubt or not math.isfinite(slope.bound):
                return replace(seen, doubt=slope.doubt or "the loss is not finite around it")
        self.start = seen.slopes[0].step
        return replace(seen, parts={path: self._counted(path, group.parts[path], seen) for path in seen.parts})

    def _part(self, path: str, index: Array, own: bool) -> Part:
        return Part.of(index, self._claims(path, index), self._scales(path, index, own), self.typical[path])

    def _counted(self, path: str, index: Array, seen: Seen) -> Part:
        return replace(seen.parts[path], visible=seen.visible(self._shares(path, index, seen.own)))

    def _claims(self, path: str, index: Array) -> Array:
        found: Array = self.gradients[path].reshape(-1)[index]
        return found

    def _shares(self, path: str, index: Array, own: bool) -> Array:
        shares: Array = np.abs(self._claims(path, index) * self._scales(path, index, own))
        return shares

    def _scales(self, path: str, index: Array, own: bool) -> Array:
        """By how much elements are moved: by their own sizes, or by what is typical of their leaf."""
        if not own:
            return np.broadcast_to(self.typical[path], index.size)
        x = np.abs(self.differencing.primals[path].reshape(-1)[index])
        return np.where(x > 0, x, self.typical[path])

    def _directions(self, group: Group, own: bool) -> Iterator[dict[str, Array]]:
        """Gaussian directions; of few elements, one by each. As flat as the leaves that they move."""
        if group.count <= FEW:
            for path, index in group.parts.items():
                for i, scale in zip(index, self._scales(path, index, own), strict=True):
                    v = np.zeros(self.gradients[path].size)
                    v[i] = scale
                    yield {path: v}
            return
        for number in range(DIRECTIONS):
            rng = np.random.default_rng([*self.seed, *group.key, number])
            yield {path: self._drawn(path, index, own, rng) for path, index in group.parts.items()}

    def _drawn(self, path: str, index: Array, own: bool, rng: np.random.Generator) -> Array:
        v = np.zeros(self.gradients[path].size)
        v[index] = rng.standard_normal(index.size) * self._scales(path, index, own)
        return v

    def _line(self, group: Group, v: Mapping[str, Array]) -> tuple[Line, float]:
        """(the loss along this direction, its derivative by the gradient)."""
        primals = self.differencing.primals
        claim, sizes, points = 0.0, list[float](), list[float]()
        for path, direction in v.items():
            index = group.parts[path]
            claims, along_v = self._claims(path, index), direction[index]
            claim += float(np.vdot(claims, along_v))
            sizes.append(norm(claims * along_v))
            points.append(norm(claims * np.where(along_v == 0, 0, primals[path].reshape(-1)[index])))

        def along(t: float) -> float:
            self.spare -= 1
            return self.differencing.value({path: _moved(primals[path], t, v[path]) for path in v})

        line = Line(
            along,
            self.differencing.loss,
            self.differencing.noise,
            UNIT_ROUNDOFF * math.hypot(*points),
            math.hypot(*sizes),
        )
        return line, claim

    def _slope(self, line: Line, seen: Seen, checked: bool) -> Slope:
        enough = self._enough(seen)
        slope = line.slope(self.start, enough)
        checked = (checked or slope.suspect) and math.isfinite(slope.bound)
        return line.checked(slope, enough, self._varies) if checked else slope

    @property
    def _varies(self) -> float:
        """By how much the loss moves at the first of all steps, as far as is known."""
        return self.scale * LADDER[START]

    def _enough(self, seen: Seen) -> float:
        """The bound at which each element is seen, and an error of a millionth of the group.

        Where all of it is negligible: the bound that shows that.
        """
        if seen.largest <= NEGLIGIBLE * self.scale and not seen.alone:
            return NEGLIGIBLE * self.scale / 2
        lowest = min(part.lowest for part in seen.parts.values())
        return min((1.0 if seen.one_by_one else BY_ELEMENT) * lowest / 2, 1e-6 * seen.norm)

    def _confirmed(
        self, line: Line, slope: Slope, claim: float, group: Group, v: Mapping[str, Array], *, checked: bool
    ) -> Slope:
        """The slope, if it refutes the claim beyond what rounding in the gradient does, and at another step too.

        Else the same with a wider bound, or a doubt.
        """
        rounding = 8 * UNIT_ROUNDOFF * line.size  # of the sum that the claim is
        if slope.refutes(claim, rounding):
            slope = slope if checked else line.checked(slope, 0.0, self._varies)
        if not slope.refutes(claim, rounding):
            return replace(slope, bound=slope.bound + rounding)
        slope = line.second(slope, claim)
        if slope.doubt:
            return slope
        explained, certain = self.slack({path: (group.parts[path], v[path][group.parts[path]]) for path in v})
        if not slope.refutes(claim, explained):
            return replace(slope, bound=slope.bound + max(explained, rounding))
        if not slope.refutes(claim, certain):
            return replace(slope, doubt="more than rounding is known to explain, too little to be sure")
        return replace(slope, doubt=BENT) if line.bends_here(abs(claim - slope.value)) else slope

    def _locate(self, group: Group, seen: Seen) -> None:
        """Name an element of a leaf's refuted group that is wrong.

        The suspects move, each up or down and by a size of its own, so that two that were exchanged show as well; the
        half of them that refutes the gradient is halved again.
        """
        ((path, suspects),) = group.parts.items()
        assert seen.refuted is not None
        known = self.refuted.get(path)
        if known is not None and known.probe.index is not None:
            return
        slope, claim, along = seen.refuted
        enough = abs(claim - slope.value) / 20
        rng = np.random.default_rng([*self.seed, 99])
        while suspects.size > 1:
            half, other = np.split(suspects, [suspects.size // 2])
            v = np.zeros(self.gradients[path].size)
            sizes = rng.choice([-1.0, 1.0], half.size) * rng.uniform(0.5, 1.5, half.size)
            v[half] = self._scales(path, half, seen.own) * sizes
            line, said = self._line(Group({path: half}, ()), {path: v})
            is_wrong = line.slope(slope.step, enough).refutes(said, 8 * UNIT_ROUNDOFF * line.size)
            suspects = half if is_wrong else other
        direction = along[path].reshape(self.gradients[path].shape)
        self.refuted[path] = self._at_element(path, int(suspects[0])) or Refutation(
            Probe(slope.value, slope.bound, direction=direction, moved=LADDER[slope.step]), claim
        )

    def _at_element(self, path: str, index: int) -> Refutation | None:
        """The element by itself, if that refutes it."""
        claim = float(self.gradients[path].reshape(-1)[index])
        probes = self.differencing.by_coordinates(path, [index])
        return next((Refutation(p, claim) for p in probes if abs(p.value - claim) > p.bound), None)

    def _sight(self, path: str) -> Sight:
        mine = [seen for seen in self.found if path in seen.parts]
        if not mine:  # all of it is NaN
            return Sight(self.gradients[path].size)
        unseen = [s for s in mine if not self._is_good(s)]
        own, bound = math.hypot(*(seen.parts[path].norm for seen in mine)), max(seen.bound for seen in mine)
        faint, ways = not unseen and bound > PROMISED * BY_NORM * own, [mine]  # in which all of it was looked at
        if faint and path not in self.refuted and (alone := self._alone(path, own, bound)) is not None:
            faint, is_good = False, self._is_good(alone)
            ways, unseen = ([mine, [alone]], []) if is_good else ([[*mine, alone]], [alone])
        counted = min(sum(seen.parts[path].size for seen in unseen), self.gradients[path].size)
        return Sight(
            self.gradients[path].size,
            refuted=self.refuted.get(path),
            seen=max(sum(seen.parts[path].visible for seen in way if seen.refuted is None) for way in ways),
            unseen=counted,
            doubt=next((self._why(path, seen) for seen in unseen), ""),
            at=next((seen.parts[path].at for seen in unseen), None),
            limit=min(max(seen.limit(path, BY_NORM) for seen in way) for way in ways),
            limit_element=min(max(seen.limit(path, BY_ELEMENT) for seen in way) for way in ways),
            faint=faint,
        )

    def _is_good(self, seen: Seen) -> bool:
        return seen.refuted is None and seen.sees(self.scale)

    def _alone(self, path: str, own: float, bound: float) -> Seen | None:
        """A leaf by itself that is too small a part of its groups, which were seen. None if that tells no more.

        own: the norm of its shares; bound: the widest of its groups.
        """
        if BEST * self.differencing.noise > PROMISED * BY_NORM * own:
            return None  # rounding of the loss drowns it at any step
        elements = np.flatnonzero(~np.isnan(self.gradients[path]))
        seen = self._best(group := Group({path: elements}, (DECADES + 1,), alone=True))
        if seen.refuted is not None:
            self._locate(group, seen)
        is_negligible = max(own, bound) <= NEGLIGIBLE * self.scale
        return None if is_negligible and seen.refuted is None and not seen.sees(self.scale) else seen

    def _why(self, path: str, seen: Seen) -> str:
        part, is_single = seen.parts[path], len(seen.parts) == 1 and seen.parts[path].size == 1
        bound, of = (seen.bound / part.scale, f"{part.claim:.3g}") if is_single else (seen.bound, f"{seen.norm:.1g}")
        said = seen.doubt or f"finite differences are too coarse: +- {bound:.1g} of a derivative of {of}"
        return said + (self._sides(path, part.at) if is_single and seen.doubt in ("", BENT) else "")

    def _sides(self, path: str, index: int) -> str:
        """In words the one-sided derivatives at a kink; empty where there is none, as far as they tell."""
        left, right, bound = self.differencing.one_sided(path, index)
        is_kink = abs(right - left) > CLEAR * bound
        said = f"its one-sided derivatives are {left:.3g} and {right:.3g}, a kink that a point beside it avoids"
        return f"; {said}" if is_kink else ""


def _moved(x: Array, t: float, v: Array) -> Array:
    moved = v * t
    moved += x.reshape(-1)
    return moved.reshape(x.shape)
