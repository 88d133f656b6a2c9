"""The same fault with less: fewer examples, smaller arrays, simpler values, a shorter graph.

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE Trans. Software Eng.
28 (2002)): whatever can be left out is, as long as the fault is still seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.errors import GradwitnessError
from gradwitness.graph import Graph
from gradwitness.problem import COTANGENT, Problem
from gradwitness.protocol import WRITER
from gradwitness.repro.cut import Smaller, as_graph, ending_sooner, replayed, starting_later
from gradwitness.repro.fault import Fault, Seen, look

__all__ = ["shrunk"]

Move = Callable[[Fault], Iterator[Smaller]]
Axes = Sequence[tuple[str, int]]  # (path, axis)
KEPT = 0.05  # of the error that was there, absolute and relative: so much must last
COARSE = 0.01  # of the error: so much may the bound of the difference be
GRIDS = (1.0, 2.0, 4.0, 8.0, 16.0, 64.0)  # values are rounded to multiples of 1 / these: exact in every dtype


def shrunk(fault: Fault, seconds: float) -> list[Fault]:
    """The fault, and all that came of it, ever smaller, in so many seconds.

    Raises GradwitnessError if it is not even seen as it is.
    """
    shrinking = _Shrinking(fault, time.monotonic() + seconds)
    if fault.candidate.loss is None and not fault.candidate.is_written_by_hand:
        fault = as_graph(shrinking.along((fewer_examples, smaller_arrays), fault))
        shrinking.found.append(fault)
        shrinking.along((ending_sooner, starting_later, smaller_arrays, simpler_values), fault)
    elif hasattr(fault.candidate.loss, WRITER):  # its parameters have the shapes that a module has
        shrinking.along((fewer_examples, simpler_values), fault)
    else:
        shrinking.along((fewer_examples, smaller_arrays, simpler_values), fault)
    return shrinking.found


@dataclass
class _Shrinking:
    """What must last, and until when it is tried."""

    start: Fault
    deadline: float

    def __post_init__(self) -> None:
        self.dtypes, self.found = [self.start.dtype], [self.start]
        self.at_first = look(self.start)
        if not self.at_first.is_wrong:
            raise GradwitnessError(f"{self.start.path}: what was seen is not seen again, so it cannot be exported")
        if self.start.dtype != "float64" and _is_seen(replace(self.start, dtype="float64")):
            self.dtypes.append("float64")  # no rounding explains it: nor may rounding take its place

    def along(self, moves: Sequence[Move], fault: Fault) -> Fault:
        """Each move for as long as it leads on, until none does."""
        before = None
        while before is not fault:
            before = fault
            for move in moves:
                fault = self._repeated(move, fault)
        return fault

    def _repeated(self, move: Move, fault: Fault) -> Fault:
        while (smaller := self._first_that_lasts(move(fault))) is not None:
            fault = smaller
            self.found.append(fault)
        return fault

    def _first_that_lasts(self, tries: Iterator[Smaller]) -> Fault | None:
        for made in tries:
            if time.monotonic() > self.deadline:
                break
            with suppress(Exception):  # functions may raise anything on what they were not written for
                smaller = made()
                if self._lasts(smaller):
                    return smaller
        return None

    def _lasts(self, fault: Fault) -> bool:
        return all(self._is_same(look(replace(fault, dtype=dtype))) for dtype in self.dtypes)

    def _is_same(self, seen: Seen) -> bool:
        first = self.at_first
        if not seen.is_wrong or seen.kind != first.kind:
            return False
        if not math.isfinite(first.error):
            return True
        smooth = seen.bound <= COARSE * seen.error  # beside a kink a convention may take the fault's place
        large = seen.error >= KEPT * min(first.error, 1.0) and seen.relative_error >= KEPT * first.relative_error
        return smooth and large


def _is_seen(fault: Fault) -> bool:
    try:
        return look(fault).is_wrong
    except Exception:  # noqa: BLE001  # one that does not run in float64 has no difference there either
        return False


def fewer_examples(fault: Fault) -> Iterator[Smaller]:
    """Without some of the rows that most leaves of the batch have in common."""
    problem = fault.problem
    rows = [p for p in (*problem.leaves_of_batch, COTANGENT) if _extent(problem, p) == problem.examples > 1]
    yield from _without(fault, [(path, 0) for path in rows])


def smaller_arrays(fault: Fault) -> Iterator[Smaller]:
    """Without some of the positions along all axes of one extent, which likely belong together, or along one axis."""
    axes = [(p, axis) for p, leaf in fault.problem.leaves.items() for axis in range(leaf.ndim)]
    extents: dict[int, list[tuple[str, int]]] = {}
    for path, axis in axes:
        extents.setdefault(fault.problem.leaves[path].shape[axis], []).append((path, axis))
    for extent, together in sorted(extents.items(), reverse=True):
        if extent > 1:
            yield from _without(fault, together)
            if len(together) > 1:
                for alone in together:
                    yield from _without(fault, [alone])


def simpler_values(fault: Fault) -> Iterator[Smaller]:
    """With a leaf of ones, of zeros, or rounded."""
    for path, leaf in fault.problem.leaves.items():
        if leaf.dtype.kind != "f":
            yield from _if_simpler(fault, path, np.zeros_like(leaf))
            continue
        for value in (1.0, 0.0):
            yield from _if_simpler(fault, path, np.full_like(leaf, value))
        for grid in GRIDS:
            yield from _if_simpler(fault, path, np.round(leaf * grid) / grid + 0.0)  # no negative zeros


def _if_simpler(fault: Fault, path: str, leaf: Array) -> Iterator[Smaller]:
    if _length(leaf) < _length(fault.problem.leaves[path]):
        yield lambda: replace(fault, problem=fault.problem.at({path: leaf}))


def _length(leaf: Array) -> int:
    """Of what is written of it: a single value is written once."""
    values = leaf.reshape(-1).tolist()
    return sum(len(repr(x)) for x in values) if len(set(values)) > 1 else len(repr(values[0]))


def _extent(problem: Problem, path: str) -> int:
    leaf = problem.leaves.get(path)
    return 0 if leaf is None or not leaf.ndim else len(leaf)


def _without(fault: Fault, axes: Axes) -> Iterator[Smaller]:
    """The fault with ever fewer positions left out along these axes of one extent, but for its own."""
    if not axes:
        return
    extent = fault.problem.leaves[axes[0][0]].shape[axes[0][1]]
    own = {fault.index[axis] for path, axis in axes if path == fault.path}
    chunk = extent - 1
    while chunk:
        for start in range(0, extent, chunk):
            kept = [i for i in range(extent) if i in own or not start <= i < start + chunk]
            if 0 < len(kept) < extent:
                yield partial(_taking, fault, axes, kept)
        chunk //= 2


def _taking(fault: Fault, axes: Axes, kept: Sequence[int]) -> Fault:
    leaves, index = dict(fault.problem.leaves), list(fault.index)
    for path, axis in axes:
        leaves[path] = np.take(leaves[path], kept, axis)
        if path == fault.path:
            index[axis] = kept.index(index[axis])
    return _resized(replace(fault, index=tuple(index)), leaves)


def _resized(fault: Fault, leaves: Mapping[str, Array]) -> Fault:
    candidate = fault.candidate
    if isinstance(candidate.loss, Graph):
        candidate = replace(candidate, loss=replayed(candidate.loss, leaves)[0])
    return replace(fault, candidate=candidate, problem=fault.problem.resized(leaves))
