"""How a gradient flows through a network, and what is wrong with it although it is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gradwitness import registry
from gradwitness.advice import expect_loss
from gradwitness.capturing import any_captured
from gradwitness.diagnosis.document import to_json
from gradwitness.diagnosis.findings import Facts, findings_of
from gradwitness.diagnosis.flow import Tapped
from gradwitness.diagnosis.measured import Measured
from gradwitness.diagnosis.stages import Stage, stages_of
from gradwitness.diagnosis.table import table
from gradwitness.diagnosis.units import observed
from gradwitness.errors import GradwitnessError
from gradwitness.evidence.from_graph import FromGraph
from gradwitness.evidence.noise_floor import TensorFloor
from gradwitness.graph import Graph
from gradwitness.problem import Candidate, Loss, Problem
from gradwitness.run.environment import environment
from gradwitness.run.preparing import prepare
from gradwitness.run.progress import Progress
from gradwitness.settings import Settings, dtype_names, names
from gradwitness.verification import candidates_of, expect_devices

__all__ = ["Health", "chosen_backends", "health"]

MATRIX = 2  # axes of a weight whose 2-norm bounds what it does


class Health(Measured):
    """What was measured and found. It is falsy if anything was found, and prints as a table."""

    def table(self) -> str:
        """The flow, layer by layer, and what was found."""
        return table(self)

    def json(self) -> str:
        """Everything, in full precision."""
        return to_json(self)

    def html(self, *, made: Mapping[str, str] | None = None) -> str:
        """The same as one page, with signal and gradient against depth as a picture. made: how the page was made, such
        as {"command": "python train.py"}.

        Raises GradwitnessError where jinja2 or matplotlib is missing (`pip install "gradwitness[html]"`).
        """
        from gradwitness.diagnosis.page import to_page  # what few need

        return to_page(self, made or {})

    def __repr__(self) -> str:
        return self.table()


def health(
    loss: Loss | Graph | Problem | Candidate | Mapping[str, Loss | Candidate],
    params: Any = None,
    batch: Any = None,
    *,
    backends: str | Sequence[str] | None = None,
    dtype: Any = "float32",
    device: str = "cpu",
    precision: str = Settings.precision,
    seed: int = Settings.seed,
    wrt: str | Sequence[str] | None = None,
    name: str = "loss",
    progress: Progress = lambda text: None,
) -> Health:
    """Follow activations and gradients through a network, on every backend, and say what is wrong with them.

    loss, params, batch: as for `gradwitness.verify`. A loss in torch or jax is read into a graph, with the names of its
    own modules.
    backends: on which its flow is measured, "all" or some by name; by default all that are installed and need not
    compile for it.
    dtype: in which the backends compute. The reference is hand-derived, in float64.
    device, precision, seed, wrt, name: as for `verify`.
    progress: a function, called with a line of text as each step begins.

    Returns a Health, which is falsy if there are findings.
    Raises GradwitnessError for wrong arguments, and CaptureError for a loss that cannot be read into a graph.
    docs/health.md has each finding with its threshold and its source.
    """
    if len(given := dtype_names(dtype)) != 1:
        raise GradwitnessError(f"dtype: expected one, got {', '.join(given) or 'none'}")
    (dtype,) = given
    settings = Settings(dtypes=(dtype,), devices=(device,), precision=precision, seed=seed, reference="differences")
    problem = _problem(loss, params, batch, wrt, name, settings).rounded(dtype)
    chosen = chosen_backends(backends)
    expect_devices(settings.devices, chosen)
    stages = stages_of(problem.graph, problem.differentiated)
    with np.errstate(all="ignore"):  # what is not finite is a finding
        return _measured(problem, stages, chosen, device, settings, progress)


def _measured(
    problem: Problem,
    stages: Sequence[Stage],
    chosen: Sequence[str],
    device: str,
    settings: Settings,
    progress: Progress,
) -> Health:
    (dtype,) = settings.dtypes
    watched = Tapped.of(problem, stages, dtype, settings)
    flows = {}
    for backend in chosen:
        progress(f"{problem.name}: {len(stages)} stages on {backend}")
        flows[backend] = watched.flow(backend, device, settings)
    progress(f"{problem.name}: findings")
    return Health(
        problem.name,
        dtype,
        sum(x.size for x in problem.primals.values()),
        tuple(stages),
        watched.passing,
        tuple(_bounds(problem, stages)),
        flows,
        tuple(findings_of(_facts(problem, watched))),
        environment(chosen, settings),
    )


def _problem(
    loss: Any, params: Any, batch: Any, wrt: str | Sequence[str] | None, name: str, settings: Settings
) -> Problem:
    """With a loss that is a graph, or can be traced."""
    if isinstance(loss, Problem):
        return loss
    if params is None:
        raise GradwitnessError("no params: call gw.health(loss, params, batch), params the arrays to differentiate by")
    by = None if wrt is None else names(wrt, "wrt")
    if not isinstance(loss, Mapping | Candidate):
        expect_loss(loss, params, batch)
    candidates = candidates_of(loss, (), params, batch) if isinstance(loss, Mapping | Candidate) else None
    traced = loss if candidates is None else None
    problem = Problem(name, traced, params, {} if batch is None else batch, by)
    if candidates is None:
        return problem
    _, graph = any_captured(candidates, problem, prepare=partial(prepare, settings=settings))
    return replace(problem, loss=graph)


def chosen_backends(backends: str | Sequence[str] | None) -> tuple[str, ...]:
    there = tuple(name for name in registry.backend_names() if not registry.missing_modules(name))
    if backends is None:
        return tuple(name for name in there if not registry.backend(name).capabilities.compiles)
    chosen = there if backends == "all" else names(backends, "backends")
    for name in chosen:
        registry.installed(name)
    return chosen


def _facts(problem: Problem, watched: Tapped) -> Facts:
    known = watched.known
    return Facts(
        watched.stages,
        watched.passing,
        {path: watched.exact.get(path, np.zeros(x.shape)) for path, x in problem.primals.items()},
        known.reached,
        {dtype: _floors(known.in_dtype(dtype)) for dtype in (known.dtype, "float64")},
        observed(problem),
        known.dtype,
    )


def _floors(known: FromGraph) -> Mapping[str, TensorFloor]:
    """Of each gradient, as the interpreter's own operations round in the dtype."""
    return known.floors_of(registry.interpreter().capabilities.arithmetic(known.dtype)).tensors


def _bounds(problem: Problem, stages: Sequence[Stage]) -> Iterator[float | None]:
    """By how much the cotangent of each stage may be that of the stage after it, if that takes nothing else: the
    steepest slope of its activation times the 2-norm of its matrix."""
    after = {stage.after: stage for stage in stages if stage.after is not None}
    for number in range(len(stages)):
        stage = after.get(number)
        weight = problem.leaves[stage.weight] if stage and stage.weight else np.zeros(())
        yield stage.slope * float(np.linalg.norm(weight, 2)) if stage and weight.ndim == MATRIX else None
