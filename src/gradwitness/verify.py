"""The run: one problem and many candidates give a Report."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np

from gradwitness import registry
from gradwitness.dtypes import find_dtype
from gradwitness.errors import GradwitnessError, UnknownName, UnsupportedError
from gradwitness.evidence.finite_difference import textbook_difference
from gradwitness.evidence.norms import norm
from gradwitness.evidence.referee import Floors, Testimony, testimony
from gradwitness.problem import Candidate, Loss, Problem
from gradwitness.protocol import Prepared, expect_supported
from gradwitness.report import Report, Row
from gradwitness.verdict import Judgement, TensorEvidence, Verdict, confirms, judge, judge_loss

__all__ = ["Settings", "verify", "verify_problem", "verify_problems"]

Array = np.ndarray[Any, Any]
Progress = Callable[[str], None]
PRECISIONS = ("highest", "default")


@dataclass(frozen=True)
class Settings:
    """How a run is made: on what, in what precision ("highest" or "default"), from which seed."""

    dtypes: tuple[str, ...] = ("float64", "float32")
    devices: tuple[str, ...] = ("cpu",)
    precision: str = "highest"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UnknownName("precision", self.precision, PRECISIONS)
        if self.seed < 0:
            raise GradwitnessError(f"the seed must not be negative, got {self.seed}")
        for dtype in self.dtypes:
            find_dtype(dtype)


def verify(
    loss: Loss | Problem,
    params: Any = None,
    batch: Any = None,
    *,
    backends: str | Sequence[str] | None = None,
    dtypes: str | Sequence[str] = ("float64", "float32"),
    devices: str | Sequence[str] = ("cpu",),
    precision: str = "highest",
    seed: int = 0,
    wrt: str | Sequence[str] | None = None,
    name: str = "loss",
) -> Report:
    """Run one loss through every backend and judge each gradient.

    loss: `loss(params, batch)` over `gradwitness.ops`, or a Problem. params, batch: nested dicts,
    lists or tuples of arrays. backends: names, default all; one that is not installed is
    `unsupported` by default and an error if named here. Raises GradwitnessError for what cannot be
    traced, differentiated or found.
    """
    if isinstance(loss, Problem):
        problem = loss
    else:
        chosen = None if wrt is None else _names(wrt)
        problem = Problem(name, loss, params, {} if batch is None else batch, chosen)
    problem.graph  # noqa: B018  # a loss that cannot be traced is an error, not a row for each backend
    labels = registry.backend_names() if backends is None else _names(backends)
    for label in labels if backends is not None else ():
        registry.expect_installed(label)
    settings = Settings(_names(dtypes), _names(devices), precision, seed)
    expect_devices(settings.devices, labels)
    return verify_problems([(problem, labels)], settings)


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, each once."""
    return tuple(dict.fromkeys([given] if isinstance(given, str) else given))


def expect_devices(devices: Sequence[str], backends: Sequence[str]) -> None:
    """Raise UnknownName for a device that none of these backends has."""
    if tuple(devices) == ("cpu",):
        return  # every backend has it, and asking would import the frameworks
    known = {d for n in backends if not registry.missing_modules(n) for d in registry.backend(n).devices()}
    for device in devices:
        if device not in known:
            raise UnknownName("device", device, known)


def verify_problems(
    cases: Iterable[tuple[Problem, Sequence[str]]], settings: Settings, *, progress: Progress = lambda text: None
) -> Report:
    """Each problem through its backends. One candidate's failure never costs the others' results."""
    rows: list[Row] = []
    used: dict[str, None] = {}
    for problem, names in cases:
        used |= dict.fromkeys(names)
        candidates = {name: Candidate(name) for name in names}
        rows += verify_problem(problem, candidates, settings, progress=progress)
    return Report(tuple(rows), environment(tuple(used), settings))


def verify_problem(
    problem: Problem,
    candidates: Mapping[str, Candidate],
    settings: Settings,
    *,
    progress: Progress = lambda text: None,
) -> list[Row]:
    """Every candidate in every dtype and on every device: a row per gradient."""
    rows: list[Row] = []
    for dtype in settings.dtypes:
        progress(f"{problem.name} {dtype}: referee, noise floor and finite differences")
        try:
            known = _testimony(problem, dtype, settings.seed)
        except Exception as error:  # noqa: BLE001  # one problem's failure never costs the others' results
            rows += _without_referee(problem, candidates, settings, dtype, error)
            continue
        for device in settings.devices:
            found: list[Row] = []
            doubted: set[str] = set()
            for label, candidate in candidates.items():
                progress(f"{problem.name} {dtype}: {label}")
                cell, doubts = _trial(label, candidate, known, device, settings)
                found += cell
                doubted |= doubts
            rows += [_doubt(row) if row.parameter in doubted else row for row in found]
    return rows


def _without_referee(
    problem: Problem, candidates: Mapping[str, Candidate], settings: Settings, dtype: str, error: Exception
) -> list[Row]:
    """Nothing can be judged where the referee itself raised: a row for each candidate that says so."""
    message = f"no referee: {_first_lines(error)}"
    return [
        Row(problem.name, label, candidate.backend, device, dtype, Verdict.ERROR, message)
        for device in settings.devices
        for label, candidate in candidates.items()
    ]


