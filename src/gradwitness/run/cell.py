"""One problem in one dtype on one device: trial, loss, checks, peers, intentions, reductions, in this order, for every
candidate, whether all run one graph or each brings a loss of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from gradwitness import registry
from gradwitness.dtypes import Array
from gradwitness.errors import NoAnswerError
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.from_values import FromValues
from gradwitness.evidence.neighbours import Neighbours, draw_neighbours
from gradwitness.evidence.norms import norm
from gradwitness.evidence.own_floors import Answer
from gradwitness.graph import Graph
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import CustomRule, Forgetful, Prepared, Primals, RuleCall
from gradwitness.report import Address, Row
from gradwitness.run.captured import Capture, by_capture, captured
from gradwitness.run.custom import custom_rules, fault_rows
from gradwitness.run.failing import first_lines
from gradwitness.run.hints import with_hints
from gradwitness.run.intended import as_intended
from gradwitness.run.losses import alone_and_beside, compared, first_of
from gradwitness.run.own_loss import OwnLoss
from gradwitness.run.peers import Peers
from gradwitness.run.preparing import prepare
from gradwitness.run.progress import Progress
from gradwitness.run.purity import compiled_anew, impure
from gradwitness.run.reductions import as_reduced
from gradwitness.run.referee import graph_referee
from gradwitness.run.rules import WRONG, Alone, calls_of, first_off, looked_at
from gradwitness.run.sixteen_bits import under_referee
from gradwitness.run.trial import Failure, Trial, attempt, trial
from gradwitness.run.witness import OfGraph, Witness
from gradwitness.settings import Settings
from gradwitness.verdict import Judgement, Verdict

__all__ = ["at_hand", "cell"]

UNPROVEN = "the graph that it runs was not shown to be the loss that was given"
ITSELF = "itself in float64"
ONE_RULE = 2.0  # seconds that 256 bits may take for a call of a rule


def cell(
    addresses: Mapping[str, Address],
    candidates: Mapping[str, Candidate],
    problem: Problem,
    dtype: str,
    settings: Settings,
    *,
    referee: FromGraph | None,
    progress: Progress,
) -> list[Row]:
    """A row for each gradient of each candidate, on the device that its address names.

    referee: what is known of the graph that all share; None where each brings a loss of its own.
    """
    run = _Run(problem.rounded(dtype), dtype, settings, referee)
    rows: dict[str, list[Row]] = {}
    for label, candidate in candidates.items():
        progress(f"{problem.name} {dtype}: {label}")
        found = attempt(partial(run.witness, addresses[label], candidate))
        if isinstance(found, Failure):
            told = with_hints(found, problem, partial(run.runs_in, candidate, addresses[label].device))
            rows[label] = [Row.of(addresses[label], told)]
    run.appoint_referee()
    run.compare_losses()
    for witness in list(run.witnesses):
        progress(f"{problem.name} {dtype}: {witness.label}, judged")
        judged = attempt(partial(run.check, witness))
        if isinstance(judged, Failure):
            rows[witness.label] = [_failed(witness, judged)]
            run.witnesses.remove(witness)
    run.conclude()
    rows |= {witness.label: run.rows(witness) for witness in run.witnesses}
    return [row for label in candidates for row in rows[label]]


def at_hand(
    gradients: Mapping[str, Array | None], candidate: Candidate, problem: Problem, dtype: str, settings: Settings
) -> Witness:
    """Who gave gradients that are there already, to be judged by the loss of a candidate on the CPU."""
    address = Address(problem.name, candidate.backend, candidate.backend, "cpu", dtype)
    with registry.installed(candidate.backend).precision(settings.precision):
        return _Run(problem.rounded(dtype), dtype, settings, None).holding(gradients, address, candidate)


@dataclass
class _Run:
    """The candidates that ran at this point, and what is known of them together."""

    problem: Problem
    dtype: str
    settings: Settings
    referee: FromGraph | None
    witnesses: list[Witness] = field(default_factory=list)
    neighbours: Neighbours | None = None
    peers: Peers = field(default_factory=Peers)
    graphs: dict[int, FromGraph] = field(default_factory=dict)  # that candidates bring

    # Trial

    def witness(self, address: Address, candidate: Candidate) -> None:
        """Run a candidate."""
        with registry.installed(candidate.backend).precision(self.settings.precision):
            prepared = prepare(candidate, self.problem, self.dtype, address.device, self.settings)
            neighbours = self._neighbours(prepared)
            tried = trial(prepared, self.problem.primals, neighbours, self.dtype)
            if not any(tried.unsteady.values()):
                tried = self._asked_again(candidate, address.device, tried, next(iter(neighbours), None))
            rules = custom_rules(candidate, prepared, self.problem.primals)
            witness = self._known(address, candidate, tried)
            witness.rules = rules
            witness.loss = alone_and_beside(witness)
        self.witnesses.append(witness)

    def _asked_again(self, candidate: Candidate, device: str, tried: Trial, elsewhere: Primals | None) -> Trial:
        """The trial, with what other calls change in its answer."""
        forgets = tried.prepared.is_forgetful(self.problem.primals) if isinstance(tried.prepared, Forgetful) else None
        if forgets:
            return tried
        if forgets is False:
            anew = partial(prepare, candidate, self.problem, self.dtype, device, self.settings)
            found = compiled_anew(anew, self.problem.primals, tried, self.dtype)
            if any(found.values()):
                return replace(tried, unsteady=found)
        own = callable(candidate.loss) or candidate.is_written_by_hand
        compiles = registry.installed(candidate.backend).capabilities.compiles_along(candidate.path)
        resizes = own and not compiles  # what compiles does so anew for each size
        found = impure(tried.prepared, self.problem, tried, elsewhere, self.dtype, resizes=resizes)
        return replace(tried, unsteady=found, untried=_not_cut(self.problem) if resizes else "")

    def _neighbours(self, prepared: Prepared) -> Neighbours:
        """Drawn by what is known of the graph, or by the first candidate that gets so far."""
        if self.neighbours is None:
            if self.referee is not None:
                self.neighbours = self.referee.neighbours
            else:
                usable = partial(_is_finite_at, prepared)
                seed = (self.settings.seed, 4)
                self.neighbours = draw_neighbours(self.problem.primals, usable, self.dtype, seed=seed)
        return self.neighbours

    def holding(self, gradients: Mapping[str, Array | None], address: Address, candidate: Candidate) -> Witness:
        """Who gave gradients that are there already, as if this candidate had."""
        prepared = prepare(candidate, self.problem, self.dtype, address.device, self.settings)
        places = [{}, *self._neighbours(prepared)]
        losses = tuple(prepared.value({**self.problem.primals, **place}) for place in places)
        return self._known(address, candidate, Trial(prepared, losses, gradients, {}))

    def _known(self, address: Address, candidate: Candidate, tried: Trial) -> Witness:
        capabilities = registry.backend(candidate.backend).capabilities
        arithmetic, witness = capabilities.arithmetic(self.dtype), (address, candidate, self.problem, tried)
        if self.referee is not None:
            lowered = candidate.loss is None and not candidate.is_written_by_hand
            speaks = capabilities.interpreter and self.dtype == "float64" and lowered and not self.referee.extended
            return OfGraph(*witness, known=self.referee, arithmetic=arithmetic, is_referee=speaks)
        if isinstance(candidate.loss, Graph):
            return OfGraph(*witness, known=self._known_of(candidate.loss), arithmetic=arithmetic, is_referee=False)
        answer = tried.losses[0], tried.gradients
        wide, finest, not_there = self._in_float64(address, candidate, tried.prepared, answer)
        known = FromValues(tried.prepared, wide, finest, self.problem, self.dtype, arithmetic, self.settings.seed)
        capturing = partial(captured, known, self.neighbours, capabilities, self.settings)
        notes = [not_there] if not_there else []
        return OwnLoss(
            *witness,
            notes,
            known=known,
            capturing=capturing,
            not_in_float64=not_there,
            is_under_referee=self.settings.referee is not None,
        )

    def _known_of(self, graph: Graph) -> FromGraph:
        """What is known of a graph that a candidate brings."""
        if id(graph) not in self.graphs:
            problem = replace(self.problem, loss=graph, intended={})
            self.graphs[id(graph)] = graph_referee(problem, self.dtype, self.settings, neighbours=self.neighbours)
        return self.graphs[id(graph)]

    def _in_float64(
        self, address: Address, candidate: Candidate, narrow: Prepared, answer: Answer
    ) -> tuple[Prepared | None, Answer, str]:
        """(the candidate in float64, what it gives there, a note): None where it does not run there, with the reason,
        and then what it gave in the dtype on trial."""
        if self.dtype == "float64":
            return narrow, answer, ""
        try:
            wide = prepare(candidate, self.problem, "float64", address.device, self.settings)
            return wide, wide.value_and_gradient(self.problem.primals), ""
        except Exception as error:  # noqa: BLE001  # a kernel of one dtype may raise anything in another
            why = first_lines(error)
            return None, answer, f"differenced in {self.dtype}, as the loss does not run in float64 ({why})"

    def runs_in(self, candidate: Candidate, device: str) -> str:
        """A dtype that was not asked for and in which a user's own function runs; empty where there is none, or that
        would take long to try."""
        capabilities = registry.installed(candidate.backend).capabilities
        own = callable(candidate.loss) or candidate.is_written_by_hand
        if not own or capabilities.compiles_along(candidate.path) or self.settings.timeout is not None:
            return ""
        for dtype in capabilities.dtypes:
            if dtype in self.settings.dtypes:
                continue
            if not isinstance(attempt(partial(self._once, candidate, dtype, device)), Failure):
                return dtype
        return ""

    def _once(self, candidate: Candidate, dtype: str, device: str) -> None:
        problem = self.problem.rounded(dtype)
        with registry.backend(candidate.backend).precision(self.settings.precision):
            prepared = prepare(candidate, problem, dtype, device, self.settings)
            prepared.value_and_gradient(problem.primals)
            custom_rules(candidate, prepared, problem.primals)

    def appoint_referee(self) -> None:
        """Put whom the referee is to judge under its graph."""
        every = list(self.witnesses)
        for number, witness in enumerate(every):
            found = attempt(partial(under_referee, witness, every, self.neighbours, self.settings))
            if isinstance(found, Failure):
                witness.notes.append(f"could not be held under the referee ({found.message})")
            else:
                self.witnesses[number] = found

    # Loss

    def compare_losses(self) -> None:
        """Hold each loss against the graph's, or against the first that is finite and steady."""
        first = first_of(self.witnesses)
        for witness in self.witnesses:
            if witness.loss:
                continue
            found = attempt(partial(compared, witness, first or witness, self.neighbours, self.dtype))
            if isinstance(found, Failure):
                witness.notes.append(f"its loss could not be compared ({found.message})")
            else:
                witness.loss = found

    # Checks

    def check(self, witness: Witness) -> None:
        """Judge each gradient of a candidate by what is known of it."""
        with registry.backend(witness.candidate.backend).precision(self.settings.precision):
            for path in self.problem.differentiated:
                unsteady = witness.tried.unsteady.get(path)
                found = Judgement(Verdict.NONDETERMINISTIC, unsteady) if unsteady else witness.judged(path)
                witness.judgements[path] = found

    def name_rules(self, witness: Witness) -> None:
        """Say beside a gradient that is wrong which of the rules that made it is wrong by itself."""
        judged, meant = witness.judgements, self.problem.intentions
        wrong = [path for path, found in judged.items() if found.verdict in WRONG and path not in meant]
        if not wrong or (witness.rules is not None and not any(rule.ran for rule in witness.rules)):
            return
        candidate = witness.candidate
        with registry.backend(candidate.backend).precision(self.settings.precision):
            every = (calls_of(prepared, self.problem.primals) for prepared in witness.at_work)
            looked = (looked_at(calls, partial(self._alone, witness)) for calls in every)
            found = first_off(looked)
        for path in wrong if (said := found.said(candidate.path or candidate.backend)) else ():
            judgement = witness.judgements[path]
            witness.judgements[path] = judgement.instead(judgement.verdict, f"{judgement.message}; {said}")

    def _alone(self, witness: Witness, call: RuleCall) -> dict[str, Alone]:
        """What is said of one call of a rule, by its inputs: it is judged as a candidate of its own, whose gradient is
        the one that it gave there."""
        problem = Problem(call.name, None, call.params, call.batch, cotangent=call.cotangent).rounded(call.dtype)
        address = replace(witness.address, network=call.name, candidate=call.name, dtype=call.dtype, path=None)
        settings = replace(self.settings, seconds=min(self.settings.seconds, ONE_RULE))
        run = _Run(problem, call.dtype, settings, None)
        alone = run.holding(call.gradient, address, Candidate(call.backend, call.loss))
        alone.rules = (CustomRule(call.name, ran=True),)
        run.check(alone)
        return {path: Alone(found.verdict, _part(alone, path)) for path, found in alone.judgements.items()}

    # What they say of each other

    def conclude(self) -> None:
        """Peers, intentions, reductions. Where a comparison fails, nothing agrees that it might have refuted."""
        steps: dict[str, Callable[[], Any]] = {
            "held against the others": partial(self.peers.compare, self.witnesses, self.problem, self.settings),
            "held against the intended difference": partial(as_intended, self.witnesses, self.problem, self.settings),
        }
        for what, step in steps.items():
            if isinstance(found := attempt(step), Failure):
                self._leave_open(f"could not be {what}: {found.message}")
        self.doubt_unproven_graphs()
        for witness in self.witnesses:
            if isinstance(found := attempt(partial(as_reduced, witness, self.settings)), Failure):
                witness.notes.append(f"could not be tried in reduced precision: {found.message}")
            if isinstance(found := attempt(partial(self.name_rules, witness)), Failure):
                why = found.message.partition(" / ")[0]
                witness.notes.append(f"its rules could not be checked one by one: {why}")

    def doubt_unproven_graphs(self) -> None:
        """What runs a graph that a loss was read into says nothing of that loss, unless the graph proved to be it."""
        own = [witness for witness in self.witnesses if isinstance(witness, OwnLoss)]
        for witness in self.witnesses if own else ():
            if not isinstance(witness, OfGraph) or any(w.is_proven(p) for w in own for p in witness.judgements):
                continue
            for path, judgement in witness.judgements.items():
                if judgement.verdict is Verdict.AGREE:
                    witness.judgements[path] = judgement.instead(Verdict.INCONCLUSIVE, UNPROVEN)

    def _leave_open(self, message: str) -> None:
        for witness in (w for w in self.witnesses if isinstance(w, OwnLoss)):
            for path, judgement in witness.judgements.items():
                if judgement.verdict in (Verdict.AGREE, Verdict.INTENDED):
                    witness.judgements[path] = judgement.instead(Verdict.INCONCLUSIVE, message)

    def rows(self, witness: Witness) -> list[Row]:
        found = attempt(partial(self._rows, witness))
        return [_failed(witness, found)] if isinstance(found, Failure) else found

    def _rows(self, witness: Witness) -> list[Row]:
        textbook = witness.textbook() if witness.is_judged else None
        rows = [self._row(witness, path, textbook) for path in self.problem.differentiated]
        return rows + fault_rows(witness.address, witness.rules or ())

    def _row(self, witness: Witness, path: str, textbook: float | None) -> Row:
        return Row.of(
            replace(witness.address, parameter=path),
            witness.noted(path),
            shape=self.problem.primals[path].shape,
            textbook=textbook,
            setup_seconds=witness.tried.prepared.setup_seconds,
            custom=witness.custom,
            **self._held_against(witness, path),
        )

    def _held_against(self, witness: Witness, path: str) -> dict[str, Any]:
        """What a row says of the gradient that this one is held against."""
        if isinstance(witness, OfGraph):
            known = witness.known
            reference = norm(known.gradients[path].high)
            return {"reference": reference, "refused": known.refused.get(path), "referee": witness.is_referee}
        assert isinstance(witness, OwnLoss)
        if path in witness.by_graph and isinstance(witness.capture, Capture):
            return by_capture(witness.capture, path)
        gradient = self.peers.reference(path, witness)
        against = ITSELF if witness.known.is_narrowed else self.peers.against(witness, path)
        return {
            "reference": 0.0 if gradient is None else norm(gradient),
            "against": None if witness.judgements[path].error is None else against,
            "fd_dtype": witness.known.fd_dtype,
            "not_captured": witness.why_judged_by_values if witness.is_judged else None,
        }


