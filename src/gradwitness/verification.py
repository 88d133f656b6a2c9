"""What is asked for, checked and run: problems and candidates give a Report."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import Any, Never

from gradwitness import registry
from gradwitness.advice import expect_loss
from gradwitness.capturing import any_captured
from gradwitness.errors import GradwitnessError, UnknownName
from gradwitness.graph import Graph
from gradwitness.paths import expect_taken
from gradwitness.problem import Candidate, Intended, Loss, Problem
from gradwitness.protocol import expect_options
from gradwitness.report import Case, Report, joined
from gradwitness.run.carried import carried, expect_executor
from gradwitness.run.cases import verify_case
from gradwitness.run.cotangent import with_random_cotangent
from gradwitness.run.environment import environment, expect_same_environment
from gradwitness.run.preparing import prepare
from gradwitness.run.progress import Progress
from gradwitness.settings import Settings, dtype_names, names
from gradwitness.verdict import expect_verdicts

__all__ = ["candidates_of", "expect_devices", "exporter", "verify", "verify_problems"]

Candidates = dict[str, Candidate]
WITH_GRADIENT = ("gradient", "value_and_gradient")  # options of a Candidate
TOLERANCES = ("atol", "rtol", "eps", "tol", "tolerance", "delta")  # of gradcheck and others


def verify(
    loss: Loss | Graph | Problem | Candidate | Mapping[str, Loss | Candidate],
    params: Any = None,
    batch: Any = None,
    *,
    backends: str | Sequence[str] | None = None,
    candidates: Mapping[str, Candidate] | None = None,
    dtypes: str | Sequence[str] | None = None,
    devices: str | Sequence[str] = Settings.devices,
    precision: str = Settings.precision,
    seed: int = Settings.seed,
    reference: str = Settings.reference,
    seconds: float = Settings.seconds,
    timeout: float | None = Settings.timeout,
    paths: str | Sequence[str] = Settings.paths,
    capture: str = Settings.capture,
    referee: str | None = Settings.referee,
    derivative: str = Settings.derivative,
    wrt: str | Sequence[str] | None = None,
    cotangent: Any = None,
    intended: Intended | None = None,
    name: str = "loss",
    allow: str | Sequence[str] = (),
    require: str | Sequence[str] = (),
    progress: Progress | None = None,
    executor: Executor | None = None,
    reference_seconds: float | None = None,
    **unknown: Never,
) -> Report:
    """Judge each gradient of a loss, in every dtype and on every device that you ask for.

    loss: one of these.

    - `loss(params, batch)` over `gradwitness.ops`, its Graph, or a Problem. It runs on every installed backend, or on
      `backends` ("all", or some by name). Each gradient is held against the hand-derived one in 256 bits. If that would
      take more than `seconds`, 256 bits validate the rules on fewer examples, or check single directions, and the
      hand-derived gradient in float64 is the reference. With reference="differences" finite differences confirm it.
    - Candidates by label, each a Candidate, or, under a backend's name, a bare loss. One Candidate may stand alone.
      Each has a loss in its framework's own arrays, and perhaps a gradient written by hand. It is judged by the graph
      into which its loss is read, or by numerical derivatives of its loss. All are held against each other. With
      `backends`, such a loss runs on those as well, in their own ops.

    candidates: further Candidates by label, beside a loss over `gradwitness.ops`, such as
    {"mine": Candidate("numpy", gradient=my_gradient)}.
    params, batch: nested dicts, lists or tuples of arrays, of any shapes. Floats are rounded to each dtype on trial,
    integers and booleans stay as they are.
    dtypes: names or dtypes of a framework; by default those of the leaves to differentiate.
    devices: names such as "cpu" or "cuda".
    precision: of matrix products: "highest", or "default" for the framework's own setting.
    seed: of all that is drawn: directions, perturbations, neighbours, random cotangents.
    reference: "extended" for 256 bits, or "differences".
    seconds: the time that 256 bits may take for each dtype, in seconds.
    wrt: paths of leaves of params or batch to differentiate by, instead of all params.
    cotangent: weights for the elements of a loss that returns an array: "random" (standard normal), or an array of that
    shape. A gradient by hand gets it as its third argument.
    intended: leaves whose gradient is meant to differ from the derivative, by path or pattern, each with the reason, as
    in {"encoder.*": "straight-through"}. Candidates must then agree with each other. With a distance, as in
    {"field": ("continuous adjoint", 1e-4)}, the gradient may be off by that part of its norm. {"embedding[0]":
    "padding"} names elements.
    name: what the report calls the problem.
    timeout: seconds that preparing a candidate, and each of its answers, may take. Each candidate then runs in a
    subprocess, so that one that hangs, is killed or crashes the interpreter is an error in its own rows only.
    paths: the ways to the gradient to try, "all" or some of them, such as ["eager", "vmap"]. A candidate whose
    framework differentiates its loss becomes one candidate for each path, "mine [eager]" and "mine [vmap]"; others stay
    as they are. A path that does not apply is `unsupported`, with the reason.
    capture: "auto" reads a loss in torch or jax into a graph where possible, and judges it by the graph if that proves
    to be the loss. "never" judges it by its values.
    referee: the label of a candidate whose loss, read into a graph, is the truth for kernels that do not run in
    float64, such as those that exist in bfloat16 only. In 16 bits averages judge them as well, and show a factor of
    1.005.
    derivative: "gradient", or another: "jvp", "vjp", "hvp" (the product of the Hessian with a direction), "hessian",
    "per-example". Directions are drawn by `seed`. Each framework takes them in its own ways, named behind the label, as
    in "torch [twice]". docs/derivatives.md has them.
    allow: verdicts that pass as well, such as "inconclusive".
    require: backends, or labels of candidates, that must run and agree.
    progress: a function, called with a line of text as each step begins.
    executor: a `concurrent.futures.Executor` that carries the cells, each a dtype on a device: a ProcessPoolExecutor,
    loky's, or Dask's `client.get_executor()`. A worker does one cell at a time. The rows are those of a run without it.

    Returns a Report, which is falsy if something does not agree. An exception that a candidate raises is an `error` in
    its rows, and not raised here.

    Raises GradwitnessError for wrong arguments, and for a loss that cannot be traced, differentiated or found.
    docs/verdict.md has the mathematics, with its sources.
    """
    if reference_seconds is not None:
        raise GradwitnessError(f"reference_seconds= is now seconds=: give seconds={reference_seconds!r}")
    expect_verdicts(allowed := names(allow, "allow"))
    if executor is not None:
        expect_executor(executor)
    if unknown:
        raise _unknown(unknown)
    if params is None and not isinstance(loss, Problem):
        raise GradwitnessError("no params: call gw.verify(loss, params, batch), params the arrays to differentiate by")
    named, own = candidates_of(loss, backends, params, batch), _beside(loss, candidates)
    problem = _problem(loss, name, params=params, batch=batch, wrt=wrt, cotangent=cotangent, intended=intended)
    chosen = problem.own_dtypes if dtypes is None else dtype_names(dtypes)
    ways = names(paths, "paths")
    asked = (chosen, names(devices, "devices"), precision, seed, reference, seconds, timeout, ways, capture, referee)
    settings = Settings(*asked, derivative)
    if isinstance(problem.cotangent, str):
        problem = with_random_cotangent(problem, {**(named or {}), **own}.values(), settings)
    if backends is not None and isinstance(loss, Mapping | Candidate):
        own = {**own, **_elsewhere(named or {}, problem, backends, settings)}
    if problem.loss is not None:
        problem.graph  # noqa: B018  # a loss that cannot be traced is an error, not a row for each backend
    for candidate in (*(named or {}).values(), *own.values()):  # whoever is named must be there
        expect_options(registry.installed(candidate.backend), candidate)
    everybody = {label: Candidate(label) for label in registry.backend_names()} if named is None else named
    on_trial = {**everybody, **own}
    expect_taken(on_trial, settings.paths)
    expect_devices(settings.devices, [candidate.backend for candidate in on_trial.values()])
    for label in (required := names(require, "require")):
        if label not in on_trial:
            registry.backend(label)
    told = {} if progress is None else {"progress": progress}
    found = verify_problems([(problem, on_trial)], settings, **told, executor=executor)
    return replace(found, allow=allowed, require=required)


def _unknown(options: Mapping[str, Any]) -> GradwitnessError:
    """For options that there are not: the nearest, or that a tolerance is measured."""
    name = next(iter(options))
    known = [option for option in inspect.signature(verify).parameters if option != "unknown"]
    if name in TOLERANCES:
        return GradwitnessError(f"verify has no {name!r}: how far a gradient may be off is measured, not given")
    if name in WITH_GRADIENT:
        return GradwitnessError(f'{name}= belongs to a candidate: gw.Candidate("numpy", loss, {name}={name})')
    near = get_close_matches(name, known, 1)
    return GradwitnessError(
        f"verify has no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}")
    )


def _problem(loss: Any, name: str, **given: Any) -> Problem:
    """given: what else describes a Problem, None for its default."""
    known = {field: value for field, value in given.items() if value is not None}
    if isinstance(loss, Problem):
        if known:
            raise GradwitnessError(
                f"a Problem has {' and '.join(known)} of its own ({loss.name!r}): give it alone, or as it should be"
            )
        return loss
    traced = None if isinstance(loss, Mapping | Candidate) else loss
    if "wrt" in known:
        known["wrt"] = names(known["wrt"], "wrt")
    return Problem(name, traced, **({"params": None, "batch": {}} | known))


def candidates_of(loss: Any, backends: str | Sequence[str] | None, params: Any, batch: Any) -> Candidates | None:
    """The candidates by label; None stands for every backend, with the loss that is traced."""
    if isinstance(loss, Candidate):
        loss = {loss.backend: loss}
    if not isinstance(loss, Mapping):
        if not isinstance(loss, Problem):
            expect_loss(loss, params, batch)
        if not (callable(loss) or isinstance(loss, Problem | Graph)):
            raise GradwitnessError(
                f"expected a loss(params, batch), a Problem or candidates by label, got {type(loss).__name__}: give"
                ' them as gw.verify({"torch": loss, "mine": gw.Candidate("numpy", loss, gradient=...)}, params, batch)'
            )
        return None if backends is None else {label: Candidate(label) for label in _backend_names(backends)}
    if not loss:
        raise GradwitnessError("no candidates: give at least one, by its label")
    return {label: _candidate(label, given, params, batch) for label, given in loss.items()}


def _backend_names(backends: str | Sequence[str]) -> tuple[str, ...]:
    return registry.backend_names() if backends == "all" else names(backends, "backends")


def _elsewhere(named: Candidates, problem: Problem, backends: str | Sequence[str], settings: Settings) -> Candidates:
    """The loss of one of the candidates, read into a graph, on further backends."""
    chosen = [registry.backend(name).name for name in _backend_names(backends)]
    if settings.derivative != "gradient":  # which is of a graph that is made there
        return {(f"{name} (captured)" if name in named else name): Candidate(name) for name in chosen}
    _, graph = any_captured(named, problem, prepare=partial(prepare, settings=settings))
    return {(f"{name} (captured)" if name in named else name): Candidate(name, graph) for name in chosen}


def _beside(loss: Any, candidates: Mapping[str, Candidate] | None) -> Candidates:
    """Further candidates of a traced loss."""
    for label, candidate in (candidates or {}).items():
        if isinstance(loss, Mapping | Candidate):
            raise GradwitnessError("candidates= stands beside a loss over gradwitness.ops; put all into the mapping")
        if not isinstance(candidate, Candidate):
            raise GradwitnessError(f"{label!r}: expected a Candidate, got {type(candidate).__name__}")
        if label in registry.backend_names():
            raise GradwitnessError(f"{label!r} is a backend, which runs the loss itself: give it another label")
    return dict(candidates or {})


def _candidate(label: str, given: Any, params: Any, batch: Any) -> Candidate:
    if not isinstance(label, str):
        raise GradwitnessError(f"a candidate's label must be a string, got {label!r}")
    expect_loss(given.loss if isinstance(given, Candidate) else given, params, batch)
    if isinstance(given, Candidate):
        return given
    if not callable(given):
        raise GradwitnessError(f"{label!r}: expected a loss(params, batch) or a Candidate, got {type(given).__name__}")
    if label not in registry.backend_names():
        near = get_close_matches(label, registry.backend_names(), 1)
        meant = f"; did you mean {near[0]!r}? Else" if near else ", so it does not say where its loss runs:"
        raise GradwitnessError(
            f"{label!r} is no backend (there is: {', '.join(registry.backend_names())}){meant} give "
            f'{{{label!r}: Candidate("{near[0] if near else "torch"}", loss)}}, say'
        )
    return Candidate(label, given)


def expect_devices(devices: Sequence[str], backends: Sequence[str]) -> None:
    """Raise UnknownName for a device that none of these backends has."""
    if tuple(devices) == ("cpu",):
        return  # every backend has it, and asking would import the frameworks
    known = {d for n in backends if not registry.missing_modules(n) for d in registry.backend(n).devices()}
    for device in devices:
        if device not in known:
            raise UnknownName("device", device, known)


def verify_problems(
    cases: Iterable[tuple[Problem, Sequence[str] | Mapping[str, Candidate]]],
    settings: Settings,
    *,
    progress: Progress = lambda text: None,
    executor: Executor | None = None,
) -> Report:
    """Each problem through its backends, or candidates by label. One's failure never costs the others' results.

    executor: what carries the cells, if not this process.
    """
    tried = tuple(Case(problem, _by_label(given), settings) for problem, given in cases)
    for case in tried:
        expect_referee(settings.referee, case.candidates)
    if executor is None:
        reports = [verify_case(case, progress=progress) for case in tried]
    else:
        reports = _by_executor(tried, executor, progress)
    found = joined(reports) if reports else Report((), environment((), settings))
    return replace(found, cases=tried, exporter=exporter)


def _by_label(given: Sequence[str] | Mapping[str, Candidate]) -> Mapping[str, Candidate]:
    return given if isinstance(given, Mapping) else {name: Candidate(name) for name in given}


def _by_executor(cases: Sequence[Case], executor: Executor, progress: Progress) -> list[Report]:
    """The report of each cell, in the order of the rows."""
    cells = [cell for case in cases for cell in case.cells]
    here = environment((name for case in cases for name in case.backends), cases[0].settings) if cases else {}
    found: dict[int, Report] = {}
    for number, report in carried(cells, executor):
        found[number] = report
        expect_same_environment(here, report.environment, "here", "in a worker of executor=")
        progress(f"{cells[number].named} ({len(found)} of {len(cells)} done)")
    return [found[number] for number in range(len(cells))]


def expect_referee(label: str | None, candidates: Mapping[str, Candidate]) -> None:
    """Raise UnknownName for a referee that is none of the candidates."""
    if label is not None and label not in candidates:
        raise UnknownName("referee", label, candidates)


def exporter(*arguments: Any, **options: Any) -> None:
    """What writes a script of one of a report's rows: `Report.exporter`."""
    from gradwitness.repro import export  # here, so that importing gradwitness is quick

    export(*arguments, **options)
