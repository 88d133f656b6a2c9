"""Kernels that run in few digits only, and are judged by the graph of another candidate: the referee's.

What does not run in float64 cannot be differenced. Its truth is the gradient of the referee's captured loss at the same
rounded inputs, once that graph has proved to be the referee's loss, and the two losses are the same as far as the dtype
tells. Then the gradient is held against the truth as that of any graph, and by averages (`evidence.projections`), at
the point and at its neighbours, with cotangents of their own. What runs in float64 as well has its formula judged
there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from gradwitness import registry
from gradwitness.arithmetic import Arithmetic, Sums
from gradwitness.dtypes import Array, find_dtype, round_to
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.neighbours import Neighbours
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.projections import Noise, Projections, noise_at, projections
from gradwitness.problem import Problem
from gradwitness.run.captured import Capture
from gradwitness.run.own_loss import OwnLoss
from gradwitness.run.trial import Failure, attempt
from gradwitness.run.witness import OfGraph, Witness
from gradwitness.settings import Settings
from gradwitness.verdict import ACCEPTED, Judgement, Verdict
from gradwitness.verdict.by_projection import Beside, judged_by_averages
from gradwitness.verdict.leaf import LeafEvidence

__all__ = ["UnderReferee", "narrow_sums", "places", "under_referee"]

Leaves = Mapping[str, Array]
Gradients = Mapping[str, Array | None]
COARSE = 2.0**-12  # units of roundoff: dtypes in which averages tell more than elements do
NEARBY = 4  # neighbours at which averages are taken as well: the noise of each is its own
SUMMED = ("sum", "matmul", "conv2d")


@dataclass(frozen=True, eq=False)
class _Place:
    """Where gradients were taken, by path: what rounding does to them there, what the kernel gave, and the referee."""

    noise: Mapping[str, Noise]
    given: Gradients
    beside: Gradients


@dataclass(eq=False)
class UnderReferee(OfGraph):
    """A candidate that is judged by the graph of another, the referee. own: the same judged by its own values; None of
    a candidate of a graph. places: where both are asked, by the leaves that differ from the problem's own."""

    own: OwnLoss | None = field(kw_only=True)
    referee: Witness = field(kw_only=True)
    places: Sequence[Leaves] = field(kw_only=True)
    precision: str = field(kw_only=True)

    def judged(self, path: str) -> Judgement:
        found = super().judged(path)
        if self.loss:
            return found
        if not _is_proven(self.referee, path):
            message = f"differences cannot tell whether the graph of {self.referee.label!r} is its loss"
            return found.instead(Verdict.INCONCLUSIVE, message)
        if path in self.projections and path not in self.known.kinked:
            narrow = partial(narrow_sums, self.known, self.arithmetic, path)
            beside = Beside(self.referee.label, self.known.dtype, narrow)
            found = judged_by_averages(found, self.projections[path], beside)
        return self._wrong_in_float64(path) or found if found.verdict in ACCEPTED else found

    def evidence_on(self, path: str) -> LeafEvidence:
        return replace(super().evidence_on(path), is_vouched=self.is_vouched(path), may_flush=True)

    def _wrong_in_float64(self, path: str) -> Judgement | None:
        if self.own is None or not self.own.known.is_narrowed or self.own.another_in_float64:
            return None
        found = self.own.formula(path) if self.own.is_proven(path) else self.own.judged(path)
        message = f"wrong in float64 as well: {found.message}"
        return found.instead(found.verdict, message) if found.verdict is Verdict.DISAGREE else None

    @cached_property
    def projections(self) -> dict[str, Projections]:
        """By path; of a dtype with digits enough there are none."""
        if not _is_coarse(self.known.dtype):
            return {}
        places = list(self._places())
        found = {path: self._projected(path, places) for path in self.problem.differentiated}
        return {path: seen for path, seen in found.items() if seen is not None}

    def _projected(self, path: str, places: Sequence[_Place]) -> Projections | None:
        there = [place for place in places if path in place.noise]
        beside = [place.beside.get(path) if self._is_right_beside(path) else None for place in there]
        return projections([place.noise[path] for place in there], [place.given.get(path) for place in there], beside)

    def _places(self) -> Iterator[_Place]:
        """Those where this one answers."""
        masks = {path: x for path, x in self.problem.leaves.items() if x.dtype.kind == "b"}
        for number, moved in enumerate(self.places):
            given = _gradients(self, moved)
            if given is not None:
                with registry.backend(self.referee.candidate.backend).precision(self.precision):
                    beside = _gradients(self.referee, moved) or {}
                noise = noise_at(self.known, self.arithmetic, moved, masks=masks, number=number)
                yield _Place(noise, given, beside)

    def _is_right_beside(self, path: str) -> bool:
        found = self.referee.judgements.get(path) or self.referee.judged(path)
        return found.verdict is Verdict.AGREE