def _failed(witness: Witness, failure: Failure) -> Row:
    """The one row of a candidate that ran, and could not be judged."""
    return Row.of(witness.address, failure, custom=witness.custom)


def _part(witness: Witness, path: str) -> float | None:
    """How far a gradient is off, of its norm; None where no reference tells."""
    error = witness.judgements[path].error
    if not isinstance(witness, OwnLoss) or not isinstance(witness.capture, Capture) or path not in witness.by_graph:
        return None
    return None if error is None else error / (max(norm(witness.capture.known.gradients[path].high), error) or 1.0)


def _not_cut(problem: Problem) -> str:
    """That no batch of another size was tried, if it was not for an extent that others share."""
    if problem.examples < 2 or not problem.by_example or problem.may_be_cut:
        return ""
    others, have = ", ".join(problem.not_cut), "has" if len(problem.not_cut) == 1 else "have"
    return f"not tried with a batch of another size, as {others} {have} an extent of {problem.examples} too"


def _is_finite_at(prepared: Prepared, primals: Primals) -> bool:
    """Whether the loss is defined there; one that checks its domain may raise."""
    try:
        return math.isfinite(prepared.value(primals))
    except NoAnswerError:
        raise
    except Exception:  # noqa: BLE001  # a domain error may be any
        return False
