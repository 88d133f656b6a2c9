"""What the command verifies, one part after another or several at once, and what of it was done."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gradwitness.errors import GradwitnessError
from gradwitness.interrupts import has_come
from gradwitness.report import Case, Report
from gradwitness.run.failing import located
from gradwitness.run.progress import Progress
from gradwitness.shards import Shard
from gradwitness.side_by_side import verify_side_by_side
from gradwitness.targets import arguments
from gradwitness.terminal import progress
from gradwitness.verification import verify, verify_problems

__all__ = ["Work", "done"]

T = TypeVar("T")

MOST = 4  # processes, unless more are asked for: each imports the frameworks, and takes a gigabyte
MANY = 4  # problems, for which several are worth it
ANYHOW = 40  # nodes of a graph that take as long as what every problem costs: compiling, imports of a loss's own


@dataclass(frozen=True)
class Work:
    """What is to be verified: problems of the zoo, in several processes; a user's own problems; a user's functions.

    given: what such a function is called with. jobs: how many processes; None for as many as are worth it. split:
    whether it is shown in cells.
    """

    zoo: Sequence[Case]
    problems: Sequence[Case]
    runs: Mapping[str, Callable[..., Any]]
    given: Mapping[str, Any]
    jobs: int | None
    split: bool = False

    @property
    def names(self) -> list[str]:
        cases = (*self.zoo, *self.problems)
        return [case.named if self.split else case.problem.name for case in cases] + list(self.runs)

    def reports(self, step: Progress) -> Iterator[tuple[int, Report]]:
        """(which of the names, its report), as they come."""
        here = dict(enumerate((*self.zoo, *self.problems)))
        jobs = _jobs_for(self.zoo) if self.jobs is None else self.jobs
        if jobs > 1 and len(self.zoo) > 1:
            yield from verify_side_by_side(self.zoo, jobs)
            here = {number: case for number, case in here.items() if number >= len(self.zoo)}
        for number, case in here.items():
            yield number, verify_problems([(case.problem, case.candidates)], case.settings, progress=step)
        for number, (name, run) in enumerate(self.runs.items(), len(self.zoo) + len(self.problems)):
            step(name)
            yield number, _reported(name, run, self.given)

    def shard(self, shard: Shard) -> tuple[Work, list[int]]:
        """(what a shard does of this, which of the cells of the whole that is). A function is one cell, as nobody knows
        what it will verify.

        Raises GradwitnessError where there are fewer cells than shards.
        """
        zoo, problems = ([cell for case in cases for cell in case.cells] for cases in (self.zoo, self.problems))
        weights = [_weight(cell) for cell in (*zoo, *problems)]
        unknown = sum(weights) // len(weights) if weights else 1
        mine = shard.cells(weights + [unknown] * len(self.runs))
        runs = _numbered(self.runs.items(), len(weights), mine)
        problems, zoo = _numbered(problems, len(zoo), mine), _numbered(zoo, 0, mine)
        return replace(self, zoo=zoo, problems=problems, runs=dict(runs), split=True), mine


def _numbered(parts: Iterable[T], first: int, numbers: Container[int]) -> list[T]:
    """Those of the parts, counted from `first` on, that have one of the numbers."""
    return [part for number, part in enumerate(parts, first) if number in numbers]


def _weight(cell: Case) -> int:
    """How long verifying it takes beside others, by what no machine changes: the elementary ops of its graph."""
    try:
        nodes = len(cell.problem.graph.decomposed().nodes)
    except Exception:  # noqa: BLE001  # a loss that cannot be traced is an error in its rows, soon
        nodes = 0
    return (ANYHOW + nodes) * len(cell.candidates)


def _jobs_for(zoo: Sequence[Case]) -> int:
    """How many processes are worth it: one, where there is little to do, or a device that they would share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST) if len(zoo) >= MANY and all(case.settings.devices == ("cpu",) for case in zoo) else 1


def done(work: Work) -> tuple[list[Report], BaseException | None]:
    """(the reports, what ended it before all were there): an interrupt, or an error, loses none that is there."""
    found: dict[int, Report] = {}
    with progress(len(work.names)) as shown:
        try:
            for number, report in work.reports(shown.step):
                found[number] = report
                shown.done(f"{work.names[number]}: {report.summary()}")
        except (KeyboardInterrupt, GradwitnessError) as error:
            if not found:
                raise
            has_come()
            return [found[number] for number in sorted(found)], error
    return [found[number] for number in sorted(found)], None


def _reported(name: str, run: Callable[..., Any], given: Mapping[str, Any]) -> Report:
    """What a user's own function returns; of one without arguments that returns (candidates, params, batch), what
    verifying these gives."""
    given_later = given if _takes_nothing(run) else {}
    given = {} if given_later is given else given
    try:
        inspect.signature(run).bind(**given)
    except TypeError as error:
        raise GradwitnessError(f"{name}: {error}; let it take **options, and hand them to gradwitness.verify") from None
    except ValueError:  # a builtin may not say what it takes
        pass
    try:
        report = run(**given)
    except SystemExit as error:
        raise GradwitnessError(
            f"{name} ended with sys.exit({error.code!r}); return what gradwitness.verify returns"
        ) from None
    except GradwitnessError as error:
        raise GradwitnessError(f"{name}: {error}") from None
    except Exception as error:
        raise GradwitnessError(f"{name} raised {located(error)}") from error
    if (given_here := arguments(report)) is not None:
        candidates, params, batch, options = given_here
        return verify(candidates, params, batch, **{"name": name.rpartition(":")[2], **options, **given_later})
    if given_later:
        first = next(iter(given_later))
        raise GradwitnessError(
            f"{name}: got an unexpected keyword argument {first!r}; let it take **options, and hand them to "
            "gradwitness.verify"
        )
    if not isinstance(report, Report):
        raise GradwitnessError(
            f"{name} returned {type(report).__name__}; return what gradwitness.verify returns, or (candidates, params, "
            "batch) without taking arguments"
        )
    return report


def _takes_nothing(run: Callable[..., Any]) -> bool:
    try:
        return not inspect.signature(run).parameters
    except ValueError:  # a builtin may not say what it takes
        return False
