"""The result of a run: one row per gradient, and what they add up to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradwitness.errors import GradwitnessError
from gradwitness.evidence.exercise import Exercise
from gradwitness.report.case import Case
from gradwitness.report.document import to_json
from gradwitness.report.findings import findings
from gradwitness.report.junit import to_junit
from gradwitness.report.metrics import metrics
from gradwitness.report.pages import to_html, to_markdown
from gradwitness.report.row import Row
from gradwitness.report.table import short_report, summary, table
from gradwitness.verdict import ACCEPTED, Verdict

__all__ = ["REFUSED", "Report", "joined"]

REFUSED: deque[Report] = deque(maxlen=1)  # the last that was falsy where it was asked, for who shows failed assertions
VERIFIED = frozenset({Verdict.AGREE, Verdict.INTENDED})  # what a run must have at least one of


def joined(reports: Sequence[Report]) -> Report:
    """One report of several: their rows, and the environments, which differ in what was used. What one of them allows
    passes in its own networks alone."""
    environment: dict[str, Any] = {}
    for report in reports:
        for key, value in report.environment.items():
            both = isinstance(value, Mapping) and isinstance(environment.get(key), Mapping)
            environment[key] = {**environment[key], **value} if both else environment.setdefault(key, value)
    exercise = {name: calls for report in reports for name, calls in report.exercise.items()}
    cases = tuple(case for report in reports for case in report.cases)
    rows = tuple(row for report in reports for row in report.rows)
    exporter = next((report.exporter for report in reports if report.exporter is not None), None)
    require = tuple(dict.fromkeys(name for report in reports for name in report.require))
    return Report(rows, environment, (), require, _allowed(reports), exercise=exercise, cases=cases, exporter=exporter)


def _allowed(reports: Sequence[Report]) -> dict[str, tuple[str, ...]]:
    """By network, what each report that has one of this name allows."""
    found: dict[str, tuple[str, ...]] = {}
    for report in reports:
        for network in {row.network for row in report.rows}:
            found[network] = tuple(verdict for verdict in report.allow if verdict in found.get(network, report.allow))
    return found


def _is_unable(row: Row) -> bool:
    """Whether a candidate could not run; one path of several that does not apply is no such failure."""
    return row.verdict is Verdict.UNSUPPORTED and row.path is None


@dataclass(frozen=True)
class Report:
    """All rows of a run, and the environment in which they were found. Falsy if something does not agree.

    allow: verdicts that pass as well; allowed: others that do, by network. require: backends that must have run and
    agreed, so that `unsupported` is a failure for them. exercise: by network, the calls of ops that have several
    regions, and which of these the point exercised; not of black boxes. exporter: what writes a script of one of its
    rows.
    """

    rows: tuple[Row, ...]
    environment: Mapping[str, Any]
    allow: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    allowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exercise: Mapping[str, tuple[Exercise, ...]] = field(default_factory=dict)
    cases: tuple[Case, ...] = field(default=(), repr=False, compare=False)
    exporter: Callable[..., None] | None = field(default=None, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """At least one gradient agreed, and every other is accepted."""
        return not self.failures()

    def failures(self) -> tuple[str, ...]:
        """Why this report is not green, a line each; none if it is."""
        return (*findings(row for row in self.rows if not self._passes(row)), *self.shortfalls())

    def _passes(self, row: Row) -> bool:
        return row.verdict in ACCEPTED or row.verdict in (*self.allow, *self.allowed.get(row.network, ()))

    def shortfalls(self) -> tuple[str, ...]:
        """What should have been there and is not, a line each."""
        missing = [
            f"{name} is required, and did not agree everywhere it was asked"
            for name in self.require
            if not self._agreed(name) or any(_is_unable(row) for row in self._rows_of(name))
        ]
        if not any(row.verdict in VERIFIED for row in self.rows):
            missing += [
                *findings(row for row in self.rows if row.verdict is Verdict.UNSUPPORTED),
                "nothing agreed: a run that verified nothing is not green",
            ]
        return tuple(missing)

    def _rows_of(self, name: str) -> list[Row]:
        return [row for row in self.rows if name in (row.backend, row.candidate, row.label)]

    def _agreed(self, name: str) -> bool:
        return any(row.verdict is Verdict.AGREE for row in self._rows_of(name))

    def __bool__(self) -> bool:
        if not self.ok:
            REFUSED.append(self)
        return self.ok

    def __repr__(self) -> str:
        return short_report(self.rows, self.failures())

    def table(self, *, verbose: bool = False, color: bool = False, width: int | None = None) -> str:
        """What does not agree, a row for each network, dtype and candidate, at its worst tensor; then what agrees, many
        such rows as one; then why. With `verbose` a row for each gradient, and all figures.

        width: columns that a row may take, by default 80, unless `verbose`: names that are too long are cut.
        """
        return table(self.rows, self.exercise, verbose=verbose, color=color, width=width)

    def summary(self) -> str:
        """How many gradients got which verdict."""
        return summary(self.rows)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return to_html(self.rows, self.failures())

    def markdown(self) -> str:
        """The outcome, what fails, and the table, as for the summary of a CI run."""
        return to_markdown(self.rows, self.failures())

    def junit(self) -> str:
        """The verdicts as JUnit's XML: a suite for each network, a case for each gradient."""
        return to_junit(self.rows, self._passes, self.shortfalls())

    def metrics(self) -> dict[str, float]:
        """Numbers under names, for a tracker of experiments: `ok`, `gradients`, a count of each verdict, and of each
        network, candidate and dtype `network/candidate/dtype/error_in_floors` and `.../setup_seconds`."""
        return metrics(self.rows, ok=self.ok)

    def json(self) -> str:
        """The whole report as JSON, as `report/schema.json` describes it."""
        return to_json(self.ok, self.environment, self.rows, self.exercise)

    def export_repro(
        self,
        path: str | Path,
        *,
        candidate: str | None = None,
        parameter: str | None = None,
        dtype: str | None = None,
        seconds: float = 30.0,
    ) -> None:
        """Write a script that shows the first wrong gradient on its own: with NumPy and the candidate's framework, and
        without gradwitness, as small as it was found in so many seconds.

        It prints the gradient and the finite difference at one element, and exits with 1 while they differ. It is run
        before this returns. candidate, parameter, dtype: those of the row, where it is not to be the first that is
        `disagree`, `nonfinite` or `missing`.

        Raises GradwitnessError if there is none, if no single element shows it, if the source text of what the
        candidate runs cannot be had, and if the script does not show it.
        """
        if self.exporter is None:
            raise GradwitnessError(
                "this report has no candidates: export from the report that gradwitness.verify returned, in its process"
            )
        asked = {"candidate": candidate, "parameter": parameter, "dtype": dtype}
        self.exporter(self.cases, self.rows, Path(path), **asked, seconds=seconds)
