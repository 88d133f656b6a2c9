"""A candidate that ran, with what is known of its gradients; of those that run a graph, from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gradwitness.arithmetic import Arithmetic
from gradwitness.dtypes import Array
from gradwitness.evidence.finite_difference import Probe, textbook_difference
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.norms import typical
from gradwitness.evidence.own_floors import as_gradient
from gradwitness.evidence.reach import node_reach
from gradwitness.evidence.sight import Sight
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import CustomRule, Explaining, Prepared
from gradwitness.report import Address
from gradwitness.run.trial import Trial
from gradwitness.verdict import Judgement
from gradwitness.verdict.at_kink import AtKink
from gradwitness.verdict.checks import judge
from gradwitness.verdict.leaf import LeafEvidence, Standing
from gradwitness.verdict.verdicts import ACCEPTED

__all__ = ["OfGraph", "Witness", "graph_evidence"]


@dataclass(eq=False)
class Witness:
    """A candidate, and what it gave.

    notes: what there is to say of how it ran. rules: the custom rules that it refers to; None where
    that cannot be told. loss: what is wrong with its loss, if anything. judgements: of its gradients, by path.
    """

    address: Address
    candidate: Candidate
    problem: Problem
    tried: Trial
    notes: list[str] = field(default_factory=list)
    rules: tuple[CustomRule, ...] | None = None
    loss: Judgement | None = None
    judgements: dict[str, Judgement] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.address.candidate

    @property
    def custom(self) -> dict[str, bool] | None:
        """Whether its gradient is made of these rules, by name."""
        if self.rules is None:
            return None
        return {rule.name: rule.ran for rule in self.rules if rule.ran is not None}

    @property
    def is_steady(self) -> bool:
        """Whether the same call gives the same answer."""
        return not any(self.tried.unsteady.values())

    @property
    def at_work(self) -> tuple[Prepared, ...]:
        """What gives its gradients: in float64 first, where it runs there too."""
        return (self.tried.prepared,)

    @property
    def is_judged(self) -> bool:
        """Whether its gradients are, as a whole."""
        return self.is_steady

    def is_vouched(self, path: str) -> bool:
        """Whether a framework vouches that nothing leads from a leaf to the loss. It does not where the rule is the
        user's own, or where the loss may read something else in that leaf's place."""
        return not self.candidate.is_written_by_hand and not self.why_missing(path)

    def given(self, path: str) -> Array | None:
        return self.tried.gradients.get(path)

    def judged(self, path: str) -> Judgement:
        """By the checks of the verdict; what is wrong with its loss goes before, on the same figures."""
        found = judge(self.given(path), self.evidence_on(path))
        if self.loss:
            return found.instead(self.loss.verdict, self.loss.message)
        return self.with_reason(path, found)

    def with_reason(self, path: str, found: Judgement) -> Judgement:
        """The judgement, with why the gradient may be missing, if it is."""
        if why := self.why_missing(path):
            return found.instead(found.verdict, ": ".join(filter(None, [found.message, why])))
        return found

    def why_missing(self, path: str) -> str:
        """Why the gradient may be missing, if it is; empty where its framework knows no reason."""
        prepared = self.tried.prepared
        return prepared.why_missing() if self.given(path) is None and isinstance(prepared, Explaining) else ""

    def noted(self, path: str) -> Judgement:
        """What was judged, with what there is to say of how it ran."""
        judgement = self.judgements[path]
        caveats = [self.tried.untried] if self.tried.untried and judgement.verdict in ACCEPTED else []
        note = "; ".join(dict.fromkeys([*self.notes, *caveats]))
        if not note:
            return judgement
        return replace(judgement, message=f"{judgement.message} ({note})" if judgement.message else note)

    def evidence_on(self, path: str) -> LeafEvidence:
        raise NotImplementedError

    def textbook(self) -> float | None:
        """The textbook figure of the whole candidate; what is missing or misshapen counts as zeros."""
        gradients = {path: as_gradient(self.given(path), x.shape) for path, x in self.problem.primals.items()}
        return textbook_difference(gradients, self.probes())

    def probes(self) -> Mapping[str, Sequence[Probe]]:
        """Differences by single coordinates, by path."""
        raise NotImplementedError


@dataclass(eq=False)
class OfGraph(Witness):
    """A candidate of a graph. known: what is known of it, shared by all who run it."""

    known: FromGraph = field(kw_only=True)
    arithmetic: Arithmetic = field(kw_only=True)
    is_referee: bool = field(kw_only=True)

    def probes(self) -> Mapping[str, Sequence[Probe]]:
        return self.known.probes

    def evidence_on(self, path: str) -> LeafEvidence:
        return graph_evidence(self.known, path, self.arithmetic, sights=self.known.sights, is_referee=self.is_referee)


def graph_evidence(
    known: FromGraph, path: str, arithmetic: Arithmetic, *, sights: Mapping[str, Sight], is_referee: bool = False
) -> LeafEvidence:
    """What a gradient of a graph is judged by, whose candidate rounds sums with this arithmetic."""
    floor = known.floors_of(arithmetic).tensors[path]
    return LeafEvidence(
        known.dtype,
        known.gradients[path],
        _standing(path, known, sights.get(path)),
        floor,
        node_reach(floor),
        sights.get(path),
        sight_of=lambda gradient: known.sight_of({path: gradient}, arithmetic)[path],
        size=typical(known.problem.primals[path]),
        scale=known.scale,
        reached=path in known.reached,
        kink=_kink(known, path, arithmetic),
        closer=lambda index: known.closer(path, [index]),
        probes=() if path in known.kinked else known.probes.get(path, ()),
        is_referee=is_referee,
    )


def _kink(known: FromGraph, path: str, arithmetic: Arithmetic) -> AtKink | None:
    """The units at kinks; those within rounding of one only where they are few enough to be tried one by one."""
    slopes = known.slopes
    if not slopes.can_fit(known.gradients[path].high.size):
        slopes = slopes.only_exact
    if not slopes.kinked:
        return None
    return AtKink(slopes, path, known.gradients[path], arithmetic, known.across_kinks)


def _standing(path: str, known: FromGraph, sight: Sight | None) -> Standing:
    if path in known.kinked:
        return Standing.REFUTED if known.kinked[path] else Standing.KINKED
    if known.is_true(path):
        return Standing.VALIDATED
    is_refuted = path in known.affordable.refuted or (sight is not None and sight.refuted is not None)
    return Standing.REFUTED if is_refuted else Standing.CONFIRMED