def under_referee(
    witness: Witness, among: Sequence[Witness], neighbours: Neighbours | None, settings: Settings
) -> Witness:
    """The same, judged by the graph of the referee where one was named and may judge."""
    if settings.referee in (None, witness.address.label) or not _is_for_referees(witness):
        return witness
    referee = next((w for w in among if w.address.label == settings.referee), None)
    if why := _why_not(referee, witness):
        witness.notes.append(f"not judged by {settings.referee!r}: {why}")
        return witness
    assert referee is not None
    return _under(witness, referee, neighbours, settings)


def _is_for_referees(witness: Witness) -> bool:
    """Whether it is a kernel that its own values say too little of: it does not run in float64, or has 16 bits."""
    dtype = witness.address.dtype
    if isinstance(witness, OwnLoss):
        return dtype != "float64" and (witness.known.wide is None or _is_coarse(dtype))
    own = callable(witness.candidate.loss) or witness.candidate.is_written_by_hand
    return own and _is_coarse(dtype)


def _why_not(referee: Witness | None, witness: Witness) -> str:
    """Why the referee may not judge; empty if it may."""
    if witness.problem.intentions:
        return "gradients are declared to be other than the derivative"
    if referee is None:
        return f"it did not run in {witness.address.dtype}"
    if not referee.is_steady:
        return "it gives two answers to the same question"
    return referee.why_not_by_graph if isinstance(referee, OwnLoss) else ""


def _under(witness: Witness, referee: Witness, neighbours: Neighbours | None, settings: Settings) -> UnderReferee:
    own, known = witness if isinstance(witness, OwnLoss) else None, _graph_of(referee)
    notes = [note for note in witness.notes if own is None or note != own.not_in_float64]
    decided = any(remark.kind in ("decision", "number") for remark in known.problem.graph.remarks)
    nearby = () if decided or not neighbours else places(witness.problem, neighbours, known.dtype, settings.seed)
    return UnderReferee(
        witness.address,
        witness.candidate,
        witness.problem,
        witness.tried,
        [*notes, f"judged by the graph of {referee.label!r}"],
        witness.rules,
        witness.loss,
        known=known,
        arithmetic=registry.backend(witness.candidate.backend).capabilities.arithmetic(known.dtype),
        is_referee=False,
        own=own,
        referee=referee,
        places=[{}, *nearby],
        precision=settings.precision,
    )


def _graph_of(referee: Witness) -> FromGraph:
    if isinstance(referee, OwnLoss):
        assert isinstance(referee.capture, Capture)
        return referee.capture.known
    assert isinstance(referee, OfGraph)
    return referee.known


def narrow_sums(known: FromGraph, arithmetic: Arithmetic, path: str) -> TensorFloor:
    """What rounding explains if every sum is kept in the dtype, one term after another."""
    narrow = replace(arithmetic, sums=frozenset((op, Sums(1 / 2)) for op in SUMMED))
    return known.floors_of(narrow).tensors[path]


def places(problem: Problem, neighbours: Neighbours, dtype: str, seed: int) -> Iterator[Leaves]:
    """Some neighbours, each with weights of its own where the loss returns an array."""
    for number in range(NEARBY):
        rng = np.random.default_rng([seed, 15, number])
        weights = {path: np.asarray(rng.standard_normal(problem.leaves[path].shape)) for path in problem.weights}
        yield {**neighbours.drawn(number), **{path: round_to(w, dtype) for path, w in weights.items()}}


def _is_coarse(dtype: str) -> bool:
    return find_dtype(dtype).unit_roundoff > COARSE


def _is_proven(referee: Witness, path: str) -> bool:
    return not isinstance(referee, OwnLoss) or referee.is_proven(path)


def _gradients(witness: Witness, place: Leaves) -> Gradients | None:
    """What it gives at a place; None where it raises."""
    if not place:
        return witness.tried.gradients
    primals = {**witness.problem.primals, **place}
    found = attempt(partial(witness.tried.prepared.value_and_gradient, primals))
    return None if isinstance(found, Failure) else found[1]
