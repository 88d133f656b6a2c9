"""A candidate that ran, with what is known of its gradients: from the graph that all share, or from its own values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from gradwitness.arithmetic import Arithmetic
from gradwitness.dtypes import Array
from gradwitness.errors import NoAnswerError
from gradwitness.evidence.finite_difference import Probe, textbook_difference
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.from_values import FromValues, with_largest_rounded
from gradwitness.evidence.groups import PROMISED
from gradwitness.evidence.norms import norm, typical
from gradwitness.evidence.own_floors import OwnFloors, as_gradient
from gradwitness.evidence.reach import node_reach
from gradwitness.evidence.sight import Sight
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import CustomRule, Explaining, Prepared
from gradwitness.report import Address
from gradwitness.run.captured import Capture
from gradwitness.run.failing import first_lines
from gradwitness.run.trial import Trial
from gradwitness.verdict import Judgement, Verdict
from gradwitness.verdict.at_kink import AtKink
from gradwitness.verdict.checks import compare, judge
from gradwitness.verdict.leaf import LeafEvidence, Standing
from gradwitness.verdict.losses import judge_loss

__all__ = ["OfGraph", "OwnLoss", "Witness"]

SLIGHT = 1e-11  # of a gradient's norm: what an iteration that ends at a tolerance leaves, or a kernel's own rounding
SHOWN = 3  # lines of a loss in a message
FAR = 1e3  # a floor by node that is so many times the one by inputs is said
CAST = "a step of it computes in a dtype of its own choice: a cast, or autocast"
BY_DTYPE = "does it depend on the dtype, by a cast, autocast, an eps, a branch, or random numbers drawn in it?"
SUMMED = "as where large numbers cancel, or a sum is kept in as few digits as its terms"
LARGE = 1e-2  # of the gradient's norm: what rounding may reach before that is looked into


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
        judgement, note = self.judgements[path], "; ".join(dict.fromkeys(self.notes))
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
        return _by_graph(self.known, path, self.arithmetic, sights=self.known.sights, is_referee=self.is_referee)


def _by_graph(
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


def _is_slight(known: FromGraph, path: str, given: Array) -> bool:
    """Whether no element is off by a part of itself that would be seen, were it the largest: beside large ones
    differences see small ones not at all."""
    truth = known.gradients[path]
    return bool(np.all(np.abs(truth.error_of(given)) <= PROMISED * np.abs(truth.high)))


@dataclass(eq=False)
class OwnLoss(Witness):
    """A candidate with a loss of its own. known: what its values tell. capturing: gives its loss as a graph, or why
    there is none. not_in_float64: why it does not run there, as a note. by_graph: the leaves whose gradients were
    judged by that graph."""

    known: FromValues = field(kw_only=True)
    capturing: Callable[[], Capture | str] = field(kw_only=True)
    not_in_float64: str = ""
    by_graph: set[str] = field(default_factory=set)

    @cached_property
    def capture(self) -> Capture | str:
        return self.capturing()

    @property
    def at_work(self) -> tuple[Prepared, ...]:
        return (self.known.finest, self.tried.prepared)[not self.known.is_narrowed :]

    @property
    def is_judged(self) -> bool:
        """Of a loss that is not that of the others nothing more is said."""
        return self.is_steady and not self.loss

    def judged(self, path: str) -> Judgement:
        if self.loss:
            return self.loss
        found = super().judged(path)
        if path not in self.by_graph or not isinstance(self.capture, Capture):
            return found
        if self.given(path) is None or (found.verdict is Verdict.CONVENTION and self._is_refuted(path)):
            return self._judged_by_values(path)
        found = self._by_own_operations(path, found, self.given(path), self.capture.known, self._own_floors)
        if self.known.is_narrowed and found.verdict in (Verdict.AGREE, Verdict.DISAGREE):
            found = self._narrowed(path, found)
        if found.limit is not None:  # what is accepted of a difference is no promise
            size = norm(self.capture.known.gradients[path].high)
            found = replace(found, limit=max(found.limit, SLIGHT * size))
        if found.verdict is Verdict.AGREE and self.capture.is_narrow and found.limit is not None:
            found = self._seen_through_narrow_numbers(path, found, self.capture.known)
        if found.verdict is Verdict.DISAGREE and (where := self._where_it_stops(path)):
            return found.instead(found.verdict, f"{found.message}; it stops where the loss detaches: {where}")
        return self._with_what_rounding_hides(path, found)

    def _with_what_rounding_hides(self, path: str, found: Judgement) -> Judgement:
        """An agreement of few digits, which says so where rounding hides more than a hundredth of the gradient."""
        assert isinstance(self.capture, Capture)
        hides = (found.limit or 0.0) > LARGE * norm(self.capture.known.gradients[path].high)
        if found.verdict is not Verdict.AGREE or found.message or not (self.known.is_narrowed and hides):
            return found
        message = f"rounding in {self.address.dtype} hides errors of more than 1% here; referee= shows smaller ones"
        return replace(found, message=message)

    def formula(self, path: str) -> Judgement:
        """The judgement of what the same function gives in float64, by the graph."""
        assert isinstance(self.capture, Capture)
        wide, fine = self.known.finest_answer[1].get(path), self.capture.fine
        evidence = _by_graph(fine, path, self.capture.wide_arithmetic, sights=self.capture.seen)
        found = judge(wide, replace(evidence, may_flush=True))
        return self._by_own_operations(path, found, wide, fine, lambda: self.known.finest_floors)

    def _narrowed(self, path: str, found: Judgement) -> Judgement:
        """The judgement of a gradient of fewer digits, where it is known what the same function gives in float64: no
        rounding excuses a formula that is wrong there."""
        formula = self.formula(path)
        if formula.verdict is Verdict.DISAGREE:
            return found.instead(Verdict.DISAGREE, f"wrong in float64 as well: {formula.message}")
        if formula.verdict is Verdict.AGREE and found.verdict is Verdict.DISAGREE:
            return found.instead(Verdict.DISAGREE, f"right in float64, but {found.message}")
        return found if formula.verdict is Verdict.AGREE else formula

    def _by_own_operations(
        self,
        path: str,
        found: Judgement,
        given: Array | None,
        known: FromGraph,
        own_floors: Callable[[], OwnFloors],
    ) -> Judgement:
        """The judgement, unless a gradient is farther from the truth than the graph rounds, and no farther than its own
        operations do: how a framework's kernels round they tell better, and a rule of a user's own may lose digits that
        the loss does not lose."""
        if found.verdict is not Verdict.DISAGREE or given is None or given.shape != known.problem.primals[path].shape:
            return found
        by_values = self._judged_by_values(path)
        if by_values.verdict is Verdict.DISAGREE:
            return found
        off = norm(known.gradients[path].error_of(given))
        if off <= SLIGHT * norm(given) and by_values.verdict is Verdict.AGREE:
            if _is_slight(known, path, given):
                return by_values
            return found.instead(Verdict.INCONCLUSIVE, f"{found.message}: too little for differences of the loss")
        if self.known.computes_in_less:  # the graph knows where the loss does, and a backward has no need to
            return found
        own = own_floors()  # many runs, which most gradients have no need of
        floor = own.tensors[path]
        if not compare(known.gradients[path].error_of(given), floor, own.reach(floor)).ratio <= 1:
            return found
        if not self.is_of_users_rules:
            return by_values
        return found.instead(Verdict.INCONCLUSIVE, f"{found.message}: only its own operations explain that, {SUMMED}")

    def _own_floors(self) -> OwnFloors:
        """What its own operations may round in the dtype on trial."""
        return self.known.floors if self.known.is_narrowed else self.known.finest_floors

    def _judged_by_values(self, path: str) -> Judgement:
        return self.with_reason(path, judge(self.given(path), self._by_values(path)))

    def _is_refuted(self, path: str) -> bool:
        return self._judged_by_values(path).verdict is Verdict.DISAGREE

    def is_proven(self, path: str) -> bool:
        """Whether the graph of its loss may stand for it at a leaf."""
        return isinstance(self.capture, Capture) and not self.why_not_by_graph and self.capture.stands_for(path)

    @property
    def is_of_users_rules(self) -> bool:
        """Whether the gradient is made of rules that a user wrote, in whole or in part."""
        return self.candidate.is_written_by_hand or any(rule.ran for rule in self.rules or ())

    def _seen_through_narrow_numbers(self, path: str, found: Judgement, known: FromGraph) -> Judgement:
        """The judgement of a loss that computes in fewer digits inside, unless their rounding hides a hundredth."""
        size = norm(known.gradients[path].high)
        if found.limit is None or found.limit <= LARGE * size:
            return found
        message = f"it computes in fewer digits inside: an error of {found.limit / size:.2g} of its norm could pass"
        return found.instead(Verdict.INCONCLUSIVE, message)

    def _where_it_stops(self, path: str) -> str:
        """The lines at which the loss detaches, if that is what a gradient follows that is not its derivative."""
        given = self.given(path)
        if path not in self.by_graph or not isinstance(self.capture, Capture) or given is None:
            return ""
        if not self.capture.detached:
            return ""
        floor = self.capture.known.floors_of(self.known.arithmetic).tensors[path]
        apart = compare(given - self.capture.stopping[path], floor, node_reach(floor))
        return ", ".join(self.capture.detached[:SHOWN]) if apart.ratio <= 1 else ""

    def probes(self) -> Mapping[str, Sequence[Probe]]:
        if self.by_graph and isinstance(self.capture, Capture):
            return self.capture.probes
        return {path: sight.probes for path, sight in self.known.sights.items()}

    @cached_property
    def why_not_by_graph(self) -> str:
        """Why its gradients are judged by its values; empty where the graph of its loss may be trusted."""
        if isinstance(self.capture, str):
            return self.capture
        try:
            return self._other_loss(self.capture.known) or self.capture.mistrust
        except NoAnswerError:
            raise
        except Exception as error:  # noqa: BLE001  # a graph that cannot be evaluated is none
            return f"its graph cannot be evaluated: {first_lines(error)}"

    def _other_loss(self, known: FromGraph) -> str:
        """In what the loss in the dtype on trial differs from the graph's."""
        floors = known.loss_floors_of(self.known.arithmetic)
        apart = judge_loss(self.tried.losses, known.losses, floors, whose="the graph")
        return apart.message if apart else ""

    def finest(self, path: str) -> Array | None:
        """The gradient in float64 if there is one, else in the dtype on trial; None where it is no finite gradient."""
        given = self.given(path)
        if given is None or given.shape != self.problem.primals[path].shape or not np.all(np.isfinite(given)):
            return None
        return self.known.gradients.get(path)

    def evidence_on(self, path: str) -> LeafEvidence:
        """By the graph of its loss where that may stand for it, else by its values."""
        if isinstance(self.capture, Capture) and self.is_proven(path):
            found = _by_graph(self.capture.known, path, self.known.arithmetic, sights=self.capture.seen)
            if not math.isfinite(found.floor.norm):
                return self._by_values(path)  # digits of a composition that go where those of its kernel stay
            self.by_graph.add(path)
            return replace(found, is_vouched=self.is_vouched(path), may_flush=True)
        return self._by_values(path)

    def _by_values(self, path: str) -> LeafEvidence:
        known = self.known
        floors = known.floors
        floor = floors.tensors[path]
        truth = known.truth(path)
        if known.is_narrowed and not floors.by_node:
            floor = with_largest_rounded(floor, truth.high, known.dtype)
        return LeafEvidence(
            known.dtype,
            truth,
            Standing.OWN,
            floor,
            floors.reach(floor),
            known.sights.get(path),
            size=typical(self.problem.primals[path]),
            scale=known.scale,
            reached=None,
            narrowed=known.is_narrowed,
            another_loss=self.another_in_float64,
            is_vouched=self.is_vouched(path),
            own_noise=lambda: known.own_noise(path),
            remark=self._remark(path),
            hint=lambda: known.hint(path),
        )

    @cached_property
    def another_in_float64(self) -> str:
        """Why its loss may be another function in float64 than in the dtype on trial; empty where the point shows that
        it is the same."""
        known = self.known
        if not known.is_narrowed:
            return ""
        loss, floors = known.finest_answer[0], known.floors
        if judge_loss(self.tried.losses[:1], [loss], [floors.loss], reach=floors.reach) is None:
            return ""
        return CAST if known.computes_in_less else BY_DTYPE

    def _remark(self, path: str) -> str:
        """That rounding inside explains far more than rounding of the inputs, where it does."""
        known, floors = self.known, self.known.floors
        size = norm(known.truth(path).high)
        if not floors.by_node or not floors.tensors[path].norm * floors.reach(floors.tensors[path]).norm > LARGE * size:
            return ""
        by_inputs = known.floors_by_inputs.tensors[path].norm
        if not (math.isfinite(by_inputs) and floors.tensors[path].norm > FAR * by_inputs):
            return ""
        return "it passed, but its own operations round a thousand times more than its inputs explain"
