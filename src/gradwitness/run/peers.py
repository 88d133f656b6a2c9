"""What candidates of one problem say of each other. No vote is counted.

Candidates with losses of their own are held against the first whose gradient its own differences bear out. Where two
differ, both are differenced again at the places where they differ most, so that the one at fault is named. Where one
could not be seen, another that stands and has the same gradient vouches for it; at a kink the graph of another judges
it, if that proved to be the other's loss. Nobody puts in doubt whom the graph of its own loss has judged. Candidates of
a graph may cast doubt on its reference, and then those who agree with it are in doubt too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations

import numpy as np

from gradwitness import registry
from gradwitness.dtypes import Array
from gradwitness.evidence.from_values import with_largest_rounded
from gradwitness.evidence.noise_floor import TensorFloor, joint
from gradwitness.evidence.norms import norm
from gradwitness.evidence.reach import JITTER_REACH, Reach, over
from gradwitness.evidence.sight import Refutation
from gradwitness.problem import Problem
from gradwitness.run.captured import Capture
from gradwitness.run.own_loss import IN_MORE_DIGITS, OwnLoss
from gradwitness.run.trial import Failure, attempt
from gradwitness.run.witness import OfGraph, Witness, graph_evidence
from gradwitness.settings import Settings
from gradwitness.verdict import ACCEPTED, Verdict
from gradwitness.verdict.checks import compare, judge, refutation

__all__ = ["Peers", "joint_floor"]

PLACES = 3  # at which two gradients that differ are differenced again
SAME = 1e-13  # of the largest element: two gradients in float64 that are so near are not looked into
DOUBTFUL = "another candidate differs beyond the noise floor, and finite differences cannot tell which is right"


@dataclass
class Peers:
    """references: by path, the candidate that the others are held against."""

    references: dict[str, OwnLoss] = field(default_factory=dict)

    def compare(self, witnesses: Sequence[Witness], problem: Problem, settings: Settings) -> None:
        """Change their judgements by what they say of each other."""
        for path in problem.differentiated:
            _doubt(path, [w for w in witnesses if isinstance(w, OfGraph)])
            own = [w for w in witnesses if isinstance(w, OwnLoss) and _is_comparable(w, path)]
            if path not in problem.intentions:
                _judge_at_kinks(path, own)
                for one, other in combinations(own, 2):
                    _look_closer(path, one, other, settings)
            self._hold(path, own)

    def against(self, witness: OwnLoss, path: str) -> str | None:
        """The label of the candidate from which a gradient's error is measured."""
        reference = self.references.get(path)
        return None if reference is None or reference is witness else reference.label

    def reference(self, path: str, witness: OwnLoss) -> Array | None:
        """The gradient that this one is held against."""
        return self.references.get(path, witness).finest(path)

    def _hold(self, path: str, own: Sequence[OwnLoss]) -> None:
        confirmed = [w for w in own if w.judgements[path].verdict is Verdict.AGREE]
        standing = [w for w in own if w.judgements[path].verdict is Verdict.INCONCLUSIVE]
        reference = next(iter([*confirmed, *standing]), None)
        if reference is None:
            return
        self.references[path] = reference
        for witness in own:
            if witness is not reference:
                _held_against(path, witness, reference, is_confirmed=bool(confirmed))


def _is_comparable(witness: OwnLoss, path: str) -> bool:
    return witness.is_judged and witness.finest(path) is not None


def _doubt(path: str, witnesses: Sequence[OfGraph]) -> None:
    """Where finite differences cannot say which of two is wrong, whoever agrees with the reference is doubtful too."""
    by = {w.label for w in witnesses if w.judgements[path].doubted}
    for witness in witnesses:
        judgement = witness.judgements[path]
        if by and witness.label not in by and judgement.verdict is Verdict.AGREE:
            witness.judgements[path] = judgement.instead(Verdict.INCONCLUSIVE, DOUBTFUL)


def _judge_at_kinks(path: str, own: Sequence[OwnLoss]) -> None:
    """Let the graph of one, of the same loss, judge the gradients of others that depend on the slopes at a kink:
    differences across one see nothing."""
    known = next((w for w in own if w.speaks_by_graph(path) and w.judgements[path].verdict in ACCEPTED), None)
    if known is None or not isinstance(known.capture, Capture) or path not in known.capture.known.kinked:
        return
    for witness in own:
        if not witness.speaks_by_graph(path) and witness.judgements[path].verdict is Verdict.INCONCLUSIVE:
            _judge_by_graph(path, witness, known.capture, known.label)


def _judge_by_graph(path: str, witness: OwnLoss, capture: Capture, whose: str) -> None:
    fine = graph_evidence(capture.fine, path, capture.wide_arithmetic, sights=capture.seen)
    found = judge(witness.finest(path), fine)
    if found.verdict in ACCEPTED and witness.known.is_narrowed:
        narrow = graph_evidence(capture.known, path, witness.known.arithmetic, sights=capture.seen)
        found = judge(witness.given(path), narrow)
    if found.verdict is not Verdict.INCONCLUSIVE:
        message = f"by the graph of {whose!r}: {found.message}"
        witness.judgements[path] = witness.judgements[path].instead(found.verdict, message)


