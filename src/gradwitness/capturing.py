"""A loss in torch or jax, as its users wrote it, as a graph over the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gradwitness import registry
from gradwitness.errors import VALUES_ALONE, CaptureError, GradwitnessError
from gradwitness.graph import Graph
from gradwitness.problem import Candidate, Problem
from gradwitness.protocol import Capturing, Prepared

__all__ = ["any_captured", "capture", "captured_at"]


def capture(
    candidate: Candidate, params: Any, batch: Any = None, *, dtype: str = "float64", device: str = "cpu"
) -> Graph:
    """Read a candidate's own loss into a Graph, which may stand wherever a loss over `gradwitness.ops` may.

    candidate: a Candidate with a loss in its framework's own arrays.
    params, batch: nested dicts, lists or tuples of arrays.
    dtype, device: where the loss runs, on real numbers.

    Only the forward of an autograd.Function, custom_vjp or custom_jvp is read. detach, no_grad and stop_gradient are
    identities. Loops and branches stay as they were at this point: the graph holds for this batch. Whether it is the
    same function elsewhere is not known yet; `verify` tests that before it uses one. `graph.remarks` says what was
    assumed: which elements a top-k picks, or numbers that Python read out.

    Raises CaptureError, with the op and the line, for an op without a rule.
    """
    if not isinstance(candidate, Candidate):
        raise GradwitnessError(
            'capture takes a Candidate, which says whose arrays the loss takes: capture(gw.Candidate("torch", loss), '
            f"params, batch); got {type(candidate).__name__}"
        )
    problem = Problem("loss", None, params, {} if batch is None else batch)
    return captured_at(candidate, problem.rounded(dtype), dtype, device)


def captured_at(candidate: Candidate, problem: Problem, dtype: str, device: str) -> Graph:
    """The same at a problem's point, which `dtype` can hold."""
    return _captured(_prepared(candidate, problem, dtype, device), candidate, problem)


def _prepared(candidate: Candidate, problem: Problem, dtype: str, device: str) -> Prepared:
    return registry.installed(candidate.backend).prepare(candidate, problem, dtype=dtype, device=device)


def _captured(prepared: Prepared, candidate: Candidate, problem: Problem, *, stops: bool = False) -> Graph:
    if not isinstance(prepared, Capturing):
        raise CaptureError(f"{candidate.backend}: {VALUES_ALONE}")
    return prepared.captured(problem.primals, stops=stops)


def any_captured(
    candidates: Mapping[str, Candidate],
    problem: Problem,
    *,
    prepare: Callable[..., Prepared] = _prepared,
    stops: bool = False,
) -> tuple[Candidate, Graph]:
    """The first of several losses that can be read into a graph, and that. prepare: as `run.preparing.prepare`, perhaps
    in a subprocess. stops: whether no derivative goes through what the loss detaches. Raises CaptureError, with every
    reason."""
    reasons = []
    for label, candidate in candidates.items():
        for dtype in dict.fromkeys(("float64", *problem.own_dtypes)):
            try:
                at = problem.rounded(dtype)
                return candidate, _captured(prepare(candidate, at, dtype, "cpu"), candidate, at, stops=stops)
            except Exception as error:  # noqa: BLE001  # a user's loss may raise anything
                reasons.append(f"{label} in {dtype}: {error}")
    raise CaptureError("a graph of the loss is needed, and none could be read:\n" + "\n".join(reasons))
