"""What both sides of a port compute on the way to the loss, held against each other in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwitness.dtypes import Array, find_dtype
from gradwitness.evidence.norms import norm
from gradwitness.evidence.reach import JITTER_REACH
from gradwitness.port.matching import Match
from gradwitness.port.names import read_name

__all__ = ["Compared", "Pairs", "compared", "first_difference", "pair", "rounding_of"]

Values = Mapping[str, Array]
RUNS = 8
LOSS = "loss"
REACH = JITTER_REACH.certain  # beyond so many floors by inputs, rounding is no explanation
# How torch's activations may lie in jax: as they are, channels last, or time and batch exchanged.
AXES: tuple[Callable[[Array], Array], ...] = (
    lambda x: x,
    lambda x: np.moveaxis(x, 1, -1),
    lambda x: np.swapaxes(x, 0, 1),
)


@dataclass(frozen=True)
class Pairs:
    """Names of what both sides show, torch's and jax's, in torch's order: activations, the loss, then statistics.

    lonely: jax's that have no fellow.
    """

    activations: tuple[tuple[str, str], ...]
    statistics: tuple[tuple[str, str], ...]
    lonely: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """One value of torch's against jax's: their distance by norm, relative to torch's, and in floors.

    where: flat place and both values where they differ most. note: why they could not be compared element by element.
    """

    torch: str
    jax: str
    error: float
    ratio: float
    worst: tuple[tuple[int, ...], float, float] | None = None
    note: str = ""

    @property
    def agrees(self) -> bool:
        return self.ratio <= REACH

    def __str__(self) -> str:
        name = self.torch if self.torch == self.jax else f"{self.torch} (jax: {self.jax})"
        if self.note:
            return f"{name}: {self.note}"
        place, ours, theirs = self.worst or ((), 0.0, 0.0)
        at = f" at {list(place)}" if place else ""
        narrow = "; so little may be a computation in float32 on one side" if 0 < self.error < 1e-6 else ""
        return f"{name}: relative error {self.error:.1e}{at}: {ours:.9g} in torch, {theirs:.9g} in jax{narrow}"


def pair(torch: Iterable[str], jax: Iterable[str], matches: Sequence[Match], kinds: Mapping[str, str],
         constants: Iterable[str]) -> Pairs:  # fmt: skip
    """Which values belong together: those of one name, or of layers whose parameters are matched."""
    layers = {match.piece.name.stem: read_name(match.target).stem for match in matches}
    theirs: dict[Any, str] = {(read_name(n, layer=True).stem, None): n for n in jax if n != LOSS}
    theirs |= {((read := read_name(n)).stem, read.role): n for n in jax if n != LOSS and read_name(n).role}
    same, state = {*jax} - {LOSS}, {*constants}
    found: dict[str, str] = {}
    for name in torch:
        layer = name.partition("[")[0] if name not in state else name.rpartition(".")[0]
        read = read_name(name, kinds.get(layer, ""), layer=name not in state)
        stems = (layers.get(read.stem), read.stem, read_name(name, layer=name not in state).stem)
        other = next((theirs[s, read.role] for s in stems if (s, read.role) in theirs), None)
        other = name if name in same else other if "[" not in name else None
        if other is not None and other not in found.values():
            found[name] = other
    pairs = list(found.items())
    lonely = tuple(n for n in jax if n != LOSS and n not in found.values())
    return Pairs(tuple(p for p in pairs if p[0] not in state), tuple(p for p in pairs if p[0] in state), lonely)


def rounding_of(
    run: Callable[[Values, Any], Values], params: Values, batch: Values, dtype: str, seed: int
) -> dict[str, float]:
    """How far rounding of the inputs, by x (1 + u z), moves each value by norm; at least one rounding of it."""
    rng, unit = np.random.default_rng([seed, 7]), find_dtype(dtype).unit_roundoff

    def moved(leaves: Values) -> dict[str, Array]:
        return {
            n: x * (1 + unit * rng.standard_normal(x.shape)) if x.dtype.kind == "f" and np.any(x % 1) else x
            for n, x in leaves.items()
        }

    right = run(params, batch)
    spread = dict.fromkeys(right, 0.0)
    for _ in range(RUNS):
        for name, x in run(moved(params), moved(batch)).items():
            if x.shape == right[name].shape:
                spread[name] += norm(x - right[name]) ** 2 / RUNS
    return {name: float(np.sqrt(spread[name])) + unit * norm(x) for name, x in right.items()}


def compared(pairs: Pairs, torch: Values, jax: Values, floors: Mapping[str, float]) -> list[Compared]:
    """Every pair, and the loss between activations and statistics."""
    order = [*pairs.activations, (LOSS, LOSS), *pairs.statistics]
    return [_one(name, other, torch[name], jax[other], floors.get(name, 0.0)) for name, other in order]


def _one(name: str, other: str, ours: Array, theirs: Array, floor: float) -> Compared:
    views = [view(ours) for view in (AXES if ours.ndim > 2 else AXES[:1])]
    fitting = [view for view in views if view.shape == theirs.shape]
    if not fitting:
        shapes = f"shape {ours.shape} in torch, {theirs.shape} in jax"
        return Compared(name, other, float("inf"), float("inf"), note=shapes)
    nearest = min(fitting, key=lambda view: _distance(view, theirs))
    error = _distance(nearest, theirs)
    with np.errstate(invalid="ignore"):
        at = np.unravel_index(int(np.argmax(np.nan_to_num(np.abs(nearest - theirs), nan=np.inf))), theirs.shape)
    place = tuple(int(i) for i in at)
    worst = place, float(nearest[place]), float(theirs[place])
    ratio = 0.0 if error == 0 else error / floor if floor else float("inf")
    return Compared(name, other, error / (norm(ours) or 1.0), ratio, worst)


def _distance(ours: Array, theirs: Array) -> float:
    """By norm; infinite where one alone, or either, is not a number."""
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return 0.0 if np.array_equal(ours, theirs, equal_nan=True) else float("inf")
    return norm(ours - theirs)


def first_difference(found: Sequence[Compared]) -> int | None:
    """The place of the first value that differs. Activations that differ on the way to equal losses lie otherwise, as
    flattened images may, and mean nothing."""
    loss = next(place for place, one in enumerate(found) if one.torch == LOSS)
    start = loss if found[loss].agrees else 0
    return next((start + place for place, one in enumerate(found[start:]) if not one.agrees), None)