def _gradients(path: str, one: OwnLoss, other: OwnLoss) -> tuple[Array, Array]:
    mine, theirs = one.finest(path), other.finest(path)
    assert mine is not None
    assert theirs is not None
    return mine, theirs


def _differ(path: str, one: OwnLoss, other: OwnLoss) -> bool:
    """Whether two gradients differ by more than rounding explains."""
    a, b = _gradients(path, one, other)
    if np.max(np.abs(a - b), initial=0.0) <= SAME * np.max(np.abs(a), initial=0.0):
        return False
    return compare(a - b, *joint_floor(one, other, path)).ratio > 1


def joint_floor(one: OwnLoss, other: OwnLoss, path: str) -> tuple[TensorFloor, Reach]:
    """What rounding explains of the distance between two gradients, each of which has its own, and its reach."""
    floors = []
    for witness in (one, other):
        floor, g = witness.known.peer_floors.tensors[path], witness.finest(path)
        floors.append(floor if g is None else with_largest_rounded(floor, g, witness.known.fd_dtype))
    return joint(*floors), JITTER_REACH


def _places(path: str, one: OwnLoss, other: OwnLoss) -> list[int]:
    """Flat indices at which two gradients differ most, in floors and at all."""
    a, b = _gradients(path, one, other)
    floor, _ = joint_floor(one, other, path)
    error = np.abs(a - b).reshape(-1)
    ratios = over(error, floor.elements.reshape(-1))
    worst = [int(np.argmax(error)), *(int(i) for i in np.argsort(-ratios)[:PLACES])]
    return [i for i in dict.fromkeys(worst) if error[i] > 0][:PLACES]


def _look_closer(path: str, one: OwnLoss, other: OwnLoss, settings: Settings) -> None:
    """Where two differ that neither's differences refute, both are differenced there."""
    standing = {Verdict.AGREE, Verdict.INCONCLUSIVE}
    both = all(w.judgements[path].verdict in standing for w in (one, other))
    if not both or not _differ(path, one, other):
        return
    places = _places(path, one, other)
    for witness in (one, other):
        found = attempt(partial(_refute, path, witness, places, settings))
        if isinstance(found, Failure):
            witness.notes.append(f"differences at further places failed ({found.message})")


def _refute(path: str, witness: OwnLoss, places: Sequence[int], settings: Settings) -> None:
    g = witness.finest(path)
    assert g is not None
    floor = witness.known.peer_floors.tensors[path].elements.reshape(-1)
    with registry.backend(witness.address.backend).precision(settings.precision):
        for probe in witness.known.closer(path, places):
            assert probe.index is not None
            claim = float(g.flat[probe.index])
            if abs(claim - probe.value) > probe.bound + JITTER_REACH.element * float(floor[probe.index]):
                message, verdict = refutation(Refutation(probe, claim), g.shape), Verdict.DISAGREE
                if witness.only_loses_digits(path, probe):
                    message, verdict = f"{message}: {IN_MORE_DIGITS}", Verdict.INCONCLUSIVE
                seen = replace(witness.judgements[path], fd_error=abs(claim - probe.value), fd_bound=probe.bound)
                witness.judgements[path] = seen.instead(verdict, message)
                return


def _held_against(path: str, witness: OwnLoss, reference: OwnLoss, *, is_confirmed: bool) -> None:
    """Measure the distance from the reference, and let it vouch for what the other's differences could not see.

    Where the two differ, whoever cannot refute the other by its own differences is in doubt.
    """
    a, b = _gradients(path, witness, reference)
    differ = _differ(path, witness, reference)
    judgement = witness.judgements[path]
    if not witness.known.is_narrowed:
        found = compare(a - b, *joint_floor(witness, reference, path))
        judgement = witness.judgements[path] = replace(judgement, error=found.error, ratio=found.ratio)
    if not differ:
        if is_confirmed and judgement.verdict is Verdict.INCONCLUSIVE and judgement.unseen:
            message = f"as that of {reference.label!r}, which differences confirm; its own: {judgement.message}"
            witness.judgements[path] = judgement.instead(Verdict.AGREE, message)
        return
    for doubted, by in ((witness, reference), (reference, witness)):
        judgement = doubted.judgements[path]
        if by.judgements[path].verdict is Verdict.DISAGREE:
            continue  # differences have told which is right
        is_sure = doubted.speaks_by_graph(path) or _stands_against(path, doubted, a - b)
        if judgement.verdict is Verdict.AGREE and not is_sure:
            message = f"differs from {by.label!r} beyond rounding, and differences cannot tell which is right"
            doubted.judgements[path] = judgement.instead(Verdict.INCONCLUSIVE, message)


def _stands_against(path: str, witness: OwnLoss, error: Array) -> bool:
    """Whether the candidate's own differences would have seen so large an error."""
    sight = witness.known.sights.get(path)
    if sight is None:
        return False
    return norm(error) > sight.limit or float(np.max(np.abs(error))) > sight.limit_element
