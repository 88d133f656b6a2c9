"""One problem and many candidates, in every dtype and on every device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from gradwitness.paths import along_paths
from gradwitness.problem import Candidate, Problem
from gradwitness.report import Address, Row
from gradwitness.run.failing import located
from gradwitness.run.progress import Counted, Progress, slow_steps_are_told
from gradwitness.run.trial import Failure
from gradwitness.settings import Settings
from gradwitness.verdict import Verdict

__all__ = ["rows_of_failure", "verify_problem"]

TRIAL, JUDGEMENT = 1.0, 20.0  # how long they take beside each other: some training steps, and a few hundred


def verify_problem(
    problem: Problem,
    candidates: Mapping[str, Candidate],
    settings: Settings,
    *,
    progress: Progress = lambda text: None,
) -> list[Row]:
    """Every candidate in every dtype and on every device: a row per gradient."""
    candidates = along_paths(candidates, settings.paths)
    weights = [weight for weight in (TRIAL, JUDGEMENT) for _ in candidates]
    counted = Counted(progress, weights * len(settings.dtypes) * len(settings.devices))
    with _subprocesses(settings), _told(counted, settings) as told:
        return [row for dtype in settings.dtypes for row in _in_one_dtype(problem, candidates, dtype, settings, told)]


def rows_of_failure(
    problem: Problem, candidates: Mapping[str, Candidate], settings: Settings, failure: Failure
) -> list[Row]:
    """One of every candidate, in every dtype and on every device, where none of them could be verified."""
    candidates = along_paths(candidates, settings.paths)
    places = [(dtype, device) for dtype in settings.dtypes for device in settings.devices]
    return [
        Row.of(address, failure) for place in places for address in _addresses(problem, candidates, *place).values()
    ]


def _in_one_dtype(
    problem: Problem, candidates: Mapping[str, Candidate], dtype: str, settings: Settings, progress: Progress
) -> list[Row]:
    """What is known of a graph serves every device."""
    from gradwitness.run.cell import cell  # here, so that importing gradwitness is quick
    from gradwitness.run.referee import graph_referee

    cells = [_addresses(problem, candidates, dtype, device) for device in settings.devices]
    referee = None
    if problem.loss is not None:
        try:
            referee = graph_referee(problem, dtype, settings)
            referee.neighbours  # noqa: B018  # whatever keeps the graph from running shows here
        except Exception as error:  # noqa: BLE001  # one problem's failure never costs the others' results
            failure = Failure(Verdict.ERROR, f"no reference: {located(error)}")
            return [Row.of(address, failure) for addresses in cells for address in addresses.values()]
    tell = partial(cell, problem=problem, dtype=dtype, settings=settings, referee=referee, progress=progress)
    return [row for addresses in cells for row in tell(addresses, candidates)]


def _subprocesses(settings: Settings) -> AbstractContextManager[None]:
    """Ends what candidates ran in, if that is not this process."""
    if settings.timeout is None:
        return nullcontext()
    from gradwitness.run.isolated import ending

    return ending()


def _told(progress: Progress, settings: Settings) -> AbstractContextManager[Progress]:
    """Without a bound on calls, one that never ends is told of."""
    return slow_steps_are_told(progress) if settings.timeout is None else nullcontext(progress)


def _addresses(problem: Problem, candidates: Mapping[str, Candidate], dtype: str, device: str) -> dict[str, Address]:
    """Those of the candidates, by label."""
    return {
        label: Address(problem.name, label, candidate.backend, device, dtype, path=candidate.path)
        for label, candidate in candidates.items()
    }
