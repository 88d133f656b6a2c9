"""The judge at each case: what it says, what that counts as, and how long it takes."""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from benchmarks.adversary.corpus import Case

__all__ = ["ACCEPTED", "ACCUSING", "SECONDS", "Finding", "Judge", "Said", "counted", "found", "judged", "measured"]

SECONDS = 60.0  # of one case
ACCEPTED = ("agree", "convention", "intended")
ACCUSING = ("disagree", "missing", "nonfinite", "nondeterministic", "different-loss", "error", "reduced-precision")
KEPT = 200  # characters of a message
FORGET = 50  # cases, after which compiled programs are let go


class Said(Protocol):
    """A report, as far as it is read here: rows with a candidate, a parameter, a verdict and a message."""

    @property
    def rows(self) -> Iterable[Any]: ...


Judge = Callable[[Case], Said]


@dataclass(frozen=True)
class Finding:
    """What was said of one case.

    counts_as: of a wrong gradient `shown`, `inconclusive` or `accepted`, of a right one `agreed`, `inconclusive` or
    `accused`, of either `crashed` or `timeout`. verdicts: of the leaves at fault, or of all, each once.
    """

    kind: str
    subject: str
    case: str
    is_right: bool
    demanded: bool
    counts_as: str
    verdicts: tuple[str, ...]
    seconds: float
    message: str = ""

    @property
    def is_false_green(self) -> bool:
        return self.counts_as == "accepted"

    @property
    def is_false_alarm(self) -> bool:
        return self.counts_as == "accused" or (self.is_right and self.counts_as == "crashed")


class _OutOfTimeError(BaseException):
    """No Exception, so that nobody takes it for one of a candidate."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def verified(case: Case) -> Said:
    """gradwitness itself."""
    return case.verified()


def judged(case: Case, judge: Judge = verified, seconds: float = SECONDS) -> Finding:
    """One case, whatever happens in it."""
    started = time.process_time()
    verdicts: tuple[str, ...] = ()
    message = ""
    try:
        with _limited(seconds), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            counts_as, verdicts, message = found(case, judge(case))
    except _OutOfTimeError:
        counts_as = "timeout"
    except Exception as error:  # noqa: BLE001 - a crash is what it says of this case, and the run goes on
        counts_as, message = "crashed", f"{type(error).__name__}: {error}"
    took = round(time.process_time() - started, 2)
    expected = (case.is_right, case.demands_agreement)
    return Finding(case.kind, case.subject.name, case.name, *expected, counts_as, verdicts, took, message[:KEPT])


def found(case: Case, report: Said) -> tuple[str, tuple[str, ...], str]:
    """(what it counts as, the verdicts, the message of the first row that decides)."""
    rows = [row for row in report.rows if row.candidate == "mine"]
    rows = [row for row in rows if case.is_right or row.parameter in (None, *case.at_fault)]
    said = [str(row.verdict) for row in rows]
    counts_as = counted(case, {str(row.parameter): str(row.verdict) for row in rows})
    deciding = [row.message for row, verdict in zip(rows, said, strict=True) if _decides(counts_as, verdict)]
    return counts_as, tuple(dict.fromkeys(said)), next(iter(deciding), "")


def _decides(counts_as: str, verdict: str) -> bool:
    if counts_as in ("shown", "accused"):
        return verdict in ACCUSING
    return counts_as == "accepted" or verdict not in ACCEPTED


def counted(case: Case, verdicts: dict[str, str]) -> str:
    """By leaf, or under None for all of them: a leaf of which nothing is said counts as accepted.

    Where the fault is not in the gradient of a leaf but in what else the candidate says, one accusation is enough.
    """
    said = tuple(verdicts.values())
    if case.is_right:
        if any(verdict in ACCUSING for verdict in said):
            return "accused"
        return "agreed" if said and all(verdict in ACCEPTED for verdict in said) else "inconclusive"
    everywhere = verdicts.get("None")
    of_leaves = [verdicts.get(leaf, everywhere or "agree") for leaf in case.at_fault]
    accepted = [verdict in ACCEPTED for verdict in of_leaves]
    if all(accepted) if case.fault and case.fault.make else any(accepted):
        return "accepted"
    return "shown" if any(verdict in ACCUSING for verdict in of_leaves) else "inconclusive"


def measured(
    cases: Iterable[Case], *, judge: Judge = verified, seconds: float = SECONDS, progress: Callable[[Finding], None]
) -> list[Finding]:
    """All of them, one after the other; what is not as expected is told at once."""
    findings = []
    for number, case in enumerate(cases):
        if number % FORGET == 0:
            _forget_programs()
        findings.append(judged(case, judge, seconds))
        progress(findings[-1])
    return findings


def _forget_programs() -> None:
    """jax keeps every program that it has compiled, gigabytes in all."""
    import jax

    jax.clear_caches()
