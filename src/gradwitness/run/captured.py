"""A candidate's own loss, read into a graph, and whether the graph may stand for it.

Nothing about a graph is believed. Its loss must equal the candidate's, at the point and at both neighbours, and its
gradient must have the derivatives that differences of the candidate's own loss have. Equal values alone say little: an
iteration that ends on a comparison, or a table of steps, has the same values and another derivative.

A graph holds what was decided at the point, such as which experts a router picks. Elsewhere the loss may decide
otherwise, so it is read there again before its value is held against the graph's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from gradwitness.arithmetic import Arithmetic
from gradwitness.dtypes import Array, find_dtype
from gradwitness.errors import VALUES_ALONE, CaptureError, NoAnswerError
from gradwitness.evidence.finite_difference import Probe
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.from_values import FromValues
from gradwitness.evidence.held import has_branches
from gradwitness.evidence.neighbours import Neighbours
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.evidence.norms import norm
from gradwitness.evidence.probes import for_the_reader
from gradwitness.evidence.sight import Sight, Slack, look
from gradwitness.graph import Graph
from gradwitness.protocol import Capabilities, Capturing
from gradwitness.run.failing import first_lines
from gradwitness.run.referee import graph_referee
from gradwitness.settings import Settings
from gradwitness.verdict.losses import judge_loss

__all__ = ["Capture", "by_capture", "captured"]

LARGEST = 20_000_000  # parameters of a graph: references and floors take as many bytes again as differences do
DECIDED = ("decision", "number")  # kinds of remarks
BESIDE = 1e-3  # of each leaf's rms: finer stairs show there, and differences of the loss see coarser ones
SHOWN = 2  # of them in a message
DERIVATIVES = "its values agree with the loss and its derivatives do not: does a step of it end on a comparison?"


@dataclass(frozen=True, eq=False)
class Capture:
    """A loss as a graph. known: what is known of it; own: the same of the loss by its values, in the finest dtype."""

    known: FromGraph
    own: FromValues
    wide_arithmetic: Arithmetic  # of the candidate, in the dtype in which its loss is differenced

    @property
    def graph(self) -> Graph:
        return self.known.problem.graph

    @property
    def _slack(self) -> Slack:
        """What is rounded in a gradient of the loss where that is differenced."""
        return partial(self.fine.slack, self.wide_arithmetic, False)

    @property
    def is_decided(self) -> bool:
        """Whether something was decided at the point that the graph does not decide anew."""
        return any(remark.kind in DECIDED for remark in self.graph.remarks)

    @property
    def decides_alone(self) -> bool:
        """Whether it only picks and compares at the point: a number that Python read out may be anything elsewhere."""
        return self.is_decided and not any(remark.kind == "number" for remark in self.graph.remarks)

    @property
    def is_narrow(self) -> bool:
        """Whether it computes in fewer digits inside than those of the dtype on trial."""
        own = find_dtype(self.known.dtype).unit_roundoff
        return any(node.narrow and find_dtype(node.narrow).unit_roundoff > own for node in self.graph.nodes)

    @cached_property
    def detached(self) -> list[str]:
        """The lines at which the loss detaches."""
        return list(dict.fromkeys(f"{remark.line}" for remark in self.graph.remarks if remark.kind == "detached"))

    @cached_property
    def stopping(self) -> dict[str, Array]:
        """The gradient through which no derivative goes where the loss detaches."""
        assert isinstance(self.own.finest, Capturing)
        graph = self.own.finest.captured(self.own.problem.primals, stops=True)
        leaves, paths = self.own.problem.leaves, self.own.problem.differentiated
        tape = self.known.interpreter.forward(graph, {**leaves, **graph.constants})
        zeros = {path: np.zeros(leaves[path].shape) for path in paths}
        return zeros | self.known.interpreter.backward(tape, paths)

    # What is decided

    def _read_at(self, place: Mapping[str, Array]) -> Graph:
        """The loss as a graph of what it decides at another place."""
        assert isinstance(self.own.finest, Capturing)
        return self.own.finest.captured({**self.own.problem.primals, **place})

    @cached_property
    def _decided_anew(self) -> tuple[float, ...] | None:
        """Its losses where they are compared, with what the loss decides there; None where it cannot be read there.

        That they are those of the loss says that it is read rightly. Whether the graph has its slope, differences say.
        """
        losses, leaves = [self.known.losses[0]], self.own.problem.leaves
        for place in self.known.neighbours:
            try:
                graph = self._read_at(place)
            except CaptureError:
                return None
            tape = self.known.interpreter.forward(graph, {**leaves, **place, **graph.constants})
            losses.append(self.known.interpreter.loss(tape))
        return tuple(losses)

    @cached_property
    def stays_decided(self) -> bool:
        """Whether the loss is read alike beside the point, so that nothing that the graph holds hides a slope: neither
        what was decided, nor a number that left the framework without a trace, through NumPy or another thread."""
        if self.is_decided and not self.decides_alone:
            return False
        around = Neighbours(self.own.problem.primals, "float64", (self.own.seed, 8), (0, 1), distance=BESIDE)
        try:
            return all(self.graph.is_same_as(self._read_at(place)) for place in around)
        except CaptureError:
            return False

    @cached_property
    def mistrust(self) -> str:
        """Why it may not stand for the loss; empty if it may."""
        return self._other_values or (DERIVATIVES if any(s.refuted for s in self.sights.values()) else "")

    def stands_for(self, path: str) -> bool:
        """Whether the gradient of a leaf may be judged by it. Differences must have seen all of the leaf, those of the
        loss; or, where its noise hides some, or all of a faint one, those of the graph itself, if nothing that it holds
        hides a slope."""
        if path in self.own.problem.intentions or self.mistrust:
            return False
        is_seen = not self.sights[path].unseen and not self.sights[path].faint
        return is_seen or not self._among_its_own[path].unseen

    @cached_property
    def _among_its_own(self) -> dict[str, Sight]:
        """What differences of the graph see of its gradient. Each element is claimed to be unseen where something is
        decided otherwise right beside the point."""
        unseen = {path: Sight(g.size, unseen=g.size) for path, g in self.gradients.items()}
        if not self.stays_decided:
            return unseen
        wide = self._moving.in_dtype("float64")
        slack = partial(wide.slack, wide.arithmetic, False)
        found = look(wide.with_decisions, self._finite, slack, seed=(self.own.seed, 2)) if self._finite else {}
        return unseen | {path: sight for path, sight in found.items() if not sight.refuted}

    @cached_property
    def _moving(self) -> FromGraph:
        """What is known of it where nothing stands still: jax stops at the maximum of a softmax, which is to cancel."""
        if "stop_gradient" not in self.graph.op_names:
            return self.known
        problem = replace(self.known.problem, loss=self.graph.unstopped)
        return replace(self.known, problem=problem, _floors={}, _nearby={}, _predictions={})

    @cached_property
    def fine(self) -> FromGraph:
        """The same in the dtype in which the loss is differenced."""
        return self.known.in_dtype(self.own.fd_dtype)

    @cached_property
    def _other_values(self) -> str:
        places = [{}, *self.known.neighbours]
        losses = [self.own.finest.value({**self.own.problem.primals, **place}) for place in places]
        if any(np.isfinite(a) and not np.isfinite(b) for a, b in zip(losses, self.known.losses, strict=True)):
            return "the loss is finite where its graph is not"
        return self.apart(losses, self.fine.loss_floors_of(self.wide_arithmetic))

    def apart(self, losses: Sequence[float], floors: Sequence[TensorFloor]) -> str:
        """In what these losses, at the point and at its neighbours, differ from the graph's; empty if in nothing."""
        found = judge_loss(losses, self.known.losses, floors, whose="the graph")
        if found and self.decides_alone and (anew := self._decided_anew) is not None:
            found = judge_loss(losses, anew, floors, whose="the graph")
        return f"{found.message}{self.decided}" if found else ""

    @property
    def decided(self) -> str:
        """What was decided at the point, in words: that may be why it is another loss elsewhere."""
        said = [f"{remark.text} ({remark.line})" for remark in self.graph.remarks if remark.kind in DECIDED]
        return f"; {'; '.join(said[:SHOWN])}" if said else ""

    @cached_property
    def probes(self) -> dict[str, tuple[Probe, ...]]:
        """Differences of the loss itself by single coordinates, for the reader."""
        return for_the_reader(self.own.differencing, self._finite)

    @cached_property
    def gradients(self) -> dict[str, Array]:
        return {path: exact.high for path, exact in self.known.gradients.items()}

    @cached_property
    def _finite(self) -> dict[str, Array]:
        return {path: g for path, g in self.gradients.items() if np.all(np.isfinite(g))}

    @cached_property
    def seen(self) -> Mapping[str, Sight]:
        """What differences see of gradients that 256 bits say nothing of. Those of the graph hold its branches, and
        have no noise of fewer digits; where it has neither, those of the loss have seen as much already."""
        unheard = self.known.unheard
        if has_branches(self.graph) or self.is_narrow or any(self.sights[path].unseen for path in unheard):
            return self.known.sights
        with_exact = partial(self.fine.with_exact, slack=self._slack)
        return {path: with_exact(path, self.gradients[path], self.sights[path]) for path in unheard}

    @cached_property
    def sights(self) -> dict[str, Sight]:
        """What differences of the loss itself see of the graph's gradient."""
        finite = self._finite
        found = look(self.own.differencing, finite, self._slack, seed=(self.own.seed, 2)) if finite else {}
        return {path: found.get(path, Sight(g.size, unseen=g.size)) for path, g in self.gradients.items()}


