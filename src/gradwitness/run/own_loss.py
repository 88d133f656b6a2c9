"""A candidate with a loss of its own: judged by the graph of that, where it proves to be the loss, or by its values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from gradwitness.dtypes import Array
from gradwitness.errors import NoAnswerError
from gradwitness.evidence.finite_difference import Probe
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.from_values import FromValues, with_largest_rounded
from gradwitness.evidence.groups import PROMISED
from gradwitness.evidence.norms import norm, typical
from gradwitness.evidence.own_floors import OwnFloors, as_gradient
from gradwitness.evidence.reach import node_reach
from gradwitness.protocol import Finer, Prepared
from gradwitness.run.captured import Capture
from gradwitness.run.failing import first_lines
from gradwitness.run.trial import Failure, attempt
from gradwitness.run.witness import Witness, graph_evidence
from gradwitness.verdict import Judgement, Verdict
from gradwitness.verdict.checks import compare, judge
from gradwitness.verdict.leaf import LeafEvidence, Standing
from gradwitness.verdict.losses import judge_loss

__all__ = ["IN_MORE_DIGITS", "OwnLoss"]

SLIGHT = 1e-11  # of a gradient's norm: what an iteration that ends at a tolerance leaves, or a kernel's own rounding
SHOWN = 3  # lines of a loss in a message
FAR = 1e3  # a floor by node that is so many times the one by inputs is said
COARSE = "differences cannot tell whether the graph of its loss is the loss"
IN_MORE_DIGITS = "in more digits the same function is right, so it loses digits, as where large numbers cancel"
STEEP = (
    "its loss rounds by as much, so its differences tell nothing; log(1 - sigmoid(x)) does so where x is large, and "
    "logsigmoid(-x) does not"
)
CAST = "a step of it computes in a dtype of its own choice: a cast, or autocast"
BY_DTYPE = "does it depend on the dtype, by a cast, autocast, an eps, a branch, or random numbers drawn in it?"
SUMMED = "as where large numbers cancel, or a sum is kept in as few digits as its terms"
ROUNDED = 10.0  # times what a loss is off at the point: it may be off so much near it
LARGE = 1e-2  # of the gradient's norm: what rounding may reach before that is looked into


def _is_slight(known: FromGraph, path: str, given: Array) -> bool:
    """Whether no element is off by a part of itself that would be seen, were it the largest: beside large ones
    differences see small ones not at all."""
    truth = known.gradients[path]
    return bool(np.all(np.abs(truth.error_of(given)) <= PROMISED * np.abs(truth.high)))


@dataclass(eq=False)
class OwnLoss(Witness):
    """A candidate with a loss of its own. known: what its values tell. capturing: gives its loss as a graph, or why
    there is none. not_in_float64: why it does not run there, as a note. is_under_referee: whether a referee was named,
    who may be this one. by_graph: the leaves whose gradients were judged by that graph."""

    known: FromValues = field(kw_only=True)
    capturing: Callable[[], Capture | str] = field(kw_only=True)
    not_in_float64: str = ""
    is_under_referee: bool = False
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
        if not isinstance(self.capture, Capture):
            found = self._in_rounding_of_its_loss(path, self._in_more_digits(path, found))
            return self._hidden_by_its_dtype(path, found)
        if path in self.by_graph:
            is_absent = self.given(path) is None and not self._moves_by_graph(path)
            if is_absent or (found.verdict is Verdict.CONVENTION and self._is_refuted(path)):
                return self._judged_by_values(path)
            for consider in (
                self._rounding_by_itself,
                self._formula_first,
                self._promising_no_more,
                self._hidden_by_narrow_numbers,
            ):
                found = consider(path, found, self.capture)
        else:
            found = self._in_rounding_of_its_loss(path, found)
        return self._told_where_it_stops(path, self._hidden_by_its_dtype(path, found), self.capture)

    def _moves_by_graph(self, path: str) -> bool:
        """Whether the graph of its loss, as far as that may be trusted, has a gradient that is not zero there."""
        if not isinstance(self.capture, Capture) or self.why_not_by_graph:
            return False
        return bool(np.any(self.capture.gradients[path]))

    def is_vouched(self, path: str) -> bool:
        return super().is_vouched(path) and not self._moves_by_graph(path)

    def _in_more_digits(self, path: str, found: Judgement) -> Judgement:
        """A gradient that differences refute may lose digits, and no more."""
        sight = self.known.sights.get(path)
        refuted = None if sight is None or found.verdict is not Verdict.DISAGREE else sight.refuted
        if refuted is None or not self.only_loses_digits(path, refuted.probe):
            return found
        return found.instead(Verdict.INCONCLUSIVE, f"{found.message}: {IN_MORE_DIGITS}")

    def _in_rounding_of_its_loss(self, path: str, found: Judgement) -> Judgement:
        """Differences refute nothing by what the loss rounds: log(1 - sigmoid(x)) is a staircase where sigmoid(x) is
        nearly 1, and stands still on each tread of it."""
        sight = self.known.sights.get(path)
        refuted = None if sight is None or found.verdict is not Verdict.DISAGREE else sight.refuted
        if refuted is None:
            return found
        apart = abs(refuted.claim - refuted.probe.value) * refuted.probe.moved
        if apart > self._rounding_of_its_loss:  # which is NaN where rounding makes the loss infinite
            return found
        return found.instead(Verdict.INCONCLUSIVE, f"{found.message}: {STEEP}")

    @cached_property
    def _rounding_of_its_loss(self) -> float:
        """What rounding may do to its loss where that is differenced, as far as its graph or more digits tell; else
        0."""
        if isinstance(self.capture, Capture) and not self.why_unlike_in_value:
            floor = self.capture.fine.loss_floors_of(self.capture.wide_arithmetic)[0]
            return node_reach(floor).norm * floor.norm
        finest = self.known.finest
        off = finest.rounded_off(self.problem.primals) if isinstance(finest, Finer) else None
        return 0.0 if off is None else ROUNDED * off

    @cached_property
    def _finer(self) -> Mapping[str, Array | None]:
        """The gradient in more digits than float64 has; empty where it is not to be had."""
        finest = self.known.finest
        if not isinstance(finest, Finer):
            return {}
        return finest.in_more_digits(self.problem.primals, self.known.finest_answer[1]) or {}

    def only_loses_digits(self, path: str, probe: Probe) -> bool:
        """Whether the same function has this derivative where it computes in more digits, as far as it can, and differs
        there by no more than a hundredth of its norm: a cache for one dtype is no rounding."""
        gradient, mine = self._finer.get(path), self.known.finest_answer[1].get(path)
        if gradient is None or mine is None or norm(mine - gradient) > LARGE * norm(gradient):
            return False
        return abs(probe.of(gradient) - probe.value) <= probe.bound

    # What a judgement by the graph has to consider, one after another

    def _rounding_by_itself(self, path: str, found: Judgement, capture: Capture) -> Judgement:
        return self._by_own_operations(path, found, self.given(path), capture.known, self._own_floors)

    def _formula_first(self, path: str, found: Judgement, capture: Capture) -> Judgement:
        """Where it is known what the same function gives in float64, no rounding excuses a formula that is wrong."""
        if not self.known.is_narrowed or found.verdict not in (Verdict.AGREE, Verdict.DISAGREE):
            return found
        formula = self.formula(path)
        if formula.verdict is Verdict.DISAGREE:
            return found.instead(Verdict.DISAGREE, f"wrong in float64 as well: {formula.message}")
        if formula.verdict is Verdict.AGREE and found.verdict is Verdict.DISAGREE:
            return found.instead(Verdict.DISAGREE, f"right in float64, but {found.message}")
        return found if formula.verdict is Verdict.AGREE else formula

    def _promising_no_more(self, path: str, found: Judgement, capture: Capture) -> Judgement:
        """What is accepted of a difference is no promise."""
        least = SLIGHT * norm(capture.known.gradients[path].high)
        return found if found.limit is None else replace(found, limit=max(found.limit, least))

    def _hidden_by_narrow_numbers(self, path: str, found: Judgement, capture: Capture) -> Judgement:
        """A loss that computes in fewer digits inside may hide more than a hundredth by their rounding."""
        size = norm(capture.known.gradients[path].high)
        limit = found.limit or 0.0
        if found.verdict is not Verdict.AGREE or not capture.is_narrow or limit <= LARGE * size:
            return found
        message = f"it computes in fewer digits inside: an error of {limit / size:.2g} of its norm could pass"
        return found.instead(Verdict.INCONCLUSIVE, message)

    def _hidden_by_its_dtype(self, path: str, found: Judgement) -> Judgement:
        """An agreement of few digits says so where rounding hides more than a hundredth of the gradient."""
        if found.verdict is not Verdict.AGREE or found.message or not self.known.is_narrowed or found.limit is None:
            return found
        truth = self.known.truth(path)
        if path in self.by_graph and isinstance(self.capture, Capture):
            truth = self.capture.known.gradients[path]
        if not found.limit > LARGE * norm(truth.high):
            return found
        message = f"rounding in {self.address.dtype} hides errors of more than 1% here"
        hint = "" if self.is_under_referee else "; referee= shows smaller ones"
        return replace(found, message=message + hint)

    def _told_where_it_stops(self, path: str, found: Judgement, capture: Capture) -> Judgement:
        """With the lines at which the loss detaches, if the gradient is that through which no derivative goes there."""
        if found.verdict not in (Verdict.DISAGREE, Verdict.INCONCLUSIVE, Verdict.MISSING):
            return found
        lines = attempt(partial(self.stops_at, path))
        if isinstance(lines, Failure) or not lines:  # a graph that did not prove to be the loss may raise anything
            return found
        where, meant = ", ".join(lines[:SHOWN]), self._to_declare(path, capture)
        message = f"it stops where the loss detaches: {where}; if that is meant, say so: intended={meant}"
        return found.instead(found.verdict, f"{found.message}; {message}")

    def stops_at(self, path: str) -> list[str]:
        """The lines at which the loss detaches, if the gradient is that through which no derivative goes there."""
        capture = self.capture
        if not isinstance(capture, Capture) or not capture.detached:
            return []
        given = as_gradient(self.given(path), self.problem.primals[path].shape)
        floor = capture.known.floors_of(self.known.arithmetic).tensors[path]
        reach, stopping = node_reach(floor), capture.stopping[path]
        is_that = compare(given - stopping, floor, reach).ratio <= 1
        is_other = compare(capture.known.gradients[path].error_of(stopping), floor, reach).ratio > 1
        return capture.detached if is_that and is_other else []

    def _to_declare(self, path: str, capture: Capture) -> str:
        """What to give for `intended`: the leaf, or its only row that differs."""
        error = capture.known.gradients[path].error_of(capture.stopping[path])
        floor = capture.known.floors_of(self.known.arithmetic).tensors[path].elements
        rows = np.unique(np.argwhere(np.abs(error) > FAR * floor)[:, :1])
        is_row = error.ndim > 1 and len(error) > 1 and rows.size == 1
        is_padding = any(remark.text.startswith("padding") for remark in capture.graph.remarks)
        return (
            f'{{"{path}[{rows[0]}]": "{"padding" if is_padding else "detached"}"}}'
            if is_row
            else f'{{"{path}": "detached"}}'
        )

    def formula(self, path: str) -> Judgement:
        """The judgement of what the same function gives in float64, by the graph."""
        assert isinstance(self.capture, Capture)
        wide, fine = self.known.finest_answer[1].get(path), self.capture.fine
        evidence = graph_evidence(fine, path, self.capture.wide_arithmetic, sights=self.capture.seen)
        found = judge(wide, replace(evidence, may_flush=True))
        return self._by_own_operations(path, found, wide, fine, lambda: self.known.finest_floors)

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

    def speaks_by_graph(self, path: str) -> bool:
        """Whether its gradient was judged by the graph of its own loss, which proved to be that."""
        return path in self.by_graph and self.is_proven(path)

    @property
    def is_of_users_rules(self) -> bool:
        """Whether the gradient is made of rules that a user wrote, in whole or in part."""
        return self.candidate.is_written_by_hand or any(rule.ran for rule in self.rules or ())

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
            return self._other_loss or self.capture.mistrust
        except NoAnswerError:
            raise
        except Exception as error:  # noqa: BLE001  # a graph that cannot be evaluated is none
            return f"its graph cannot be evaluated: {first_lines(error)}"

    @cached_property
    def why_unlike_in_value(self) -> str:
        """In what the values of its loss differ from those of its graph."""
        if isinstance(self.capture, str):
            return self.capture
        found = attempt(lambda: self._other_loss)
        return found.message if isinstance(found, Failure) else found

    @property
    def why_judged_by_values(self) -> str:
        """The same of gradients that were: the graph may be trusted, and differences have not seen enough of them."""
        if self.why_not_by_graph:
            return self.why_not_by_graph
        assert isinstance(self.capture, Capture)
        return f"{COARSE}{self.capture.decided}"

    @cached_property
    def _other_loss(self) -> str:
        """In what the loss in the dtype on trial differs from the graph's."""
        assert isinstance(self.capture, Capture)
        return self.capture.apart(self.tried.losses, self.capture.known.loss_floors_of(self.known.arithmetic))

    def finest(self, path: str) -> Array | None:
        """The gradient in float64 if there is one, else in the dtype on trial; None where it is no finite gradient."""
        given = self.given(path)
        if given is None or given.shape != self.problem.primals[path].shape or not np.all(np.isfinite(given)):
            return None
        return self.known.gradients.get(path)

    def evidence_on(self, path: str) -> LeafEvidence:
        """By the graph of its loss where that may stand for it, else by its values."""
        if isinstance(self.capture, Capture) and self.is_proven(path):
            found = graph_evidence(self.capture.known, path, self.known.arithmetic, sights=self.capture.seen)
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
