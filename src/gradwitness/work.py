"""What the command verifies, one part after another or several at once, and what of it was done."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradwitness.errors import GradwitnessError
from gradwitness.problem import Problem
from gradwitness.report import Report
from gradwitness.run.failing import located
from gradwitness.run.progress import Progress
from gradwitness.settings import Settings
from gradwitness.side_by_side import verify_side_by_side
from gradwitness.terminal import progress
from gradwitness.verification import verify, verify_problems

__all__ = ["Case", "Work", "done", "jobs_for"]

Case = tuple[Problem, tuple[str, ...]]  # a problem, and the backends that take part in it
MOST = 4  # processes, unless more are asked for: each imports the frameworks, and takes a gigabyte
MANY = 4  # problems, for which several are worth it


@dataclass(frozen=True)
class Work:
    """What is to be verified: problems of the zoo, in `jobs` processes; a user's own problems; a user's functions.

    given: what such a function is called with.
    """

    zoo: Sequence[Case]
    problems: Sequence[Case]
    runs: Mapping[str, Callable[..., Any]]
    settings: Settings
    given: Mapping[str, Any]
    jobs: int

    @property
    def names(self) -> list[str]:
        return [problem.name for problem, _ in (*self.zoo, *self.problems)] + list(self.runs)

    def reports(self, step: Progress) -> Iterator[tuple[int, Report]]:
        """(which of the names, its report), as they come."""
        here = dict(enumerate((*self.zoo, *self.problems)))
        if self.jobs > 1 and len(self.zoo) > 1:
            yield from verify_side_by_side(self.zoo, self.settings, self.jobs)
            here = {number: case for number, case in here.items() if number >= len(self.zoo)}
        for number, case in here.items():
            yield number, verify_problems([case], self.settings, progress=step)
        for number, (name, run) in enumerate(self.runs.items(), len(self.zoo) + len(self.problems)):
            step(name)
            yield number, _reported(name, run, self.given)


def jobs_for(zoo: Sequence[Case], settings: Settings) -> int:
    """How many processes are worth it: one, where there is little to do, or a device that they would share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST) if len(zoo) >= MANY and settings.devices == ("cpu",) else 1


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
    if isinstance(report, tuple) and len(report) == 3:
        candidates, params, batch = report
        return verify(candidates, params, batch, **{"name": name.rpartition(":")[2], **given_later})
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