def captured(
    own: FromValues, neighbours: Neighbours | None, capabilities: Capabilities, settings: Settings
) -> Capture | str:
    """The loss as a graph, or why there is none."""
    if settings.capture == "never":
        return 'capture="never" was asked for'
    if not isinstance(own.finest, Capturing):
        return VALUES_ALONE
    size = sum(x.size for x in own.problem.primals.values())
    if size > LARGEST:
        return f"it has {size:,} parameters, and graphs of up to {LARGEST:,} are held in memory beside them"
    try:
        graph = own.finest.captured(own.problem.primals)
    except NoAnswerError:
        raise
    except CaptureError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # a user's function may raise anything on what it does not expect
        return first_lines(error)
    problem = replace(own.problem, loss=graph, intended={})
    known = graph_referee(problem, own.dtype, settings, neighbours=neighbours)
    return Capture(known, own, capabilities.arithmetic(own.fd_dtype))


def by_capture(capture: Capture, path: str) -> dict[str, Any]:
    """What a row says of a gradient that was judged by the graph."""
    known = capture.known
    return {
        "reference": norm(known.gradients[path].high),
        "refused": known.refused.get(path),
        "fd_dtype": capture.own.fd_dtype,
        "captured": sum(node.is_op for node in capture.graph.nodes),
        "remarks": tuple(f"{remark.text} ({remark.line})" for remark in capture.graph.remarks),
    }