def _trial(
    label: str, candidate: Candidate, known: Testimony, device: str, settings: Settings
) -> tuple[list[Row], set[str]]:
    """The rows of one candidate (its gradients judged, or the one reason why there are none), and the
    parameters at which it casts doubt on the referee."""
    blank = Row(known.problem.name, label, candidate.backend, device, known.dtype, Verdict.ERROR)
    try:
        registry.expect_installed(candidate.backend)
        expect_supported(registry.backend(candidate.backend), known.dtype, device)
        return _judged(blank, candidate, known, settings)
    except UnsupportedError as error:
        return [replace(blank, verdict=Verdict.UNSUPPORTED, message=str(error))], set()
    except Exception as error:  # noqa: BLE001  # one candidate's failure never costs the others' results
        return [replace(blank, message=_first_lines(error))], set()


def _judged(blank: Row, candidate: Candidate, known: Testimony, settings: Settings) -> tuple[list[Row], set[str]]:
    backend = registry.backend(candidate.backend)
    with backend.precision(settings.precision):
        prepared = backend.prepare(candidate, known.problem, dtype=known.dtype, device=blank.device)
        nearby = _losses_nearby(prepared, known)  # first: whatever is left over from there shows at the point
        loss, gradients = prepared.value_and_gradient(_read_only(known.problem.primals))
    is_referee = backend.capabilities.interpreter and known.dtype == "float64" and candidate.loss is None
    floors = known.floors_of(backend.capabilities.growth_in(known.dtype))
    different = judge_loss([loss, *nearby], list(known.losses), list(floors.losses))
    textbook = _textbook(gradients, known)
    rows, doubted = [], set()
    for path, reference in known.gradients.items():
        judgement = judge(gradients.get(path), _evidence(path, known, floors), is_referee=is_referee)
        if different:
            judgement = replace(judgement, verdict=Verdict.DIFFERENT_LOSS, message=different)
        elif judgement.doubted:
            doubted.add(path)
        rows.append(_row(blank, path, reference, judgement, textbook, is_referee, prepared.setup_seconds))
    return rows, doubted


def _losses_nearby(prepared: Prepared, known: Testimony) -> list[float]:
    """The loss at each neighbour, the first together with a gradient, so that a stale one would be seen."""
    losses = []
    for number, neighbour in enumerate(known.neighbours):
        primals = _read_only(neighbour)
        losses.append(prepared.value(primals) if number else prepared.value_and_gradient(primals)[0])
    return losses


def _read_only(primals: Mapping[str, Array]) -> dict[str, Array]:
    """Copies that a candidate cannot modify: an attempt raises, and costs the others nothing."""
    copies = {path: np.array(x) for path, x in primals.items()}
    for copy in copies.values():
        copy.flags.writeable = False
    return copies


def _testimony(problem: Problem, dtype: str, seed: int) -> Testimony:
    interpreter = registry.interpreter()
    return testimony(interpreter, problem, dtype, growth=interpreter.capabilities.growth_in("float64"), seed=seed)


def _evidence(path: str, known: Testimony, floors: Floors) -> TensorEvidence:
    reference, differences = known.gradients[path], known.differences[path]
    confirmed = confirms(reference, known.dtype, known.own.tensors[path], differences)
    return TensorEvidence(known.dtype, reference, confirmed, floors.tensors[path], differences, path in known.reached)


def _textbook(gradients: Mapping[str, Array | None], known: Testimony) -> float:
    """The textbook figure of the whole candidate; what is missing or misshapen counts as zeros."""
    given = {path: gradients.get(path) for path in known.gradients}
    zeros = {path: np.zeros(g.shape) for path, g in known.gradients.items()}
    fitting = {path: g for path, g in given.items() if g is not None and g.shape == zeros[path].shape}
    return textbook_difference(zeros | fitting, known.differences)


def _row(
    blank: Row, path: str, reference: Array, judgement: Judgement, textbook: float, is_referee: bool, seconds: float
) -> Row:
    return replace(
        blank,
        verdict=judgement.verdict,
        message=judgement.message,
        parameter=path,
        shape=reference.shape,
        reference=norm(reference),
        error=judgement.error,
        floor=judgement.floor,
        ratio=judgement.ratio,
        fd_error=judgement.fd_error,
        fd_bound=judgement.fd_bound,
        limit=judgement.limit,
        textbook=textbook,
        referee=is_referee,
        setup_seconds=seconds,
    )


def _doubt(row: Row) -> Row:
    """Where finite differences cannot say which of two is wrong, whoever agrees with the referee is doubtful too."""
    if row.verdict is not Verdict.AGREE:
        return row
    message = "another candidate differs beyond the noise floor, and finite differences cannot tell which is right"
    return replace(row, verdict=Verdict.INCONCLUSIVE, message=message)


def _first_lines(error: Exception) -> str:
    """The error's type and the first lines of its message, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' / '.join(lines[:3])[:400]}"


def environment(backends: Sequence[str], settings: Settings) -> dict[str, Any]:
    """What a reader needs to run it again: versions, devices, precision settings, seed."""
    installed = [name for name in backends if not registry.missing_modules(name)]
    versions: dict[str, str] = {}
    held: dict[str, dict[str, str]] = {}
    for name in installed:
        versions |= registry.versions(name)
        backend = registry.backend(name)
        try:
            with backend.precision(settings.precision):
                held[name] = backend.settings(settings.precision)
        except Exception as error:  # noqa: BLE001  # nor does a failure to describe its backend
            held[name] = {"error": _first_lines(error)}
    return {
        "gradwitness": metadata.version("gradwitness"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "devices": list(settings.devices),
        "precision": settings.precision,
        "settings": held,
        "seed": settings.seed,
    }
